"""The process that measures the CPU memory of one call: a JSON request on stdin, bytes on stdout."""

import json
import sys
from typing import Any

import torch

from selfsr.bench.measure import measure_own_memory
from selfsr.bench.workload import Workload

if __name__ == "__main__":
    request: dict[str, Any] = json.load(sys.stdin)
    torch.set_num_threads(request["threads"])
    print(measure_own_memory(request["name"], Workload(**request["workload"])))

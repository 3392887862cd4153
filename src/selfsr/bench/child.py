"""The process in which the memory of one call on a CPU is measured: asked through stdin, answers on stdout."""

import json
import sys

import torch

from selfsr.bench.measure import growth
from selfsr.bench.workload import Workload

if __name__ == "__main__":
    question = json.load(sys.stdin)
    torch.set_num_threads(question["threads"])
    print(growth(Workload(**question["workload"]), question["name"]))

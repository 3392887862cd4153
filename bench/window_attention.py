"""Time window attention as five steps and as one kernel, in networks with few blocks.

    python bench/window_attention.py

Each form runs in a process of its own, on one thread of the CPU. Times are processor time, so that other programs
disturb them less.
"""

import argparse
import resource
import subprocess
import sys
import time

import torch
from torch import nn

from selfsr.nets.base import NetworkSpec
from selfsr.nets.spandrel import attention
from selfsr.nets.spandrel.dat import DatSpec
from selfsr.nets.spandrel.hat import HatSpec
from selfsr.nets.spandrel.swinir import SwinIrSpec

NETWORKS: dict[str, NetworkSpec] = {
    "SwinIR": SwinIrSpec(features=60, depths=(2, 2), heads=(6, 6), upsampler="pixelshuffledirect"),
    "HAT": HatSpec(features=60, depths=(2,), heads=(6,), compress_ratio=6),
    "DAT": DatSpec(features=60, depths=(4,), heads=(6,), split_px=(8, 16), expansion=2),
}
FORMS = {"steps": False, "kernel": True}
_REPEATS = 4


def upscale(net: nn.Module, side_px: int) -> None:
    """Upscale one square image."""
    with torch.inference_mode():
        net.eval()(torch.rand(1, 3, side_px, side_px))


def train(net: nn.Module) -> None:
    """Compute the gradients of 4 crops of 48 x 48 pixels."""
    net.train()(torch.rand(4, 3, 48, 48)).square().mean().backward()


def measure(name: str, form: str) -> str:
    """Return seconds for upscaling 128 x 128 pixels and for training, and the peak memory for 256 x 256 pixels."""
    torch.set_num_threads(1)
    attention.is_fused_faster = lambda _: FORMS[form]
    net = NETWORKS[name].build(2)
    seconds = []
    for run in (lambda: upscale(net, 128), lambda: train(net)):
        times = []
        for _ in range(_REPEATS):
            start = time.process_time()
            run()
            times.append(time.process_time() - start)
        seconds.append(min(times))
    net.zero_grad()
    upscale(net, 256)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return f"{name:7} {form:7} upscaling {seconds[0]:.2f} s   training {seconds[1]:.2f} s   peak {peak_mib:,.0f} MiB"


def main() -> None:
    """Run every network in both forms."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--one", nargs=2, metavar=("NETWORK", "FORM"), help="measure one, in this process")
    one = parser.parse_args().one
    if one:
        print(measure(*one))
        return
    for name in NETWORKS:
        for form in FORMS:
            subprocess.run([sys.executable, __file__, "--one", name, form], check=True)


if __name__ == "__main__":
    main()

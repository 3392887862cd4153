"""One training pass of SPAN by its fused kernels, against the four branches that spandrel and BasicSR run.

    python bench/span.py [--batch 16] [--lr-px 32] [--seconds 20] [--device cuda]

Baseline: spandrel's forward pass of training, for all 20 convolutions of the network. Ours: the same network and
weights with `TrainableConv3XC`. Both run forward and backward in float32, in turns, so that a busy machine slows both.
"""

import argparse
import statistics
from collections.abc import Callable

import torch
from spandrel.architectures.SPAN.__arch.span import Conv3XC
from torch import nn

from selfsr.bench.timing import time_call, time_in_turns
from selfsr.nets.spandrel.span import SpanSpec
from selfsr.nets.spandrel.span_conv import TrainableConv3XC


class BranchConv(TrainableConv3XC):
    """The baseline: the same parameters, run as four convolutions in training."""

    forward = Conv3XC.forward


def build_baseline(net: nn.Module) -> nn.Module:
    """A SPAN with the weights of `net` that runs its branches."""
    baseline = SpanSpec(subtract_mean=False).build(4, 3)
    for module in baseline.modules():
        if isinstance(module, TrainableConv3XC):
            module.__class__ = BranchConv
    baseline.load_state_dict(net.state_dict())
    return baseline


def make_pass(net: nn.Module, lr: torch.Tensor) -> Callable[[], None]:
    """One forward and backward pass of the mean square of the output."""

    def run() -> None:
        net.zero_grad()
        (net(lr) ** 2).mean().backward()

    return run


def main() -> None:
    """Time both and print the ratio of the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16, help="LR images of a pass")
    parser.add_argument("--lr-px", type=int, default=32, help="side of an LR image, px")
    parser.add_argument("--seconds", type=float, default=20, help="how long to time")
    parser.add_argument("--device", default="cpu", help="where to run, such as cuda")
    options = parser.parse_args()
    device = torch.device(options.device)

    net = SpanSpec(subtract_mean=False).build(4, 3).to(device).train()
    lr = torch.rand(options.batch, 3, options.lr_px, options.lr_px, device=device)
    passes = {"fused": make_pass(net, lr), "branches": make_pass(build_baseline(net).to(device).train(), lr)}
    for run in passes.values():
        run()
    times = time_in_turns(
        {name: lambda run=run: time_call(run, device) for name, run in passes.items()}, options.seconds, min_turns=3
    )
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, seconds in medians.items():
        print(f"{name:9} {1e3 * seconds:9.1f} ms, {len(times[name])} turns")
    print(f"the fused kernels are {medians['branches'] / medians['fused']:.2f} times as fast")


if __name__ == "__main__":
    main()

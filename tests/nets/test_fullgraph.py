"""Every network that a recipe can name is one graph for torch.compile, and computes the same as without."""

import pytest
import test_own_nets
import test_spandrel_nets
import torch
from test_own_nets import nudge

TINY = {**test_own_nets.TINY, **test_spandrel_nets.TINY}
# Those that take more than two seconds, or have a variant here.
SLOW = {"spsr", "rrdb unshuffle", "swinir light", "swinir real", "span", "span without mean", "dat", "dat light"}


@pytest.mark.compile
@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in TINY])
def test_network_is_one_graph(name: str) -> None:
    spec = TINY[name]
    torch.manual_seed(0)
    net = nudge(spec.build(spec.scales[0], spec.channel_counts[-1])).train()
    image = torch.rand(2, spec.channel_counts[-1], 8, 8, generator=torch.Generator().manual_seed(1))
    torch.compiler.reset()
    compiled = torch.compile(net.forward, fullgraph=True, backend="eager", dynamic=False)
    outputs = []
    for forward in (net, compiled):
        torch.manual_seed(1)  # stochastic depth
        with torch.autocast("cpu", torch.bfloat16):
            outputs.append(forward(image))
    for expected, got in zip(*(o if isinstance(o, tuple) else (o,) for o in outputs), strict=True):
        torch.testing.assert_close(got, expected)
    torch.compiler.reset()

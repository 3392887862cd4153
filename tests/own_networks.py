"""Small options of the networks that are written here, for the tests that run over them."""

import torch
from torch import nn

from selfsr.nets.dbpn import DbpnSpec
from selfsr.nets.drrn import DrrnSpec
from selfsr.nets.edsr import EdsrSpec
from selfsr.nets.elan import ElanSpec
from selfsr.nets.lapsrn import LapSrnSpec
from selfsr.nets.mdsr import MdsrSpec
from selfsr.nets.msrresnet import MsrResNetSpec, RankSrResNetSpec
from selfsr.nets.rdn import RdnSpec
from selfsr.nets.spsr import SpsrSpec
from selfsr.nets.srcnn import SrcnnSpec
from selfsr.nets.srdensenet import SrDenseNetSpec
from selfsr.nets.srresnet import SrResNetSpec
from selfsr.nets.vdsr import VdsrSpec

TINY = {
    "srcnn": SrcnnSpec(features=(8, 6), kernels_px=(5, 1, 3)),
    "vdsr": VdsrSpec(features=8, convs=4),
    "drrn": DrrnSpec(features=8, recursions=3),
    "lapsrn": LapSrnSpec(features=8, convs=2),
    "lapsrn random": LapSrnSpec(features=8, convs=1, bilinear_start=False),
    "srresnet": SrResNetSpec(features=8, blocks=2),
    "edsr": EdsrSpec(features=8, blocks=1, res_scale=0.3),
    "mdsr": MdsrSpec(features=8, blocks=1),
    "mdsr other scales": MdsrSpec(features=8, blocks=2, factors=(8, 2)),
    "srdensenet": SrDenseNetSpec(growth=4, blocks=2, convs=3, bottleneck=8),
    "rdn": RdnSpec(features=8, growth=6, blocks=2, convs=2),
    "dbpn": DbpnSpec(features=8, projected=4, stages=3),
    "msrresnet": MsrResNetSpec(features=8, blocks=1),
    "rank_srresnet": RankSrResNetSpec(features=8, blocks=1),
    "spsr": SpsrSpec(features=6, blocks=4, growth=4),
    "elan": ElanSpec(features=12, blocks=2, windows_px=(2, 4, 8)),
    "elan batch": ElanSpec(features=6, blocks=2, windows_px=(2, 4, 8), shared=1, norm="batch"),
}


def nudge(net: nn.Module) -> nn.Module:
    """Change the layers that start at 0, which would give the layers before them no gradient."""
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim > 1 and not parameter.any():
                parameter.normal_(std=0.1)
    return net

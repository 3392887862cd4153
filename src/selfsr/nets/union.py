"""The generators: a union of typed specs, of which a recipe chooses one by `kind`."""

from dataclasses import dataclass
from typing import Annotated, get_args

from pydantic import Field

from selfsr.nets.base import NetworkSpec
from selfsr.nets.dbpn import DbpnSpec
from selfsr.nets.drrn import DrrnSpec
from selfsr.nets.edsr import EdsrSpec
from selfsr.nets.elan import ElanSpec
from selfsr.nets.lapsrn import LapSrnSpec
from selfsr.nets.mdsr import MdsrSpec
from selfsr.nets.msrresnet import MsrResNetSpec, RankSrResNetSpec
from selfsr.nets.rdn import RdnSpec
from selfsr.nets.spandrel.compact import CompactSpec
from selfsr.nets.spandrel.dat import DatSpec
from selfsr.nets.spandrel.hat import HatSpec
from selfsr.nets.spandrel.rcan import RcanSpec
from selfsr.nets.spandrel.realplksr import RealPlksrSpec
from selfsr.nets.spandrel.rrdb import RrdbSpec
from selfsr.nets.spandrel.span import SpanSpec
from selfsr.nets.spandrel.swinir import SwinIrSpec
from selfsr.nets.spsr import SpsrSpec
from selfsr.nets.srcnn import SrcnnSpec
from selfsr.nets.srdensenet import SrDenseNetSpec
from selfsr.nets.srresnet import SrResNetSpec
from selfsr.nets.vdsr import VdsrSpec

# Those that are written here, oldest first, and those that spandrel brings.
OwnNetwork = (
    SrcnnSpec
    | VdsrSpec
    | DrrnSpec
    | LapSrnSpec
    | SrResNetSpec
    | EdsrSpec
    | MdsrSpec
    | SrDenseNetSpec
    | RdnSpec
    | DbpnSpec
    | MsrResNetSpec
    | RankSrResNetSpec
    | SpsrSpec
    | ElanSpec
)
CommunityNetwork = RrdbSpec | SwinIrSpec | RcanSpec | CompactSpec | SpanSpec | RealPlksrSpec | DatSpec | HatSpec
AnyNetwork = OwnNetwork | CommunityNetwork
Network = Annotated[AnyNetwork, Field(discriminator="kind")]


@dataclass(frozen=True)
class NetworkInfo:
    """One line of the list of networks.

    Attributes:
        kinds: the words that choose it in a recipe; the first is the usual one.
        title: how people call it.
        paper: where it was published.
        scales: what it can be built for.
        colors: the numbers of channels that it can be built for.
        parameters: how many numbers are trained, by default options at x4, for RGB where the network takes it.
    """

    kinds: tuple[str, ...]
    title: str
    paper: str
    scales: tuple[int, ...]
    colors: tuple[int, ...]
    parameters: int


def describe() -> list[NetworkInfo]:
    """Return the networks there are, with the facts of their default options."""
    lines = []
    for spec_type in get_args(AnyNetwork):
        kinds = get_args(spec_type.model_fields["kind"].annotation)
        spec: NetworkSpec = spec_type()
        lines.append(NetworkInfo(kinds, spec.title, spec.paper, spec.scales, spec.colors, spec.parameters))
    return lines

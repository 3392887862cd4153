"""The generators: a union of specs, from which a recipe chooses one by `kind`."""

from dataclasses import dataclass
from typing import Annotated, get_args

from pydantic import Field

from selfsr.nets.base import NetworkSpec
from selfsr.nets.dbpn import DbpnSpec
from selfsr.nets.diffusion.latent_diffusion import LatentDiffusionSpec
from selfsr.nets.diffusion.one_step import OneStepSpec
from selfsr.nets.diffusion.residual_shifting import ResidualShiftingSpec
from selfsr.nets.drrn import DrrnSpec
from selfsr.nets.edsr import EdsrSpec
from selfsr.nets.elan import ElanSpec
from selfsr.nets.from_file import FromFileSpec
from selfsr.nets.lapsrn import LapSrnSpec
from selfsr.nets.mdsr import MdsrSpec
from selfsr.nets.meta import count_parameters
from selfsr.nets.msrresnet import MsrResNetSpec, RankSrResNetSpec
from selfsr.nets.rdn import RdnSpec
from selfsr.nets.spandrel.any import SpandrelSpec
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

# The networks that are written here, oldest first, and those of spandrel.
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
SpandrelNetwork = RrdbSpec | SwinIrSpec | RcanSpec | CompactSpec | SpanSpec | RealPlksrSpec | DatSpec | HatSpec
# Networks that sample their output, and those on a pretrained base; see nets/diffusion.
DiffusionNetwork = ResidualShiftingSpec | LatentDiffusionSpec | OneStepSpec
AnyNetwork = OwnNetwork | SpandrelNetwork | DiffusionNetwork
# The networks with options of their own, any other architecture of spandrel by its name, and that of a file.
Network = Annotated[AnyNetwork | SpandrelSpec | FromFileSpec, Field(discriminator="kind")]


@dataclass(frozen=True)
class NetworkInfo:
    """One line of the list of networks.

    Attributes:
        kinds: the names that choose it in a recipe; the first is the usual one.
        title: its name in messages.
        paper: where it was published.
        scales: the scales that it can be built for.
        channel_counts: the numbers of channels that it can be built for.
        parameters: number of trained parameters, see `count_parameters`; None if it depends on a pretrained base.
    """

    kinds: tuple[str, ...]
    title: str
    paper: str
    scales: tuple[int, ...]
    channel_counts: tuple[int, ...]
    parameters: int | None


def list_networks() -> list[NetworkInfo]:
    """List all networks with the properties of their default options.

    The first call takes a few seconds, because it counts the parameters of every network.
    """
    return [_describe(spec_type) for spec_type in get_args(AnyNetwork)]


def _describe(spec_type: type[NetworkSpec]) -> NetworkInfo:
    kinds = get_args(spec_type.model_fields["kind"].annotation)
    spec = spec_type(**({"base": "BASE"} if spec_type.has_base else {}))
    parameters = None if spec_type.has_base else count_parameters(spec_type)
    return NetworkInfo(kinds, spec.title, spec.paper, spec.scales, spec.channel_counts, parameters)

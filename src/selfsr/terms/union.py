"""The terms that a recipe can choose by `kind`."""

from typing import Annotated

from pydantic import Field

from selfsr.terms.artifact import ArtifactTerm
from selfsr.terms.best_buddy import BackProjectionTerm, BestBuddyTerm
from selfsr.terms.checkerboard import CheckerboardTerm
from selfsr.terms.dists import DistsTerm
from selfsr.terms.edge import EdgeL1Term
from selfsr.terms.frequency import FocalFrequencyTerm
from selfsr.terms.gradient import GradientBranchTerm, GradientTerm
from selfsr.terms.lpips import LpipsTerm
from selfsr.terms.perceptual import PerceptualTerm
from selfsr.terms.pixel import CharbonnierTerm, L1Term, L2Term
from selfsr.terms.ranking import RankTerm
from selfsr.terms.similarity import SelfSimilarityTerm
from selfsr.terms.structural import MsSsimTerm, SsimTerm
from selfsr.terms.variation import TotalVariationTerm

# In the order of the recipe reference: elementwise, structure, artifacts, features of a network.
AnyTerm = (
    L1Term
    | L2Term
    | CharbonnierTerm
    | BackProjectionTerm
    | SelfSimilarityTerm
    | EdgeL1Term
    | GradientTerm
    | GradientBranchTerm
    | BestBuddyTerm
    | ArtifactTerm
    | CheckerboardTerm
    | SsimTerm
    | MsSsimTerm
    | TotalVariationTerm
    | FocalFrequencyTerm
    | PerceptualTerm
    | LpipsTerm
    | DistsTerm
    | RankTerm
)
Term = Annotated[AnyTerm, Field(discriminator="kind")]

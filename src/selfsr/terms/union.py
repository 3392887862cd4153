"""The loss entries of a recipe: a union of typed specs, of which a recipe chooses each by `kind`.

A term is called with what the generator made, the batch and the clock. It returns its loss before the weight: a mean
over the batch, or, where a mask chooses the pixels, a `MaskedSum` that the loop divides by the count over all processes.
"""

from typing import Annotated

from pydantic import Field

from selfsr.terms.artifact import ArtifactTerm
from selfsr.terms.best_buddy import BackProjectionTerm, BestBuddyTerm
from selfsr.terms.frequency import FocalFrequencyTerm
from selfsr.terms.gradient import GradientBranchTerm, GradientTerm
from selfsr.terms.perceptual import PerceptualTerm
from selfsr.terms.pixel import CharbonnierTerm, L1Term, L2Term
from selfsr.terms.ranking import RankTerm
from selfsr.terms.similarity import SelfSimilarityTerm
from selfsr.terms.structural import MsSsimTerm, SsimTerm
from selfsr.terms.variation import TotalVariationTerm

# By pixels, by structure, against the artifacts of adversarial training, and by what a network sees.
AnyTerm = (
    L1Term
    | L2Term
    | CharbonnierTerm
    | BackProjectionTerm
    | SelfSimilarityTerm
    | GradientTerm
    | GradientBranchTerm
    | BestBuddyTerm
    | ArtifactTerm
    | SsimTerm
    | MsSsimTerm
    | TotalVariationTerm
    | FocalFrequencyTerm
    | PerceptualTerm
    | RankTerm
)
Term = Annotated[AnyTerm, Field(discriminator="kind")]

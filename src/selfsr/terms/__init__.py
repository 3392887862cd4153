"""The loss entries of a recipe: a union of typed specs, of which a recipe chooses each by `kind`.

A term is called with what the generator made, the batch and the clock. It returns its loss before the weight: a mean
over the batch, or, where a mask chooses the pixels, a `Ratio` that the loop divides by the count over all processes.
"""

from typing import Annotated

from pydantic import Field

from selfsr.terms.pixel import CharbonnierTerm, L1Term, L2Term
from selfsr.terms.similarity import SelfSimilarityTerm

Term = Annotated[L1Term | L2Term | CharbonnierTerm | SelfSimilarityTerm, Field(discriminator="kind")]

"""The methods that a recipe can choose by `kind`."""

from typing import Annotated

from pydantic import Field

from selfsr.methods.denoising import DenoisingSpec
from selfsr.methods.gan import GanSpec
from selfsr.methods.regression import RegressionSpec
from selfsr.methods.score_distillation import ScoreDistillationSpec
from selfsr.methods.shift_distillation import ShiftDistillationSpec

AnyMethod = RegressionSpec | GanSpec | DenoisingSpec | ShiftDistillationSpec | ScoreDistillationSpec
MethodChoice = Annotated[AnyMethod, Field(discriminator="kind")]

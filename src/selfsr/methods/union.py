"""The methods that a recipe can choose by `kind`."""

from typing import Annotated

from pydantic import Field

from selfsr.methods.gan import GanSpec
from selfsr.methods.regression import RegressionSpec

AnyMethod = RegressionSpec | GanSpec
MethodChoice = Annotated[AnyMethod, Field(discriminator="kind")]

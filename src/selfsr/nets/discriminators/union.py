"""The critics: a union of typed specs, of which a recipe chooses one by `kind`."""

from typing import Annotated

from pydantic import Field

from selfsr.nets.discriminators.patch import PatchCriticSpec
from selfsr.nets.discriminators.unet import UnetCriticSpec
from selfsr.nets.discriminators.vgg import VggCriticSpec

AnyCritic = VggCriticSpec | UnetCriticSpec | PatchCriticSpec
Critic = Annotated[AnyCritic, Field(discriminator="kind")]

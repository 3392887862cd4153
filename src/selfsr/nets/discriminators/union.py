"""The discriminators: a union of specs, from which a recipe chooses one by `kind`."""

from typing import Annotated

from pydantic import Field

from selfsr.nets.discriminators.patch import PatchDiscriminatorSpec
from selfsr.nets.discriminators.unet import UnetDiscriminatorSpec
from selfsr.nets.discriminators.vgg import VggDiscriminatorSpec

AnyDiscriminatorNetwork = VggDiscriminatorSpec | UnetDiscriminatorSpec | PatchDiscriminatorSpec
DiscriminatorNetwork = Annotated[AnyDiscriminatorNetwork, Field(discriminator="kind")]

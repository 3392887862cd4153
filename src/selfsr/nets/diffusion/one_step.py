"""One-step super-resolution on a pretrained latent diffusion model (Wu et al., "OSEDiff", NeurIPS 2024)."""

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, NonNegativeInt
from torch import Tensor, nn

from selfsr.errors import InputError
from selfsr.images.color_fix import fix_colors
from selfsr.nets.diffusion.base_folder import Base
from selfsr.nets.diffusion.frozen import share_copy
from selfsr.nets.diffusion.lora import LoraSpec
from selfsr.nets.diffusion.pretrained import FixSpec, PretrainedNetwork, PretrainedSpec
from selfsr.nets.diffusion.sampling import Sampling


class OneStepSpec(PretrainedSpec):
    """A pretrained latent diffusion model with adapters that upscales in one pass."""

    title: ClassVar[str] = "one-step diffusion"
    paper: ClassVar[str] = "Wu et al., NeurIPS 2024"

    kind: Literal["one_step"] = "one_step"
    timestep: NonNegativeInt = Field(
        999,
        description="index of the noise that the base assumes in the input, below the steps of its process; lower ones "
        "change the input less. 999 is OSEDiff's, 200 HYPIR's",
    )
    output: Literal["x0", "residual"] = Field(
        "x0",
        description="how the prediction becomes the output latent: x0 removes the noise of the timestep; residual "
        "subtracts the prediction from the input, as in PiSA-SR with timestep 1",
    )
    encoder_lora: LoraSpec | None = Field(
        None, description="adapters of the autoencoder's encoder, as in OSEDiff; null leaves it as it is"
    )
    sample: FixSpec = FixSpec()  # pyright: ignore[reportCallIssue]

    def _make(self, scale: int, channels: int) -> nn.Module:  # noqa: ARG002 - always RGB
        return OneStep(scale, self, self.open_base())


class OneStep(PretrainedNetwork):
    """A network that encodes the enlarged input, runs the base with adapters once, and decodes the result.

    With the latent z of the input and the prediction p = base(z, t, prompt), the latent of the output is x0(p, z, t) of
    the noise process, or z - p for `output: residual` (docs/diffusion.md, eq. 15 and 16).

    Args:
        scale: upscaling factor.
        spec: the options.
        base: the parts of the pretrained model.

    Raises:
        InputError: the base has no such timestep, or adapters fit no layer.
    """

    def __init__(self, scale: int, spec: OneStepSpec, base: Base) -> None:
        if spec.timestep >= base.schedule.steps:
            raise InputError(
                f"network.timestep: expected 0 to {base.schedule.steps - 1}, the times of the base, got "
                f"{spec.timestep}; lower it."
            )
        super().__init__(scale, spec, base, Sampling(color_fix=spec.sample.color_fix))
        spec.lora.add_to(self.unet, "network.lora")
        self.train_layers(spec.trained)
        self._index = spec.timestep
        self._is_residual = spec.output == "residual"
        self._checkpointing = spec.checkpointing
        if spec.encoder_lora is not None:
            self._add_encoder_adapters(spec.encoder_lora)

    def _add_encoder_adapters(self, lora: LoraSpec) -> None:
        autoencoder = share_copy(self.space.net)
        self.freeze_more(autoencoder)
        lora.add_to(autoencoder, "network.encoder_lora", ("encoder.", "quant_conv"))
        autoencoder.decoder = nn.Identity()  # the space decodes
        self.autoencoder: Any = autoencoder

    def forward(self, lr: Tensor, *, return_latents: bool = False) -> Tensor:
        """Return `[N, 3, scale * h, scale * w]` for `[N, 3, h, w]` in [0, 1].

        In training mode, the output has a gradient and is not clamped. In evaluation mode, it is clamped and has the
        colors of the input, by `sampling.color_fix`. Sides that the base cannot halve are padded by reflection, and the
        padding is cut off.

        Args:
            lr: the input.
            return_latents: return the latents of the output, from which `decode` makes the image of training.
        """
        height, width = lr.shape[-2:]
        latents = self.upscale_latents(self._encode(self.enlarge(self.pad(lr.float()))))
        if return_latents:
            return latents
        image = self.decode(latents, height, width)
        if self.training:
            return image
        return fix_colors(image.clamp(0, 1), self.enlarge(lr), self.sampling.color_fix)

    def decode(self, latents: Tensor, height: int, width: int) -> Tensor:
        """Return the image of the output's latents for an input of `height` x `width`, with a gradient, not clamped."""
        image = self.space.decode(latents, checkpointing=self._checkpointing and torch.is_grad_enabled())
        return image[..., : height * self.scale, : width * self.scale]

    def upscale_latents(self, latents: Tensor) -> Tensor:
        """Return the latents of the output for those of the enlarged input, `[N, c, h, w]`."""
        index = torch.full((len(latents),), self._index)
        prediction = self.run_denoiser(self.unet, latents, index)
        return latents - prediction if self._is_residual else self.schedule.predict_x0(prediction, latents, index)

    def _encode(self, image: Tensor) -> Tensor:
        if hasattr(self, "autoencoder"):
            return self.space.encode_with(self.autoencoder, image)
        return self.space.encode(image)

    def train(self, mode: bool = True) -> "OneStep":
        """Set the mode of the network; its frozen parts stay in evaluation mode."""
        super().train(mode)
        if hasattr(self, "autoencoder"):
            self.autoencoder.eval()
        return self

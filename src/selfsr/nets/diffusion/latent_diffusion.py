"""Super-resolution by a pretrained latent diffusion model that gets the input as a condition, as StableSR and SeeSR."""

from collections.abc import Callable
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from selfsr.errors import InputError
from selfsr.nets.base import allow_any_size
from selfsr.nets.diffusion.base_folder import Base, BaseError
from selfsr.nets.diffusion.lora import LoraSpec
from selfsr.nets.diffusion.pretrained import FixSpec, PretrainedNetwork, PretrainedSpec
from selfsr.nets.diffusion.sampled import SampledNetwork, choose_indices
from selfsr.nets.diffusion.sampling import Sampling

# Channels of the layers by which a ControlNet halves an image down to the size of the latents (Zhang et al., "Adding
# Conditional Control to Text-to-Image Diffusion Models", ICCV 2023).
_CONTROL_CHANNELS = (16, 32, 96, 256)
# A sampler reports at most this many stages, so that samples of many steps cost no decoding of each.
_STAGES = 8


class LatentSampleSpec(FixSpec):
    """How the network samples, in evaluation and upscaling alike."""

    steps: PositiveInt = Field(
        50, description="sampling steps, evenly spaced over the times of the base, with both ends; 200 is StableSR's"
    )
    deterministic: bool = Field(
        True,
        description="steps without new noise: DDIM, or Euler's steps for a flow; false draws new noise in each step "
        "(DDPM), as StableSR does",
    )
    start: Literal["input", "noise"] = Field(
        "input",
        description="start of sampling: input is the latent of the input with the noise of the last time, "
        "which keeps its colors; noise is pure noise, as published for StableSR",
    )
    guidance: float = Field(
        1.0,
        ge=1,
        description="factor of the difference between the predictions with the prompt and with negative_prompt; above "
        "1 it is classifier-free guidance with two passes for each step. 5.5 is SeeSR's",
    )


class LatentDiffusionSpec(PretrainedSpec):
    """A pretrained latent diffusion model that samples an output for an input."""

    title: ClassVar[str] = "latent diffusion"
    paper: ClassVar[str] = "Wang et al., IJCV 2024"
    is_sampled: ClassVar[bool] = True

    kind: Literal["latent_diffusion"] = "latent_diffusion"
    condition: Literal["concat", "controlnet"] = Field(
        "concat",
        description="how the base gets the enlarged input: concat feeds its latent to a widened first layer and trains "
        "adapters; controlnet trains a copy of the encoder half of the U-Net, which sees the image itself and is far "
        "larger",
    )
    sample: LatentSampleSpec = LatentSampleSpec()  # pyright: ignore[reportCallIssue]

    @model_validator(mode="after")
    def _check_condition(self) -> Self:
        # By value: the recipe in a run folder states every default.
        if self.condition == "controlnet" and self.lora != LoraSpec():  # pyright: ignore[reportCallIssue]
            raise ValueError(
                "lora must be left out with condition controlnet, which trains a copy of the U-Net instead, got rank "
                f"{self.lora.rank}; remove it or set condition to concat"
            )
        has_negative = self.negative_prompt is not None or "negative" in (self.prompt_shapes or {})
        if self.sample.guidance > 1 and self.prompt_file is None and not has_negative:
            raise ValueError(
                f"negative_prompt must be set for sample.guidance above 1, got {self.sample.guidance:g} without it; "
                'set it, "" is usual'
            )
        return self

    def _make(self, scale: int, channels: int) -> nn.Module:  # noqa: ARG002 - always RGB
        is_unet = (self.base / "unet").is_dir()
        if self.condition == "controlnet" and not is_unet and (self.base / "transformer").is_dir():
            raise BaseError(
                f"network.condition: expected concat for a transformer, got controlnet with {self.base}; set it to "
                "concat, or use a base with a U-Net."
            )
        return LatentDiffusion(scale, self, self.open_base())


class ConditionedConv2d(nn.Module):
    """The first convolution of a base plus one for the condition, whose weights start at zero.

    Args:
        first: the frozen convolution.

    Attributes:
        first: sees the first half of the channels.
        condition: sees the second half; it is trained.
    """

    def __init__(self, first: nn.Conv2d) -> None:
        super().__init__()
        self.first: nn.Conv2d = first
        sizes: dict[str, Any] = {name: getattr(first, name) for name in ("kernel_size", "stride", "padding")}
        self.condition: nn.Conv2d = nn.Conv2d(first.in_channels, first.out_channels, bias=False, **sizes)
        nn.init.zeros_(self.condition.weight)

    def forward(self, values: Tensor) -> Tensor:
        """Return the sum of both convolutions for `[N, 2 c, h, w]`."""
        noisy, condition = values.chunk(2, dim=1)
        return self.first(noisy) + self.condition(condition)


class LatentDiffusion(PretrainedNetwork, SampledNetwork):
    """A base that also gets the enlarged input, and predicts what it predicted before (docs/diffusion.md).

    It samples by eq. 24 or 25. `condition: concat` trains `unet.conv_in.condition.weight`
    (`unet.pos_embed.proj.condition.weight` of a transformer) and the adapters. `condition: controlnet` trains all of
    `controlnet`.

    Args:
        scale: upscaling factor.
        spec: the options.
        base: the parts of the pretrained model.

    Raises:
        InputError: the base cannot be sampled or conditioned in this way, or adapters fit no layer.
    """

    gate_option: ClassVar[Literal["max_noise", "max_gain"]] = "max_gain"
    default_gate: ClassVar[float | None] = 1.0

    def __init__(self, scale: int, spec: LatentDiffusionSpec, base: Base) -> None:
        self._check_base(spec, base)
        sample = spec.sample
        sampling = Sampling(steps=sample.steps, deterministic=sample.deterministic, color_fix=sample.color_fix)
        super().__init__(scale, spec, base, sampling)
        self.trained_steps = self.schedule.steps
        self._starts_from_input = sample.start == "input"
        self._guidance = sample.guidance
        self._sees_latents = spec.condition == "concat"
        if self._sees_latents:
            self._widen(spec.lora)
        else:
            self.controlnet: Any = self._make_controlnet()
            if spec.checkpointing:
                self.controlnet.enable_gradient_checkpointing()
        prompt = self.get_prompt()
        if self._guidance > 1 and (
            prompt.negative is None or (prompt.pooled is not None and prompt.negative_pooled is None)
        ):
            raise InputError(
                f"network.prompt_file: expected embeddings of a negative prompt for sample.guidance "
                f"{self._guidance:g}, got none; make the file again with a negative prompt, or set guidance to 1."
            )

    @staticmethod
    def _check_base(spec: LatentDiffusionSpec, base: Base) -> None:
        schedule = base.schedule
        if spec.sample.steps > schedule.steps:
            raise InputError(
                f"network.sample.steps: expected at most {schedule.steps}, the times of the base, got "
                f"{spec.sample.steps}; lower it."
            )
        if schedule.prediction == "epsilon" and schedule.alpha[-1] == 0:
            raise BaseError(
                f"network.base: expected a base whose last time is not pure noise, or that predicts v, got {spec.base} "
                "which predicts noise from pure noise; use another base."
            )

    def _widen(self, lora: LoraSpec) -> None:
        """Let the first layer see the condition, and add adapters to the others."""
        parent, name = (
            (self.unet, "conv_in") if hasattr(self.unet, "conv_in") else (self.unet.pos_embed, "proj")
        )  # of a U-Net and of a transformer
        setattr(parent, name, ConditionedConv2d(getattr(parent, name)))
        lora.add_to(self.unet, "network.lora")
        self.requires_grad_(True)  # peft freezes all but the adapters

    def _make_controlnet(self) -> nn.Module:
        from diffusers.models.controlnets.controlnet import ControlNetModel

        halvings = self.space.downscale.bit_length() - 1
        if not 1 <= halvings < len(_CONTROL_CHANNELS):
            raise BaseError(
                f"network.condition: expected concat for an autoencoder at 1/{self.space.downscale}, got controlnet, "
                f"which halves images up to {len(_CONTROL_CHANNELS) - 1} times; set it to concat."
            )
        with allow_any_size():
            return ControlNetModel.from_unet(
                self.base.denoiser, conditioning_embedding_out_channels=_CONTROL_CHANNELS[: halvings + 1]
            ).float()

    @property
    def noise_levels(self) -> np.ndarray:
        """The gain sigma / alpha by index."""
        return self.schedule.gain

    def forward(self, image: Tensor, noisy: Tensor | None = None, index: Tensor | None = None) -> Tensor:
        """Sample an output, or with `noisy` predict what the base predicts.

        Args:
            image: input `[N, 3, h, w]` in [0, 1]; with `noisy`, the condition that `condition` returns for it.
            noisy: latents x_t, `[N, c, h', w']`.
            index: index of the noise process of each sample, int64 `[N]`.

        Returns:
            A sample `[N, 3, scale * h, scale * w]`, clamped, without a gradient; with `noisy`, the prediction.
        """
        if noisy is None:
            return self.sample(image)
        assert index is not None
        return self._predict(image, noisy, index)

    def condition(self, lr: Tensor) -> Tensor:
        """Return the enlarged input: its latent for `concat`, the image in [0, 1] for `controlnet`."""
        image = self.enlarge(lr)
        return self.space.encode(image) if self._sees_latents else image

    def add_noise(self, x0: Tensor, condition: Tensor, noise: Tensor, index: Tensor) -> Tensor:  # noqa: ARG002
        """Return x_t of the base's noise process, which does not depend on the condition."""
        return self.schedule.add_noise(x0, noise, index)

    def target(self, x0: Tensor, noise: Tensor, index: Tensor) -> Tensor:
        """Return what the base predicts: noise, v, x0 or the flow."""
        return self.schedule.target(x0, noise, index)

    def predict_x0(self, prediction: Tensor, noisy: Tensor, index: Tensor) -> Tensor:
        """Return the latent of the ground truth from a prediction and x_t, not clamped."""
        return self.schedule.predict_x0(prediction, noisy, index)

    def _predict(self, condition: Tensor, noisy: Tensor, index: Tensor, *, negative: bool = False) -> Tensor:
        if self._sees_latents:
            return self.run_denoiser(self.unet, torch.cat([noisy, condition], dim=1), index, negative=negative)
        return self.run_denoiser(self._run_controlled, noisy, index, negative=negative, control=condition)

    def _run_controlled(self, latents: Tensor, *, control: Tensor, **inputs: Any) -> Any:
        """Return the output of the U-Net with the features of the ControlNet added to its own."""
        down, middle = self.controlnet(latents, controlnet_cond=control, **inputs)
        return self.unet(latents, down_block_additional_residuals=down, mid_block_additional_residual=middle, **inputs)

    def sample_values(self, lr: Tensor, on_stage: Callable[[int, Tensor], None] | None) -> Tensor:
        """Sample the latents of an output for an input whose sides need no padding."""
        schedule, image = self.schedule, self.enlarge(lr)
        latents = self.space.encode(image)
        condition = latents if self._sees_latents else image
        indices = choose_indices(schedule.steps, self.sampling.steps or schedule.steps)
        stages = {indices[k] for k in choose_indices(len(indices), min(len(indices), _STAGES))}
        x = self._start(latents)
        for i, previous in zip(indices, [*indices[1:], -1], strict=True):
            if on_stage is not None and i in stages:
                on_stage(i, self.space.decode(x))
            x0 = self.predict_x0(self._guide(condition, x, torch.full((len(x),), i)), x, torch.full((len(x),), i))
            if self.sampling.deterministic:
                of_x, of_x0 = schedule.deterministic(i, previous)
                x = of_x * x + of_x0 * x0
            else:
                of_x, of_x0, std = schedule.posterior(i, previous)
                x = of_x * x + of_x0 * x0
                if std > 0:
                    x = x + std * self.draw_noise(previous, x)
        if on_stage is not None:
            on_stage(-1, self.space.decode(x))
        return x

    def _start(self, latents: Tensor) -> Tensor:
        """Return x_T: the latents of the input with the noise of the last time, or pure noise."""
        noise = self.draw_noise(self.schedule.steps, latents)
        if not self._starts_from_input:
            return noise
        return self.schedule.add_noise(latents, noise, torch.full((len(latents),), self.schedule.steps - 1))

    def _guide(self, condition: Tensor, x: Tensor, index: Tensor) -> Tensor:
        """Return the prediction, with classifier-free guidance if it is above 1."""
        prediction = self._predict(condition, x, index)
        if self._guidance == 1:
            return prediction
        negative = self._predict(condition, x, index, negative=True)
        return negative + self._guidance * (prediction - negative)

"""ResShift (Yue, Wang and Loy, "ResShift", NeurIPS 2023): a U-Net that samples by residual shifting, on diffusers."""

import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from selfsr.images.color_fix import ColorFix
from selfsr.nets.base import NETWORK_ENTRY, NetworkSpec
from selfsr.nets.diffusion.sampled import SampledNetwork
from selfsr.nets.diffusion.sampling import Sampling
from selfsr.nets.diffusion.shift import ShiftSchedule, ShiftSpec
from selfsr.nets.diffusion.spaces import AutoencoderSpec, LatentSpace, Space, SpaceSpec, build_space, import_diffusers
from selfsr.nets.layers import Float32Conv2d
from selfsr.spec import Spec


class UnetSpec(Spec):
    """The U-Net, diffusers' UNet2DModel with scale-and-shift time embedding."""

    channels: tuple[PositiveInt, ...] = Field(
        (32, 64, 96), min_length=1, description="channels of each level; each further level halves the sides"
    )
    blocks: PositiveInt = Field(1, description="residual blocks of each level")
    attention: bool = Field(
        False, description="self-attention in the coarsest level; its cost grows with the square of the area"
    )
    groups: PositiveInt = Field(8, description="groups of the group norms; divides each of the channels")

    @model_validator(mode="after")
    def _check_groups(self) -> Self:
        for count in self.channels:
            if count % self.groups:
                raise ValueError(
                    f"channels must be multiples of groups {self.groups}, got {list(self.channels)}; change one of them"
                )
        return self

    @property
    def multiple(self) -> int:
        """The number of which both sides of the input must be multiples."""
        return 2 ** (len(self.channels) - 1)

    def build(self, in_channels: int, out_channels: int) -> nn.Module:
        """Return the U-Net; its last layer starts at zero, so that the network starts as the identity on y."""
        import_diffusers()
        from diffusers.models.unets.unet_2d import UNet2DModel

        levels = len(self.channels)
        coarsest = "Attn" if self.attention else ""
        unet = UNet2DModel(
            in_channels=in_channels,
            out_channels=out_channels,
            block_out_channels=self.channels,
            layers_per_block=self.blocks,
            down_block_types=("DownBlock2D",) * (levels - 1) + (f"{coarsest}DownBlock2D",),
            up_block_types=(f"{coarsest}UpBlock2D",) + ("UpBlock2D",) * (levels - 1),
            norm_num_groups=self.groups,
            attention_head_dim=self.groups,
            resnet_time_scale_shift="scale_shift",
            add_attention=self.attention,
        )
        unet.conv_out = Float32Conv2d.like(unet.conv_out)
        for parameter in unet.conv_out.parameters():
            nn.init.zeros_(parameter)
        return unet


class SampleSpec(Spec):
    """How the trained network samples, in evaluation and upscaling alike."""

    steps: PositiveInt | None = Field(None, description="sampling steps, at most those of shift; null takes all")
    deterministic: bool = Field(
        False,
        description="steps without new noise (docs/diffusion.md, eq. 4): smoother; false is the published ancestral "
        "sampling",
    )
    color_fix: ColorFix = Field(
        "wavelet",
        description="what gives the output the colors of the input: wavelet (local, removes differences between "
        "tiles), adain (mean and deviation of the image), ycbcr or none",
    )


class ResidualShiftingSpec(NetworkSpec):
    """ResShift: samples in a few steps from the input plus noise, in pixels or in latents."""

    title: ClassVar[str] = "ResShift"
    paper: ClassVar[str] = "Yue et al., NeurIPS 2023"
    convolutional: ClassVar[bool] = False
    is_diffusion: ClassVar[bool] = True
    is_sampled: ClassVar[bool] = True

    kind: Literal["residual_shifting"] = "residual_shifting"
    space: SpaceSpec = Field(
        "pixel",
        description="pixel, or {autoencoder: PATH} for the latents of a frozen autoencoder, which are smaller and hold "
        "more detail",
    )
    unet: UnetSpec = UnetSpec()  # pyright: ignore[reportCallIssue]
    shift: ShiftSpec = ShiftSpec()  # pyright: ignore[reportCallIssue]
    sample: SampleSpec = SampleSpec()  # pyright: ignore[reportCallIssue]
    one_step: bool = Field(
        False, description="the network knows only the last step of the schedule, after method shift_distillation"
    )

    @model_validator(mode="after")
    def _check_steps(self) -> Self:
        if self.one_step and self.sample.steps not in (None, 1):
            raise ValueError(f"sample.steps must be 1 with one_step, got {self.sample.steps}; leave it out")
        if self.sample.steps is not None and self.sample.steps > self.shift.steps:
            raise ValueError(
                f"sample.steps must be at most {self.shift.steps}, the steps that are trained (shift.steps), got "
                f"{self.sample.steps}; lower it"
            )
        return self

    @property
    def channel_counts(self) -> tuple[int, ...]:
        """Only RGB in latents, because autoencoders are for RGB."""
        return (1, 3) if self.space == "pixel" else (3,)

    def _make(self, scale: int, channels: int) -> nn.Module:
        with torch.device("cpu"):  # a network without values (device "meta") needs the real autoencoder as well
            space = build_space(self.space, channels)
        return ResidualShifting(scale, channels, self, space)


class ResidualShifting(SampledNetwork):
    """Predicts the ground truth from a noisy image, its step and the input; in sampling, maps an input to an output.

    Args:
        scale: upscaling factor.
        channels: channels of the images.
        spec: the options.
        space: the space of the diffusion.

    Attributes:
        schedule: tables of the diffusion process.
    """

    gate_option: ClassVar[Literal["max_noise", "max_gain"]] = "max_noise"

    def __init__(self, scale: int, channels: int, spec: ResidualShiftingSpec, space: Space) -> None:
        super().__init__(scale, channels, Sampling(**spec.sample.model_dump()))
        self.space = space
        self.schedule: ShiftSchedule = spec.shift.build()
        self.unet: Any = spec.unet.build(2 * space.channels, space.channels)
        self._input_scale = self.schedule.input_scale(latent=space.is_latent)
        multiple_px = spec.unet.multiple * space.downscale
        self.multiple_of_px: int = multiple_px // math.gcd(multiple_px, scale)
        self.trained_steps: int = 1 if spec.one_step else self.schedule.steps

    def forward(self, image: Tensor, noisy: Tensor | None = None, index: Tensor | None = None) -> Tensor:
        """Sample an output, or with `noisy` predict the ground truth from it.

        Args:
            image: input `[N, C, h, w]` in [0, 1]; with `noisy`, the condition that `condition` returns for it.
            noisy: x_t of the schedule, of the shape of the condition.
            index: step index of each noisy image, int64 `[N]`.

        Returns:
            A sample `[N, C, scale * h, scale * w]`, without a gradient, not clamped; with `noisy`, the predicted ground
            truth in the values of the space.
        """
        if noisy is None:
            return self.sample(image)
        assert index is not None
        factor = 1 / self.schedule.gather(self._input_scale, index, noisy)
        output = self.unet(torch.cat([noisy * factor, image], dim=1), index.to(noisy.device)).sample
        return image + output.float()

    def condition(self, lr: Tensor) -> Tensor:
        """Return y: the input brought to the size of the output, in the values of the space, without a gradient."""
        return self.space.encode(self.enlarge(lr))

    def add_noise(self, x0: Tensor, condition: Tensor, noise: Tensor, index: Tensor) -> Tensor:
        """Return x_t of the schedule; the condition is y."""
        return self.schedule.add_noise(x0, condition, noise, index)

    def target(self, x0: Tensor, noise: Tensor, index: Tensor) -> Tensor:  # noqa: ARG002 - x0 is predicted
        """Return x0, which the network predicts."""
        return x0

    def predict_x0(self, prediction: Tensor, noisy: Tensor, index: Tensor) -> Tensor:  # noqa: ARG002 - see target
        """Return the prediction itself."""
        return prediction

    @property
    def noise_levels(self) -> np.ndarray:
        """The noise kappa sqrt(eta) by index."""
        return self.schedule.noise_std

    def sample_values(self, lr: Tensor, on_stage: Callable[[int, Tensor], None] | None) -> Tensor:
        """Sample the values of an output for an input whose sides need no padding."""
        sampling, schedule, y = self.sampling, self.schedule, self.condition(lr)
        indices = schedule.choose_indices(sampling.steps or self.trained_steps)
        x = schedule.start(y, self.draw_noise(schedule.steps, y))
        for i, previous in zip(indices, [*indices[1:], -1], strict=True):
            if on_stage is not None:
                on_stage(i, self.space.decode(x))
            x0 = self(y, x, torch.full((len(y),), i))
            x0 = x0 if self.space.is_latent else x0.clamp(-1, 1)
            if sampling.deterministic:
                of_x0, of_x, of_y = schedule.deterministic(i, previous)
                x = of_x0 * x0 + of_x * x + of_y * y
            else:
                of_x, of_x0, std = schedule.posterior(i, previous)
                x = of_x * x + of_x0 * x0
                if std > 0:
                    x = x + std * self.draw_noise(previous, y)
        if on_stage is not None:
            on_stage(-1, self.space.decode(x))
        return x

    def file_metadata(self) -> dict[str, str]:
        """Return the metadata of a weights file, with the checksum of the autoencoder."""
        entries, spec = super().file_metadata(), self.spec
        if isinstance(spec, ResidualShiftingSpec) and isinstance(spec.space, AutoencoderSpec):
            assert isinstance(self.space, LatentSpace)
            origin = {"autoencoder": spec.space.autoencoder.absolute(), "sha256": self.space.sha256}
            space = spec.space.model_copy(update=origin)
            entries[NETWORK_ENTRY] = spec.model_copy(update={"space": space}).model_dump_json()
        return entries

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.space.apply(fn)
        return super()._apply(fn, recurse)

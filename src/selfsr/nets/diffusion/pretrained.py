"""The base class and options of networks on a pretrained latent diffusion model: adapters, prompt, weights."""

import contextlib
import math
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field, PositiveInt, field_validator, model_validator
from torch import Tensor, nn

from selfsr.errors import InputError
from selfsr.images.color_fix import ColorFix
from selfsr.nets.base import NETWORK_ENTRY, NetworkSpec
from selfsr.nets.diffusion.base_folder import AutoencoderPrecision, Base, BasePrecision, open_base
from selfsr.nets.diffusion.frozen import PartlyFrozen, format_sha256, share_copy
from selfsr.nets.diffusion.lora import LoraSpec, is_layer
from selfsr.nets.diffusion.noise_schedule import NoiseSchedule
from selfsr.nets.diffusion.prompt import Prompt, open_prompt
from selfsr.nets.diffusion.sampling import DiffusionNetwork, Sampling
from selfsr.nets.diffusion.spaces import LatentSpace
from selfsr.spec import Spec, expand_home

_PROMPT_PARTS = tuple(field.name for field in fields(Prompt))
_LARGEST_PROMPT = 2**24


class FixSpec(Spec):
    """How a network makes its output, in evaluation and upscaling alike."""

    color_fix: ColorFix = Field(
        "wavelet",
        description="what gives the output the colors of the input: wavelet (local, removes differences between "
        "tiles), adain (mean and deviation of the image), ycbcr or none",
    )


class PretrainedSpec(NetworkSpec):
    """Options of the networks that are trained on a pretrained latent diffusion model."""

    convolutional: ClassVar[bool] = False
    is_diffusion: ClassVar[bool] = True
    has_base: ClassVar[bool] = True
    multi_scale: ClassVar[bool] = True

    base: Path = Field(
        description="model folder of diffusers with unet or transformer, vae and scheduler, such as Stable Diffusion "
        "2.1; it is frozen"
    )
    base_sha256: str | None = Field(
        None, description="checksum of the base, written into weights files; another base is refused"
    )
    base_precision: BasePrecision = Field(
        "bfloat16", description="dtype in which the frozen weights are kept and compute; bfloat16 halves their memory"
    )
    autoencoder_precision: AutoencoderPrecision = Field(
        "float32",
        description="dtype in which the autoencoder computes; bfloat16 about halves the memory of decoding, with "
        "rounding errors",
    )
    lora: LoraSpec = LoraSpec()  # pyright: ignore[reportCallIssue]
    trained: tuple[str, ...] = Field(
        (),
        description="layers of the denoiser that are trained completely, by ends of their names, such as conv_in in "
        "OSEDiff; weights files contain them",
    )
    checkpointing: bool = Field(
        True, description="recompute the base in the backward pass: far less memory, about a third more time"
    )
    prompt: str = Field("", description="prompt that the base gets with every image; an empty one is usual")
    negative_prompt: str | None = Field(
        None, description="negative prompt, from which guidance moves away; null is none"
    )
    prompt_file: Path | None = Field(
        None,
        description="file of prompt embeddings that selfsr prompt made, in place of prompt and negative_prompt; needed "
        "for bases without one text encoder",
    )
    prompt_shapes: dict[str, tuple[PositiveInt, ...]] | None = Field(
        None, description="shapes of the prompt embeddings, written into weights files, which contain them"
    )

    @field_validator("base", "prompt_file")
    @classmethod
    def _expand_home(cls, path: Path | None) -> Path | None:
        return None if path is None else expand_home(path)

    @model_validator(mode="after")
    def _check_prompt(self) -> "PretrainedSpec":
        if self.prompt_file is not None and (self.prompt or self.negative_prompt is not None):
            raise ValueError(
                "prompt and negative_prompt must be left out with prompt_file, which has them; remove them"
            )
        for name, shape in (self.prompt_shapes or {}).items():
            if name not in _PROMPT_PARTS or math.prod(shape) > _LARGEST_PROMPT:
                raise ValueError(f"prompt_shapes must be those of embeddings, got {name} {list(shape)}; remove it")
        return self

    @property
    def scales(self) -> tuple[int, ...]:
        """The scales of a network; all fit, since the input is enlarged before it is encoded."""
        return (1, 2, 3, 4, 8)

    @property
    def channel_counts(self) -> tuple[int, ...]:
        """Only RGB, because autoencoders are for RGB."""
        return (3,)

    def open_base(self) -> Base:
        """Open the base.

        Raises:
            InputError: it is missing, is of another kind, or is not the one that the checksum names.
        """
        return open_base(
            self.base,
            self.base_sha256,
            precision=self.base_precision,
            autoencoder_precision=self.autoencoder_precision,
        )


def _name_buffer(name: str) -> str:
    """Return the name of the buffer that has a part of the prompt."""
    return "prompt" if name == "embedding" else f"prompt_{name}"


class PretrainedNetwork(PartlyFrozen, DiffusionNetwork):
    """Base of the networks that predict with a pretrained denoiser and adapters of it.

    Args:
        scale: upscaling factor.
        spec: the options.
        base: the parts of the pretrained model.
        sampling: how it makes its output, until `set_sampling` changes it.

    Attributes:
        base: the parts of the pretrained model, without adapters.
        space: the latents.
        schedule: the noise process.
        unet: the denoiser with adapters, a U-Net or a transformer.
    """

    def __init__(self, scale: int, spec: PretrainedSpec, base: Base, sampling: Sampling) -> None:
        super().__init__(scale, 3, sampling)
        self._base = [base]  # not a module of the network: it is neither trained nor saved
        self.space: LatentSpace = base.space
        self.schedule: NoiseSchedule = base.schedule
        self._computes_in: torch.dtype = getattr(torch, spec.base_precision)
        self.freeze_base([base.denoiser], base.sha256)
        self.unet: Any = self.make_denoiser()
        for name, tensor in vars(self._open_prompt(spec)).items():
            self.register_buffer(_name_buffer(name), tensor)
        if spec.checkpointing:
            self.unet.enable_gradient_checkpointing()

    @property
    def base(self) -> Base:
        """The parts of the pretrained model, without adapters."""
        return self._base[0]

    def make_denoiser(self) -> Any:
        """Return a copy of the frozen denoiser that shares its weights, to which adapters can be added."""
        return share_copy(self.base.denoiser)

    def train_layers(self, ends: tuple[str, ...]) -> None:
        """Train layers of the denoiser completely: they get their own weights, in float32.

        Args:
            ends: names of layers, or ends of them.

        Raises:
            InputError: one of them matches no layer with weights.
        """
        layers = {
            name.removesuffix(".base_layer"): layer
            for name, layer in self.unet.named_modules()
            if ".lora_" not in name and isinstance(getattr(layer, "weight", None), nn.Parameter)
        }
        for end in ends:
            found = [layer for name, layer in layers.items() if is_layer(name, end)]
            if not found:
                raise InputError(
                    f"network.trained: expected ends of layer names, got {end!r}, which matches no layer with weights; "
                    f"names are such as {', '.join(list(layers)[:3])}."
                )
            for layer in found:
                for name, parameter in list(layer.named_parameters(recurse=False)):
                    setattr(layer, name, nn.Parameter(parameter.detach().float().clone()))

    def _open_prompt(self, spec: PretrainedSpec) -> Prompt:
        return open_prompt(
            spec.base,
            self.base.denoiser.config,
            text=spec.prompt,
            negative=spec.negative_prompt,
            file=spec.prompt_file,
            shapes=spec.prompt_shapes,
        )

    def get_prompt(self) -> Prompt:
        """Return the prompt embeddings."""
        return Prompt(**{name: getattr(self, _name_buffer(name)) for name in _PROMPT_PARTS})

    @property
    def multiple_of_px(self) -> int:
        """The number of pixels of which each side of the padded input is a multiple."""
        config = self.base.denoiser.config
        halvings = len(config.get("down_block_types", ())) - 1
        side = 2**halvings if halvings >= 0 else config["patch_size"]
        multiple = side * self.space.downscale
        return multiple // math.gcd(multiple, self.scale)

    def train(self, mode: bool = True) -> "PretrainedNetwork":
        """Set the mode of the network; its frozen parts stay in evaluation mode."""
        super().train(mode)
        self.unet.eval()
        return self

    def run_denoiser(
        self, denoiser: Any, latents: Tensor, index: Tensor, *, negative: bool = False, **inputs: Any
    ) -> Tensor:
        """Return the prediction of a denoiser, float32 `[N, c, h, w]`.

        Args:
            denoiser: `unet`, or another one with the same frozen weights.
            latents: `[N, c, h, w]`.
            index: index of the noise process of each sample, int64 `[N]`.
            negative: with the negative prompt.
            inputs: further arguments of diffusers' denoiser.
        """
        time = self.schedule.time(index, latents)
        prompt = self.get_prompt()
        embedding, pooled = (prompt.negative, prompt.negative_pooled) if negative else (prompt.embedding, prompt.pooled)
        assert embedding is not None
        inputs["encoder_hidden_states"] = embedding.expand(len(latents), *embedding.shape)
        if pooled is not None:
            inputs["pooled_projections"] = pooled.expand(len(latents), *pooled.shape)
        half = self._computes_in != torch.float32
        autocast = torch.autocast(latents.device.type, self._computes_in) if half else contextlib.nullcontext()
        with autocast:
            return denoiser(latents, timestep=time, return_dict=False, **inputs)[0].float()

    def file_metadata(self) -> dict[str, str]:
        """Return the metadata of a weights file, with the checksum of the base and the shapes of the prompt."""
        entries, spec = super().file_metadata(), self.spec
        if isinstance(spec, PretrainedSpec):
            changes = {
                "base": spec.base.absolute(),
                "base_sha256": format_sha256(self.base_sha256),
                "prompt_shapes": {
                    name: tuple(tensor.shape) for name, tensor in vars(self.get_prompt()).items() if tensor is not None
                },
                "prompt_file": None,
            }
            entries[NETWORK_ENTRY] = spec.model_copy(update=changes).model_dump_json()
        return entries

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self.space.apply(fn)
        self.base.denoiser._apply(fn)
        return super()._apply(fn, recurse)

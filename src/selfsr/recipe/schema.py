"""The options of a recipe, and the checks that they fit together."""

import os
from typing import Annotated, Literal, get_args

from pydantic import (
    Discriminator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Tag,
    field_validator,
    model_validator,
)

from selfsr.data.augment import AugmentSpec
from selfsr.data.sources_spec import DataSpec
from selfsr.degrade.presets import Degradation
from selfsr.methods.union import AnyMethod, MethodChoice
from selfsr.nets import AnyNetwork, Network
from selfsr.nets.weights.load import Fit
from selfsr.pacing.contract import STEPS_PER_EPOCH
from selfsr.recipe.evaluate import EvalSet, Evaluate
from selfsr.recipe.optim import Optimizer
from selfsr.recipe.schedules import Schedule
from selfsr.spec import DropNulls, Name, Spec
from selfsr.terms import Term
from selfsr.terms.loss_weights import MatchLargest

Factor = Literal[1, 2, 3, 4, 8]


def _one_or_several(value: object) -> str:
    return "several" if isinstance(value, list | tuple) else "one"


Scale = Annotated[
    Annotated[Factor, Tag("one")] | Annotated[tuple[Factor, ...], Field(min_length=1), Tag("several")],
    Discriminator(_one_or_several),
]
CropSize = Annotated[
    Annotated[PositiveInt, Tag("one")] | Annotated[tuple[PositiveInt, ...], Field(min_length=1), Tag("several")],
    Discriminator(_one_or_several),
]


class Checkpoints(Spec):
    """When checkpoints and weights files are saved, and how many stay."""

    every_steps: PositiveInt = Field(
        1000, description="steps between checkpoints; the last step is always saved. Lower it if runs are often killed"
    )
    keep_last: PositiveInt = Field(2, description="number of checkpoints that are kept; more need more disk space")
    weights_format: Literal["safetensors", "pth"] = Field(
        "safetensors", description="format of weights/best and weights/last; pth for tools that read no safetensors"
    )


class Log(Spec):
    """How often values are logged, and to which files."""

    every_steps: PositiveInt = Field(
        100, description="steps between lines of metrics.jsonl; each line has the means over these steps"
    )
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...] = Field(
        (),
        description="experiment trackers that also get losses, scores and options; tensorboard (into the run folder) "
        "and wandb also get the sample images. Each needs its package",
    )
    project: Name = Field("selfsr", description="project or experiment in wandb, mlflow and trackio")


class Recipe(Spec):
    """One training run. Sizes are in pixels of the ground truth, times in optimizer steps."""

    name: Name = Field(description="name of the run and of its folder")
    scale: Scale = Field(description="upscaling factor, or a list of factors, of which each step samples one")
    steps: PositiveInt = Field(description="optimizer steps of the run; raise it if the loss still falls at the end")
    steps_per_epoch: PositiveInt = Field(
        STEPS_PER_EPOCH,
        description="steps in an epoch, the time unit of self-paced weighting; nothing else depends on it",
    )
    seed: NonNegativeInt = Field(
        1, description="seed of all random choices; runs with the same seed see the same crops in the same order"
    )
    batch: PositiveInt = Field(
        16, description="samples in an optimizer step, over all processes and micro-batches; larger is less noisy"
    )
    accumulate: PositiveInt = Field(
        1, description="micro-batches in an optimizer step; raise it if the batch does not fit into memory"
    )
    crop_px: CropSize = Field(
        192,
        description="side of the ground-truth crop; with several scales one for all, or one for each, such as "
        "[96, 144, 192] for inputs of 48 px at scale [2, 3, 4]. Larger crops show more context and need more memory",
    )
    network: Network
    start_from: str | None = Field(
        None,
        description="weights file from which the network starts, or the name of a shipped model; null starts from "
        "random weights",
    )
    start_fit: Fit = Field(
        "all",
        description="which tensors of start_from must fit: all; tail, which leaves out the upsampling layers of a file "
        "of another scale; or matching, which loads what has a matching name and shape and prints the rest",
    )
    freeze: tuple[str, ...] = Field(
        (),
        description='names of parameters of the generator that are not trained, such as "body.0.*"; batch norms in '
        "frozen layers keep their statistics. Use it to adapt only some layers to new images",
    )
    data: DataSpec
    method: MethodChoice
    optimizers: Annotated[dict[str, Optimizer], DropNulls] = Field(
        description="an optimizer for each network that the method trains; g is the generator. null removes one"
    )
    schedule: Schedule
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        0.999,
        description="decay of the EMA: the fraction of the average that each step keeps; lower it for short runs. null "
        "evaluates and saves the weights themselves",
    )
    clip_norm: PositiveFloat | None = Field(
        None, description="gradient clipping: the largest gradient norm of a network. Set it if runs diverge"
    )
    precision: Literal["auto", "float32", "tf32", "bfloat16", "float16"] = Field(
        "auto",
        description="precision of the networks; losses are always float32. auto is bfloat16 where the device computes "
        "it natively, else float32. tf32 is float32 with faster, coarser products on NVIDIA GPUs (docs/speed.md)",
    )
    compile: Literal["off", "default", "graphs"] = Field(
        "off",
        description="compile the networks by torch.compile, which takes minutes at the start: default fuses kernels, "
        "graphs also records CUDA graphs, for small networks. Use it on GPUs for runs of hours (docs/speed.md)",
    )
    deterministic: bool = Field(
        False,
        description="choose only algorithms that repeat bit for bit, which are slower; for a GPU, since a CPU always "
        "repeats. Set it to compare runs to the last bit",
    )
    memory_format: Literal["auto", "contiguous", "channels_last"] = Field(
        "auto", description="memory layout of images and weights; auto is channels_last for convolutional networks"
    )
    workers: NonNegativeInt | Literal["auto"] = Field(
        "auto",
        description="processes that load images; 0 loads in the training process. Raise it if data_wait_share is high",
    )
    evaluate: Evaluate | None = Field(None, description="evaluation during the run; null never evaluates")
    checkpoints: Checkpoints = Checkpoints()  # pyright: ignore[reportCallIssue]
    log: Log = Log()  # pyright: ignore[reportCallIssue]

    @field_validator("start_from")
    @classmethod
    def _expand_home(cls, path: str | None) -> str | None:
        return None if path is None else os.path.expanduser(path)

    @property
    def scales(self) -> tuple[int, ...]:
        """The scales of the run, in the order of the recipe."""
        return self.scale if isinstance(self.scale, tuple) else (self.scale,)

    @property
    def crops_px(self) -> dict[int, int]:
        """The side of the ground-truth crop at each scale, in pixels."""
        crops = self.crop_px if isinstance(self.crop_px, tuple) else (self.crop_px,) * len(self.scales)
        return dict(zip(self.scales, crops, strict=True))

    @property
    def evaluation_sets(self) -> dict[str, tuple[EvalSet, int]]:
        """Each evaluation set at each scale, by its name in eval.jsonl."""
        sets = self.evaluate.sets if self.evaluate else {}
        if len(self.scales) == 1:
            return {name: (entry, self.scales[0]) for name, entry in sets.items()}
        return {f"{name}_x{scale}": (entry, scale) for name, entry in sets.items() for scale in self.scales}

    def set_degradation(self, entry: EvalSet) -> Degradation | None:
        """Return the degradation that makes the inputs of an evaluation set; None if they are read or bicubic."""
        return getattr(self.data, "degrade", None) if entry.degrade == "training" else entry.degrade

    @model_validator(mode="after")
    def _check(self) -> "Recipe":
        self._check_scales()
        if self.batch % self.accumulate:
            raise ValueError(f"accumulate must divide batch {self.batch}, got {self.accumulate}")
        if self.start_fit != "all" and self.start_from is None:
            raise ValueError("start_fit does nothing without start_from; give both or neither")
        self._check_network()
        if self.schedule.warmup_steps > self.steps:
            raise ValueError(
                f"schedule.warmup_steps must be at most steps {self.steps}, got {self.schedule.warmup_steps}: the "
                "learning rate would never have its full value; add --set schedule.warmup_steps="
                f"{self.steps // 10}, or raise steps"
            )
        if self.schedule.kind == "plateau" and self.evaluate is None:
            raise ValueError(
                "evaluate must be set for schedule.kind plateau, which follows evaluate.best_by, got null; add it, or "
                "choose another schedule"
            )
        trained, optimized = set(self.method.trained_nets), set(self.optimizers)
        if trained != optimized:
            raise ValueError(
                f"optimizers must name exactly the networks that the method trains, {sorted(trained)}, "
                f"got {sorted(optimized)}"
            )
        for name, term in self.method.terms.items():
            self._check_term(f"method.terms.{name}", term)
        if self.network.has_branch and not any(term.needs_branch for term in self.method.terms.values()):
            raise ValueError(
                f"method.terms must contain a loss of the second output that network {self.network.kind} has, got "
                "none: the layers of that output would stay as initialized"
            )
        if self.data.masks is not None:
            self._check_masks()
        if self.data.augment is not None:
            self._check_augment(self.data.augment)
        self.method.check(self)
        return self

    def _check_scales(self) -> None:
        if len(set(self.scales)) < len(self.scales):
            raise ValueError(f"scale must not name a factor twice, got {list(self.scales)}")
        if isinstance(self.crop_px, tuple) and len(self.crop_px) != len(self.scales):
            raise ValueError(
                f"crop_px must be one number or one for each scale {list(self.scales)}, got {list(self.crop_px)}"
            )
        for scale, crop_px in self.crops_px.items():
            if crop_px % scale:
                raise ValueError(f"crop_px must be a multiple of the scale {scale}, got {crop_px}")
        lr = {f"{place}.lr": getattr(part, "lr", None) for place, part in self.data.parts.items()}
        for name, entry in (self.evaluate.sets if self.evaluate else {}).items():
            if entry.degrade == "training" and self.set_degradation(entry) is None:
                raise ValueError(
                    f"evaluate.sets.{name}.degrade can be training only if data.degrade is set, got training without "
                    "it; name a preset, or remove degrade"
                )
            lr[f"evaluate.sets.{name}.lr"] = entry.lr
        for key, folders in lr.items():
            if folders is not None and len(self.scales) > 1 and not isinstance(folders, dict):
                raise ValueError(
                    f"{key} must name a folder for each scale, such as {{{self.scales[0]}: {folders}, "
                    f"{self.scales[1]}: ...}}, got only {folders}"
                )
            if isinstance(folders, dict) and set(folders) != set(self.scales):
                raise ValueError(f"{key} must be for the scales {sorted(self.scales)}, got {sorted(folders)}")

    def _check_network(self) -> None:
        network, micro_batch = self.network, self.batch // self.accumulate
        self._check_network_scales()
        if self.evaluate is not None and not network.is_sampled and self.evaluate.seeds != (0,):
            raise ValueError(
                f"evaluate.seeds must be [0] for network {network.kind}, which has one output for each input, got "
                f"{list(self.evaluate.seeds)}; leave it out"
            )
        if self.compile != "off" and network.is_diffusion:
            raise ValueError(
                f"compile must be off for network {network.kind}, since diffusion networks are not compiled, got "
                f"{self.compile}; remove it"
            )
        if not self.method.trains(network):
            kinds = [
                get_args(spec.model_fields["kind"].annotation)[0]
                for spec in get_args(AnyMethod)
                if spec.trains(network)
            ]
            raise ValueError(
                f"method.kind must be one of {', '.join(kinds)} for network {network.kind}, got {self.method.kind}"
            )
        if self.data.channels not in network.channel_counts:
            counts = " or ".join(map(str, network.channel_counts))
            raise ValueError(
                f"data.channels must be {counts} for network {network.kind}, got {self.data.channels}"
                + ("; the network works on luma" if network.channel_counts == (1,) else "")
            )
        for scale, crop_px in self.crops_px.items():
            if crop_px // scale < network.minimum_px:
                raise ValueError(
                    f"crop_px must be at least {network.minimum_px * scale} for network {network.kind} "
                    f"at scale {scale}, got {crop_px}"
                )
        if micro_batch < network.minimum_batch:
            raise ValueError(
                f"batch / accumulate must be at least {network.minimum_batch} for network {network.kind}, "
                f"got {micro_batch}"
            )

    def _check_network_scales(self) -> None:
        network = self.network
        for scale in self.scales:
            if scale not in network.scales:
                known = ", ".join(map(str, network.scales))
                reason = f", because {network.scales_reason}" if network.scales_reason else ""
                raise ValueError(f"scale must be one of {known} for network {network.kind}, got {scale}{reason}")
        if len(self.scales) > 1 and not network.multi_scale:
            kinds = [spec.model_fields["kind"].default for spec in get_args(AnyNetwork) if spec.multi_scale]
            raise ValueError(
                f"scale must be one number for network {network.kind}, got {list(self.scales)}; "
                f"use one of {', '.join(kinds)} for several scales"
            )
        if network.has_unused_parameters and set(network.scales) != set(self.scales):
            # The published multi-scale code silently trained only its first scale.
            raise ValueError(
                f"network.factors must be the scales of the run, {list(self.scales)}, got {list(network.scales)}: "
                "the layers of other scales would stay as initialized"
            )

    def _check_term(self, key: str, term: Term) -> None:
        smallest = min(self.crops_px.values())
        if smallest < term.minimum_px:
            raise ValueError(
                f"crop_px must be at least {term.minimum_px} for {key} ({term.kind} with these options), got "
                f"{smallest}; use larger crops, or change or remove the term"
            )
        if min(self.scales) < term.smallest_scale:
            raise ValueError(
                f"scale must be at least {term.smallest_scale} for {key} ({term.kind}), got {min(self.scales)}; remove "
                "the term"
            )
        updates = self.method.count_generator_updates(self.steps)
        if isinstance(term.weight, MatchLargest) and term.weight.calibrate_steps > updates:
            raise ValueError(
                f"{key}.weight.calibrate_steps must be at most {updates}, the updates of the generator in steps "
                f"{self.steps}, got {term.weight.calibrate_steps}: the weight would never be final; add "
                f"--set {key}.weight.calibrate_steps={max(1, updates // 2)}, or raise steps"
            )
        pace = getattr(term, "pace", None)
        if pace is not None and pace.ssim == "pixel" and self.data.channels == 1:
            raise ValueError(
                f"{key}.pace.ssim must be channel where data.channels is 1, got pixel: "
                "the mean over one channel changes nothing"
            )
        if term.normalizes and self.method.trains_sampled:
            raise ValueError(
                f"{key}.pace.normalize must be false for method {self.method.kind}, got true: the outputs of a batch "
                "that is split are random, so its weights are unknown before the gradient; remove it"
            )
        if term.needs_ema and self.ema_decay is None:
            raise ValueError(
                f"ema_decay must be a number for {key}, which uses the EMA generator, got null; set it, usually to "
                "0.999"
            )
        if term.needs_branch and not self.network.has_branch:
            raise ValueError(
                f"network must have a second output for {key}, which is a loss of it, got {self.network.kind}; "
                "remove the term or choose another network"
            )
        if term.needs_branch and isinstance(term.weight, MatchLargest):
            raise ValueError(
                f"{key}.weight must be a number, got match: the term does not act on the output, where weights "
                "are matched"
            )

    def _check_augment(self, augment: AugmentSpec) -> None:
        for kind, share in augment.shares.items():
            if share and kind != "cutblur" and self.data.masks is not None:
                raise ValueError(
                    f"data.augment.{kind} must be 0 with data.masks, which are of unmixed images, got {share:g}; "
                    "remove one of the two"
                )
        if augment.cutblur and not self.data.has_degraded_lr:
            raise ValueError(
                "data.augment.cutblur must be 0 without data.degrade and with kind folder, where all of the input is "
                f"bicubic already, got {augment.cutblur:g}; remove it, or set data.degrade"
            )

    def _check_masks(self) -> None:
        terms = {name: term for name, term in self.method.terms.items() if term.takes_masks}
        if not terms:
            raise ValueError(
                "data.masks must be null where no term of method.terms is a loss at edges, got "
                f"{self.data.masks}: nothing would use the masks; remove it or add self_similarity or edge_l1"
            )
        for name, term in terms.items():
            for option in ("threshold", "two_sided"):
                value, default = getattr(term, option), type(term).model_fields[option].default
                if value != default:
                    raise ValueError(
                        f"method.terms.{name}.{option} does nothing with data.masks, which have their edges already, "
                        f"got {value}; remove one of the two"
                    )

"""What a recipe spells out: every setting of a run, typed to the leaf, and what must fit together."""

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

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

from selfsr.data.spec import Data
from selfsr.evaluation.perceptual import ExtraMetric
from selfsr.methods.gan import GanSpec
from selfsr.methods.regression import RegressionSpec
from selfsr.nets import AnyNetwork, Network
from selfsr.recipe.optim import Optimizer, Schedule
from selfsr.spec import NullLeavesOut, PathByScale, Spec
from selfsr.terms import Term
from selfsr.terms.loss_weights import MatchLargest

MethodSpec = Annotated[RegressionSpec | GanSpec, Field(discriminator="kind")]

Factor = Literal[1, 2, 3, 4, 8]


def _one_or_several(value: object) -> str:
    return "several" if isinstance(value, list | tuple) else "one"


Scale = Annotated[
    Annotated[Factor, Tag("one")] | Annotated[tuple[Factor, ...], Field(min_length=1), Tag("several")],
    Discriminator(_one_or_several),
]
Crop = Annotated[
    Annotated[PositiveInt, Tag("one")] | Annotated[tuple[PositiveInt, ...], Field(min_length=1), Tag("several")],
    Discriminator(_one_or_several),
]


class EvalSet(Spec):
    """A folder of pictures to judge on."""

    hr: Path = Field(description="folder of ground-truth pictures")
    lr: PathByScale | None = Field(
        None, description="folder of inputs, for several scales one for each; without it they are made by bicubic"
    )


class Evaluate(Spec):
    """When and on what the run is judged."""

    every_steps: PositiveInt = Field(1000, description="steps between evaluations; the last step is always judged")
    sets: Annotated[dict[str, EvalSet], NullLeavesOut] = Field(
        min_length=1,
        description="sets by name, each judged at every scale; a bare path is short for {hr: path}, null leaves one "
        "out",
    )
    metrics: tuple[ExtraMetric, ...] = Field(
        (), description="scores beside PSNR and SSIM, for outputs with invented detail"
    )
    best_by: Literal["psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb", "self_similarity", "lpips", "dists"] = Field(
        "psnr_y",
        description="the score, on the first set, that chooses weights/best, of several scales their mean; of the last "
        "three the lowest",
    )
    samples: NonNegativeInt = Field(4, description="pictures that are written at each evaluation and scale, 0 for none")
    sample_px: PositiveInt = Field(384, description="largest side of a sample; a larger picture gives its center")

    @model_validator(mode="after")
    def _best_is_scored(self) -> "Evaluate":
        if self.best_by in get_args(ExtraMetric) and self.best_by not in self.metrics:
            raise ValueError(f"best_by {self.best_by} needs metrics to name it, too, got {list(self.metrics)}")
        return self

    @field_validator("sets", mode="before")
    @classmethod
    def _bare_paths(cls, sets: Any) -> Any:
        if not isinstance(sets, dict):
            return sets
        return {name: {"hr": entry} if isinstance(entry, str | Path) else entry for name, entry in sets.items()}


class Checkpoints(Spec):
    """What is kept so that the run can go on."""

    every_steps: PositiveInt = Field(1000, description="steps between checkpoints; the last step always has one")
    keep_last: PositiveInt = Field(2, description="how many checkpoints stay")
    weights_format: Literal["safetensors", "pth"] = Field("safetensors", description="format of weights/best and last")


class Log(Spec):
    """What is written down."""

    every_steps: PositiveInt = Field(100, description="steps between lines of metrics.jsonl")
    tensorboard: bool = Field(False, description="also write TensorBoard events")


class Recipe(Spec):
    """One training run. Sizes are in pixels of the ground truth, times in optimizer steps."""

    name: str = Field(pattern=r"^[\w.\-]+$", description="the run's name, and its folder's")
    scale: Scale = Field(description="how many times larger the output is; of several, each step draws one")
    steps: PositiveInt = Field(description="optimizer steps of the whole run")
    steps_per_epoch: PositiveInt = Field(1000, description="what an epoch is: the clock of the self-paced schedule")
    seed: NonNegativeInt = Field(1, description="start of all randomness")
    batch: PositiveInt = Field(16, description="samples in an optimizer step, over all processes and micro-batches")
    accumulate: PositiveInt = Field(1, description="micro-batches that an optimizer step is cut into, to save memory")
    crop_px: Crop = Field(
        192,
        description="side of the ground-truth crop; for several scales one for all, or one for each, such as "
        "[96, 144, 192] for an input of 48 at scale [2, 3, 4]",
    )
    network: Network
    start_from: Path | None = Field(None, description="weights that the network starts from")
    start_transfer: bool = Field(
        False, description="start_from may be of another scale: its upsampling tail is left out, the rest must match"
    )
    data: Data
    method: MethodSpec
    optimizers: Annotated[dict[str, Optimizer], NullLeavesOut] = Field(
        description="one for each network that the method trains; null leaves one out"
    )
    schedule: Schedule
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        0.999, description="share of the average kept at each step; null publishes the weights as they are"
    )
    clip_norm: PositiveFloat | None = Field(None, description="largest gradient norm of a network")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="of the networks; losses are always float32; auto is bfloat16 where it is native"
    )
    memory_format: Literal["auto", "contiguous", "channels_last"] = Field(
        "auto", description="layout of images and weights; auto is channels_last for convolutional networks"
    )
    workers: NonNegativeInt | Literal["auto"] = Field("auto", description="processes that load pictures")
    evaluate: Evaluate | None = Field(None, description="null: never judged")
    checkpoints: Checkpoints = Checkpoints()  # pyright: ignore[reportCallIssue]
    log: Log = Log()  # pyright: ignore[reportCallIssue]

    @property
    def scales(self) -> tuple[int, ...]:
        """The scales of the run, the first one first."""
        return self.scale if isinstance(self.scale, tuple) else (self.scale,)

    @property
    def crops_px(self) -> dict[int, int]:
        """The side of the ground-truth crop at each scale."""
        crops = self.crop_px if isinstance(self.crop_px, tuple) else (self.crop_px,) * len(self.scales)
        return dict(zip(self.scales, crops, strict=True))

    @property
    def evaluation_sets(self) -> dict[str, tuple[EvalSet, int]]:
        """What the run is judged on, by its name in eval.jsonl: each set at each scale."""
        sets = self.evaluate.sets if self.evaluate else {}
        if len(self.scales) == 1:
            return {name: (entry, self.scales[0]) for name, entry in sets.items()}
        return {f"{name}_x{scale}": (entry, scale) for name, entry in sets.items() for scale in self.scales}

    @model_validator(mode="after")
    def _fits_together(self) -> "Recipe":
        self._fits_scales()
        if self.batch % self.accumulate:
            raise ValueError(f"accumulate must divide batch {self.batch}, got {self.accumulate}")
        if self.start_transfer and self.start_from is None:
            raise ValueError("start_transfer does nothing without start_from; give both or neither")
        self._fits_network()
        trained, given = set(self.method.trained_nets), set(self.optimizers)
        if trained != given:
            raise ValueError(
                f"optimizers must name exactly the networks that the method trains, {sorted(trained)}, "
                f"got {sorted(given)}"
            )
        for name, term in self.method.terms.items():
            self._fits_term(f"method.terms.{name}", term)
        if self.network.has_branch and not any(term.needs_branch for term in self.method.terms.values()):
            raise ValueError(
                f"method.terms must hold a loss of the second output that network {self.network.kind} has, got none: "
                "the layers of that output would stay as initialized"
            )
        if self.data.masks is not None:
            self._fits_masks()
        if isinstance(self.method, GanSpec):
            self._fits_gan(self.method)
        return self

    def _fits_masks(self) -> None:
        takers = {name: term for name, term in self.method.terms.items() if term.takes_masks}
        if not takers:
            raise ValueError(
                "data.masks must be null where no term of method.terms is a self_similarity, got "
                f"{self.data.masks}: nothing would look at the masks; take it out or add the term"
            )
        for name, term in takers.items():
            for option in ("threshold", "two_sided"):
                value, usual = getattr(term, option), type(term).model_fields[option].default
                if value != usual:
                    raise ValueError(
                        f"method.terms.{name}.{option} does nothing with data.masks, whose edges are found already, "
                        f"got {value}; take one of the two out"
                    )

    def _fits_term(self, where: str, term: Term) -> None:
        smallest = min(self.crops_px.values())
        if smallest < term.minimum_px:
            raise ValueError(
                f"crop_px must be at least {term.minimum_px} for {where} ({term.kind} with these options), got "
                f"{smallest}; take larger crops, or change or leave out the term"
            )
        updates = self.method.generator_updates(self.steps)
        if isinstance(term.weight, MatchLargest) and term.weight.calibrate_steps > updates:
            raise ValueError(
                f"{where}.weight.calibrate_steps must be at most {updates}, the updates of the generator in steps "
                f"{self.steps}, got {term.weight.calibrate_steps}: the weight would never be settled; lower it or raise "
                "steps"
            )
        pace = getattr(term, "pace", None)
        if pace is not None and pace.ssim == "pixel" and self.data.channels == 1:
            raise ValueError(
                f"{where}.pace.ssim must be channel where data.channels is 1, got pixel: "
                "the mean over one channel changes nothing"
            )
        if term.needs_ema and self.ema_decay is None:
            raise ValueError(
                f"ema_decay must be a number for {where}, which looks at the averaged generator, got null; "
                "0.999 is usual"
            )
        if term.needs_branch and not self.network.has_branch:
            raise ValueError(
                f"network must be one with a second output for {where}, which is a loss of it, got "
                f"{self.network.kind}; take the term out or choose another network"
            )
        if term.needs_branch and isinstance(term.weight, MatchLargest):
            raise ValueError(
                f"{where}.weight must be a number, got match: the term does not act on the output, where weights "
                "are matched"
            )

    def _fits_gan(self, method: GanSpec) -> None:
        for name, discriminator in method.discriminators.items():
            if discriminator.network.one_size and len(set(self.crops_px.values())) > 1:
                raise ValueError(
                    f"crop_px must be one number for method.discriminators.{name} ({discriminator.network.kind}), which is built for "
                    f"one size of crop, got {list(self.crops_px.values())}; take one for all scales or another discriminator"
                )
            for crop_px in self.crops_px.values():
                if crop_problem := discriminator.crop_problem(crop_px):
                    raise ValueError(
                        f"crop_px does not fit method.discriminators.{name} ({discriminator.network.kind}): {crop_problem}, "
                        f"got {crop_px} px; change the crop or the discriminator"
                    )
        if not method.generator_updates(self.steps):
            raise ValueError(
                f"method.warmup_steps and method.generator_every_steps leave the generator no update in steps "
                f"{self.steps}, got {method.warmup_steps} and {method.generator_every_steps}"
            )
        if self.precision == "float16" and any(
            discriminator.penalized for discriminator in method.discriminators.values()
        ):
            raise ValueError(
                "precision must be bfloat16 or float32 with r1_weight or gradient_penalty_weight, got float16, in "
                "which the gradients that these measure vanish"
            )

    def _fits_scales(self) -> None:
        if len(set(self.scales)) < len(self.scales):
            raise ValueError(f"scale must not name a factor twice, got {list(self.scales)}")
        if isinstance(self.crop_px, tuple) and len(self.crop_px) != len(self.scales):
            raise ValueError(
                f"crop_px must be one number or one for each scale {list(self.scales)}, got {list(self.crop_px)}"
            )
        for scale, crop_px in self.crops_px.items():
            if crop_px % scale:
                raise ValueError(f"crop_px must be a multiple of the scale {scale}, got {crop_px}")
        lr = {"data.lr": getattr(self.data, "lr", None)}
        for name, entry in (self.evaluate.sets if self.evaluate else {}).items():
            lr[f"evaluate.sets.{name}.lr"] = entry.lr
        for key, folders in lr.items():
            if folders is not None and len(self.scales) > 1 and not isinstance(folders, dict):
                raise ValueError(
                    f"{key} must name a folder for each scale, such as {{{self.scales[0]}: {folders}, "
                    f"{self.scales[1]}: ...}}, got {folders} alone"
                )
            if isinstance(folders, dict) and set(folders) != set(self.scales):
                raise ValueError(f"{key} must be for the scales {sorted(self.scales)}, got {sorted(folders)}")

    def _fits_network(self) -> None:
        network, micro_batch = self.network, self.batch // self.accumulate
        self._fits_scales_of_network()
        if self.data.channels not in network.colors:
            known = " or ".join(map(str, network.colors))
            raise ValueError(
                f"data.channels must be {known} for network {network.kind}, got {self.data.channels}"
                + ("; the network works on luma" if network.colors == (1,) else "")
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

    def _fits_scales_of_network(self) -> None:
        network = self.network
        for scale in self.scales:
            if scale not in network.scales:
                known = ", ".join(map(str, network.scales))
                why = f", because {network.why_scales}" if network.why_scales else ""
                raise ValueError(f"scale must be one of {known} for network {network.kind}, got {scale}{why}")
        if len(self.scales) > 1 and not network.serves_several:
            several = [spec.model_fields["kind"].default for spec in get_args(AnyNetwork) if spec.serves_several]
            raise ValueError(
                f"scale must be one number for network {network.kind}, got {list(self.scales)}; "
                f"several are for {', '.join(several)}"
            )
        if network.idle_parts and set(network.scales) != set(self.scales):
            # The published multi-scale code trained its first scale alone, and nothing told.
            raise ValueError(
                f"network.factors must be the scales of the run, {list(self.scales)}, got {list(network.scales)}: "
                "the parts of others would stay as initialized"
            )

"""The `evaluate` part of a recipe: when, on which images and with which metrics a run is evaluated."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Discriminator, Field, NonNegativeInt, PositiveInt, Tag, field_validator, model_validator

from selfsr.degrade.presets import PRESETS, Degradation
from selfsr.errors import suggest
from selfsr.evaluation.metrics import METRICS, list_extra_metrics, list_seed_metrics, list_standard_metrics
from selfsr.spec import DropNulls, EntryName, PathByScale, Spec, expand_home

# The names are those of the registry of metrics.
if TYPE_CHECKING:
    MetricChoice = str
    ExtraMetricChoice = str
else:
    MetricChoice = Literal[tuple(METRICS)]
    ExtraMetricChoice = Literal[list_extra_metrics()]


def _kind_of_degradation(value: object) -> str:
    return "training" if value == "training" else "own"


SetDegradation = Annotated[
    Annotated[Literal["training"], Tag("training")] | Annotated[Degradation, Tag("own")],
    Discriminator(_kind_of_degradation),
]


def _kind_of_best_by(value: object) -> str:
    return "several" if isinstance(value, dict) else "one"


_Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]
BestBy = Annotated[
    Annotated[MetricChoice, Tag("one")]
    | Annotated[dict[MetricChoice, _Weight], Field(min_length=1), DropNulls, Tag("several")],
    Discriminator(_kind_of_best_by),
]


class EvalSet(Spec):
    """Images for evaluation."""

    hr: Path = Field(description="folder of ground-truth images")
    lr: PathByScale | None = Field(
        None,
        description="folder of input images, or with several scales one folder for each; null makes them from hr",
    )
    degrade: SetDegradation | None = Field(
        None,
        description="how input images are made from hr: training (by data.degrade of this recipe), the name of a "
        "preset, or its kind, preset and changes; null is bicubic. Use training if data.degrade is set",
    )
    seed: NonNegativeInt = Field(
        1, description="seed of degrade; the inputs depend on it and on the names of the images only"
    )

    @field_validator("hr", "lr")
    @classmethod
    def _expand_homes(cls, paths: Path | dict[int, Path] | None) -> Path | dict[int, Path] | None:
        if isinstance(paths, dict):
            return {scale: expand_home(path) for scale, path in paths.items()}
        return None if paths is None else expand_home(paths)

    @field_validator("degrade", mode="before")
    @classmethod
    def _check_degradation_name(cls, value: Any) -> Any:
        if isinstance(value, str) and value != "training" and value not in PRESETS:
            raise ValueError(
                f"expected training or one of {', '.join(PRESETS)}, got {value!r}{suggest(value, PRESETS)}"
            )
        return value

    @model_validator(mode="after")
    def _check_inputs(self) -> "EvalSet":
        if self.lr is not None and self.degrade is not None:
            raise ValueError("lr and degrade exclude each other, got both; remove one of them")
        if self.degrade is None and self.seed != type(self).model_fields["seed"].default:
            raise ValueError(f"seed does nothing without degrade, got {self.seed}; remove it, or add degrade")
        return self


class Evaluate(Spec):
    """When, on which images and with which metrics the run is evaluated."""

    every_steps: PositiveInt = Field(
        1000, description="steps between evaluations; the last step is always evaluated. Raise it for slow metrics"
    )
    sets: Annotated[dict[EntryName, EvalSet], DropNulls] = Field(
        min_length=1,
        description="evaluation sets by name, each evaluated at every scale; a path is short for {hr: path}. null "
        "removes one",
    )
    metrics: tuple[ExtraMetricChoice, ...] = Field(
        (), description="metrics in addition to PSNR and SSIM; add perceptual ones for GANs"
    )
    best_by: BestBy = Field(
        "psnr_y",
        description="metric on the first set that selects weights/best, averaged over scales; or several with their "
        "weights, such as {lpips: 1, dists: 1}, whose relative improvements since step 0 are averaged; "
        f"lower is better for {', '.join(name for name, metric in METRICS.items() if metric.better == 'lower')}",
    )
    seeds: tuple[NonNegativeInt, ...] = Field(
        (0,),
        min_length=1,
        description="seeds with which a network that samples is evaluated: scores are means over them, with their "
        "spread. Each seed costs one more output of each image; use at least three to compare networks",
    )
    samples: NonNegativeInt = Field(
        4,
        description="number of sample images that each evaluation writes, for each scale; 0 writes none. A network "
        "that samples adds samples of several seeds, their standard deviation and the stages of one",
    )
    sample_px: PositiveInt = Field(
        384, description="largest side of a sample, in pixels; larger images are cropped to their center"
    )

    @field_validator("metrics", mode="before")
    @classmethod
    def _check_standard_metrics(cls, metrics: Any) -> Any:
        standard = [name for name in list_standard_metrics() if isinstance(metrics, list | tuple) and name in metrics]
        if standard:
            raise ValueError(
                f"expected metrics that are computed on request only, got {standard[0]}, which every evaluation "
                "computes; remove it"
            )
        return metrics

    @model_validator(mode="after")
    def _check_best_by(self) -> "Evaluate":
        missing = [
            metric for metric in self.best_weights if metric in list_extra_metrics() and metric not in self.metrics
        ]
        if missing:
            names = " and ".join(missing)
            raise ValueError(
                f"metrics must contain {names} for best_by, got {list(self.metrics)}; add "
                f"{'it' if len(missing) == 1 else 'them'}"
            )
        for metric in self.best_weights:
            if metric in list_seed_metrics() and len(self.seeds) < 2:
                raise ValueError(
                    f"seeds must be at least two for best_by {metric}, which is computed over them, got "
                    f"{list(self.seeds)}; add one"
                )
        return self

    def count_evaluations(self, steps: int, after_step: int = 0) -> int:
        """Return the number of evaluations after a step of a run, without the one before the first step.

        Args:
            steps: number of steps of the run.
            after_step: a step of it.

        Example:
            >>> evaluate = Evaluate(sets={"Set5": "Set5"}, every_steps=100)
            >>> evaluate.count_evaluations(250), evaluate.count_evaluations(250, after_step=200)
            (3, 1)
        """
        return 0 if after_step >= steps else -(-steps // self.every_steps) - after_step // self.every_steps

    @property
    def best_weights(self) -> dict[str, float]:
        """The metrics of `best_by` with their weights."""
        return self.best_by if isinstance(self.best_by, dict) else {self.best_by: 1.0}

    @field_validator("seeds")
    @classmethod
    def _check_seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"must name each seed once, got {list(seeds)}; remove the second one")
        return seeds

    @field_validator("sets", mode="before")
    @classmethod
    def _expand_paths(cls, sets: Any) -> Any:
        if not isinstance(sets, dict):
            return sets
        return {name: {"hr": entry} if isinstance(entry, str | Path) else entry for name, entry in sets.items()}

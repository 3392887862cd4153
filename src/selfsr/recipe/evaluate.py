"""The `evaluate` part of a recipe: when, on which images and with which metrics a run is evaluated."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from selfsr.evaluation.metrics import METRICS, list_extra_metrics, list_seed_metrics
from selfsr.spec import DropNulls, EntryName, PathByScale, Spec, expand_home

# The names are those of the registry of metrics.
if TYPE_CHECKING:
    MetricChoice = str
    ExtraMetricChoice = str
else:
    MetricChoice = Literal[tuple(METRICS)]
    ExtraMetricChoice = Literal[list_extra_metrics()]


class EvalSet(Spec):
    """Images for evaluation."""

    hr: Path = Field(description="folder of ground-truth images")
    lr: PathByScale | None = Field(
        None,
        description="folder of input images, or with several scales one folder for each; null computes them by bicubic",
    )

    @field_validator("hr", "lr")
    @classmethod
    def _expand_homes(cls, paths: Path | dict[int, Path] | None) -> Path | dict[int, Path] | None:
        if isinstance(paths, dict):
            return {scale: expand_home(path) for scale, path in paths.items()}
        return None if paths is None else expand_home(paths)


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
    best_by: MetricChoice = Field(
        "psnr_y",
        description="metric on the first set that selects weights/best, averaged over scales; "
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

    @model_validator(mode="after")
    def _check_best_by(self) -> "Evaluate":
        if self.best_by in list_extra_metrics() and self.best_by not in self.metrics:
            raise ValueError(
                f"metrics must contain {self.best_by} for best_by {self.best_by}, got {list(self.metrics)}; add it"
            )
        if self.best_by in list_seed_metrics() and len(self.seeds) < 2:
            raise ValueError(
                f"seeds must be at least two for best_by {self.best_by}, which is computed over them, got "
                f"{list(self.seeds)}; add one"
            )
        return self

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

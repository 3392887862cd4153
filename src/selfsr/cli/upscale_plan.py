"""The files of `selfsr upscale`: which are read and written, checked before the work."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from selfsr.cli.messages import describe_left_out
from selfsr.cli.options import refuse_unused
from selfsr.cli.upscale_models import ChosenModels, WantedSize, find_models
from selfsr.upscaling.options import OutputFormat

if TYPE_CHECKING:
    from selfsr.upscaling.plan import UpscaleJob, UpscalePlan


@dataclass(frozen=True)
class FileChoice:
    """The options of the files that are read and written, as on the command line."""

    inputs: list[Path]
    output: Path | None
    format: OutputFormat | None
    suffix: str | None
    quality: int | None
    samples: int
    overwrite: bool
    skip_existing: bool

    def check(self, context: typer.Context, tile: str) -> None:
        """Refuse options that exclude each other or do nothing.

        Args:
            context: the command's call.
            tile: the option --tile.

        Raises:
            InputError: there are some.
        """
        from selfsr.errors import InputError
        from selfsr.upscaling.plan import is_output_file

        if self.overwrite and self.skip_existing:
            raise InputError("upscale: expected --overwrite or --skip-existing, got both; give one of them.")
        if tile == "off":
            refuse_unused(context, "overlap", reason="with --tile off")
        if self.suffix is not None and (not self.suffix or set(self.suffix) & set("/\\\0")):
            raise InputError(
                f"upscale: expected a --suffix of letters that a file name may have, got {self.suffix!r}; pass one "
                "such as _hr."
            )
        if self.output is not None and is_output_file(self.output):
            refuse_unused(context, "suffix", reason="with a file as --output")


@dataclass(frozen=True)
class PlannedFiles:
    """All files of a call.

    Attributes:
        models: the models.
        plan: the files to read and to write.
        output: the folder or file of the results.
        left_out: a sentence for each input folder with files that are not upscaled.
    """

    models: ChosenModels
    plan: "UpscalePlan"
    output: Path
    left_out: list[str]


def plan_files(context: typer.Context, choice: FileChoice, models: list[str] | None, size: WantedSize) -> PlannedFiles:
    """Find the models and plan all files, before an image is read.

    Args:
        context: the command's call.
        choice: the options of the files.
        models: names of models or weights files; None is a shipped model.
        size: of the outputs.

    Raises:
        InputError: a file or a model is missing, a target exists, or an option does nothing.
    """
    from selfsr.images.formats import UPSCALED_FORMATS
    from selfsr.upscaling.plan import name_output, plan_jobs

    existing = "overwrite" if choice.overwrite else "skip" if choice.skip_existing else "refuse"
    chosen = ChosenModels(find_models(models, size, choice.output), size)
    output, name_suffix = choice.output, choice.suffix or ""
    if output is None:
        factor = size.factor or chosen.loaded[0].scale
        output = name_output(choice.inputs, factor, choice.format, name_suffix)
    plan = plan_jobs(
        choice.inputs, output, choice.format, existing, choice.samples, name_suffix=name_suffix, models=chosen.names
    )
    _check_quality(choice.quality, plan.jobs)
    float_suffixes = {".tif", ".tiff", ".exr"}
    if plan.jobs and not any(job.source.suffix.lower() in float_suffixes for job in plan.jobs):
        refuse_unused(context, "transfer", "white", reason="without TIFF or OpenEXR files")
    return PlannedFiles(chosen, plan, output, describe_left_out(choice.inputs, UPSCALED_FORMATS))


def _check_quality(quality: int | None, jobs: Sequence["UpscaleJob"]) -> None:
    """Refuse a quality if no file is written in a format that has one."""
    from selfsr.errors import InputError

    lossy = {".jpg", ".jpeg", ".webp"}
    if (
        quality is not None
        and jobs
        and all(job.kind != "video" and job.target.suffix.lower() not in lossy for job in jobs)
    ):
        raise InputError(
            f"upscale: expected --quality with JPEG, WebP or a video, got it with {jobs[0].target.name}; add --format "
            "jpg, or leave --quality out."
        )

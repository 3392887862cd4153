"""`selfsr upscale`."""

import typer

from selfsr.cli.options import DeviceOption, LogOption, SelfEnsembleOption
from selfsr.cli.sampling import ColorFixOption, SamplesOption, SeedOption, StepsOption
from selfsr.cli.upscale_options import (
    FormatOption,
    InputsArgument,
    MaxSideOption,
    ModelOption,
    OutputOption,
    OutscaleOption,
    OverlapOption,
    OverwriteOption,
    PrecisionOption,
    QualityOption,
    SkipExistingOption,
    SuffixOption,
    TransferOption,
    UpscaleScaleOption,
    UpscaleTileOption,
    WhiteOption,
)

EPILOG = """[bold]Examples[/bold]

selfsr upscale photo.jpg

selfsr upscale photo.jpg -m photo_x4 -o large.png

selfsr upscale scans -m 4xModel.pth -o scans_x4 --format keep --self-ensemble

selfsr upscale a.png b.png more/ -m best.safetensors -o out --skip-existing

selfsr upscale photos --outscale 2.5 --max-side 4096 --format jpg --quality 90

selfsr upscale film.mp4 -o film_x2.mp4 --quality 80

selfsr upscale photos -m first.safetensors -m second.safetensors -o compared"""


def upscale(
    context: typer.Context,
    inputs: InputsArgument,
    model: ModelOption = None,
    output: OutputOption = None,
    scale: UpscaleScaleOption = None,
    outscale: OutscaleOption = None,
    max_side: MaxSideOption = None,
    suffix: SuffixOption = None,
    tile: UpscaleTileOption = "auto",
    overlap: OverlapOption = None,
    self_ensemble: SelfEnsembleOption = False,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    seed: SeedOption = "0",
    steps: StepsOption = None,
    samples: SamplesOption = 1,
    color_fix: ColorFixOption = None,
    format: FormatOption = None,
    quality: QualityOption = None,
    transfer: TransferOption = "auto",
    white: WhiteOption = 1.0,
    overwrite: OverwriteOption = False,
    skip_existing: SkipExistingOption = False,
    log: LogOption = "auto",
) -> None:
    """Upscale images, animations and videos with a model, or with several.

    Alpha, gray, 16-bit depth, ICC profile, EXIF and XMP data, dpi and orientation are kept if the format stores them,
    and so are times and loops of animations and the sound of videos. Videos need ffmpeg. After an interruption, the
    same command continues a large image at its next tile.
    """
    from selfsr.cli.upscale_models import WantedSize, make_upscalers
    from selfsr.cli.upscale_plan import FileChoice, plan_files
    from selfsr.cli.upscale_run import run_models
    from selfsr.console import set_log_style

    set_log_style(log)
    size = WantedSize(scale, outscale, max_side)
    choice = FileChoice(inputs, output, format, suffix, quality, samples, overwrite, skip_existing)
    choice.check(context, tile)
    files = plan_files(context, choice, model, size)
    upscalers = make_upscalers(
        context,
        files.models,
        size,
        {"tile": tile, "overlap_px": overlap, "ensemble": self_ensemble, "device": device, "precision": precision},
        {"seed": seed, "steps": steps, "color_fix": color_fix},
        {"transfer": transfer, "white": white},
    )
    run_models(upscalers, files, quality, is_json=log == "json")

"""The options of `selfsr evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from selfsr.evaluation.metrics import METRICS, list_extra_metrics

_BETTER = "; ".join(
    f"{better} is better: {', '.join(name for name in list_extra_metrics() if METRICS[name].better == better)}"
    for better in ("higher", "lower")
    if any(METRICS[name].better == better for name in list_extra_metrics())
)

ModelsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[MODEL]...",
        help="Weights file: .safetensors, .pth, .pt or .ckpt, of any network that spandrel supports; or a name from "
        "`selfsr models list`. Several models of one scale share a table; selfsr compare also makes a page of them.",
    ),
]
DataOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[NAME=]DIR",
        help="Folder of HR images, or folder of such folders; NAME renames it in tables. Repeatable.",
    ),
]
EvaluateScaleOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Upscaling factor; default: the scale of the model. Required without a model, and for networks "
        "with several scales.",
    ),
]
BicubicOption = Annotated[
    bool, typer.Option("--bicubic", help="Also evaluate bicubic upscaling, as a baseline; needs no model.")
]
LrOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder of LR images with the names of the HR images; for several sets, with a subfolder for each. "
        "Default: made by bicubic. Use it for inputs with another degradation."
    ),
]
EvaluateDegradeOption = Annotated[
    str | None,
    typer.Option(
        "--degrade",
        metavar="PRESET|RECIPE",
        help="Make LR by a preset of selfsr degrade, or by the degradation of a recipe. Use it instead "
        "of bicubic LR, for models that were trained on inputs with blur and noise.",
    ),
]
DegradeSeedOption = Annotated[
    int, typer.Option("--seed", min=0, help="Seed of --degrade; the same seed gives the same LR.")
]
BorderOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Pixels at each side that the scores leave out; default: the scale. "
        "Change it only to compare with papers that use another border.",
    ),
]
OutOption = Annotated[Path | None, typer.Option(help="JSON file to write, with scores and protocol.")]
SaveImagesOption = Annotated[
    Path | None,
    typer.Option(help="Folder to write: each output (of the first seed), and a comparison of bicubic, output and HR."),
]
MetricOption = Annotated[
    list[str] | None,
    typer.Option(
        help=f"Metric in addition to PSNR and SSIM, for outputs with generated detail ({_BETTER}). Repeatable."
    ),
]
PerImageOption = Annotated[
    bool, typer.Option("--per-image", help="Print the scores of each image, not only the means.")
]
EvaluateTileOption = Annotated[
    str,
    typer.Option(
        help="Largest tile in pixels of LR, auto (measured from free memory) or off. "
        "Change it when memory runs out; tiles change the scores slightly."
    ),
]

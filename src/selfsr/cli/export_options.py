"""The options of `selfsr export`."""

from pathlib import Path
from typing import Annotated

import typer

from selfsr.evaluation.metrics import list_extra_metrics

ExportedModelArgument = Annotated[
    str,
    typer.Argument(
        help="Weights file, model folder, run folder (its best weights), or name from `selfsr models list`; also "
        "adapters that HYPIR or OSEDiff saved."
    ),
]
OutputOption = Annotated[Path, typer.Option("--output", "-o", help="Folder to write into.")]
NameOption = Annotated[
    str | None,
    typer.Option(
        help="Name of the model in the form of OpenModelDB, such as 4x-waves: the scale, then words. Needed, except "
        "for models on a pretrained base."
    ),
]
BaseOption = Annotated[
    Path | None,
    typer.Option(
        help="For models on a pretrained base: the folder of the base. Default: the folder of the training. Needed for "
        "files of HYPIR and OSEDiff."
    ),
]
KohyaOption = Annotated[
    bool,
    typer.Option(
        "--kohya",
        help="For models on a pretrained base: also write the adapters in kohya's format, for ComfyUI and A1111.",
    ),
]
MergeOption = Annotated[
    bool,
    typer.Option(
        "--merge",
        help="For models on a pretrained base: also write merged/, a complete model folder of diffusers in float32 "
        "with the adapters added to its weights.",
    ),
]
PthOption = Annotated[bool, typer.Option("--pth", help="Also write a .pth file, for older programs.")]
OnnxOption = Annotated[bool, typer.Option("--onnx", help='Also write ONNX; needs pip install "selfsr\\[export]".')]
OnnxHalfOption = Annotated[bool, typer.Option("--onnx-half", help="Also write ONNX in float16.")]
OpsetOption = Annotated[int, typer.Option(help="Version of ONNX's operators, 13 to 20. Most programs read 17.")]
FixedSizeOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="PX",
        help="Side in pixels of the only input size of the ONNX files; default: any size. Use it for programs that "
        "need a fixed size.",
    ),
]
CardOption = Annotated[
    Path | None, typer.Option(help="YAML file with author, license, tags, description and more (docs/export.md).")
]
AuthorOption = Annotated[list[str] | None, typer.Option(help="Author. Repeatable.")]
LicenseOption = Annotated[str | None, typer.Option(help="License of the files as in SPDX, such as CC-BY-4.0.")]
TagOption = Annotated[list[str] | None, typer.Option(help="Tag of OpenModelDB, such as photo. Repeatable.")]
DescriptionOption = Annotated[str | None, typer.Option(help="Purpose of the model, in Markdown.")]
UrlOption = Annotated[str | None, typer.Option(help="Address from which the files can be downloaded.")]
ImagesOption = Annotated[
    Path | None, typer.Option(help="Folder of photos for the README: each is reduced by the scale and upscaled again.")
]
ExportDataOption = Annotated[
    list[str] | None,
    typer.Option(metavar="[NAME=]DIR", help="Folder of HR images to evaluate on for the card. Repeatable."),
]
ExportMetricOption = Annotated[
    list[str] | None, typer.Option(help=f"Additional metric: {', '.join(list_extra_metrics())}. Repeatable.")
]
ExportScaleOption = Annotated[int | None, typer.Option(help="Scale of a network that has several.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")]
PrecisionOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="float32|float16|bfloat16",
        help="Precision of a safetensors file. Repeatable; default: float32 and float16.",
    ),
]

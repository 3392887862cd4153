"""The options of `selfsr upscale`."""

from pathlib import Path
from typing import Annotated

import typer

from selfsr.upscaling.options import OutputFormat, RequestedPrecision, Transfer

InputsArgument = Annotated[
    list[Path], typer.Argument(metavar="IN...", help="Images, animations, videos, and folders with their subfolders.")
]
ModelOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "-m",
        help="Name from `selfsr models list`, a model folder, or a weights file: .safetensors, .pth, .pt or .ckpt, of "
        "any network that spandrel supports. Default: the shipped model with the highest PSNR for --scale or "
        "--outscale, or for x2. Repeat it for several models: each has a folder in the output, or its name at the end "
        "of the file's name.",
    ),
]
OutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="File to write, for one input and with the suffix of a format; else a folder. Default, for one input: a "
        "file next to it, with the scale in its name, such as photo_x2.png.",
    ),
]
UpscaleScaleOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Upscaling factor; default: the scale of the model. Selects a scale of a network with several. With a "
        "factor that the model does not have, bicubic interpolation resizes its output.",
    ),
]
OutscaleOption = Annotated[
    float | None,
    typer.Option(
        help="Output size divided by input size, from 1/64 to 64, such as 2.5. Bicubic interpolation resizes the "
        "model's output; --scale then only selects a scale of the network.",
    ),
]
MaxSideOption = Annotated[
    int | None,
    typer.Option(min=1, help="Limit of the longer side of each output, in pixels; larger outputs are reduced to it."),
]
SuffixOption = Annotated[
    str | None,
    typer.Option(
        help="End of the names of the written files, such as _hr for photo_hr.png. Default: none in a folder, and "
        "the scale for one input without -o."
    ),
]
QualityOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=100,
        help="Quality of JPEG, WebP and videos, 1 to 100. Default: 95 for JPEG, WebP without loss, 75 for videos.",
    ),
]
UpscaleTileOption = Annotated[
    str,
    typer.Option(
        help="Largest tile in pixels of the input, auto (measured from free memory) or off. "
        "Change it when memory runs out."
    ),
]
OverlapOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Pixels of the input that neighboring tiles share, at most half a tile; default: 64. "
        "Raise it if seams are visible.",
    ),
]
PrecisionOption = Annotated[
    RequestedPrecision,
    typer.Option(help="Precision of the network; auto: half precision if it is supported and invisible at 8 bits."),
]
FormatOption = Annotated[
    OutputFormat | None,
    typer.Option(
        help="Format of the images in a folder; default: png. keep uses the format of the input, or png if that format "
        "is only read. Without it, OpenEXR files stay OpenEXR, and animations and videos keep their formats."
    ),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")]
SkipExistingOption = Annotated[
    bool, typer.Option("--skip-existing", "--skip", help="Keep files that exist, to resume an interrupted job.")
]
TransferOption = Annotated[
    Transfer,
    typer.Option(
        help="Transfer function of floating point samples: linear light or sRGB. auto: OpenEXR, and TIFF with a linear "
        "ICC profile, are linear; other TIFF is sRGB. Change it if the output is too dark or too bright."
    ),
]
WhiteOption = Annotated[
    float,
    typer.Option(
        help="Floating point sample that is white. Change it for images with another range, such as 255 for 0 to 255."
    ),
]

"""The values of upscaling options, in a module that imports quickly."""

from typing import Literal

OutputFormat = Literal["png", "jpg", "webp", "tiff", "exr", "keep"]
RequestedPrecision = Literal["auto", "float32", "bfloat16", "float16"]
Transfer = Literal["auto", "linear", "srgb"]

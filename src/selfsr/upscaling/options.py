"""The values of upscaling options, in a module that imports quickly."""

from typing import Literal

OutputFormat = Literal["png", "jpg", "webp", "tiff", "keep"]
RequestedPrecision = Literal["auto", "float32", "bfloat16", "float16"]

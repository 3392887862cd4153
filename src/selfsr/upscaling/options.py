"""The choices of upscaling that commands offer; light to import."""

from typing import Literal

OutputFormat = Literal["png", "jpg", "webp", "tiff", "keep"]
RequestedPrecision = Literal["auto", "float32", "bfloat16", "float16"]

"""JPEG by libjpeg, not a differentiable approximation."""

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np


@dataclass(frozen=True)
class Jpeg:
    """JPEG compression and decompression by libjpeg, with chroma at half the resolution (4:2:0).

    Attributes:
        quality: 1 to 100, libjpeg's scale.
    """

    name: ClassVar[str] = "jpeg"
    quality: int

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:  # noqa: ARG002 - a step's signature
        """Return the image after JPEG; clipped and rounded to 8 bits before."""
        return compress_jpeg(to_uint8(image), self.quality).astype(np.float32) / 255


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Convert an image in [0, 1] to uint8, clipped and rounded to nearest."""
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def compress_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Compress and decompress uint8 RGB `[H, W, 3]`.

    Args:
        image: the image.
        quality: 1 to 100, libjpeg's scale.
    """
    options = [
        *(cv2.IMWRITE_JPEG_QUALITY, quality),
        *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420),
    ]
    encoded, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    assert encoded, image.shape
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)

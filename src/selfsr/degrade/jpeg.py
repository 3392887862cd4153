"""JPEG: what the codec of every program does, not a differentiable stand-in for it."""

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np


@dataclass(frozen=True)
class Jpeg:
    """Compression and decompression by libjpeg, chroma at half the resolution (4:2:0).

    Attributes:
        quality: 1 to 100, libjpeg's scale.
    """

    name: ClassVar[str] = "jpeg"
    quality: int

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:  # noqa: ARG002 - a step's signature
        """Return the image as it comes out of the file; clipped and rounded to 8 bit before."""
        return compressed(levels(image), self.quality).astype(np.float32) / 255


def levels(image: np.ndarray) -> np.ndarray:
    """Return `image`, [0, 1], as uint8, clipped and rounded."""
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def compressed(image: np.ndarray, quality: int) -> np.ndarray:
    """Return uint8 RGB `[H, W, 3]` after JPEG of that quality."""
    options = [
        *(cv2.IMWRITE_JPEG_QUALITY, quality),
        *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420),
    ]
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    assert done, image.shape
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)

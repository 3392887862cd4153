"""Samples in color of 16 bits, which Pillow reads as 8 bits, or of floating point: decoding by OpenCV."""

from typing import Any

import numpy as np


def decode_by_opencv(data: bytes) -> np.ndarray | None:
    """Decode a PNG or TIFF file of 16 bits, or a TIFF of floats, to `[H, W, 1, 3 or 4]`, RGB(A); None if it is damaged.

    A TIFF is returned upright, a PNG as stored. A gray PNG with alpha is returned as RGBA with R = G = B.
    """
    import cv2

    log: Any = getattr(cv2.utils, "logging", cv2)  # OpenCV 5 moved it
    level = log.getLogLevel()
    log.setLogLevel(0)
    try:
        samples = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    finally:
        log.setLogLevel(level)
    if samples is None or samples.dtype not in (np.uint16, np.float32):
        return None
    if samples.ndim == 2:
        return samples[:, :, None]
    order = {3: [2, 1, 0], 4: [2, 1, 0, 3]}.get(samples.shape[2])
    return None if order is None else np.ascontiguousarray(samples[:, :, order])

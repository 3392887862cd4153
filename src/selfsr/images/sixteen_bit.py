"""16 bits per sample in color, which Pillow reads as 8 bits: decoding by OpenCV."""

from typing import Any

import numpy as np


def decode_by_opencv(data: bytes) -> np.ndarray | None:
    """Decode a 16-bit PNG or TIFF file to uint16 `[H, W, 1, 3 or 4]`, RGB(A), or None if it is damaged.

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
    if samples is None or samples.dtype != np.uint16:
        return None
    if samples.ndim == 2:
        return samples[:, :, None]
    order = {3: [2, 1, 0], 4: [2, 1, 0, 3]}.get(samples.shape[2])
    return None if order is None else np.ascontiguousarray(samples[:, :, order])

"""Keep the outputs for the page on disk, so that only one model and one image are in memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from selfsr.comparison.inputs import ComparedSet
from selfsr.images.files import tensor_to_pixels

HR, LR = "HR", "LR"


@dataclass(frozen=True)
class KeptOutputs:
    """The images of the page, with the pixels of each version, uint8 `[H, W, 3]`.

    Attributes:
        folder: a temporary folder.
        shown: the images of the page, as (set, image), in their order.
        total: number of images that were compared.
    """

    folder: Path
    shown: list[tuple[str, str]]
    total: int

    def keep(self, set_name: str, image: str, version: str, pixels: Tensor) -> None:
        """Keep a version, float `[1, 3, H, W]` in [0, 1], of an image that the page shows; others are not kept."""
        if (set_name, image) in self.shown:
            path = self._locate((set_name, image), version)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                np.save(file, tensor_to_pixels(pixels[0]))

    def load(self, key: tuple[str, str], version: str) -> np.ndarray | None:
        """Return a version of an image; None if it was not kept, as after a failure."""
        path = self._locate(key, version)
        return np.load(path) if path.exists() else None

    def _locate(self, key: tuple[str, str], version: str) -> Path:
        # A name may have characters that no file name has.
        return self.folder / str(self.shown.index(key)) / f"{version.encode().hex()[:180]}.npy"


def choose_shown(sets: Mapping[str, ComparedSet], limit: int) -> tuple[list[tuple[str, str]], int]:
    """Choose the images of the page, evenly spaced in their order, and count all.

    Args:
        sets: the sets by name.
        limit: the most images.

    Example:
        >>> ten = ComparedSet("s", Path("s"), list("abcdefghij"), None, [])
        >>> choose_shown({"s": ten}, 3)
        ([('s', 'a'), ('s', 'd'), ('s', 'g')], 10)
    """
    keys = [(name, image) for name, one in sets.items() for image in one.names]
    count = min(limit, len(keys))
    return [keys[index * len(keys) // count] for index in range(count)], len(keys)

"""Inputs of the benchmark: crops of a photo, blurred copies, a mask, and the sizes of the graph."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsr import edge_mask
from selfsr.errors import InputError


@dataclass(frozen=True)
class Workload:
    """Crops of one photo and the sizes of the graph.

    Attributes:
        size_px: side of the square crops.
        batch: number of crops, from different parts of the photo.
        mask: "edges" of the crops, or "random" pixels.
        stride: stride of the edge mask, as in `selfsr.edge_mask`.
        density: share of masked pixels; only for random ones.
        search_px: side of the search area.
        window_px: side of the windows.
        image: path of the photo; None is the astronaut of scikit-image.
    """

    size_px: int = 128
    batch: int = 1
    mask: Literal["edges", "random"] = "edges"
    stride: int = 1
    density: float = 0.0
    search_px: int = 25
    window_px: int = 9
    image: str | None = None

    def __str__(self) -> str:
        mask = f"edges/{self.stride}" if self.mask == "edges" else f"{self.density:g} random"
        sizes = "" if (self.search_px, self.window_px) == (25, 9) else f", search {self.search_px}/{self.window_px}"
        return f"{self.batch} x {self.size_px}^2, {mask}{sizes}"

    def tensors(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Return sr and hr, float32 `[batch, 3, size_px, size_px]` in [0, 1], and the mask.

        Raises:
            InputError: the photo is missing or smaller than a crop.
        """
        photo = _load_photo(self.image)
        height, width = photo.shape[2:]
        if self.size_px > min(height, width):
            raise InputError(
                f"bench: the photo must be at least {self.size_px} px high and wide, got {height} x {width}; "
                "pass a larger --image or a smaller --size."
            )
        # The first crop is the center of the photo; the others spread over it by irrational steps.
        crops = []
        for i in range(self.batch):
            y = round((height - self.size_px) * ((0.5 + 0.618034 * i) % 1))
            x = round((width - self.size_px) * ((0.5 + 0.754878 * i) % 1))
            crops.append(photo[:, :, y : y + self.size_px, x : x + self.size_px])
        hr = torch.cat(crops)
        small = F.interpolate(hr, scale_factor=0.5, mode="bicubic", antialias=True)
        sr = F.interpolate(small, size=hr.shape[2:], mode="bicubic").clamp(0, 1)
        if self.mask == "edges":
            mask = edge_mask(hr, stride=self.stride)
        else:
            generator = torch.Generator().manual_seed(0)
            mask = torch.rand(self.batch, 1, self.size_px, self.size_px, generator=generator) < self.density
        return sr.to(device), hr.to(device), mask.to(device)

    @property
    def sizes(self) -> dict[str, Any]:
        """The options of the graph that every implementation takes."""
        return {"search_px": self.search_px, "window_px": self.window_px, "sigma": 0.004}


def _load_photo(path: str | None) -> Tensor:
    if path is not None:
        from selfsr.images.files import image_to_tensor, read_image

        return image_to_tensor(read_image(Path(path)))
    try:
        from skimage import data
    except ImportError:
        raise InputError(
            "bench: the default photo needs the package scikit-image, which is not installed; "
            'run pip install "selfsr[demo]", or pass a photo with --image.'
        ) from None
    return torch.from_numpy(data.astronaut()).permute(2, 0, 1)[None].float() / 255


def make_sweeps() -> dict[str, list[Workload]]:
    """Return workloads along each axis of cost: pixels, mask density, batch, search size."""
    return {
        "pixels": [Workload(size_px=size, stride=3) for size in (32, 64, 96, 128, 192, 256, 384)],
        "mask density": [
            Workload(mask="random", density=density) for density in (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
        ],
        "batch": [Workload(batch=batch, stride=3) for batch in (1, 2, 4, 8)],
        "search size": [Workload(search_px=search, stride=3) for search in (9, 13, 17, 25, 33, 41)],
    }

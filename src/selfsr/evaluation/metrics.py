"""The metrics by name: title, unit, digits, and which of two values is better."""

from typing import Literal, NamedTuple


class Facts(NamedTuple):
    """How a score is told.

    Attributes:
        title: its name for people.
        unit: empty where it has none.
        decimals: how many it is told with.
        better: which of two values is the better one.
    """

    title: str
    unit: str
    decimals: int
    better: Literal["higher", "lower"] = "higher"


METRICS = {
    "psnr_y": Facts("PSNR-Y", "dB", 2),
    "ssim_y": Facts("SSIM-Y", "", 4),
    "psnr_rgb": Facts("PSNR-RGB", "dB", 2),
    "ssim_rgb": Facts("SSIM-RGB", "", 4),
    "self_similarity": Facts("Self-similarity distance", "", 4, "lower"),
    "lpips": Facts("LPIPS", "", 4, "lower"),
    "dists": Facts("DISTS", "", 4, "lower"),
}

"""The metrics by name: title, unit, digits, and which of two values is better."""

from typing import Literal, NamedTuple


class MetricInfo(NamedTuple):
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
    "psnr_y": MetricInfo("PSNR-Y", "dB", 2),
    "ssim_y": MetricInfo("SSIM-Y", "", 4),
    "psnr_rgb": MetricInfo("PSNR-RGB", "dB", 2),
    "ssim_rgb": MetricInfo("SSIM-RGB", "", 4),
    "self_similarity": MetricInfo("Self-similarity distance", "", 4, "lower"),
    "lpips": MetricInfo("LPIPS", "", 4, "lower"),
    "dists": MetricInfo("DISTS", "", 4, "lower"),
}

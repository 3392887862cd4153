"""Metrics of the package pyiqa, which is imported only if a recipe or command names one, and never required."""

import contextlib
import sys
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from selfsr.console import print_line
from selfsr.errors import InputError, describe_exception
from selfsr.evaluation.kinds import ImageMetric

_LICENSE = (
    "pyiqa has the PolyForm Noncommercial License 1.0.0, and in parts the NTU S-Lab License 1.0: it is not for "
    "commercial use. Its networks have licenses of their own."
)


def load_pyiqa(name: str, device: torch.device, *, needs_hr: bool, lower_is_better: bool) -> ImageMetric:
    """Load a metric of pyiqa with its network, and print the license of the package once.

    Args:
        name: name of the metric in pyiqa, such as `musiq`.
        device: the device of the network.
        needs_hr: whether it compares with the ground truth.
        lower_is_better: as in the registry; pyiqa must agree.

    Raises:
        InputError: pyiqa is not installed, does not have the metric, cannot load its network, or contradicts the
            registry.
    """
    metric = _create(name, device)
    if bool(metric.lower_better) != lower_is_better or (metric.metric_mode == "FR") != needs_hr:
        raise InputError(
            f"metrics: expected pyiqa's {name} to be better when {'lower' if lower_is_better else 'higher'}, "
            f"{'with' if needs_hr else 'without'} HR, got lower_better={metric.lower_better} and mode "
            f"{metric.metric_mode}; install pyiqa 0.1.16."
        )

    def score(sr: Tensor, hr: Tensor) -> float:
        images = (sr.float(), hr.float()) if needs_hr else (sr.float(),)
        try:
            with contextlib.redirect_stdout(sys.stderr), torch.no_grad():
                return float(metric(*images))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # of any kind: each metric has code of its own
            raise InputError(
                f"metrics: expected a score of pyiqa:{name} for an image of {sr.shape[-2]} x {sr.shape[-1]} pixels, "
                f"got an error of pyiqa ({describe_exception(error)}); leave the image or the metric out."
            ) from error

    return score


def _create(name: str, device: torch.device) -> Any:
    try:
        with contextlib.redirect_stdout(sys.stderr):  # tables are on stdout
            import pyiqa  # pyright: ignore[reportMissingImports]
    except Exception as error:  # a package that it needs may be broken in any way
        raise InputError(
            f"metrics: pyiqa:{name} needs the package pyiqa, which cannot be imported ({describe_exception(error)}); "
            "install it with pip install pyiqa if its non-commercial license fits your use, or leave the metric out."
        ) from error
    _print_license()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return pyiqa.create_metric(name, device=device)
    except Exception as error:  # of any kind: it downloads and unpickles by several packages
        raise InputError(
            f"metrics: pyiqa:{name} could not be loaded by pyiqa ({describe_exception(error)}); let it download its "
            "weights once with a network connection, or leave the metric out."
        ) from error


@lru_cache(maxsize=1)
def _print_license() -> None:
    print_line(_LICENSE)

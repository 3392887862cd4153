"""Images, sizes and the truth that the tests of the self-similarity operator compare with."""

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from interpreter import is_interpreted
from selfsr import self_similarity_loss
from selfsr.selfsim import reference


@dataclass(frozen=True)
class Case:
    """One pair of images with a mask, and the sizes of the graph."""

    n: int
    c: int
    height: int
    width: int
    search_px: int
    window_px: int
    sigma: float
    normalize: bool = True
    mask: str = "diagonals"

    @property
    def options(self) -> dict[str, Any]:
        names = ("search_px", "window_px", "sigma", "normalize")
        return {name: getattr(self, name) for name in names}

    def __str__(self) -> str:
        kind = "" if self.normalize else "-raw"
        return f"{self.n}x{self.c}x{self.height}x{self.width}-{self.search_px}-{self.window_px}{kind}-{self.mask}"


# Sizes for tests of behavior; interpreted kernels take as long as they have rows and classes of displacements.
OPTIONS: dict[str, Any] = {"search_px": 7, "window_px": 3, "sigma": 0.05}
if is_interpreted():
    OPTIONS |= {"search_px": 3, "window_px": 1}
# Small enough for Triton's interpreter.
TINY = [
    Case(1, 3, 9, 12, 7, 3, 0.05),
    Case(1, 3, 9, 12, 7, 3, 0.05, normalize=False),
    Case(2, 1, 10, 7, 5, 5, 0.02, mask="random"),
    Case(1, 4, 6, 11, 5, 1, 0.05, mask="corners"),
    Case(3, 2, 8, 9, 9, 5, 0.01, mask="second empty"),
    Case(1, 3, 8, 8, 7, 5, 0.02, mask="one pixel"),
]
CASES = [
    *TINY,
    Case(2, 3, 24, 20, 25, 9, 0.004, mask="corners"),
    Case(1, 3, 13, 20, 25, 9, 0.05, normalize=False, mask="corners"),
    Case(1, 3, 15, 40, 13, 11, 0.02, mask="corners"),
    Case(1, 1, 16, 9, 17, 17, 0.02, mask="corners"),
    Case(2, 4, 9, 8, 11, 7, 0.01, normalize=False, mask="random"),
    Case(1, 3, 5, 4, 1, 1, 0.004, mask="all"),
    Case(1, 3, 7, 5, 3, 1, 0.05, mask="all"),
]


def golden_images(n: int, c: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return sr, hr and mask of the golden values, in float64."""
    b, c_, i, j = (
        torch.arange(size, dtype=torch.float64).view([size if axis == at else 1 for at in range(4)])
        for axis, size in enumerate((n, c, height, width))
    )
    hr = 0.5 + 0.3 * torch.sin(0.7 * i + 1.3 * c_ + 0.9 * b) * torch.cos(0.45 * j - 0.6 * c_)
    hr = hr + 0.15 * torch.sin(0.11 * i * j + 0.4 * b)
    sr = hr + 0.06 * torch.sin(1.9 * i - 0.8 * j + c_ + 0.5 * b)
    mask = (3 * i + 5 * j + 7 * b) % 11 == 0
    return sr, hr, mask


def images(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """Return sr, hr and mask of a case, in float64."""
    sr, hr, mask = golden_images(case.n, case.c, case.height, case.width)
    rows, columns = case.height, case.width
    if case.mask == "random":
        generator = torch.Generator().manual_seed(rows * columns)
        mask = torch.rand(mask.shape, generator=generator) < 0.4
    elif case.mask == "all":
        mask = torch.ones_like(mask)
    elif case.mask == "corners":
        mask = torch.zeros_like(mask)
        mask[..., :: rows - 1, :: columns - 1] = True
    elif case.mask == "one pixel":
        mask = torch.zeros_like(mask)
        mask[..., rows // 3, columns - 2] = True
    elif case.mask == "second empty":
        mask[1] = False
    return sr, hr, mask


@dataclass(frozen=True)
class Result:
    """Both parts of the loss, the gradient of their sum towards sr, and the graph of sr."""

    l1: Tensor
    kl: Tensor
    gradient: Tensor


@functools.cache
def naive(case: Case, dtype: torch.dtype) -> Result:
    """Compute a case by the definition; in float64 this is the truth."""
    sr, hr, mask = images(case)
    sr, hr = sr.to(dtype).requires_grad_(), hr.to(dtype)
    l1, kl = reference.loss_parts(sr, hr, mask, **case.options)
    (gradient,) = torch.autograd.grad(l1 + kl, sr)
    return Result(l1.detach(), kl.detach(), gradient)


@functools.cache
def truth(case: Case) -> Result:
    """Compute a case by the definition in float64."""
    return naive(case, torch.float64)


@functools.cache
def weighted_graph(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """Return the graph of sr, random weights, and the gradient of the weighted sum, in float64."""
    sr, _, mask = images(case)
    graph = reference.graph(sr.requires_grad_(), mask, **case.options)
    weights = torch.randn(graph.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad((graph * weights).sum(), sr)
    return graph.detach(), weights, gradient


def compute(
    case: Case, backend: str, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu", **more: Any
) -> Result:
    """Compute a case with a backend."""
    sr, hr, mask = (tensor.to(device) for tensor in images(case))
    sr, hr = sr.to(dtype).requires_grad_(), hr.to(dtype)
    options = {**case.options, "backend": backend, **more}
    loss = self_similarity_loss(sr, hr, mask, **options)
    (gradient,) = torch.autograd.grad(loss, sr)
    with torch.no_grad():
        l1 = self_similarity_loss(sr, hr, mask, kl_weight=0.0, **options)
        kl = self_similarity_loss(sr, hr, mask, l1_weight=0.0, **options)
    torch.testing.assert_close(l1 + kl, loss.detach(), rtol=1e-6, atol=0)
    return Result(l1.cpu(), kl.cpu(), gradient.cpu())

"""The pixel loss at edges: the control of losses that act at edges only."""

from typing import Literal

from torch import Tensor

from selfsr.errors import InputError
from selfsr.losses._images import prepare_images


def edge_l1_loss(sr: Tensor, hr: Tensor, mask: Tensor, *, reduction: Literal["mean", "sum"] = "mean") -> Tensor:
    """Return the L1 distance at masked pixels.

        L = sum over masked pixels of (mean over channels |x - y|) / number of masked pixels

    A loss at edges, such as the self-similarity loss, gives edges more weight. This one does only that, so comparing
    the two at equal gradients shows what else the other does.

    Args:
        sr: output, float `[N, C, H, W]`.
        hr: ground truth of the same shape.
        mask: bool `[N, 1, H, W]`, such as that of `selfsr.edge_mask`.
        reduction: "sum" leaves out the division.

    Returns:
        A scalar; 0 if no pixel is masked.

    Raises:
        InputError: shapes, types or devices do not match, or the reduction is unknown.

    >>> import torch
    >>> hr = torch.zeros(1, 3, 2, 2)
    >>> edge_l1_loss(hr + 0.5, hr, torch.tensor([[[[True, False], [True, True]]]]), reduction="sum").item()
    1.5
    """
    caller = "edge_l1_loss"
    sr, hr = prepare_images(caller, sr=sr, hr=hr)
    if list(mask.shape) != [len(hr), 1, *hr.shape[2:]]:
        raise InputError(
            f"{caller}: mask must have the shape {[len(hr), 1, *hr.shape[2:]]}, got {list(mask.shape)}; make it with "
            "selfsr.edge_mask(hr)."
        )
    if reduction not in ("mean", "sum"):
        raise InputError(f"{caller}: reduction must be 'mean' or 'sum', got {reduction!r}; choose one of them.")
    total = ((sr - hr).abs().mean(dim=1, keepdim=True) * mask).sum()
    return total if reduction == "sum" else total / mask.sum().clamp(min=1)

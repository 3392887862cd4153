"""RankSRGAN's rank loss as a term."""

from pathlib import Path
from typing import Literal

import torch
from pydantic import Field

from selfsr.errors import InputError
from selfsr.losses.ranking import rank_loss
from selfsr.nets.ranker import MINIMUM_PX, Ranker
from selfsr.nets.weights import load_into
from selfsr.nets.weights.read import read_weights
from selfsr.terms.base import NetworkTerm, TermSpec
from selfsr.terms.loss_weights import Weight


class RankTerm(TermSpec):
    """Score of the output by a trained ranker, lower is better (RankSRGAN, Zhang et al., ICCV 2019)."""

    kind: Literal["rank"] = "rank"
    weight: Weight = Field(
        0.03 * 32,
        description="factor of the mean, or how to calibrate it in training; the default is the published 0.03 of a "
        "sum over 32 images",
    )
    weights: Path = Field(description="weights file of the ranker, in the layout of mmsr_Ranker_PI.pth")

    @property
    def minimum_px(self) -> int:
        """Smallest side that leaves a pixel after the ranker's strides."""
        return MINIMUM_PX

    def build(self, device: torch.device) -> NetworkTerm:
        """Return the loss with its ranker on `device`.

        Raises:
            InputError: the file does not exist or contains no ranker.
        """
        ranker = load_ranker(self.weights, device)
        return NetworkTerm(lambda outputs, batch: rank_loss(outputs.sr, ranker))


def load_ranker(path: Path, device: torch.device) -> Ranker:
    """Load a published ranker from `mmsr_Ranker_PI.pth` or another weights file with its keys.

    Returns:
        The ranker on `device`, in evaluation mode, with frozen weights; gradients reach its input.

    Raises:
        InputError: the file does not exist or contains no ranker.
        OSError: the file cannot be read.
    """
    first = read_weights(path).tensors.get("conv0_0.weight")
    if first is None or first.ndim != 4:
        raise InputError(
            f"ranker {path}: expected the weights of RankSRGAN's Ranker_VGG12_296, got none named conv0_0.weight; "
            "give a file such as mmsr_Ranker_PI.pth."
        )
    ranker = Ranker(first.shape[1], features=first.shape[0])
    load_into(ranker, path)
    return ranker.requires_grad_(False).to(device)

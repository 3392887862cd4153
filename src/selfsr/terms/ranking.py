"""RankSRGAN's rank loss as a term."""

from pathlib import Path
from typing import Literal

import torch
from pydantic import Field

from selfsr.errors import InputError
from selfsr.losses.ranking import rank_loss
from selfsr.nets.ranker import MINIMUM_PX, Ranker
from selfsr.nets.weights import load_into
from selfsr.nets.weights.read import read_checkpoint
from selfsr.terms.base import NetworkTerm, TermSpec
from selfsr.terms.loss_weights import Weight


class RankTerm(TermSpec):
    """What rank a trained ranker gives the output (RankSRGAN, ICCV 2019), lower being better."""

    kind: Literal["rank"] = "rank"
    weight: Weight = Field(
        0.03 * 32, description="what the mean is multiplied by: 0.03 times the images that published code adds up"
    )
    weights: Path = Field(description="file of the ranker, in the layout of mmsr_Ranker_PI.pth")

    @property
    def minimum_px(self) -> int:
        """What the ranker halves to one pixel."""
        return MINIMUM_PX

    def build(self, device: torch.device) -> NetworkTerm:
        """Return the loss with its ranker on `device`.

        Raises:
            InputError: there is no such file, or it holds no ranker.
        """
        ranker = load_ranker(self.weights, device)
        return NetworkTerm(lambda outputs, batch: rank_loss(outputs.sr, ranker))


def load_ranker(path: Path, device: torch.device) -> Ranker:
    """Load a published ranker (`mmsr_Ranker_PI.pth`, a bare state dict, or any container of weights).

    Returns:
        On `device`, in evaluation mode and frozen: the gradient reaches the image and no weight.

    Raises:
        InputError: no such file, or not the weights of a ranker.
        OSError: the file cannot be read.
    """
    first = read_checkpoint(path).tensors.get("conv0_0.weight")
    if first is None or first.ndim != 4:
        raise InputError(
            f"ranker {path}: expected the weights of RankSRGAN's Ranker_VGG12_296, got none named conv0_0.weight; "
            "give a file such as mmsr_Ranker_PI.pth."
        )
    ranker = Ranker(first.shape[1], features=first.shape[0])
    load_into(ranker, path)
    return ranker.requires_grad_(False).to(device)

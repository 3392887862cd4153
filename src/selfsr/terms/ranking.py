"""RankSRGAN's rank loss as a term."""

from pathlib import Path
from typing import Literal

import torch
from pydantic import Field

from selfsr.losses.ranking import rank_loss
from selfsr.nets.ranker import MINIMUM_PX, load_ranker
from selfsr.terms.base import NetworkTerm, TermSpec
from selfsr.terms.weights import Weight


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
        return NetworkTerm(lambda made, batch: rank_loss(made.sr, ranker))  # noqa: ARG005 - the images alone are ranked

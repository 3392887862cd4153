"""The base of terms that compare features of a trained network."""

from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import Field, field_validator
from torch import Tensor

from selfsr.losses._feature_loss import FeatureLoss
from selfsr.nets.weights.read import read_weights
from selfsr.spec import expand_home
from selfsr.terms.base import NetworkTerm, TermSpec


class FeatureTermSpec(TermSpec):
    """A term with a feature network. A subclass adds `kind`, its options, `minimum_px` and `make_loss`."""

    weights: Path | None = Field(
        None,
        description="weights file of the network with torchvision's names; null uses torchvision's file in torch.hub's "
        "folder and downloads it once",
    )

    @field_validator("weights")
    @classmethod
    def _expand_home(cls, path: Path | None) -> Path | None:
        return None if path is None else expand_home(path)

    def make_loss(self, weights: Mapping[str, Tensor] | None) -> FeatureLoss:
        """Return the loss; `weights` are the tensors of the weights file, or None for torchvision's."""
        raise NotImplementedError

    def build(self, device: torch.device) -> NetworkTerm:
        """Return the loss with its network on `device`.

        Raises:
            InputError: the weights are not available, or are those of another network.
        """
        loss = self.make_loss(None if self.weights is None else read_weights(self.weights).tensors).to(device)
        loss.check_range.skip()  # the objective looks at the images
        return NetworkTerm(lambda outputs, batch: loss(outputs.sr, batch.hr))

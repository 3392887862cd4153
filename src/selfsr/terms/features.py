"""The base of terms that compare features of a trained network."""

from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, field_validator

from selfsr.losses._feature_loss import FeatureLoss
from selfsr.losses.feature_weights import WeightsSource
from selfsr.spec import expand_home
from selfsr.terms.base import NetworkTerm, TermSpec

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


class FeatureTermSpec(TermSpec):
    """A term with a feature network. A subclass adds `kind`, its options, `minimum_px` and `make_loss`."""

    weights: Path | None = Field(
        None,
        description="weights file of the network with torchvision's names; null uses torchvision's file in torch.hub's "
        "folder and downloads it once",
    )

    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="precision of the feature network; distances of features are float32 in any case. bfloat16 is "
        "faster on GPUs, and its gradient is coarser",
    )
    memory_format: Literal["contiguous", "channels_last"] = Field(
        "contiguous",
        description="memory layout of the feature network; try channels_last on GPUs, above all with bfloat16",
    )

    @field_validator("weights")
    @classmethod
    def _expand_home(cls, path: Path | None) -> Path | None:
        return None if path is None else expand_home(path)

    def make_loss(self, weights: WeightsSource) -> FeatureLoss:
        """Return the loss; `weights` is a file, or None for torchvision's."""
        raise NotImplementedError

    def build(self, device: torch.device) -> NetworkTerm:
        """Return the loss with its network on `device`.

        Raises:
            InputError: the weights are not available, or are those of another network.
        """
        loss = self.make_loss(self.weights).to(device)
        layers = loss.network.features
        layers.to(dtype=_DTYPES[self.precision])
        layers.to(memory_format=_LAYOUTS[self.memory_format])  # pyright: ignore[reportCallIssue]
        loss.check_range.skip()  # the objective looks at the images
        return NetworkTerm(lambda outputs, batch: loss(outputs.sr, batch.hr))

"""The perceptual loss as a term."""

from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, PositiveFloat, field_validator, model_validator

from selfsr.losses.perceptual import LAYER_WEIGHTS, PerceptualLoss
from selfsr.losses.pixel import Criterion
from selfsr.losses.vgg import check_layers, minimum_px
from selfsr.nets.weights.read import read_weights
from selfsr.terms.base import NetworkTerm, TermSpec


class PerceptualTerm(TermSpec):
    """Distance of VGG19 features (Johnson et al., ECCV 2016), and optionally of their Gram matrices."""

    kind: Literal["perceptual"] = "perceptual"
    layers: dict[str, PositiveFloat] = Field(
        dict(LAYER_WEIGHTS),
        min_length=1,
        description="weight of each layer, by names from conv1_1 to conv5_4; deep layers compare content, shallow ones "
        "texture",
    )
    criterion: Criterion = Field("l1", description="elementwise loss between features")
    feature_weight: float = Field(1.0, ge=0, description="weight of the feature distance")
    style_weight: float = Field(
        0.0, ge=0, description="weight of the distance of Gram matrices, a style loss; 0 leaves it out"
    )
    before_relu: bool = Field(
        True, description="compare features before the ReLU, as in ESRGAN; false compares those after it"
    )
    weights: Path | None = Field(
        None, description="weights file of torchvision's VGG19; null downloads it once into torch.hub's folder"
    )

    @field_validator("layers")
    @classmethod
    def _check_layers(cls, layers: dict[str, float]) -> dict[str, float]:
        check_layers("VGG19", layers)
        return layers

    @model_validator(mode="after")
    def _check_weights(self) -> "PerceptualTerm":
        if self.feature_weight == 0 and self.style_weight == 0:
            raise ValueError("feature_weight and style_weight must not both be 0: the term would do nothing")
        return self

    @property
    def minimum_px(self) -> int:
        """Smallest side that leaves a pixel at the deepest layer."""
        return minimum_px(self.layers)

    def build(self, device: torch.device) -> NetworkTerm:
        """Return the loss with its network on `device`.

        Raises:
            InputError: the weights are not available, or are not VGG19's.
        """
        loss = PerceptualLoss(
            self.layers,
            criterion=self.criterion,
            feature_weight=self.feature_weight,
            style_weight=self.style_weight,
            before_relu=self.before_relu,
            weights=None if self.weights is None else read_weights(self.weights).tensors,
        ).to(device)
        loss.check_range.skip()  # the objective looks at the images
        return NetworkTerm(lambda outputs, batch: loss(outputs.sr, batch.hr))

"""The perceptual loss as a term."""

from typing import Literal

from pydantic import Field, PositiveFloat, ValidationInfo, field_validator, model_validator

from selfsr.losses.feature_weights import WeightsSource
from selfsr.losses.features import ARCHITECTURES, check_layers, minimum_px
from selfsr.losses.perceptual import PerceptualLoss, PerceptualNetwork
from selfsr.losses.pixel import Criterion
from selfsr.terms.features import FeatureTermSpec


class PerceptualTerm(FeatureTermSpec):
    """Distance of a classifier's features (Johnson et al., ECCV 2016), and optionally of their Gram matrices."""

    kind: Literal["perceptual"] = "perceptual"
    network: PerceptualNetwork = Field(
        "vgg19", description="network of the features; all published recipes have vgg19, and alexnet is the fastest"
    )
    layers: dict[str, PositiveFloat] | None = Field(
        None,
        min_length=1,
        description="weight of each layer: conv1_1 to conv5_4 of vgg19, to conv5_3 of vgg16, conv1 to conv5 of "
        "alexnet; deep layers compare content, shallow ones texture. null is the deepest layer with weight 1",
    )
    criterion: Criterion = Field("l1", description="elementwise loss between features")
    feature_weight: float = Field(1.0, ge=0, description="weight of the feature distance")
    style_weight: float = Field(
        0.0, ge=0, description="weight of the distance of Gram matrices, a style loss; 0 leaves it out"
    )
    before_relu: bool = Field(
        True, description="compare features before the ReLU, as in ESRGAN; false compares those after it"
    )

    @field_validator("layers")
    @classmethod
    def _check_layers(cls, layers: dict[str, float] | None, info: ValidationInfo) -> dict[str, float] | None:
        if network := info.data.get("network"):  # else its own error is enough
            check_layers(ARCHITECTURES[network].weights.title, network, layers or ())
        return layers

    @model_validator(mode="after")
    def _check_weights(self) -> "PerceptualTerm":
        if self.feature_weight == 0 and self.style_weight == 0:
            raise ValueError("feature_weight and style_weight must not both be 0: the term would do nothing")
        return self

    @property
    def minimum_px(self) -> int:
        """Smallest side that leaves a pixel at the deepest layer."""
        return minimum_px(self.network, self.layers or ARCHITECTURES[self.network].layer_weights)

    def make_loss(self, weights: WeightsSource) -> PerceptualLoss:
        """Return the loss with `weights`, or with torchvision's."""
        return PerceptualLoss(
            self.layers,
            network=self.network,
            criterion=self.criterion,
            feature_weight=self.feature_weight,
            style_weight=self.style_weight,
            before_relu=self.before_relu,
            weights=weights,
        )

"""The perceptual loss: it compares features of a classifier and, as an option, their Gram matrices (style).

Sources: Johnson, Alahi, Fei-Fei, "Perceptual Losses for Real-Time Style Transfer and Super-Resolution", ECCV 2016,
eq. 2 and 4; features before the activation: ESRGAN (Wang et al., ECCV Workshops 2018, section 3.3).
"""

from collections.abc import Mapping
from typing import Literal, get_args

from torch import Tensor

from selfsr.errors import InputError, check_choice
from selfsr.losses._feature_loss import FeatureLoss
from selfsr.losses.feature_weights import WeightsSource
from selfsr.losses.features import ARCHITECTURES, FeatureNetwork, check_layers
from selfsr.losses.pixel import Criterion, PixelLoss, pixel_loss

PerceptualNetwork = Literal["vgg19", "vgg16", "alexnet"]


class PerceptualLoss(FeatureLoss):
    r"""Compare features of output and ground truth in a trained VGG19, VGG16 or AlexNet.

    With F_k the features `[N, C, h, w]` of layer k, and G_k = F_k F_k^T / (C h w) their Gram matrix of C x C,

        L = sum_k w_k ( feature_weight * mean l(F_k(sr), F_k(hr)) + style_weight * mean l(G_k(sr), G_k(hr)) ).

    Computed in the dtype of the network (float32 unless you convert it), even under autocast. The network is frozen and
    as deep as the deepest layer needs. The ground truth gets no gradient. The first call warns with
    `selfsr.RangeWarning` if the images are not in [0, 1].

    Args:
        layers: w_k by name: `conv1_1` to `conv5_4` of VGG19, to `conv5_3` of VGG16, `conv1` to `conv5` of AlexNet. None
            takes the deepest one with weight 1, as ESRGAN does.
        network: "vgg19" (all published recipes), "vgg16" or "alexnet".
        criterion: l, "l1" (all published recipes), "l2" or "charbonnier".
        feature_weight: weight of the difference between features.
        style_weight: weight of the difference between Gram matrices.
        before_relu: use the features before the ReLU; False is the older form, after it.
        weights: weights of the network: tensors by torchvision's names, or the path of a .pth or .safetensors file with
            these; None takes torchvision's file in torch.hub's folder, which is downloaded at the first use.

    Raises:
        InputError: a layer or an option is unknown, or the weights are not available or of another network.

    >>> import torch
    >>> random_weights = {
    ...     name: torch.randn(size)
    ...     for name, size in {
    ...         "features.0.weight": (64, 3, 3, 3),
    ...         "features.0.bias": (64,),
    ...         "features.2.weight": (64, 64, 3, 3),
    ...         "features.2.bias": (64,),
    ...     }.items()
    ... }
    >>> loss = PerceptualLoss({"conv1_2": 1.0}, weights=random_weights)
    >>> hr = torch.rand(2, 3, 16, 16)
    >>> loss(hr, hr).item(), loss(hr.flip(3), hr).item() > 0
    (0.0, True)
    """

    def __init__(
        self,
        layers: Mapping[str, float] | None = None,
        *,
        network: PerceptualNetwork = "vgg19",
        criterion: Criterion = "l1",
        feature_weight: float = 1.0,
        style_weight: float = 0.0,
        before_relu: bool = True,
        weights: WeightsSource = None,
    ) -> None:
        caller = type(self).__name__
        check_choice(caller, "network", network, get_args(PerceptualNetwork))
        architecture = ARCHITECTURES[network]
        layers = architecture.layer_weights if layers is None else layers
        if not layers:
            raise InputError(f"{caller}: layers must name at least one of {', '.join(architecture.layers)}, got none.")
        check_layers(caller, network, layers)
        if min(feature_weight, style_weight) < 0 or feature_weight + style_weight <= 0:
            raise InputError(
                f"{caller}: feature_weight and style_weight must be 0 or more and not both 0, "
                f"got {feature_weight} and {style_weight}."
            )
        compare = pixel_loss(caller, criterion)
        super().__init__(FeatureNetwork(network, tuple(layers), weights))
        self.layers: dict[str, float] = dict(layers)
        self.criterion: Criterion = criterion
        self.compare: PixelLoss = compare
        self.feature_weight: float = feature_weight
        self.style_weight: float = style_weight
        self.before_relu: bool = before_relu

    def extract(self, image: Tensor) -> dict[str, Tensor]:
        """Return the features `[N, C, h, w]` of an image `[N, 3, H, W]` in [0, 1] by layer."""
        return self.network(image, before_relu=self.before_relu)

    def compare_features(self, sr: dict[str, Tensor], hr: dict[str, Tensor]) -> Tensor:
        """Return the weighted sum of the differences of features and Gram matrices, a scalar."""
        total = next(iter(sr.values())).new_zeros(())
        for name, weight in self.layers.items():
            x, y = sr[name], hr[name]
            if self.feature_weight:
                total = total + weight * self.feature_weight * self.compare(x, y, reduction="mean")
            if self.style_weight:
                difference = self.compare(_gram_matrix(x), _gram_matrix(y), reduction="mean")
                total = total + weight * self.style_weight * difference
        return total

    def extra_repr(self) -> str:
        """Return the options for the module's `repr`."""
        layers = ", ".join(f"{name}: {weight:g}" for name, weight in self.layers.items())
        return (
            f"{layers}, criterion={self.criterion}, feature_weight={self.feature_weight:g}, "
            f"style_weight={self.style_weight:g}, before_relu={self.before_relu}"
        )


def _gram_matrix(features: Tensor) -> Tensor:
    flat = features.flatten(2)
    return flat @ flat.mT / (flat.shape[1] * flat.shape[2])

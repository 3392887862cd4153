"""The perceptual loss: it compares VGG19 features and, as an option, their Gram matrices (style).

Sources: Johnson, Alahi, Fei-Fei, "Perceptual Losses for Real-Time Style Transfer and Super-Resolution", ECCV 2016,
eq. 2 and 4; features before the activation: ESRGAN (Wang et al., ECCV Workshops 2018, section 3.3).
"""

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from selfsr.errors import InputError, RangeCheck, check_images
from selfsr.losses.pixel import Criterion, PixelLoss, pixel_loss
from selfsr.losses.vgg import LAYERS, Vgg19, VggWeights, check_layers

# The layer of ESRGAN. Real-ESRGAN has conv1_2 and conv2_2 at 0.1, conv3_4, conv4_4 and conv5_4 at 1.
LAYER_WEIGHTS: Mapping[str, float] = MappingProxyType({"conv5_4": 1.0})


class PerceptualLoss(nn.Module):
    r"""Compare features of output and ground truth in a trained VGG19.

    With F_k the features `[N, C, h, w]` of layer k, and G_k = F_k F_k^T / (C h w) their Gram matrix of C x C,

        L = sum_k w_k ( feature_weight * mean l(F_k(sr), F_k(hr)) + style_weight * mean l(G_k(sr), G_k(hr)) ).

    Computed in the dtype of the network (float32 unless you convert it), even under autocast. The network is frozen and
    as deep as the deepest layer needs. The ground truth gets no gradient. The first call warns with
    `selfsr.RangeWarning` if the images are not in [0, 1].

    Args:
        layers: w_k by name, from `conv1_1` to `conv5_4`.
        criterion: l, "l1" (all published recipes), "l2" or "charbonnier".
        feature_weight: weight of the difference between features.
        style_weight: weight of the difference between Gram matrices.
        before_relu: use the features before the ReLU; False is the older form, after it.
        weights: weights of VGG19: tensors by torchvision's names, or the path of a .pth or .safetensors file with
            these; None downloads torchvision's file into torch.hub's folder at the first use.

    Raises:
        InputError: a layer or an option is unknown, or the weights are not available.

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
        layers: Mapping[str, float] = LAYER_WEIGHTS,
        *,
        criterion: Criterion = "l1",
        feature_weight: float = 1.0,
        style_weight: float = 0.0,
        before_relu: bool = True,
        weights: VggWeights = None,
    ) -> None:
        super().__init__()
        caller = type(self).__name__
        if not layers:
            raise InputError(f"{caller}: layers must name at least one of {', '.join(LAYERS)}, got none.")
        check_layers(caller, layers)
        if min(feature_weight, style_weight) < 0 or feature_weight + style_weight <= 0:
            raise InputError(
                f"{caller}: feature_weight and style_weight must be 0 or more and not both 0, "
                f"got {feature_weight} and {style_weight}."
            )
        self.layers: dict[str, float] = dict(layers)
        self.criterion: Criterion = criterion
        self.compare: PixelLoss = pixel_loss(caller, criterion)
        self.feature_weight: float = feature_weight
        self.style_weight: float = style_weight
        self.before_relu: bool = before_relu
        self.check_range: RangeCheck = RangeCheck(caller)
        self.vgg: Vgg19 = Vgg19(max(layers, key=LAYERS.__getitem__), weights)

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return the loss, a scalar.

        Args:
            sr: super-resolved images, float `[N, 3, H, W]` in [0, 1] (not clamped); gray `[N, 1, H, W]` is repeated.
            hr: ground truth, like `sr`; gets no gradient.

        Raises:
            InputError: the images differ in shape, are neither RGB nor gray, are too small or on another device.
        """
        self._check(sr, hr)
        self.check_range(sr, hr)
        with torch.autocast(sr.device.type, enabled=False):
            with torch.no_grad():
                hr_features = self._features(hr)
            sr_features = self._features(sr)
            total = sr.new_zeros((), dtype=self.vgg.mean.dtype)
            for name, weight in self.layers.items():
                x, y = sr_features[name], hr_features[name]
                if self.feature_weight:
                    difference = self.compare(x, y, reduction="mean")
                    total = total + weight * self.feature_weight * difference
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

    def _features(self, image: Tensor) -> dict[str, Tensor]:
        image = image.to(self.vgg.mean.dtype).expand(-1, 3, -1, -1)
        return self.vgg(image, self.layers, before_relu=self.before_relu)

    def _check(self, sr: Tensor, hr: Tensor) -> None:
        caller = type(self).__name__
        check_images(caller, sr=sr, hr=hr)
        if sr.shape[1] not in (1, 3):
            raise InputError(f"{caller}: images must have 3 channels, or 1 for gray, got {list(sr.shape)}.")
        if min(sr.shape[2:]) < self.vgg.minimum_px:
            raise InputError(
                f"{caller}: images must be at least {self.vgg.minimum_px} px on each side for "
                f"{self.vgg.names[-1]}, got {list(sr.shape)}; pass a larger crop or leave out the deepest layers."
            )
        if sr.device != self.vgg.mean.device:
            raise InputError(
                f"{caller}: images must be on {self.vgg.mean.device} like the network, got {sr.device}; "
                "move the loss with .to()."
            )


def _gram_matrix(features: Tensor) -> Tensor:
    flat = features.flatten(2)
    return flat @ flat.mT / (flat.shape[1] * flat.shape[2])

"""The base of losses that compare features of a trained network."""

import torch
from torch import Tensor, nn

from selfsr.errors import InputError, RangeCheck, check_images
from selfsr.losses.features import FeatureNetwork


class FeatureLoss(nn.Module):
    """A distance between features of output and ground truth. A subclass computes it from the features.

    Computed in the dtype of the network (float32 unless you convert it), even under autocast. Features are compared at
    least in float32. The network is frozen. The ground truth gets no gradient, and its features are computed without
    one.

    Args:
        network: the network of the features.
        minimum_px: the smallest image side on which the loss is defined; None is that of the network.
    """

    def __init__(self, network: FeatureNetwork, minimum_px: int | None = None) -> None:
        super().__init__()
        self.network: FeatureNetwork = network
        self.minimum_px: int = network.minimum_px if minimum_px is None else minimum_px
        self.check_range: RangeCheck = RangeCheck(type(self).__name__)

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return the loss, a scalar: the mean over the images.

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
                hr_features = self._extract(hr)
            return self.compare_features(self._extract(sr), hr_features)

    def extract(self, image: Tensor) -> dict[str, Tensor]:
        """Return the features `[N, C, h, w]` of an image `[N, 3, H, W]` in [0, 1] by layer."""
        return self.network(image)

    def compare_features(self, sr: dict[str, Tensor], hr: dict[str, Tensor]) -> Tensor:
        """Return the distance of the features, a scalar."""
        raise NotImplementedError

    def _extract(self, image: Tensor) -> dict[str, Tensor]:
        """Return the features, at least in float32: differences of half-precision features lose most of their bits."""
        features = self.extract(self._prepare(image))
        return {
            name: feature.to(torch.promote_types(feature.dtype, torch.float32)) for name, feature in features.items()
        }

    def _prepare(self, image: Tensor) -> Tensor:
        return image.to(self.network.mean.dtype).expand(-1, 3, -1, -1)

    def _check(self, sr: Tensor, hr: Tensor) -> None:
        caller = type(self).__name__
        check_images(caller, sr=sr, hr=hr)
        if sr.shape[1] not in (1, 3):
            raise InputError(f"{caller}: images must have 3 channels, or 1 for gray, got {list(sr.shape)}.")
        if min(sr.shape[2:]) < self.minimum_px:
            raise InputError(
                f"{caller}: images must be at least {self.minimum_px} px on each side for "
                f"{self.network.deepest}, got {list(sr.shape)}; pass a larger crop or leave out the deepest layers."
            )
        if sr.device != self.network.mean.device:
            raise InputError(
                f"{caller}: images must be on {self.network.mean.device} like the network, got {sr.device}; "
                "move the loss with .to()."
            )

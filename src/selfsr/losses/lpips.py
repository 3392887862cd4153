"""LPIPS: a weighted distance of normalized features, with weights learned from people's judgments.

Source: Zhang, Isola, Efros, Shechtman, Wang, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric",
CVPR 2018, eq. 1; version 0.1 of the published code.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

from torch import Tensor

from selfsr.errors import InputError, check_choice
from selfsr.losses._feature_loss import FeatureLoss
from selfsr.losses._torchmetrics import read_torchmetrics_file
from selfsr.losses.feature_weights import WeightsSource
from selfsr.losses.features import FeatureNetwork, minimum_px

LpipsNetwork = Literal["alex", "vgg", "squeeze"]


class _Layout(NamedTuple):
    """The network and its layers in the order of the learned weights."""

    network: str
    layers: tuple[str, ...]


_LAYOUTS: Mapping[str, _Layout] = MappingProxyType(
    {
        "alex": _Layout("alexnet", ("conv1", "conv2", "conv3", "conv4", "conv5")),
        "vgg": _Layout("vgg16", ("conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3")),
        "squeeze": _Layout("squeezenet", ("conv1", "fire3", "fire5", "fire6", "fire7", "fire8", "fire9")),
    }
)

# Added to the squared length of a feature vector, as torchmetrics does. The published code adds 1e-10 to the length,
# whose derivative is infinite where all features are 0.
_EPS = 1e-8


class LpipsLoss(FeatureLoss):
    """Compare normalized features, weighted by people's choices: LPIPS, lower is better.

    With f_k the features of layer k after the ReLU, each pixel's vector divided by its length, and w_k >= 0 learned,

        L = mean over images of  sum_k mean over pixels of  sum_c w_kc (f_kc(sr) - f_kc(hr))^2.

    Computed in the dtype of the network (float32 unless you convert it), even under autocast. All weights are frozen.
    The ground truth gets no gradient. The first call warns with `selfsr.RangeWarning` if the images are not in [0, 1].

    Args:
        network: "vgg" (VGG16, which its authors advise as a loss), "alex" (which they advise as a metric) or "squeeze".
        weights: weights of the network: tensors by torchvision's names, or the path of a .pth or .safetensors file with
            these; None takes torchvision's file in torch.hub's folder, which is downloaded at the first use. The
            learned weights come with torchmetrics.

    Raises:
        InputError: the network is unknown, weights are not available, or torchmetrics is not installed.

    >>> import torch
    >>> from torchvision.models import squeezenet1_1
    >>> loss = LpipsLoss("squeeze", weights=squeezenet1_1().state_dict())  # random weights
    >>> hr = torch.rand(2, 3, 64, 64)
    >>> loss(hr, hr).item(), loss(hr.flip(3), hr).item() > 0
    (0.0, True)
    """

    def __init__(self, network: LpipsNetwork = "vgg", *, weights: WeightsSource = None) -> None:
        caller = type(self).__name__
        check_choice(caller, "network", network, tuple(_LAYOUTS))
        layout = _LAYOUTS[network]
        learned = _read_layer_weights(caller, network)
        super().__init__(FeatureNetwork(layout.network, layout.layers, weights))
        for name, weight in zip(layout.layers, learned, strict=True):
            self.register_buffer(f"weight_{name}", weight)

    def compare_features(self, sr: dict[str, Tensor], hr: dict[str, Tensor]) -> Tensor:
        """Return the weighted squared distance of the normalized features, a scalar."""
        total = next(iter(sr.values())).new_zeros(())
        for name in self.network.layers:
            squared = (_normalize_features(sr[name]) - _normalize_features(hr[name])) ** 2
            total = total + (squared * self.get_buffer(f"weight_{name}")).sum(dim=1).mean()
        return total


def lpips_minimum_px(network: LpipsNetwork) -> int:
    """Return the smallest image side for which the deepest layer has a pixel."""
    layout = _LAYOUTS[network]
    return minimum_px(layout.network, layout.layers)


def _normalize_features(features: Tensor) -> Tensor:
    return features / (features.square().sum(dim=1, keepdim=True) + _EPS).sqrt()


def _read_layer_weights(caller: str, network: str) -> list[Tensor]:
    """Return the learned weights `[1, C, 1, 1]` of each layer."""
    tensors = read_torchmetrics_file(caller, f"functional/image/lpips_models/{network}.pth")
    names = [f"lin{number}.model.1.weight" for number in range(len(_LAYOUTS[network].layers))]
    if any(name not in tensors for name in names):
        raise InputError(
            f"{caller}: expected the tensors {names[0]} to {names[-1]} in torchmetrics' {network}.pth, "
            f"got {', '.join(tensors)}; install a torchmetrics of version 1.8 or later."
        )
    return [tensors[name].float() for name in names]

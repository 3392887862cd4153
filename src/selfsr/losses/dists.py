"""DISTS: similarity of the means and of the covariances of features, which tolerates resampled texture.

Source: Ding, Ma, Wang, Simoncelli, "Image Quality Assessment: Unifying Structure and Texture Similarity", IEEE TPAMI
2022, eq. 4 to 7.
"""

from torch import Tensor

from selfsr.errors import InputError
from selfsr.losses._feature_loss import FeatureLoss
from selfsr.losses._torchmetrics import read_torchmetrics_file
from selfsr.losses.feature_weights import WeightsSource
from selfsr.losses.features import FeatureNetwork, l2_pool

_LAYERS = ("conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3")
_IMAGE = "image"
_CHANNELS = (3, 64, 128, 256, 512, 512)
_C1 = _C2 = 1e-6


class DistsLoss(FeatureLoss):
    """Compare means and covariances of VGG16 features: DISTS, lower is better.

    With x and y the features of layer k and channel c after the ReLU, where layer 0 is the image itself, their means
    mu, variances var and covariance cov over the pixels, and weights alpha, beta >= 0 that are learned and sum to 1,

        L = 1 - mean over images of  sum_kc ( alpha_kc (2 mu_x mu_y + c1) / (mu_x^2 + mu_y^2 + c1)
                                            + beta_kc (2 cov + c2) / (var_x + var_y + c2) ),      c1 = c2 = 1e-6.

    The network has L2 pooling instead of maxima. Computed in the dtype of the network (float32 unless you convert it),
    even under autocast. All weights are frozen. The ground truth gets no gradient. The first call warns with
    `selfsr.RangeWarning` if the images are not in [0, 1].

    Args:
        weights: weights of VGG16: tensors by torchvision's names, or the path of a .pth or .safetensors file with
            these; None takes torchvision's file in torch.hub's folder, which is downloaded at the first use. alpha and
            beta come with torchmetrics.

    Raises:
        InputError: weights are not available, or torchmetrics is not installed.

    >>> import torch
    >>> from torchvision.models import vgg
    >>> layers = vgg.make_layers(vgg.cfgs["D"]).state_dict()  # random weights
    >>> loss = DistsLoss(weights={f"features.{name}": tensor for name, tensor in layers.items()})
    >>> hr = torch.rand(1, 3, 32, 32)
    >>> abs(loss(hr, hr).item()) < 1e-5, loss(hr.flip(3), hr).item() > 1e-5
    (True, True)
    """

    alpha: Tensor
    beta: Tensor

    def __init__(self, *, weights: WeightsSource = None) -> None:
        alpha, beta = _read_weights(type(self).__name__)
        # An L2 pool of one pixel is a pixel.
        super().__init__(FeatureNetwork("vgg16", _LAYERS, weights, pool=l2_pool), minimum_px=1)
        total = alpha.sum() + beta.sum()
        self.register_buffer("alpha", alpha / total)
        self.register_buffer("beta", beta / total)

    def extract(self, image: Tensor) -> dict[str, Tensor]:
        """Return the image `[N, 3, H, W]` in [0, 1] itself and its features by layer."""
        return {_IMAGE: image, **super().extract(image)}

    def compare_features(self, sr: dict[str, Tensor], hr: dict[str, Tensor]) -> Tensor:
        """Return 1 minus the weighted similarity of means and covariances, a scalar."""
        similarity = next(iter(sr.values())).new_zeros(())
        first = 0
        for name, channels in zip((_IMAGE, *_LAYERS), _CHANNELS, strict=True):
            alpha, beta = (weight.narrow(1, first, channels) for weight in (self.alpha, self.beta))
            first += channels
            x, y = sr[name], hr[name]
            mu_x, mu_y = x.mean((2, 3), keepdim=True), y.mean((2, 3), keepdim=True)
            dx, dy = x - mu_x, y - mu_y
            var_x, var_y, cov = (product.mean((2, 3), keepdim=True) for product in (dx * dx, dy * dy, dx * dy))
            of_means = (2 * mu_x * mu_y + _C1) / (mu_x**2 + mu_y**2 + _C1)
            of_structure = (2 * cov + _C2) / (var_x + var_y + _C2)
            similarity = similarity + (alpha * of_means + beta * of_structure).sum(dim=1).mean()
        return 1 - similarity


def _read_weights(caller: str) -> tuple[Tensor, Tensor]:
    """Return the learned weights of means and covariances, `[1, 1475, 1, 1]` each."""
    tensors = read_torchmetrics_file(caller, "functional/image/dists_models/weights.pt")
    size = [1, sum(_CHANNELS), 1, 1]
    for name in ("alpha", "beta"):
        if name not in tensors or list(tensors[name].shape) != size:
            raise InputError(
                f"{caller}: expected {name} of shape {size} in torchmetrics' weights.pt, "
                f"got {', '.join(f'{key} {list(tensor.shape)}' for key, tensor in tensors.items())}; install a "
                "torchmetrics of version 1.8 or later."
            )
    return tensors["alpha"].float(), tensors["beta"].float()

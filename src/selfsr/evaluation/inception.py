"""FID and KID: distances between the outputs and the ground truths of a set, in features of Inception v3.

Sources: FID: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium",
NeurIPS 2017. KID: Binkowski et al., "Demystifying MMD GANs", ICLR 2018. Computed by torchmetrics, with the network of
the package torch-fidelity: the one of 2015, which published scores use.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from selfsr.errors import InputError
from selfsr.losses.feature_weights import FeatureWeights, read_tensors

_LEAST_IMAGES = 2
_FEATURES = 2048
_WEIGHTS = FeatureWeights(
    "Inception v3",
    "weights-inception-2015-12-05-6726825d.pth",
    91,
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/",
)


@dataclass
class _Score:
    """The state of one set.

    Attributes:
        metric: a metric of torchmetrics without images.
        read: returns its value.
        images: number of images so far.
    """

    metric: Any
    read: Callable[[Any, int], Tensor]
    images: int = 0

    def add(self, sr: Tensor, hr: Tensor) -> None:
        """Add an image and its ground truth, `[1, 3, H, W]` in [0, 1]."""
        for image, is_real in ((sr, False), (hr, True)):
            self.metric.update((image * 255).round().clamp(0, 255).to(torch.uint8), real=is_real)
        self.images += 1

    def compute(self) -> float:
        """Return the score; NaN for fewer than two images."""
        return math.nan if self.images < _LEAST_IMAGES else float(self.read(self.metric, self.images))


@dataclass(frozen=True)
class _InceptionMetric:
    """A metric of torchmetrics on a network that all sets share.

    Attributes:
        make: returns the metric without images.
        read: returns its value for a number of images.
    """

    make: Callable[[], Any]
    read: Callable[[Any, int], Tensor]

    def start(self) -> _Score:
        """Return the score of a new set, without images."""
        return _Score(self.make(), self.read)


def load_fid(device: torch.device) -> _InceptionMetric:
    """Load FID: the squared Frechet distance of two Gaussians, fitted to the features of outputs and ground truths.

    Raises:
        InputError: torchmetrics or torch-fidelity is not installed, or the weights are not available.
    """
    network = load_inception("fid").to(device)
    from torchmetrics.image.fid import FrechetInceptionDistance

    return _InceptionMetric(
        lambda: FrechetInceptionDistance(feature=network).to(device), lambda metric, _: metric.compute()
    )


def load_kid(device: torch.device) -> _InceptionMetric:
    """Load KID: the unbiased squared distance of the mean features under a cubic kernel, over all images of the set.

    Papers with thousands of images average over random subsets, which has the same expectation; here there are no
    subsets, so that the value does not depend on chance.

    Raises:
        InputError: torchmetrics or torch-fidelity is not installed, or the weights are not available.
    """
    network = load_inception("kid").to(device)
    from torchmetrics.image.kid import KernelInceptionDistance

    def compute_on_all(metric: Any, images: int) -> Tensor:
        metric.subset_size = images
        with torch.random.fork_rng(devices=[]):  # it draws a permutation
            return metric.compute()[0]

    def make() -> KernelInceptionDistance:
        with warnings.catch_warnings():  # of the memory for the features, 8 KB an image
            warnings.simplefilter("ignore", UserWarning)
            return KernelInceptionDistance(feature=network, subsets=1).to(device)

    return _InceptionMetric(make, compute_on_all)


def load_inception(name: str) -> nn.Module:
    """Return Inception v3, which maps images uint8 `[N, 3, H, W]` to features `[N, 2048]`.

    Args:
        name: name of the metric, for errors.

    Raises:
        InputError: torchmetrics or torch-fidelity is not installed, or the weights are not available.
    """
    try:
        import torch_fidelity  # noqa: F401  # pyright: ignore[reportMissingImports]
        from torchmetrics.image.fid import FrechetInceptionDistance
    except ImportError as error:
        raise InputError(
            f"metrics: expected the packages torchmetrics and torch-fidelity for {name}, got no {error.name}; "
            'install them with pip install "selfsr[metrics]" torch-fidelity, or leave the metric out.'
        ) from error
    path = _WEIGHTS.download()
    tensors = read_tensors(_WEIGHTS, path)  # torch-fidelity itself would run what a pickle asks for
    for tensor_name, tensor in tensors.items():
        if isinstance(tensor, Tensor) and not tensor.isfinite().all():
            raise InputError(
                f"metrics: expected finite weights of Inception v3 for {name} in {path}, got NaN or infinity in "
                f"{tensor_name}; download {_WEIGHTS.file} again."
            )
    try:
        # Without antialiasing, as in the network's first code and in published scores.
        metric = FrechetInceptionDistance(_FEATURES, feature_extractor_weights_path=str(path), antialias=False)
    except (RuntimeError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"metrics: expected the weights of Inception v3 for {name} in {path}, got those of another network "
            f"({reason}); download {_WEIGHTS.file} again."
        ) from error
    network = metric.inception.requires_grad_(False)
    # Else torchmetrics measures it with a random image.
    network.register_buffer("num_features", torch.tensor(_FEATURES), persistent=False)
    return network

"""Convolutions of published image classifiers as feature extractors, with torchvision's names and weights.

Sources: VGG16 and VGG19: Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
ICLR 2015, table 1, configurations D and E. AlexNet: Krizhevsky, "One weird trick for parallelizing convolutional neural
networks", arXiv 1404.5997. SqueezeNet 1.1: Iandola et al., arXiv 1602.07360, and its code.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from selfsr.errors import check_choice
from selfsr.losses.feature_weights import FeatureWeights, WeightsSource, load_tensors

# Mean and standard deviation of ImageNet's RGB in [0, 1], which torchvision's weights expect.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)

Pool = Callable[[Tensor], Tensor]


class _Conv(NamedTuple):
    """A convolution with a ReLU; `number` is its index in torchvision's list of layers."""

    number: int
    channels: int
    kernel_px: int = 3
    stride: int = 1
    padding_px: int = 1

    def shrink(self, side_px: int) -> int:
        """Return the side of the output for an input of this side, 0 or less if it has no pixel."""
        return (side_px + 2 * self.padding_px - self.kernel_px) // self.stride + 1

    def build(self, channels: int) -> nn.Module:
        # Without initialization, which would draw random numbers that the weights replace.
        return nn.utils.skip_init(  # pyright: ignore[reportUnknownMemberType]
            nn.Conv2d, channels, self.channels, self.kernel_px, stride=self.stride, padding=self.padding_px
        )


class _Fire(NamedTuple):
    """SqueezeNet's module: a 1x1 convolution, then 1x1 and 3x3 in parallel, each with a ReLU."""

    number: int
    squeezed: int
    expanded: int

    @property
    def channels(self) -> int:
        return 2 * self.expanded

    def shrink(self, side_px: int) -> int:
        """Return the side of the output, which is that of the input."""
        return side_px

    def build(self, channels: int) -> nn.Module:
        squeezed, expanded = self.squeezed, self.expanded
        parts = {
            "squeeze": _Conv(0, squeezed, 1, 1, 0).build(channels),
            "expand1x1": _Conv(0, expanded, 1, 1, 0).build(squeezed),
            "expand3x3": _Conv(0, expanded).build(squeezed),
        }
        return _FireModule(parts)


class _FireModule(nn.ModuleDict):
    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self["squeeze"](x))
        return functional.relu(torch.cat((self["expand1x1"](x), self["expand3x3"](x)), dim=1))


class _MaxPool(NamedTuple):
    """A maximum over windows that are 2 px apart."""

    window_px: int
    ceil: bool = False

    def shrink(self, side_px: int) -> int:
        """Return the side of the output for an input of this side, 0 or less if it has no pixel."""
        return (side_px - self.window_px + (1 if self.ceil else 0)) // 2 + 1

    def pool(self, x: Tensor) -> Tensor:
        return functional.max_pool2d(x, self.window_px, 2, ceil_mode=self.ceil)


_Step = tuple[str, _Conv | _Fire | _MaxPool]


@dataclass(frozen=True)
class Architecture:
    """A classifier without its last, fully connected layers.

    Attributes:
        weights: its file of weights.
        steps: layers by name, and pools without a name, in order.
        layer_weights: the layers of the perceptual loss unless others are chosen, with their weights.
    """

    weights: FeatureWeights
    steps: tuple[_Step, ...]
    layer_weights: Mapping[str, float]

    @property
    def layers(self) -> dict[str, int]:
        """The index of each layer in torchvision's list, by our name, in order."""
        return {name: step.number for name, step in self.steps if not isinstance(step, _MaxPool)}

    def cut(self, layers: Collection[str]) -> tuple[_Step, ...]:
        """Return the steps up to the deepest of the layers."""
        deepest = max(index for index, (name, _) in enumerate(self.steps) if name in layers)
        return self.steps[: deepest + 1]

    def minimum_px(self, layers: Collection[str]) -> int:
        """Return the smallest image side for which the deepest of the layers has a pixel."""
        side_px = 1
        while not self._has_pixel(side_px, layers):
            side_px += 1
        return side_px

    def _has_pixel(self, side_px: int, layers: Collection[str]) -> bool:
        for _, step in self.cut(layers):
            side_px = step.shrink(side_px)
            if side_px < 1:
                return False
        return True


def _vgg_steps(convs_by_stage: Iterable[int]) -> tuple[_Step, ...]:
    """Return VGG's stages: 3x3 convolutions, named conv1_1 and so on, and a pool between the stages."""
    steps: list[_Step] = []
    number = 0
    for stage, convs in enumerate(convs_by_stage, 1):
        if stage > 1:
            steps.append(("", _MaxPool(2)))
            number += 1
        for conv in range(1, convs + 1):
            steps.append((f"conv{stage}_{conv}", _Conv(number, min(64 * 2 ** (stage - 1), 512))))
            number += 2
    return tuple(steps)


def _weigh(layer: str) -> Mapping[str, float]:
    return MappingProxyType({layer: 1.0})


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        # The default layer is ESRGAN's. Real-ESRGAN has conv1_2 and conv2_2 at 0.1, conv3_4, conv4_4, conv5_4 at 1.
        "vgg19": Architecture(
            FeatureWeights("VGG19", "vgg19-dcbb9e9d.pth", 548), _vgg_steps((2, 2, 4, 4, 4)), _weigh("conv5_4")
        ),
        "vgg16": Architecture(
            FeatureWeights("VGG16", "vgg16-397923af.pth", 528), _vgg_steps((2, 2, 3, 3, 3)), _weigh("conv5_3")
        ),
        "alexnet": Architecture(
            FeatureWeights("AlexNet", "alexnet-owt-7be5be79.pth", 233),
            (
                ("conv1", _Conv(0, 64, 11, 4, 2)),
                ("", _MaxPool(3)),
                ("conv2", _Conv(3, 192, 5, 1, 2)),
                ("", _MaxPool(3)),
                ("conv3", _Conv(6, 384)),
                ("conv4", _Conv(8, 256)),
                ("conv5", _Conv(10, 256)),
            ),
            _weigh("conv5"),
        ),
        "squeezenet": Architecture(
            FeatureWeights("SqueezeNet", "squeezenet1_1-b8a52dc0.pth", 5),
            (
                ("conv1", _Conv(0, 64, 3, 2, 0)),
                ("", _MaxPool(3, ceil=True)),
                ("fire2", _Fire(3, 16, 64)),
                ("fire3", _Fire(4, 16, 64)),
                ("", _MaxPool(3, ceil=True)),
                ("fire4", _Fire(6, 32, 128)),
                ("fire5", _Fire(7, 32, 128)),
                ("", _MaxPool(3, ceil=True)),
                ("fire6", _Fire(9, 48, 192)),
                ("fire7", _Fire(10, 48, 192)),
                ("fire8", _Fire(11, 64, 256)),
                ("fire9", _Fire(12, 64, 256)),
            ),
            _weigh("fire9"),
        ),
    }
)


class FeatureNetwork(nn.Module):
    """The frozen layers of a classifier, up to the deepest one that is needed.

    Args:
        name: one of `ARCHITECTURES`.
        layers: names of the layers whose features are needed.
        weights: tensors by torchvision's names (`features.0.weight` ...), or the path of a .pth or .safetensors file
            with these; None takes torchvision's file in torch.hub's folder, which is downloaded at the first use.
        pool: replaces the pools of the network; None keeps them.

    Raises:
        InputError: the weights are not available or of another network, or a layer is unknown.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, name: str, layers: Collection[str], weights: WeightsSource = None, *, pool: Pool | None = None
    ) -> None:
        super().__init__()
        architecture = ARCHITECTURES[name]
        check_layers(architecture.weights.title, name, layers)
        self.name: str = name
        self.layers: tuple[str, ...] = tuple(layers)
        self.steps: tuple[_Step, ...] = architecture.cut(layers)
        self.pool: Pool | None = pool
        self.features: nn.ModuleDict = nn.ModuleDict()
        channels = 3
        for _, step in self.steps:
            if not isinstance(step, _MaxPool):
                self.features[str(step.number)] = step.build(channels)
                channels = step.channels
        self.load_state_dict(load_tensors(architecture.weights, self.state_dict(), weights))
        self.register_buffer("mean", torch.tensor(_MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).reshape(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)

    @property
    def deepest(self) -> str:
        """The name of the last layer."""
        return self.steps[-1][0]

    @property
    def minimum_px(self) -> int:
        """The smallest image side for which the deepest layer has a pixel, with the pools of the network."""
        return minimum_px(self.name, self.layers)

    def forward(self, image: Tensor, *, before_relu: bool = False) -> dict[str, Tensor]:
        """Return the features of the requested layers.

        Args:
            image: RGB `[N, 3, H, W]` in [0, 1], of the dtype of `mean`. It is normalized in that dtype and converted to
                the dtype of the convolutions, which may be a half precision.
            before_relu: return the features of convolutions before their ReLU; False returns those after it.

        Returns:
            Features `[N, C, h, w]` by layer. VGG halves the sides between its stages, rounded down.
        """
        features: dict[str, Tensor] = {}
        x = ((image - self.mean) / self.std).to(next(self.features.parameters()).dtype)
        for name, step in self.steps:
            if isinstance(step, _MaxPool):
                x = (self.pool or step.pool)(x)
                continue
            x = self.features[str(step.number)](x)
            is_returned = name in self.layers
            if is_returned and before_relu:
                features[name] = x
            if isinstance(step, _Conv) and not (before_relu and name == self.deepest):
                # In place halves the memory of autograd, but would overwrite features that are returned.
                x = functional.relu(x, inplace=not (is_returned and before_relu))
            if is_returned and not before_relu:
                features[name] = x
        return features


def check_layers(caller: str, network: str, layers: Iterable[str]) -> None:
    """Check that all names are layers of a network.

    Raises:
        InputError: one is not; the message lists all names.
    """
    known = tuple(ARCHITECTURES[network].layers)
    for name in layers:
        check_choice(caller, "layers", name, known)


def minimum_px(network: str, layers: Collection[str]) -> int:
    """Return the smallest image side for which the deepest of the layers has a pixel."""
    return ARCHITECTURES[network].minimum_px(layers)


def l2_pool(x: Tensor) -> Tensor:
    """Return the root of the mean square in windows of 3x3 px that are 2 px apart, weighted by a Hann window.

    DISTS (Ding et al., TPAMI 2022, section 3.1) has it instead of maxima, which alias. Zeros lie beyond the border.

    Args:
        x: `[N, C, H, W]`.

    Returns:
        `[N, C, ceil(H / 2), ceil(W / 2)]`.
    """
    channels = x.shape[1]
    side = x.new_tensor([0.25, 0.5, 0.25])
    window = (side[:, None] * side).expand(channels, 1, 3, 3)
    return (functional.conv2d(x * x, window, stride=2, padding=1, groups=channels) + 1e-12).sqrt()

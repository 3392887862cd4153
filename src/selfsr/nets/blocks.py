"""Building blocks that several networks share."""

import math

import torch
from torch import Tensor, nn


def conv(inputs: int, outputs: int, kernel_px: int = 3, *, bias: bool = True) -> nn.Conv2d:
    """Build a convolution of stride 1 that keeps the size of the image (odd kernels)."""
    return nn.Conv2d(inputs, outputs, kernel_px, padding=kernel_px // 2, bias=bias)


class ResidualBlock(nn.Module):
    """Compute `x + res_scale * conv(relu(conv(x)))`, without batch norm (EDSR, figure 2c)."""

    def __init__(self, features: int, kernel_px: int = 3, res_scale: float = 1.0) -> None:
        super().__init__()
        self.res_scale = res_scale
        self.body: nn.Sequential = nn.Sequential(
            conv(features, features, kernel_px), nn.ReLU(inplace=True), conv(features, features, kernel_px)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return `[N, features, H, W]` of the same size."""
        return x.add(self.body(x), alpha=self.res_scale)


def build_upsampler(scale: int, features: int) -> nn.Sequential:
    """Build the upsampling tail: a convolution and a pixel shuffle for x3, or one of each for every doubling."""
    layers = []
    for factor in [3] if scale == 3 else [2] * round(math.log2(scale)):
        layers += [conv(features, features * factor**2), nn.PixelShuffle(factor)]
    return nn.Sequential(*layers)


@torch.no_grad()
def init_he_normal_tenth(net: nn.Module) -> None:
    """Initialize all convolutions in place as He normal times 0.1 and their biases as 0, as in ESRGAN's code."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            module.weight.mul_(0.1)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

"""The layers around a network that stay in float32 when the rest of it runs in bfloat16.

A network's first values are the picture and its last ones are, too: numbers up to 255 gray levels that
bfloat16, with its 8 significant bits, rounds to the next half or whole gray level. What lies between carries
the picture in many channels at once and averages such errors out. So it is the ends that decide, and they cost
next to nothing.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from selfsr.images.resize import imresize

# Mean color of DIV2K's training images in [0, 1], R, G, B: the constants of the published EDSR weights.
DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
# The same for a network that sees gray alone: the ITU-R BT.601 luma of that color.
DIV2K_GRAY = 0.299 * DIV2K_MEAN[0] + 0.587 * DIV2K_MEAN[1] + 0.114 * DIV2K_MEAN[2]
# What 1.0 is inside the networks whose published weights were trained on 0 to 255.
VALUE_RANGE = 255.0
# Black and the way from there to white in ITU-R BT.601 studio range, the Y of the literature, of 255.
_STUDIO_BLACK, _STUDIO_SPAN = 16.0, 219.0


class Float32Conv2d(nn.Conv2d):
    """A convolution that computes in float32 (or better), under autocast and with half-precision weights, too."""

    @classmethod
    def like(cls, conv: nn.Conv2d) -> "Float32Conv2d":
        """Return one that takes over the parameters of `conv`, names and all."""
        assert isinstance(conv.padding, tuple)
        assert conv.padding_mode == "zeros"
        twin = cls(
            conv.in_channels,
            conv.out_channels,
            (conv.kernel_size[0], conv.kernel_size[1]),
            stride=(conv.stride[0], conv.stride[1]),
            padding=(conv.padding[0], conv.padding[1]),
            groups=conv.groups,
            bias=conv.bias is not None,
        )
        twin.weight, twin.bias = conv.weight, conv.bias
        return twin

    def forward(self, input: Tensor) -> Tensor:
        """Convolve `[N, C, H, W]` of any float dtype; the result is float32, or float64 for float64."""
        dtype = torch.promote_types(input.dtype, torch.float32)
        with torch.autocast(input.device.type, enabled=False):
            return functional.conv2d(
                input.to(dtype),
                self.weight.to(dtype),
                None if self.bias is None else self.bias.to(dtype),
                self.stride,
                self.padding,
                self.dilation,
                self.groups,
            )


class Float32ConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution that computes in float32 (or better), under autocast, too."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Upsample `[N, C, H, W]` of any float dtype; the result is float32, or float64 for float64."""
        assert output_size is None
        assert isinstance(self.padding, tuple)
        dtype = torch.promote_types(input.dtype, torch.float32)
        with torch.autocast(input.device.type, enabled=False):
            return functional.conv_transpose2d(
                input.to(dtype),
                self.weight.to(dtype),
                None if self.bias is None else self.bias.to(dtype),
                self.stride,
                self.padding,
            )


class MeanShift(nn.Module):
    """Add `sign * value_range * mean` to each channel, in float32; nothing in it is trained.

    The published weights keep it as a 1x1 convolution, so it has that layout in the state dict, and a file may
    bring another one (the self-paced paper's SRResNet has one that mixes colors). As a sum it is exact where a
    GPU would convolve with TF32.

    Args:
        channels: 3 for RGB or 1 for gray.
        sign: -1 to take the mean away, 1 to give it back.
        value_range: what 1.0 is inside the network.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, channels: int, sign: int, value_range: float) -> None:
        super().__init__()
        mean = torch.tensor(DIV2K_MEAN if channels == 3 else (DIV2K_GRAY,))
        self.register_buffer("weight", torch.eye(channels).view(channels, channels, 1, 1))
        self.register_buffer("bias", sign * value_range * mean)

    def forward(self, x: Tensor) -> Tensor:
        """Shift `[N, C, H, W]` of any float dtype; the result is float32, or float64 for float64."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        x, weight = x.to(dtype), self.weight.to(dtype)
        shifted = self.bias.to(dtype).view(1, -1, 1, 1)
        for color in range(x.shape[1]):
            shifted = shifted + x[:, color : color + 1] * weight[:, color].view(1, -1, 1, 1)
        return shifted


def studio_range(gray: Tensor) -> Tensor:
    """Turn gray in [0, 1] into the Y of the literature, 16 to 235; float32, or float64 for float64."""
    return _STUDIO_SPAN * gray.to(torch.promote_types(gray.dtype, torch.float32)) + _STUDIO_BLACK


def full_range(luma: Tensor) -> Tensor:
    """Turn Y of 16 to 235 into gray in [0, 1]."""
    return (luma - _STUDIO_BLACK) / _STUDIO_SPAN


def bicubic(lr: Tensor, scale: int) -> Tensor:
    """Upscale as the inputs of the first networks were; float32, or float64 for float64, whatever autocast says."""
    return imresize(lr.to(torch.promote_types(lr.dtype, torch.float32)), scale=scale)


def studio_ends(channels: int) -> dict[str, Tensor]:
    """Return mean shifts that hand a network of range 255 its gray as Y of 16 to 235, and RGB as it is."""
    gain, black = (_STUDIO_SPAN / VALUE_RANGE, _STUDIO_BLACK) if channels == 1 else (1.0, 0.0)
    eye = torch.eye(channels).view(channels, channels, 1, 1)
    return {
        "sub_mean.weight": gain * eye,
        "sub_mean.bias": torch.full((channels,), black),
        "add_mean.weight": eye / gain,
        "add_mean.bias": torch.full((channels,), -black / gain),
    }


def mirrored(image: Tensor, height: int, width: int) -> Tensor:
    """Grow `image` to the right and below by mirroring, and by repeating the edge where the mirror ends."""
    for axis, target in ((-2, height), (-1, width)):
        while (gap := target - image.shape[axis]) > 0:
            side = image.shape[axis]
            mirrored = min(gap, side - 1)
            pad = (0, 0, 0, mirrored or gap) if axis == -2 else (0, mirrored or gap, 0, 0)
            image = functional.pad(image, pad, mode="reflect" if mirrored else "replicate")
    return image

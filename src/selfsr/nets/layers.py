"""First and last layers of networks, which stay in float32 when the other layers run in bfloat16.

The input and the output of a network are image values. bfloat16 has 8 significant bits and rounds these to the next
half or full gray level. Hidden layers spread the image over many channels, where such errors average out. Float32 is
therefore needed only at both ends, where it costs almost nothing.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from selfsr.images.resize import imresize
from selfsr.masks import LUMA_BT601

# Mean color of DIV2K's training images in [0, 1], R, G, B: the constants of the published EDSR weights.
DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
# The ITU-R BT.601 luma of that color, for networks of one channel.
DIV2K_GRAY = sum(weight * mean for weight, mean in zip(LUMA_BT601, DIV2K_MEAN, strict=True))
# The value of white inside networks whose published weights were trained on 0 to 255.
VALUE_RANGE = 255.0
# Black, and white minus black, of ITU-R BT.601's studio range: Y from 16 to 235.
_STUDIO_BLACK, _STUDIO_SPAN = 16.0, 219.0


class Float32Conv2d(nn.Conv2d):
    """A convolution that computes in float32 (or float64), even under autocast and with half-precision weights.

    Use it as the last layer of a network, with the arguments of `torch.nn.Conv2d`.
    """

    @classmethod
    def like(cls, conv: nn.Conv2d) -> "Float32Conv2d":
        """Return a float32 convolution with the options and the parameters of `conv`."""
        assert isinstance(conv.padding, tuple)
        assert conv.padding_mode == "zeros"
        twin = cls(
            conv.in_channels,
            conv.out_channels,
            (conv.kernel_size[0], conv.kernel_size[1]),
            stride=(conv.stride[0], conv.stride[1]),
            padding=(conv.padding[0], conv.padding[1]),
            dilation=(conv.dilation[0], conv.dilation[1]),
            groups=conv.groups,
            bias=conv.bias is not None,
        )
        twin.weight, twin.bias = conv.weight, conv.bias
        return twin

    def forward(self, input: Tensor) -> Tensor:
        """Convolve `[N, C, H, W]` of any float dtype; the result is float32, or float64 for float64."""
        dtype = torch.promote_types(input.dtype, torch.float32)
        with torch.autocast(input.device.type, enabled=False):
            return self._conv_forward(
                input.to(dtype), self.weight.to(dtype), None if self.bias is None else self.bias.to(dtype)
            )


class Float32ConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution that computes in float32 (or float64), even under autocast.

    Use it as the last layer of a network, with the arguments of `torch.nn.ConvTranspose2d`.
    """

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
                self.output_padding,
                self.groups,
                self.dilation,
            )


class MeanShift(nn.Module):
    """Add `sign * value_range * mean` to each channel, in float32, without trained parameters.

    The published weights contain it as a 1x1 convolution, so it has that layout in the state dict. A file may contain
    another one: that of the self-paced paper's SRResNet mixes colors. It is computed as a sum, which is exact where a
    GPU would use TF32 for a convolution.

    Args:
        channels: 3 for RGB or 1 for gray.
        sign: -1 to subtract the mean, 1 to add it.
        value_range: the value of white inside the network.
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


def to_studio_range(gray: Tensor) -> Tensor:
    """Map gray in [0, 1] to Y in 16 to 235 (BT.601 studio range); float32, or float64 for float64."""
    return _STUDIO_SPAN * gray.to(torch.promote_types(gray.dtype, torch.float32)) + _STUDIO_BLACK


def from_studio_range(luma: Tensor) -> Tensor:
    """Map Y in 16 to 235 (BT.601 studio range) to gray in [0, 1]."""
    return (luma - _STUDIO_BLACK) / _STUDIO_SPAN


def upscale_bicubic(lr: Tensor, scale: int) -> Tensor:
    """Upscale `[N, C, h, w]` as the first SR networks need it; float32, or float64 for float64, even under autocast."""
    return imresize(lr.to(torch.promote_types(lr.dtype, torch.float32)), scale=scale)


def studio_mean_shifts(channels: int) -> dict[str, Tensor]:
    """Return the tensors of mean shifts that map gray to Y in 16 to 235 and back, and leave RGB unchanged."""
    gain, black = (_STUDIO_SPAN / VALUE_RANGE, _STUDIO_BLACK) if channels == 1 else (1.0, 0.0)
    eye = torch.eye(channels).view(channels, channels, 1, 1)
    return {
        "sub_mean.weight": gain * eye,
        "sub_mean.bias": torch.full((channels,), black),
        "add_mean.weight": eye / gain,
        "add_mean.bias": torch.full((channels,), -black / gain),
    }


def pad_reflect(image: Tensor, height: int, width: int) -> Tensor:
    """Pad `[N, C, H, W]` at the right and the bottom by reflection, repeatedly if needed; a single pixel is repeated.

    Args:
        image: `[N, C, H, W]`.
        height: rows of the result.
        width: columns of the result.
    """
    for axis, target in ((-2, height), (-1, width)):
        while (gap := target - image.shape[axis]) > 0:
            side = image.shape[axis]
            reflected = min(gap, side - 1)
            pad = (0, 0, 0, reflected or gap) if axis == -2 else (0, reflected or gap, 0, 0)
            image = functional.pad(image, pad, mode="reflect" if reflected else "replicate")
    return image

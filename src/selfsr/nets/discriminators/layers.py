"""Layers of discriminators: a convolution with spectral norm, and a last layer that stays in float32."""

import torch
from torch import Tensor, nn
from torch.nn import functional

# The slope of every leaky ReLU in the published discriminators.
SLOPE = 0.2
# Steps of the power iteration at the start, when the estimate is random.
_FIRST_ITERATIONS = 15


class SpectralConv2d(nn.Module):
    """A convolution whose weight is divided by its largest singular value (Miyato et al., ICLR 2018).

    The weight is seen as a matrix `W` `[outputs, inputs * height * width]`. In training mode, each forward pass does
    one step of the power iteration, `v = W'u / |W'u|`, `u = Wv / |Wv|`, and divides `W` by `u'Wv`. The gradient flows
    through `u'Wv` to `W`; `u` and `v` are constants. This is computed in float32, even under autocast. The names in the
    state dict are those of `torch.nn.utils.spectral_norm`. In contrast to it, the divided weight is not stored in the
    module, so that the module can always be copied.

    Args:
        conv: a convolution with zero padding, whose options, weight and bias are used.
        float32: whether the convolution also stays in float32 under autocast, as a last layer must.
    """

    weight_u: Tensor
    weight_v: Tensor

    def __init__(self, conv: nn.Conv2d, *, float32: bool = False) -> None:
        super().__init__()
        assert conv.padding_mode == "zeros"
        assert isinstance(conv.padding, tuple)
        self.stride: tuple[int, ...] = conv.stride
        self.padding: str | tuple[int, ...] = conv.padding
        self.float32: bool = float32
        self.bias: Tensor | None = conv.bias
        self.weight_orig: nn.Parameter = nn.Parameter(conv.weight.detach().clone())
        rows = self.weight_orig.flatten(1)
        self.register_buffer("weight_u", functional.normalize(torch.randn_like(rows[:, 0]), dim=0))
        self.register_buffer("weight_v", functional.normalize(torch.randn_like(rows[0]), dim=0))
        self.update_estimate()

    @torch.no_grad()
    def update_estimate(self, iterations: int = _FIRST_ITERATIONS) -> None:
        """Run the power iteration, as is needed after the weight was set from outside."""
        rows = self.weight_orig.flatten(1)
        for _ in range(iterations):
            self.weight_v.copy_(functional.normalize(rows.T @ self.weight_u, dim=0))
            self.weight_u.copy_(functional.normalize(rows @ self.weight_v, dim=0))

    def compute_weight(self) -> Tensor:
        """Return the weight divided by the current estimate of its largest singular value."""
        # Copies, because another forward pass may update the estimates before this one's backward pass runs.
        u, v = self.weight_u.clone(), self.weight_v.clone()
        return self.weight_orig / torch.dot(u, self.weight_orig.flatten(1) @ v)

    def next_weight(self) -> Tensor:
        """Return the weight of this pass, in float32; in training mode, after a step of the power iteration.

        A compiler must not trace it: it would leave out the copies of the estimates.
        """
        with torch.autocast(self.weight_orig.device.type, enabled=False):
            if self.training:
                self.update_estimate(1)
            return self.compute_weight()

    def forward(self, x: Tensor) -> Tensor:
        """Convolve `[N, C, H, W]`."""
        device_type, weight = x.device.type, self.next_weight()
        with torch.autocast(device_type, enabled=torch.is_autocast_enabled(device_type) and not self.float32):
            x = x.to(weight.dtype) if self.float32 else x
            return functional.conv2d(x, weight, self.bias, self.stride, self.padding)


class Float32Linear(nn.Linear):
    """A linear layer that computes in float32 (or float64), even under autocast."""

    def forward(self, input: Tensor) -> Tensor:
        """Map `[N, inputs]` of any float dtype; the result is float32, or float64 for float64."""
        dtype = torch.promote_types(input.dtype, torch.float32)
        with torch.autocast(input.device.type, enabled=False):
            bias = None if self.bias is None else self.bias.to(dtype)
            return functional.linear(input.to(dtype), self.weight.to(dtype), bias)

"""Layers of discriminators: a convolution of bounded gain, and a last layer that stays in float32."""

import torch
from torch import Tensor, nn
from torch.nn import functional

# The slope of every leaky ReLU in the published discriminators.
SLOPE = 0.2
# How often the power iteration runs at the start, when the first estimate is random.
_FIRST_ITERATIONS = 15


class SpectralConv2d(nn.Module):
    """A convolution with its weight divided by the weight's largest singular value (Miyato et al., ICLR 2018).

    The weight counts as a matrix `W` `[outputs, inputs * height * width]`. In training each forward pass takes one
    step of the power iteration, `v = W'u / |W'u|`, `u = Wv / |Wv|`, and divides by `u'Wv`, through which the gradient
    flows to `W` with `u` and `v` as constants. All of it is float32, whatever autocast says. The names in the state
    dict are those of `torch.nn.utils.spectral_norm`; unlike there the divided weight is not kept in the module,
    so that the module can be copied at any time.

    Args:
        conv: what starts it, with its weight and bias; of zero padding.
        float32: whether the convolution itself stays in float32 under autocast, too, as a last layer must.
    """

    weight_u: Tensor
    weight_v: Tensor

    def __init__(self, conv: nn.Conv2d, *, float32: bool = False) -> None:
        super().__init__()
        assert conv.padding_mode == "zeros"
        assert isinstance(conv.padding, tuple)
        self.stride, self.padding, self.float32 = conv.stride, conv.padding, float32
        self.bias = conv.bias
        self.weight_orig = nn.Parameter(conv.weight.detach().clone())
        rows = self.weight_orig.flatten(1)
        self.register_buffer("weight_u", functional.normalize(torch.randn_like(rows[:, 0]), dim=0))
        self.register_buffer("weight_v", functional.normalize(torch.randn_like(rows[0]), dim=0))
        self.estimate()

    @torch.no_grad()
    def estimate(self, iterations: int = _FIRST_ITERATIONS) -> None:
        """Move the estimates of the singular vectors on, as after a change of the weight by hand."""
        rows = self.weight_orig.flatten(1)
        for _ in range(iterations):
            self.weight_v.copy_(functional.normalize(rows.T @ self.weight_u, dim=0))
            self.weight_u.copy_(functional.normalize(rows @ self.weight_v, dim=0))

    def weight(self) -> Tensor:
        """Return the weight of gain one, by the present estimates."""
        # Copies, because the next forward pass moves the estimates on before this one's backward pass may have run.
        u, v = self.weight_u.clone(), self.weight_v.clone()
        return self.weight_orig / torch.dot(u, self.weight_orig.flatten(1) @ v)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve `[N, C, H, W]`."""
        kind = x.device.type
        with torch.autocast(kind, enabled=False):
            if self.training:
                self.estimate(1)
            weight = self.weight()
        with torch.autocast(kind, enabled=torch.is_autocast_enabled(kind) and not self.float32):
            x = x.to(weight.dtype) if self.float32 else x
            return functional.conv2d(x, weight, self.bias, self.stride, self.padding)


class Float32Linear(nn.Linear):
    """A linear layer that computes in float32 (or better), under autocast, too."""

    def forward(self, input: Tensor) -> Tensor:
        """Map `[N, inputs]` of any float dtype; the result is float32, or float64 for float64."""
        dtype = torch.promote_types(input.dtype, torch.float32)
        with torch.autocast(input.device.type, enabled=False):
            bias = None if self.bias is None else self.bias.to(dtype)
            return functional.linear(input.to(dtype), self.weight.to(dtype), bias)

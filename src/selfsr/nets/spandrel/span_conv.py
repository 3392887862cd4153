"""SPAN's convolution for training.

SPAN trains three convolutions and a skip in place of each convolution that it runs later, `eval_conv`. Spandrel's class
runs all four in training, leaves `eval_conv` among the trained parameters, where no gradient reaches it, and computes
it in the current precision and inference mode. This file imports spandrel, so import it only where a network is built
or saved.
"""

import torch
import torch.nn.functional as F
from spandrel.architectures.SPAN.__arch.span import Conv3XC
from torch import Tensor, nn


class TrainableConv3XC(Conv3XC):
    """SPAN's convolution with a fused form that is not trained and always computed in full precision."""

    def __init__(self, c_in: int, c_out: int, gain1: int) -> None:
        super().__init__(c_in, c_out, gain1=gain1)
        self.eval_conv.requires_grad_(False)
        self.update_params()

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x, (N, c_in, H, W), to (N, c_out, H, W); in training with the kernel that the branches add up to.

        No nonlinearity lies between the branches, so one 3x3 convolution with the fused kernel gives their output, and
        their gradient through the fusion, up to rounding. It multiplies 4 to 5 times less than the branches, because
        the fusion does not grow with the image (Bhardwaj et al., SESR, MLSys 2022, section 3.3).
        """
        if not self.training:
            return super().forward(x)
        weight, bias = self._fuse()
        return F.conv2d(x, weight, bias, padding=1)

    def _fuse(self) -> tuple[Tensor, Tensor]:
        """Kernel (c_out, c_in, 3, 3) and bias (c_out,) of the branches, in the precision of the weights."""
        (w1, b1), (w2, b2), (w3, b3), (w_skip, b_skip) = (_get_parameters(conv) for conv in (*self.conv, self.sk))
        with torch.autocast(w1.device.type, enabled=False):
            kernel = torch.einsum("om,mekl,ei->oikl", w3[:, :, 0, 0], w2, w1[:, :, 0, 0]) + F.pad(w_skip, (1, 1, 1, 1))
            # The border is padded with 0 before the first convolution, so each tap of the second one sees its bias.
            bias = w3[:, :, 0, 0] @ (w2.sum((2, 3)) @ b1 + b2) + b3 + b_skip
        return kernel, bias

    def update_params(self) -> None:
        """Fuse the branches into `eval_conv`; SPAN does this in each forward pass of evaluation."""
        _update_eval_conv(self)


class FusedConv3XC(Conv3XC):
    """SPAN's convolution for inference: the branches are fused when evaluation mode begins, not in each pass."""

    def train(self, mode: bool = True) -> "FusedConv3XC":
        """Set the mode; for evaluation, fuse the branches in full precision."""
        super().train(mode)
        if not mode:
            _update_eval_conv(self)
        return self

    def update_params(self) -> None:
        """Do nothing in a forward pass."""


def fuse_span_convs(net: nn.Module) -> None:
    """Fuse SPAN's convolutions once, in place, for a network that is not trained; other networks have none."""
    for module in net.modules():
        if type(module) is Conv3XC:
            module.__class__ = FusedConv3XC
            module.train(module.training)


def update_fused_convs(net: nn.Module) -> None:
    """Recompute SPAN's fused convolutions from the trained weights; other networks have none."""
    for module in net.modules():
        if isinstance(module, Conv3XC):
            module.update_params()


@torch.no_grad()
def _update_eval_conv(conv: Conv3XC) -> None:
    """Fuse the branches of a convolution into its `eval_conv`, in full precision.

    Outside of inference mode and autocast, because the EMA cannot update tensors of inference mode, and those of
    bfloat16 are too coarse.
    """
    device_type = conv.eval_conv.weight.device.type
    if device_type == "meta":  # nothing to compute, and no autocast
        return
    with torch.inference_mode(False), torch.autocast(device_type, enabled=False):
        Conv3XC.update_params(conv)


def _get_parameters(conv: nn.Module) -> tuple[Tensor, Tensor]:
    """Kernel and bias of a convolution."""
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is not None
    return conv.weight, conv.bias

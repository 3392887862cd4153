"""SPAN's convolution for training.

SPAN trains three convolutions and a skip in place of each convolution that it runs later, `eval_conv`. Spandrel's class
leaves `eval_conv` among the trained parameters, where no gradient reaches it, and computes it in the current precision
and inference mode. This file imports spandrel, so import it only where a network is built or saved.
"""

import torch
from spandrel.architectures.SPAN.__arch.span import Conv3XC
from torch import nn


class TrainableConv3XC(Conv3XC):
    """SPAN's convolution with a fused form that is not trained and always computed in full precision."""

    def __init__(self, c_in: int, c_out: int, gain1: int) -> None:
        super().__init__(c_in, c_out, gain1=gain1)
        self.eval_conv.requires_grad_(False)
        self.update_params()

    @torch.no_grad()
    def update_params(self) -> None:
        """Fuse the branches into `eval_conv`; SPAN does this in each forward pass of evaluation.

        Outside of inference mode and autocast, because the EMA cannot update tensors of inference mode, and those of
        bfloat16 are too coarse.
        """
        device_type = self.eval_conv.weight.device.type
        if device_type == "meta":  # nothing to compute, and no autocast
            return
        with torch.inference_mode(False), torch.autocast(device_type, enabled=False):
            super().update_params()


class FusedConv3XC(Conv3XC):
    """SPAN's convolution for inference: the branches are fused when evaluation mode begins, not in each pass."""

    def train(self, mode: bool = True) -> "FusedConv3XC":
        """Set the mode; for evaluation, fuse the branches in full precision."""
        super().train(mode)
        if not mode:
            device_type = self.eval_conv.weight.device.type
            with torch.no_grad(), torch.inference_mode(False), torch.autocast(device_type, enabled=False):
                super().update_params()
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

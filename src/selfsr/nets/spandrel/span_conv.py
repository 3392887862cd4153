"""SPAN's convolution made trainable; imports spandrel, so import it only where a network is built or saved."""

import torch
from spandrel.architectures.SPAN.__arch.span import Conv3XC
from torch import nn


class FusedConv(Conv3XC):
    """SPAN's convolution, whose fused form is a constant to the optimizer and always whole and in full precision."""

    def __init__(self, c_in: int, c_out: int, gain1: int) -> None:
        super().__init__(c_in, c_out, gain1=gain1)
        self.eval_conv.requires_grad_(False)
        self.update_params()

    @torch.no_grad()
    def update_params(self) -> None:
        """Fuse the branches into `eval_conv`: SPAN does this in each forward pass of evaluation.

        Spandrel's version would put tensors of inference mode, or of bfloat16 precision, in the parameters'
        place; the average of the weights could then not be moved on.
        """
        with torch.inference_mode(False), torch.autocast(self.eval_conv.weight.device.type, enabled=False):
            super().update_params()


def refresh_fused(net: nn.Module) -> None:
    """Bring SPAN's fused convolutions up to date with what was trained; other networks have none."""
    for module in net.modules():
        if isinstance(module, Conv3XC):
            module.update_params()

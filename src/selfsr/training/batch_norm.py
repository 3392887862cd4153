"""Batch norm over all processes of a run, so that training does not depend on the number of processes."""

import torch
from torch import Tensor, nn

from selfsr.machine.distributed import mean_over_processes, process_count


class DistributedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the batch of all processes (Ioffe and Szegedy, ICML 2015, algorithm 1).

    In training, with `n` values of a channel in all processes together,

        m = mean x,   v = mean (x - m)^2,   y = weight (x - m) / sqrt(v + eps) + bias,
        running_mean <- (1 - a) running_mean + a m,   running_var <- (1 - a) running_var + a v n / (n - 1),

    where `a` is `momentum`, or one over the number of passes if `momentum` is None. Every process must have the same
    number of values. The gradient flows through `m` and `v` into all processes. Statistics are float32 or float64,
    even under autocast. In evaluation, and in a run of one process, it equals `nn.BatchNorm2d`.

    `torch.nn.SyncBatchNorm` computes the same, but only on GPUs, so it could not be tested without one. Its gradient
    also has no derivative, which the penalties R1 and WGAN-GP need. This class has every derivative, since it consists
    of differentiable operations. It needs a few more passes over the values.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalize `[N, C, H, W]` of any float dtype; the result has the same dtype."""
        processes = process_count()
        if not self.training or processes == 1:
            return super().forward(input)
        self._check_input_dim(input)
        with torch.autocast(input.device.type, enabled=False):
            x = input.to(torch.promote_types(input.dtype, torch.float32))
            mean = mean_over_processes(x.mean(dim=(0, 2, 3)))
            # From differences, in a second pass: the mean of squares minus the square of the mean would cancel.
            centered = x - _by_channel(mean)
            variance = mean_over_processes(centered.square().mean(dim=(0, 2, 3)))
            self._update_running(mean.detach(), variance.detach(), values=processes * x.numel() // x.shape[1])
            scale = (variance + self.eps).rsqrt()
            y = centered * _by_channel(scale if self.weight is None else scale * self.weight)
            return (y if self.bias is None else y + _by_channel(self.bias)).to(input.dtype)

    @torch.no_grad()
    def _update_running(self, mean: Tensor, variance: Tensor, *, values: int) -> None:
        """Update the running estimates with the statistics of a batch with `values` values in each channel."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        rate = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), rate)
        self.running_var.lerp_((variance * (values / (values - 1))).to(self.running_var), rate)


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """Batch norm that stays in evaluation mode, so that training changes neither its statistics nor its output."""

    def train(self, mode: bool = True) -> "FrozenBatchNorm2d":
        """Stay in evaluation mode."""
        del mode
        return super().train(False)


def normalize_over_processes(net: nn.Module) -> None:
    """Turn every batch norm in `net` into a `DistributedBatchNorm2d`, in place.

    Only the class of the modules changes. Weights, buffers, state-dict keys and references to the modules stay.
    """
    for module in net.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = DistributedBatchNorm2d
        # Another kind of batch norm would silently normalize by its own process. Our networks have none.
        assert not isinstance(module, nn.modules.batchnorm._BatchNorm) or isinstance(
            module, DistributedBatchNorm2d | FrozenBatchNorm2d
        ), module


def _by_channel(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1)

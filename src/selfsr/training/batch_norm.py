"""Batch norm over all processes of a run, so that what a network learns does not depend on how many there are."""

import torch
from torch import Tensor, nn

from selfsr.machine.distributed import mean_over_processes, process_count


class WholeBatchNorm2d(nn.BatchNorm2d):
    """Batch norm (Ioffe and Szegedy, ICML 2015, algorithm 1) whose batch is that of all processes.

    In training, with `n` values of a channel in all processes together,

        m = mean x,   v = mean (x - m)^2,   y = weight (x - m) / sqrt(v + eps) + bias,
        running_mean <- (1 - a) running_mean + a m,   running_var <- (1 - a) running_var + a v n / (n - 1),

    where `a` is `momentum`, or one over the passes so far where that is None. Every process must bring as many values,
    as its equal share of a batch does. The gradient flows through `m` and `v` into all processes. Statistics are
    float32 (or better), under autocast, too. In evaluation, and in a run of one process, it is `nn.BatchNorm2d`.

    `torch.nn.SyncBatchNorm` computes the same, but on GPUs alone, so that none of it would be tested without one, and
    its gradient has no derivative, which the penalties R1 and WGAN-GP take. This has every derivative, because it is
    made of operations that have, at the price of a few more passes over the values.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalize `[N, C, H, W]` of any float dtype, which the result has, too."""
        processes = process_count()
        if not self.training or processes == 1:
            return super().forward(input)
        self._check_input_dim(input)
        with torch.autocast(input.device.type, enabled=False):
            x = input.to(torch.promote_types(input.dtype, torch.float32))
            mean = mean_over_processes(x.mean(dim=(0, 2, 3)))
            # From differences, in a second round: the mean of squares less the square of the mean would cancel.
            centered = x - _by_channel(mean)
            variance = mean_over_processes(centered.square().mean(dim=(0, 2, 3)))
            self._keep(mean.detach(), variance.detach(), values=processes * x.numel() // x.shape[1])
            scale = (variance + self.eps).rsqrt()
            y = centered * _by_channel(scale if self.weight is None else scale * self.weight)
            return (y if self.bias is None else y + _by_channel(self.bias)).to(input.dtype)

    @torch.no_grad()
    def _keep(self, mean: Tensor, variance: Tensor, *, values: int) -> None:
        """Move the running estimates on by the statistics of a batch with so many values of each channel."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), share)
        self.running_var.lerp_((variance * (values / (values - 1))).to(self.running_var), share)


def normalize_over_processes(net: nn.Module) -> None:
    """Let every batch norm in `net` normalize by the batch of all processes from now on; state-dict keys stay.

    Modules change their class and nothing else, so weights, buffers, names and whoever holds the modules stay.
    """
    for module in net.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = WholeBatchNorm2d
        # Of another kind there is none in our networks; one would go on normalizing by its own process in silence.
        assert not isinstance(module, nn.modules.batchnorm._BatchNorm) or isinstance(module, WholeBatchNorm2d), module


def _by_channel(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1)

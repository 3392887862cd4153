"""Choose a batch size from the free memory."""

import torch
from torch import nn

from selfsr.errors import InputError
from selfsr.machine.memory import measure_free_bytes

# The share of the free memory that a batch may take.
_SHARE = 0.4
# Memory of a step over the generator's activations: with gradients and temporary tensors; with a discriminator and a
# perceptual network as well.
_FACTOR, _GAN_FACTOR = 2.0, 4.0
# Larger batches cost time in proportion and gain little.
_LARGEST, _LARGEST_GAN = 16, 8


def measure_activation_bytes(net: nn.Module, lr: torch.Tensor) -> int:
    """Return the bytes that a forward pass keeps for the backward pass, without the weights.

    Args:
        net: the network, in training mode.
        lr: its input, `[N, C, h, w]`.
    """
    weights = {parameter.untyped_storage().data_ptr() for parameter in net.parameters()}
    storages: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = net(lr)
        total = sum(storages.values())  # read while the graph keeps every storage
    del output
    return total


def choose_batch(sample_bytes: float, device: torch.device, *, gan: bool, minimum: int) -> int:
    """Return the largest power of two that fits into the free memory: at most 16, with a GAN 8.

    Args:
        sample_bytes: activations of one sample, see `measure_activation_bytes`.
        device: the device of the training.
        gan: whether a discriminator and a perceptual network need memory as well.
        minimum: the smallest batch of the network.

    Raises:
        InputError: not even the smallest batch fits.
    """
    factor, batch = (_GAN_FACTOR, _LARGEST_GAN) if gan else (_FACTOR, _LARGEST)
    limit = _SHARE * measure_free_bytes(device)
    while batch > minimum and batch * sample_bytes * factor > limit:
        batch //= 2
    if batch * sample_bytes * factor > measure_free_bytes(device):
        raise InputError(
            f"finetune: expected memory for a batch of {batch}, about {batch * sample_bytes * factor / 2**20:,.0f} MB, "
            f"got {measure_free_bytes(device) / 2**20:,.0f} MB of free memory on {device}; close other programs, or "
            "choose a smaller model."
        )
    return max(batch, minimum)

"""The network of an upscaler, and the image blocks that it reads."""

import hashlib

import numpy as np
import torch
from torch import Tensor, nn


def read_channels_first(pixels: np.ndarray, alpha: np.ndarray | None, rows: slice, columns: slice) -> Tensor:
    """Return a block of an image as float32 `[1, C, h, w]`, not scaled, with alpha as the last channel if any."""
    block = pixels[rows, columns]
    if alpha is not None:
        block = np.concatenate((block, alpha[rows, columns, None]), axis=2)
    return torch.from_numpy(np.ascontiguousarray(block.transpose(2, 0, 1), np.float32))[None]


class CastNetwork(nn.Module):
    """A network with its precision and memory layout; input and output are float32.

    Raises:
        FloatingPointError: the output is not finite. (The check is here, since clamping hides infinity.)
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        # Channels-last is faster for purely convolutional networks, and is not defined for weights of five axes.
        attends = any(isinstance(module, nn.Linear | nn.MultiheadAttention) for module in net.modules())
        fits = all(parameter.ndim != 5 for parameter in net.parameters())
        self.layout: torch.memory_format = torch.channels_last if fits and not attends else torch.contiguous_format
        self.net: nn.Module = net.to(memory_format=self.layout)  # pyright: ignore[reportCallIssue]
        self.dtype: torch.dtype = torch.float32

    def forward(self, lr: Tensor) -> Tensor:
        """Return the output for `[N, C, h, w]`, in float32."""
        lr = lr.contiguous(memory_format=self.layout)
        with torch.autocast(lr.device.type, self.dtype, enabled=self.dtype != torch.float32):
            sr = self.net(lr).float()
        if not bool(sr.isfinite().all()):
            raise FloatingPointError
        return sr


def hash_weights(net: nn.Module) -> str:
    """Return a checksum of the names and values of a network's weights."""
    digest = hashlib.sha256()
    for name, value in net.state_dict().items():
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def hash_image(pixels: np.ndarray, alpha: np.ndarray | None) -> str:
    """Return a checksum of the pixels of an image and of its alpha."""
    digest = hashlib.sha256()
    for array in (pixels, alpha):
        if array is not None:
            digest.update(f"{array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()

"""Window attention of SwinIR, DAT and HAT by PyTorch's scaled dot product attention.

Spandrel's classes compute softmax(q k^T / sqrt(d) + bias + mask) v in five steps (Vaswani et al., NeurIPS 2017,
equation 1; Liu et al., "Swin Transformer", ICCV 2021, equation 4), and each step writes a number for each pair of
pixels of a window. `scaled_dot_product_attention` is one kernel, which gets bias and mask as one tensor. The classes
here have the tensors of spandrel's classes and choose the form in each pass. This file imports spandrel, so import it
only where a network is built or opened.
"""

import torch
import torch.nn.functional as F
from spandrel.architectures.DAT.__arch.DAT import Spatial_Attention, windows2img
from spandrel.architectures.HAT.__arch.HAT import OCAB, window_partition, window_reverse
from spandrel.architectures.HAT.__arch.HAT import WindowAttention as HatAttention
from spandrel.architectures.SwinIR.__arch.SwinIR import WindowAttention as SwinAttention
from torch import Tensor, nn


def is_fused_faster(tokens: Tensor) -> bool:
    """Return whether one kernel is the better form on the device of the tokens.

    On a CPU with gradients spandrel's form is faster, because the kernel's backward pass computes the attention again.
    ONNX files keep spandrel's form, which has operators of every opset.
    """
    if torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
        return False
    return tokens.is_cuda or not torch.is_grad_enabled()


def attend(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor | None, *, scale: float, dropout: float = 0.0
) -> Tensor:
    """Compute softmax(scale q k^T + bias + mask) v in windows of images.

    Args:
        q: queries `[images * windows, heads, n, d]`.
        k: keys `[images * windows, heads, m, d]`.
        v: values of the same shape.
        bias: relative position bias `[heads, n, m]`.
        mask: 0, or -100 where shifted windows join distant pixels, `[windows, n, m]`; None for none.
        scale: factor of the products.
        dropout: probability that a weight is dropped.

    Returns:
        `[images * windows, heads, n, d]`, of the type of q.

    Example:
        >>> q = torch.zeros(2, 1, 4, 3)
        >>> attend(q, q, torch.ones(2, 1, 4, 3), torch.zeros(1, 4, 4), None, scale=1.0).sum().item()
        24.0
    """
    added = bias.to(q.dtype).unsqueeze(0)
    if mask is not None:
        added = added + mask.to(q.dtype).unsqueeze(1)  # [windows, heads, n, m]
        added = added.expand(q.shape[0] // mask.shape[0], -1, -1, -1, -1).flatten(0, 1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=added, dropout_p=dropout, scale=scale)


class FusedSwinAttention(SwinAttention):
    """SwinIR's attention over windows."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map tokens `[images * windows, n, C]` to the same shape."""
        if not is_fused_faster(x):
            return super().forward(x, mask)
        index = self.relative_position_index
        assert isinstance(index, Tensor)
        return _attend_to_window(self, x, index, mask)


class FusedHatAttention(HatAttention):
    """HAT's attention over windows."""

    def forward(self, x: Tensor, rpi: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map tokens `[images * windows, n, C]` to the same shape; `rpi` is the relative position index `[n, n]`."""
        return _attend_to_window(self, x, rpi, mask) if is_fused_faster(x) else super().forward(x, rpi, mask)


class FusedSpatialAttention(Spatial_Attention):
    """DAT's attention over windows."""

    def forward(self, qkv: Tensor, H: int, W: int, mask: Tensor | None = None) -> Tensor:
        """Map queries, keys and values `[3, images, H * W, C]` to `[images, H, W, C]`."""
        if not is_fused_faster(qkv):
            return super().forward(qkv, H, W, mask)
        n = self.H_sp * self.W_sp
        q, k, v = (self.im2win(tokens, H, W) for tokens in (qkv[0], qkv[1], qkv[2]))
        index = self.relative_position_index
        assert isinstance(index, Tensor)
        bias = _gather_bias(self.pos(self.rpe_biases), index, n, n)
        out = attend(q, k, v, bias, mask, scale=self.scale, dropout=_dropout(self.attn_drop))
        return windows2img(out.transpose(1, 2).reshape(-1, n, self.dim), self.H_sp, self.W_sp, H, W)


class FusedOverlappingAttention(OCAB):
    """HAT's attention of windows to overlapping windows, with its MLP."""

    def forward(self, x: Tensor, x_size: tuple[int, int], rpi: Tensor) -> Tensor:
        """Map tokens `[images, h * w, C]` to the same shape; `rpi` is the relative position index `[n, m]`."""
        if not is_fused_faster(x):
            return super().forward(x, x_size, rpi)
        (height, width), (images, _, channels) = x_size, x.shape
        n, m = self.window_size**2, self.overlap_win_size**2
        qkv = self.qkv(self.norm1(x)).view(images, height, width, 3 * channels)
        q = window_partition(qkv[..., :channels], self.window_size).reshape(-1, n, channels)
        # [images, 2 C m, windows] to [2, images, windows, m, C]
        k, v = (
            self.unfold(qkv[..., channels:].permute(0, 3, 1, 2))
            .view(images, 2, channels, m, -1)
            .permute(1, 0, 4, 3, 2)
            .contiguous()  # otherwise PyTorch takes its slow form, which writes all products
            .view(2, -1, m, channels)
        )
        bias = _gather_bias(self.relative_position_bias_table, rpi, n, m)
        q, k, v = (tokens.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for tokens in (q, k, v))
        out = attend(q, k, v, bias, None, scale=self.scale).transpose(1, 2)
        out = out.reshape(-1, self.window_size, self.window_size, channels)
        x = self.proj(window_reverse(out, self.window_size, height, width).view(images, -1, channels)) + x
        return x + self.mlp(self.norm2(x))


_FUSED: dict[type[nn.Module], type[nn.Module]] = {
    SwinAttention: FusedSwinAttention,
    HatAttention: FusedHatAttention,
    Spatial_Attention: FusedSpatialAttention,
    OCAB: FusedOverlappingAttention,
}


def fuse_attention(net: nn.Module) -> nn.Module:
    """Let the window attention of SwinIR, DAT and HAT run as one kernel where that is faster, in place.

    DAT's attention over channels stays as it is: its matrices do not grow with the image.
    """
    for module in net.modules():
        module.__class__ = _FUSED.get(type(module), type(module))
    return net


def _attend_to_window(module: SwinAttention | HatAttention, x: Tensor, index: Tensor, mask: Tensor | None) -> Tensor:
    count, n, channels = x.shape
    q, k, v = module.qkv(x).view(count, n, 3, module.num_heads, -1).permute(2, 0, 3, 1, 4).unbind()
    bias = _gather_bias(module.relative_position_bias_table, index, n, n)
    out = attend(q, k, v, bias, mask, scale=module.scale, dropout=_dropout(module.attn_drop))
    return module.proj_drop(module.proj(out.transpose(1, 2).reshape(count, n, channels)))


def _gather_bias(table: Tensor, index: Tensor, n: int, m: int) -> Tensor:
    """Return the bias `[heads, n, m]` from a table `[positions, heads]` and the positions `[n, m]`."""
    return table[index.view(-1)].view(n, m, -1).permute(2, 0, 1).contiguous()


def _dropout(layer: nn.Dropout) -> float:
    return layer.p if layer.training else 0.0

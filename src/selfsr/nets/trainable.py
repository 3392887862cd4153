"""What the community's networks, as spandrel keeps them for inference, need before they can be trained.

Spandrel's classes are true to the authors' in structure and key names. Where they differ, or where the authors'
own code has a flaw that training would run into, is mended here:

* ESRGAN lacks the authors' initialisation (dense blocks: He normal times 0.1, bias 0).
* RCAN's mean shifts are trainable (`requires_grad` is set on the module, where it does nothing), and its
  forward pass multiplies the caller's image by 255 in place.
* SPAN trains three convolutions and a skip in place of each one that it runs later. Spandrel leaves that later
  one (`eval_conv`) among the parameters to be trained, where no gradient reaches it; and it is fused anew with
  whatever precision and inference mode are in force.
* Every network ends in the precision of autocast, which is too coarse for a picture (see layers.py).
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from spandrel.architectures.__arch_helpers.block import ResidualDenseBlock_5C
from spandrel.architectures.Compact import Compact
from spandrel.architectures.DAT import DAT
from spandrel.architectures.ESRGAN import ESRGAN
from spandrel.architectures.HAT import HAT
from spandrel.architectures.PLKSR import RealPLKSR
from spandrel.architectures.RCAN import RCAN
from spandrel.architectures.SPAN import SPAN
from spandrel.architectures.SPAN.__arch.span import Conv3XC
from spandrel.architectures.SwinIR import SwinIR
from torch import Tensor, nn

from selfsr.nets.blocks import he_normal_tenth
from selfsr.nets.community import (
    CompactSpec,
    DatSpec,
    HatSpec,
    RcanSpec,
    RealPlksrSpec,
    RrdbSpec,
    SpanSpec,
    SwinIrSpec,
)
from selfsr.nets.layers import Float32Conv2d, MeanShift


@contextmanager
def expected_warnings() -> Iterator[None]:
    """Silence what spandrel's window attention says of `torch.meshgrid` each time one is built."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.meshgrid", category=UserWarning)
        yield


def rrdb(spec: RrdbSpec, scale: int, channels: int) -> nn.Module:
    """Build ESRGAN's generator, its dense blocks started at a tenth of He's size."""
    net = ESRGAN(
        in_nc=channels * spec.unshuffle**2,
        out_nc=channels,
        num_filters=spec.features,
        num_blocks=spec.blocks,
        scale=scale * spec.unshuffle,
        shuffle_factor=spec.unshuffle if spec.unshuffle > 1 else None,
    )
    for block in net.modules():
        if isinstance(block, ResidualDenseBlock_5C):
            he_normal_tenth(block)
    return _end_in_float32(net, f"model.{len(net.model) - 1}")


def swinir(spec: SwinIrSpec, scale: int, channels: int) -> nn.Module:
    """Build SwinIR; the class itself initialises as the authors do."""
    with expected_warnings():
        net = SwinIR(
            in_chans=channels,
            embed_dim=spec.features,
            depths=list(spec.depths),
            num_heads=list(spec.heads),
            window_size=spec.window_px,
            mlp_ratio=spec.mlp_ratio,
            drop_path_rate=spec.drop_path,
            upscale=scale,
            upsampler=spec.upsampler,
            resi_connection=spec.residual_conv,
        )
    return _end_in_float32(net, "upsample.0" if spec.upsampler == "pixelshuffledirect" else "conv_last")


def rcan(spec: RcanSpec, scale: int, channels: int) -> nn.Module:
    """Build RCAN with frozen mean shifts (none for grey), on an image of its own."""
    net = RCAN(
        scale=scale,
        n_resgroups=spec.groups,
        n_resblocks=spec.blocks,
        n_feats=spec.features,
        n_colors=channels,
        reduction=spec.reduction,
        norm=channels == 3,
    )
    if channels == 3:
        net.set_submodule("sub_mean", MeanShift(channels, -1, net.rgb_range))
        net.set_submodule("add_mean", MeanShift(channels, 1, net.rgb_range))
    net.register_forward_pre_hook(_copy_input)
    return _end_in_float32(net, "tail.1")


def compact(spec: CompactSpec, scale: int, channels: int) -> nn.Module:
    """Build Compact; PyTorch's own initialisation is the authors'."""
    net = Compact(num_in_ch=channels, num_out_ch=channels, num_feat=spec.features, num_conv=spec.convs, upscale=scale)
    return _end_in_float32(net, f"body.{len(net.body) - 1}")


def span(spec: SpanSpec, scale: int, channels: int) -> nn.Module:
    """Build SPAN; PyTorch's own initialisation is the authors'."""
    net = SPAN(
        num_in_ch=channels,
        num_out_ch=channels,
        feature_channels=spec.features,
        upscale=scale,
        norm=spec.subtract_mean,
    )
    for name, module in list(net.named_modules()):
        if isinstance(module, Conv3XC):
            net.set_submodule(name, FusedConv(module.sk.in_channels, module.sk.out_channels, gain1=2))
    return _end_in_float32(net, "upsampler.0")


def realplksr(spec: RealPlksrSpec, scale: int, channels: int) -> nn.Module:  # noqa: ARG001 - always RGB
    """Build RealPLKSR; the class itself initialises as the authors do."""
    net = RealPLKSR(
        dim=spec.features,
        n_blocks=spec.blocks,
        upscaling_factor=scale,
        kernel_size=spec.kernel_px,
        split_ratio=spec.split_ratio,
        use_ea=spec.attention,
        dropout=spec.dropout,
        dysample=spec.dysample,
        layer_norm=spec.layer_norm,
    )
    last = f"feats.{len(net.feats) - 1}"
    return _end_in_float32(net, last, *(["to_img.end_conv"] if spec.dysample else []))


def dat(spec: DatSpec, scale: int, channels: int) -> nn.Module:
    """Build DAT; the class itself initialises as the authors do."""
    with expected_warnings():
        net = DAT(
            in_chans=channels,
            embed_dim=spec.features,
            split_size=list(spec.split_px),
            depth=list(spec.depths),
            num_heads=list(spec.heads),
            expansion_factor=spec.expansion,
            drop_path_rate=spec.drop_path,
            upscale=scale,
            upsampler=spec.upsampler,
            resi_connection=spec.residual_conv,
        )
    return _end_in_float32(net, "upsample.0" if spec.upsampler == "pixelshuffledirect" else "conv_last")


def hat(spec: HatSpec, scale: int, channels: int) -> nn.Module:
    """Build HAT; the class itself initialises as the authors do."""
    with expected_warnings():
        net = HAT(
            in_chans=channels,
            embed_dim=spec.features,
            depths=spec.depths,
            num_heads=spec.heads,
            window_size=spec.window_px,
            compress_ratio=spec.compress_ratio,
            squeeze_factor=spec.squeeze_factor,
            overlap_ratio=spec.overlap_ratio,
            mlp_ratio=spec.mlp_ratio,
            drop_path_rate=spec.drop_path,
            upscale=scale,
        )
    return _end_in_float32(net, "conv_last")


class FusedConv(Conv3XC):
    """SPAN's convolution, whose fused form is a constant to the optimiser and always whole and in full precision."""

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


def _end_in_float32(net: nn.Module, *names: str) -> nn.Module:
    for name in names:
        conv = net.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)
        net.set_submodule(name, Float32Conv2d.like(conv))
    return net


def _copy_input(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:  # noqa: ARG001 - a hook's signature
    return (args[0].clone(),)

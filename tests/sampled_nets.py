"""Tiny networks that sample, and autoencoders."""

from pathlib import Path
from typing import Any

import torch

from selfsr.nets.diffusion.residual_shifting import ResidualShifting, ResidualShiftingSpec

TINY: dict[str, Any] = {"kind": "residual_shifting", "unet": {"channels": [8, 16], "groups": 4}}


def make_net(scale: int = 2, channels: int = 3, **options: Any) -> ResidualShifting:
    """Return a tiny network in eval mode whose last layer is not zero; the same weights at each call."""
    torch.manual_seed(0)
    net = ResidualShiftingSpec(**{**TINY, **options}).build(scale, channels)
    assert isinstance(net, ResidualShifting)
    torch.nn.init.normal_(net.unet.conv_out.weight, std=0.05)
    return net.eval()


def save_autoencoder(folder: Path, kind: str) -> Path:
    """Save a random diffusers autoencoder with 4 latent channels at 1/2."""
    import diffusers

    torch.manual_seed(1)
    blocks = {"block_out_channels": (8, 8), "norm_num_groups": 4, "latent_channels": 4, "scaling_factor": 0.5}
    types = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    options: dict[str, Any] = {
        "AutoencoderKL": {**blocks, **types},
        "VQModel": {**blocks, **types, "num_vq_embeddings": 16, "vq_embed_dim": 4},
        "AutoencoderTiny": {
            "encoder_block_out_channels": (8, 8),
            "decoder_block_out_channels": (8, 8),
            "num_encoder_blocks": (1, 1),
            "num_decoder_blocks": (1, 1),
            "latent_channels": 4,
        },
    }
    getattr(diffusers, kind)(**options[kind]).save_pretrained(folder)
    return folder

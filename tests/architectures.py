"""Small options of every architecture of spandrel from image to image, for the tests that run over them."""

import pytest
import torch
from torch import nn

from selfsr.nets.spandrel.any import SpandrelSpec

# Small options by architecture, with the scale if it is not 2.
TINY = {
    "Compact": {"num_feat": 8, "num_conv": 2},
    "SwiftSRGAN": {"num_channels": 8, "num_blocks": 1},
    "HAT": {
        "embed_dim": 12, "depths": [2], "num_heads": [2], "window_size": 4, "squeeze_factor": 3, "mlp_ratio": 2.0,
    },
    "GRL": {
        "embed_dim": 16, "depths": [2], "num_heads_window": [1], "num_heads_stripe": [1], "mlp_ratio": 2.0,
        "upsampler": "pixelshuffledirect", "window_size": 32, "stripe_size": [64, 64], "stripe_shift": True,
        "anchor_window_down_factor": 4,
    },
    "Swin2SR": {"embed_dim": 12, "depths": [2], "num_heads": [2], "mlp_ratio": 2.0, "upsampler": "pixelshuffledirect"},
    "SwinIR": {"embed_dim": 12, "depths": [2], "num_heads": [2], "mlp_ratio": 2.0},
    "OmniSR": {"num_feat": 16, "block_num": 1, "res_num": 1},
    "SCUNet": {"config": [1] * 7, "dim": 64},
    "FBCNN": {"nc": [8, 8, 8, 512], "nb": 2},
    "Uformer": {"embed_dim": 8, "depths": [1] * 9},
    "RGT": {"embed_dim": 96, "depth": [2], "num_heads": [2], "mlp_ratio": 2.0},
    "DAT": {"embed_dim": 96, "depth": [2], "num_heads": [2], "split_size": [4, 8], "expansion_factor": 2.0},
    "CRAFT": {"embed_dim": 48, "depths": [2], "num_heads": [6]},
    "KBNet_l": {"dim": 48, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1},
    "KBNet_s": {"width": 8, "middle_blk_num": 1, "enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1]},
    "DITN": {"dim": 12, "ITL_blocks": 1, "SAL_blocks": 1, "UFONE_blocks": 1},
    "MMRealSR": {
        "num_feat": 8, "num_block": 1, "num_grow_ch": 4, "num_feats": [8, 8, 8, 8], "num_blocks": [1, 1, 1, 1],
    },
    "SPAN": {"feature_channels": 6},
    "UpCunet2x": {},
    "UpCunet2x_fast": {},
    "UpCunet3x": {},
    "UpCunet4x": {},
    "SAFMN": {"dim": 8, "n_blocks": 1},
    "SAFMNBCIE": {"dim": 8, "n_blocks": 1, "num_layers": 2},
    "DCTLSA": {"nf": 10},
    "FFTformer": {"dim": 8, "num_blocks": [1, 1, 1], "num_refinement_blocks": 1},
    "NAFNet": {"width": 8, "middle_blk_num": 1, "enc_blk_nums": [1], "dec_blk_nums": [1]},
    "ATD": {
        "embed_dim": 12, "depths": [2], "num_heads": [2], "num_tokens": 8, "reducted_dim": 2,
        "upsampler": "pixelshuffledirect",
    },
    "MixDehazeNet": {"embed_dims": [8, 16, 32, 16, 8]},
    "DRUNet": {"nc": [8, 8, 8, 8], "nb": 2, "in_nc": 4},
    "DnCNN": {"nc": 8, "nb": 17, "act_mode": "R"},
    "IPT": {"patch_size": 12, "n_feats": 12, "num_layers": 1},
    "DRCT": {"embed_dim": 12, "num_heads": [2] * 6, "gc": 4},
    "ESRGAN": {"num_filters": 8, "num_blocks": 1},
    "PLKSR": {"dim": 8, "n_blocks": 1, "kernel_size": 5},
    "RealPLKSR": {"dim": 8, "n_blocks": 1, "kernel_size": 5},
    "RetinexFormer": {"n_feat": 8, "stage": 1},
    "HVICIDNet": {"channels": [8, 8, 16, 32]},
    "SeemoRe": {"embedding_dim": 8, "num_layers": 2, "num_experts": 2},
    "MoSR": {"dim": 8, "n_block": 1},
    "MoESR": {"dim": 8, "n_blocks": 1, "n_block": 1, "upsample_dim": 16},
    "RCAN": {"n_resgroups": 1, "n_resblocks": 1, "n_feats": 8, "reduction": 4},
    "AuraSR": {
        "dim": 8, "image_size": None, "input_image_size": None, "up_dim_mults": [1] * 5, "down_dim_mults": [1] * 3,
        "style_network": {"dim_in": 4, "dim_out": 16, "depth": 1}, "self_attn_dim_head": 2, "attn_depths": [1] * 5,
        "mid_attn_depth": 1, "num_conv_kernels": 2, "skip_connect_scale": 0.4,
    },
    "FDAT": {"embed_dim": 16, "num_groups": 1, "depth_per_group": 2, "num_heads": 2},
}  # fmt: skip
RESTORING = {
    "SCUNet", "FBCNN", "Uformer", "KBNet_l", "KBNet_s", "SAFMNBCIE", "FFTformer", "NAFNet", "MixDehazeNet", "DRUNet",
    "DnCNN", "RetinexFormer", "HVICIDNet",
}  # fmt: skip
SCALES = (
    {name: 2 for name in TINY}
    | dict.fromkeys(RESTORING, 1)
    | {"UpCunet3x": 3, "UpCunet4x": 4, "MMRealSR": 4, "AuraSR": 4}
)

# These run always; all run with -m slow.
QUICK = {"DITN", "ESRGAN", "SAFMN"}
NAMES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in TINY]


def build(name: str) -> nn.Module:
    """Return the small network of an architecture in training mode, with the same weights at each call."""
    torch.manual_seed(7)
    return SpandrelSpec(architecture=name, options=TINY[name]).build(SCALES[name])

"""Tiny random models of the layout of Stable Diffusion, as bases of networks."""

import json
from pathlib import Path
from typing import Any

import torch

# Features of the text and tokens of the tiny text encoder.
FEATURES, TOKENS = 16, 12


def save_base(folder: Path, *, prediction: str = "epsilon", latents: int = 4, text: bool = True) -> Path:
    """Save a U-Net with cross-attention, an autoencoder at 1/2, a scheduler and a text encoder."""
    import diffusers

    torch.manual_seed(5)
    diffusers.UNet2DConditionModel(
        in_channels=latents,
        out_channels=latents,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=FEATURES,
        attention_head_dim=4,
        norm_num_groups=4,
    ).save_pretrained(folder / "unet")
    save_autoencoder(folder / "vae")
    config = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "prediction_type": prediction}
    diffusers.DDPMScheduler(**config).save_pretrained(folder / "scheduler")
    if text:
        save_text_encoder(folder)
    return folder


def save_flow_base(folder: Path) -> Path:
    """Save a transformer of Stable Diffusion 3 with an autoencoder at 1/2; it has no single text encoder."""
    import diffusers

    torch.manual_seed(6)
    diffusers.SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=4,
        num_attention_heads=2,
        joint_attention_dim=FEATURES,
        caption_projection_dim=8,
        pooled_projection_dim=12,
        pos_embed_max_size=32,
    ).save_pretrained(folder / "transformer")
    save_autoencoder(folder / "vae", shift_factor=0.1)
    diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(folder / "scheduler")
    return folder


def save_autoencoder(folder: Path, **options: Any) -> Path:
    """Save a random AutoencoderKL with 4 latent channels at 1/2."""
    import diffusers

    diffusers.AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=4,
        latent_channels=4,
        scaling_factor=0.5,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        **options,
    ).save_pretrained(folder)
    return folder


def save_text_encoder(base: Path) -> None:
    """Save a text encoder of CLIP with the letters as its words."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    folder = base / "tokenizer"
    folder.mkdir(parents=True)
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=TOKENS)
    tokenizer.save_pretrained(folder)
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=FEATURES,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        bos_token_id=0,
        eos_token_id=1,
    )
    CLIPTextModel(config).save_pretrained(base / "text_encoder")

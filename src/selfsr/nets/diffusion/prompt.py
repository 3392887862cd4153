"""Prompt embeddings of a pretrained diffusion model, computed once, so that no text encoder is needed later."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from selfsr.errors import InputError, shorten
from selfsr.fileio import write_atomic
from selfsr.nets.diffusion.base_layouts import count_skipped_tokens


@dataclass(frozen=True)
class Prompt:
    """The embeddings of a prompt and of a negative prompt, float32.

    Attributes:
        embedding: `[tokens, features]`.
        negative: of the negative prompt, which guidance moves away from, of the same shape; None if there is none.
        pooled: `[features]`, which transformers also need; None for U-Nets.
        negative_pooled: the same for `negative`.
    """

    embedding: Tensor
    negative: Tensor | None = None
    pooled: Tensor | None = None
    negative_pooled: Tensor | None = None

    def save(self, path: Path, texts: Mapping[str, str] | None = None) -> None:
        """Write the embeddings as a safetensors file.

        Args:
            path: the file.
            texts: the prompts by name, which are written into the file's metadata.

        Raises:
            OSError: the disk is full or not writable.
        """
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        content = {name: tensor.contiguous() for name, tensor in tensors.items() if tensor is not None}
        write_atomic(path, safetensors.torch.save(content, metadata={"format": "pt", **(texts or {})}))


def read_prompt(path: Path) -> Prompt:
    """Read a file of prompt embeddings.

    Raises:
        InputError: the file is missing, or is no file of embeddings.
    """
    expected = f"network.prompt_file: expected a .safetensors file with the tensor embedding of two axes, got {path}"
    try:
        tensors = safetensors.torch.load_file(path)
    except FileNotFoundError as error:
        raise InputError(
            f"{expected}, which does not exist; make it with: selfsr prompt BASE -o {path.name}"
        ) from error
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{expected}, which cannot be read ({shorten(str(error))}); make it again.") from error
    names = [field.name for field in fields(Prompt)]
    axes = {name: tensor.ndim for name, tensor in tensors.items()}
    if "embedding" not in tensors or any(
        name not in names or count != (1 if "pooled" in name else 2) for name, count in axes.items()
    ):
        raise InputError(f"{expected} with {shorten(str(axes) or 'nothing')}; make it with selfsr prompt.")
    return Prompt(**{name: tensor.float() for name, tensor in tensors.items()})


def has_text_encoder(base: Path) -> bool:
    """Return whether a model folder has one text encoder, which `encode_prompt` runs."""
    return (
        all((base / name).is_dir() for name in ("text_encoder", "tokenizer")) and not (base / "text_encoder_2").is_dir()
    )


def encode_prompt(
    base: Path,
    text: str,
    negative: str | None = None,
    *,
    place: str = "network.prompt",
    places: tuple[str, str] = ("network.prompt", "network.negative_prompt"),
) -> Prompt:
    """Compute the embeddings of a prompt with the text encoder of a model folder of diffusers.

    Args:
        base: a folder with `text_encoder` and `tokenizer`, as Stable Diffusion 1 and 2 have.
        text: the prompt; an empty one is usual.
        negative: the negative prompt; None for none.
        place: the option or key that names the folder, for error messages.
        places: the options or keys of the two prompts, for error messages.

    Raises:
        InputError: transformers is not installed, the folder has no such text encoder, or a prompt is too long for it.
    """
    try:
        from transformers import CLIPTextModel, CLIPTokenizer
        from transformers.utils import logging
    except ImportError as error:
        raise InputError(
            f"{place}: texts are encoded with transformers, got an environment without it; install it with "
            'pip install "selfsr[diffusion]", or name a file of embeddings as network.prompt_file.'
        ) from error
    if not has_text_encoder(base):
        folders = [name for name in ("text_encoder", "text_encoder_2", "tokenizer") if (base / name).is_dir()]
        got = ", ".join(folders) or ("neither" if base.is_dir() else "a file" if base.exists() else "no such folder")
        raise InputError(
            f"{place}: expected the folders text_encoder and tokenizer in {base}, and no further encoder, got {got}; "
            "use the model folder of a base with one text encoder, or a file of embeddings as network.prompt_file."
        )
    logging.disable_progress_bar()
    try:
        tokenizer = CLIPTokenizer.from_pretrained(str(base / "tokenizer"), local_files_only=True)
        encoder = CLIPTextModel.from_pretrained(str(base / "text_encoder"), local_files_only=True)
    except (OSError, ValueError, RuntimeError, TypeError, LookupError) as error:
        raise InputError(
            f"{place}: expected a text encoder of CLIP in {base}, got {shorten(str(error))}; use a complete model "
            "folder, or network.prompt_file."
        ) from error

    def encode(words: str, place: str) -> Tensor:
        length = tokenizer.model_max_length
        count = len(tokenizer(words, verbose=False).input_ids)
        if count > length:
            raise InputError(
                f"{place}: expected a text of at most {length} tokens, which the text encoder reads, got {count}; "
                "shorten it."
            )
        tokens = tokenizer(words, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        with torch.no_grad():
            return encoder.eval()(tokens.input_ids)[0][0].float()

    return Prompt(encode(text, places[0]), None if negative is None else encode(negative, places[1]))


def open_prompt(
    base: Path,
    config: Mapping[str, Any],
    *,
    text: str,
    negative: str | None,
    file: Path | None,
    shapes: Mapping[str, tuple[int, ...]] | None,
) -> Prompt:
    """Return the prompt embeddings that a network is built with.

    Args:
        base: the model folder.
        config: configuration of its denoiser.
        text: the prompt, encoded by the base's text encoder unless `file` or `shapes` are given.
        negative: the same for the negative prompt.
        file: file of prompt embeddings.
        shapes: of the embeddings in a weights file, which are loaded later; they start as zeros.

    Raises:
        InputError: no embeddings are available, or they are for another base.
    """
    features = int(config.get("joint_attention_dim") or config.get("cross_attention_dim") or 0)
    pooled = config.get("pooled_projection_dim")
    if shapes is not None:
        return Prompt(**{name: torch.zeros(shape) for name, shape in shapes.items()})
    tokens = 1 if torch.get_default_device().type == "meta" else count_skipped_tokens()
    if tokens is not None:
        has_negative = negative is not None and count_skipped_tokens() is not None
        parts = [(torch.zeros(tokens, features), None if pooled is None else torch.zeros(pooled)) for _ in range(2)]
        return Prompt(
            parts[0][0], parts[1][0] if has_negative else None, parts[0][1], parts[1][1] if has_negative else None
        )
    if file is not None:
        prompt, place = read_prompt(file), f"network.prompt_file: expected embeddings from {file}"
    elif has_text_encoder(base):
        prompt, place = encode_prompt(base, text, negative), "network.prompt: expected a text"
    else:
        raise InputError(
            f"network.prompt_file: expected a file of embeddings for {base}, which has no single text encoder, got "
            "none; compute them with the text encoders of that model and save them as docs/diffusion.md describes."
        )
    found = (prompt.embedding.shape[1], None if prompt.pooled is None else len(prompt.pooled))
    if found != (features, pooled):
        raise InputError(
            f"{place} of {features} features{f' and {pooled} pooled ones' if pooled else ''}, which the base takes, "
            f"got {found[0]}{f' and {found[1]}' if found[1] else ''}; use the embeddings of this base."
        )
    return prompt

"""Configurations of well-known pretrained bases, so that memory is estimated before one is downloaded."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

import torch

from selfsr.errors import InputError

_FOLDER = Path(__file__).parent / "layouts"
_PARTS = ("unet", "transformer", "vae", "scheduler")
# Tokens of the text, where a base is built without its weights.
_without_weights: ContextVar[int | None] = ContextVar("without_weights", default=None)


@contextmanager
def skip_weights(tokens: int = 77) -> Iterator[None]:
    """Build bases from their configurations only; their weights are undefined and take no memory.

    Args:
        tokens: length of the embeddings.
    """
    token = _without_weights.set(tokens)
    try:
        yield
    finally:
        _without_weights.reset(token)


def count_skipped_tokens() -> int | None:
    """Return the length of embeddings within `skip_weights`, and None outside of it."""
    return _without_weights.get()


def build_without_weights(model_class: Any, config: Mapping[str, Any]) -> Any:
    """Return a model of diffusers whose weights are allocated and never written, so that they take no memory."""
    with torch.device("meta"):
        net = model_class.from_config(dict(config))
    return net.to_empty(device="cpu")


@cache
def list_layouts() -> dict[str, dict[str, Any]]:
    """Return the configurations of the known bases by name."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(_FOLDER.glob("*.json"))}


def find_layout(base: Path, name: str | None) -> str:
    """Return the name of a known base: the given one, or the one that the name of the folder contains.

    Args:
        base: the folder in the recipe, which need not exist.
        name: a name of `list_layouts`; None to go by the folder's name, such as stable-diffusion-2-1-base.

    Raises:
        InputError: there is no such base, or the folder's name contains none.
    """
    layouts = list_layouts()
    if name is not None:
        if name not in layouts:
            raise InputError(f"--layout: expected one of {', '.join(layouts)}, got {name!r}; choose one of them.")
        return name
    plain = re.sub(r"[^a-z0-9]", "", base.name.lower())
    for known, layout in layouts.items():
        if any(text in plain for text in layout["names"]):
            return known
    raise InputError(
        f"network.base: expected a model folder, or a name of a known base, got {base}, which does not exist; choose "
        f"its size with --layout {' or '.join(layouts)}."
    )


def write_layout(name: str, folder: Path) -> int:
    """Write the configurations of a known base as a model folder without weights; return the tokens of its text."""
    layout = list_layouts()[name]
    for part in _PARTS:
        if part in layout:
            (folder / part).mkdir(parents=True)
            file = "scheduler_config.json" if part == "scheduler" else "config.json"
            (folder / part / file).write_text(json.dumps(layout[part]), encoding="utf-8")
    return int(layout["tokens"])

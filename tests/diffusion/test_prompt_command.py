"""`selfsr prompt`: the embeddings of a text in a file."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from typer.testing import CliRunner

from selfsr import cli
from selfsr.errors import InputError
from selfsr.nets.diffusion.prompt import read_prompt
from tiny_bases import FEATURES, TOKENS


def call(*arguments: Any) -> str:
    result = CliRunner().invoke(cli.app, ["prompt", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return " ".join(result.output.split())


def encode_with_transformers(base: Path, text: str) -> torch.Tensor:
    from transformers import CLIPTextModel, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(base / "tokenizer")
    tokens = tokenizer(text, padding="max_length", truncation=True, return_tensors="pt").input_ids
    with torch.no_grad():
        return CLIPTextModel.from_pretrained(base / "text_encoder")(tokens)[0][0]


def test_file_has_the_embeddings_of_transformers(base: Path, tmp_path: Path) -> None:
    path = tmp_path / "new" / "prompt.safetensors"
    printed = call(base, "-o", path, "--text", "sky", "--negative", "")
    assert f"Wrote {path}: text 'sky' and negative '', {TOKENS} tokens of {FEATURES} features each" in printed
    prompt = read_prompt(path)
    assert torch.equal(prompt.embedding, encode_with_transformers(base, "sky"))
    assert prompt.negative is not None
    assert torch.equal(prompt.negative, encode_with_transformers(base, ""))
    assert not torch.equal(prompt.embedding, prompt.negative)
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt", "text": "sky", "negative": ""}
    with pytest.raises(InputError, match=r"expected a new file, got .*, which exists; add --overwrite"):
        call(base, "-o", path)
    assert read_prompt(path).negative is not None
    call(base, "-o", path, "--overwrite")
    assert read_prompt(path).negative is None


@pytest.mark.parametrize(
    ("base_name", "output", "options", "message"),
    [
        ("base", "prompt.pt", [], r"prompt: expected a .safetensors file for --output, got .*prompt\.pt;"),
        ("nothing", "p.safetensors", [], "expected the folders text_encoder and tokenizer in .*, got no such folder;"),
        ("flow", "p.safetensors", [], "prompt .*: expected the folders text_encoder and tokenizer in .*, got neither;"),
        (
            "base",
            "p.safetensors",
            ["--text", "a b c d e f g h i j k"],
            f"--text: expected a text of at most {TOKENS} tokens, .* got 13; shorten it",
        ),
        ("base", "p.safetensors", ["--negative", "a b c d e f g h i j k"], "--negative: expected a text of at most"),
    ],
)
def test_mistakes_are_one_sentence(base_name, output, options, message, base, flow_base, tmp_path) -> None:
    folder = {"base": base, "flow": flow_base}.get(base_name, tmp_path / base_name)
    with pytest.raises(InputError, match=message) as refused:
        call(folder, "-o", tmp_path / output, *options)
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_help_says_that_no_text_encoder_is_needed() -> None:
    assert "The file replaces the text encoder" in call("--help")

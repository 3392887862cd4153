"""Tests of the examples in README.md and docs/: commands and options exist, recipe excerpts are valid."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from click import Command, Group

from selfsr.cli import app
from selfsr.models.card_options import read_card_options
from selfsr.recipe import parse_recipe, read_yaml, shipped_recipes

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def blocks(page: Path, *languages: str) -> list[str]:
    """Return the fenced blocks of a page in some languages; "" for blocks without one."""
    fences = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [block for language, block in fences if language in languages]


def commands() -> list[str]:
    """Return all `selfsr` commands: in code blocks, without their comments, and between backticks."""
    lines = set()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        code = [*blocks(page, "", "sh"), *re.findall(r"^    (selfsr .*)$", text, re.MULTILINE)]
        lines |= {line.split("  #")[0].strip() for block in code for line in block.splitlines()}
        lines |= {" ".join(inline.split()) for inline in re.findall(r"`(selfsr [^`]+)`", text)}
    return sorted(line for line in lines if line.startswith("selfsr "))


def recipe_excerpts() -> list[tuple[str, dict[str, Any]]]:
    """Return the YAML blocks that consist of keys of a recipe or of terms, with their pages."""
    excerpts = []
    for page in PAGES:
        for block in blocks(page, "yaml"):
            document = yaml.safe_load(block)
            if not {"arms", "author"} & set(document):  # a study, or a card
                excerpts.append((page.relative_to(ROOT).as_posix(), document))
    return excerpts


@pytest.mark.parametrize("line", commands())
def test_command_of_page_parses(line: str) -> None:
    arguments = shlex.split(line)[1:]
    command: Command = typer.main.get_command(app)
    context = None
    while isinstance(command, Group) and arguments:
        context = command.make_context(command.name, arguments, parent=context, resilient_parsing=True)
        name, subcommand, arguments = command.resolve_command(context, arguments)
        assert subcommand is not None, name
        command = subcommand
    command.make_context(command.name, arguments, parent=context, resilient_parsing="..." in line)


@pytest.mark.parametrize(("page", "excerpt"), recipe_excerpts())
def test_recipe_excerpt_of_page_is_valid(page: str, excerpt: dict[str, Any]) -> None:
    name = "esrgan_ssl_x4" if "method" in excerpt else "small_edsr_x2"
    document = read_yaml(shipped_recipes()[name].read_text(encoding="utf-8"), name)
    if "terms" in excerpt:
        document["method"]["terms"] = excerpt["terms"]
    else:
        document.update(excerpt)
    document.update(ema_decay=0.999, crop_px=128)
    parse_recipe(document, page)


def test_card_of_the_page_is_valid(tmp_path: Path) -> None:
    (block,) = (block for block in blocks(ROOT / "docs" / "export.md", "yaml") if block.startswith("author:"))
    (tmp_path / "card.yaml").write_text(block)
    card = read_card_options(tmp_path / "card.yaml")
    assert card.tags == ("photo", "restoration")
    assert set(yaml.safe_load(block)) == set(type(card).model_fields) - {"pretrained_model_d"}


def test_pages_have_commands_and_excerpts() -> None:
    assert len(commands()) >= 30
    assert len(recipe_excerpts()) >= 3

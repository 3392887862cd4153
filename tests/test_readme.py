"""What the README promises: its Python runs as it stands, its commands exist with these options."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from click import Command, Group

from selfsr.cli import app

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[str]:
    lines = [line.split("  #")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line.startswith("selfsr ")]


@pytest.mark.parametrize("code", blocks("python"))
def test_the_python_of_the_readme_runs(code: str) -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("line", commands())
def test_a_command_of_the_readme_parses(line: str) -> None:
    arguments = shlex.split(line)[1:]
    command: Command = typer.main.get_command(app)
    context = None
    while isinstance(command, Group):
        context = command.make_context(command.name, arguments, parent=context, resilient_parsing=True)
        name, command, arguments = command.resolve_command(context, arguments)
        assert command is not None, name
    command.make_context(command.name, arguments, parent=context)


@pytest.mark.parametrize("target", re.findall(r"^make (\w+)", README, flags=re.MULTILINE))
def test_a_make_target_of_the_readme_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)\)", README))
def test_a_link_of_the_readme_leads_somewhere(link: str) -> None:
    assert link.startswith("https://") or (ROOT / link).exists()


def test_the_counts_are_not_empty() -> None:
    assert len(blocks("python")) >= 1
    assert len(commands()) >= 10

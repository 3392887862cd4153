"""The command line: its verbs, their help, and how a mistake and a crash end."""

import errno
import sys

import pytest
import typer
from typer.testing import CliRunner

from selfsr import cli
from selfsr.errors import InputError

runner = CliRunner()
VERBS = {"train", "evaluate", "upscale", "degrade", "report", "study", "demo", "bench", "doctor"}
GROUPS = {"data": {"check", "prepare"}, "recipes": {"list", "show", "copy", "schema"}}


def tree() -> dict[str, set[str]]:
    root = typer.main.get_command(cli.app)
    return {name: set(getattr(command, "commands", {})) for name, command in root.commands.items()}


def test_commands_are_complete() -> None:
    assert tree() == {**{verb: set() for verb in VERBS}, **GROUPS}


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_command_shows_an_example(verb: str) -> None:
    shown = runner.invoke(cli.app, [verb, "--help"])
    assert shown.exit_code == 0
    assert "Example" in shown.output
    assert f"selfsr {verb}" in shown.output


def test_every_option_has_a_help_text() -> None:
    def commands(group):
        for command in group.commands.values():
            yield from commands(command) if hasattr(command, "commands") else [command]

    for command in commands(typer.main.get_command(cli.app)):
        assert command.help, command.name
        for parameter in command.params:
            assert getattr(parameter, "help", ""), f"{command.name} {parameter.name}"


def run_main(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int | str | None:
    def broken() -> None:
        raise error

    monkeypatch.setattr(cli, "app", broken)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code


def test_a_mistake_is_one_sentence_and_status_2(monkeypatch, capsys) -> None:
    assert run_main(monkeypatch, InputError("here: expected a, got b; do c.")) == 2
    assert capsys.readouterr().err == "selfsr: here: expected a, got b; do c.\n"


@pytest.mark.parametrize(
    ("number", "sentence"),
    [(errno.ENOSPC, "no space left on the disk for: x.png"), (errno.EACCES, "no permission for: x.png")],
)
def test_file_error_is_one_sentence_and_status_3(monkeypatch, capsys, number: int, sentence: str) -> None:
    assert run_main(monkeypatch, OSError(number, "", "x.png")) == 3
    assert capsys.readouterr().err == f"selfsr: {sentence}; files written before are complete.\n"


def test_a_crash_is_not_hidden(monkeypatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(cli, "app", broken)
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_recipes_are_listed_shown_and_copied(tmp_path) -> None:
    listed = runner.invoke(cli.app, ["recipes", "list"], env={"COLUMNS": "200"})
    assert "small_edsr_x2" in listed.output
    assert "A small EDSR x2, with self-paced pixel weighting: 122 thousand weights" in listed.output
    copied = tmp_path / "my.yaml"
    assert runner.invoke(cli.app, ["recipes", "copy", "small_edsr_x2", str(copied)]).exit_code == 0
    assert copied.read_text() == runner.invoke(cli.app, ["recipes", "show", "small_edsr_x2"]).output
    again = runner.invoke(cli.app, ["recipes", "copy", "small_edsr_x2", str(copied)])
    assert isinstance(again.exception, InputError)
    assert "which exists" in str(again.exception)
    unknown = runner.invoke(cli.app, ["recipes", "show", "small_esdr_x2"])
    assert "did you mean small_edsr_x2" in str(unknown.exception)


def test_doctor_prints_versions_devices_and_backends() -> None:
    told = runner.invoke(cli.app, ["doctor"], env={"COLUMNS": "200"})
    assert told.exit_code == 0
    for word in ("torch", "accelerate", "cpu:", "trains in", "eager: available", "triton: "):
        assert word in told.output
    assert sys.version.split()[0] in told.output

"""The command line: its verbs, their help, and how a mistake and a crash end."""

import errno
import os
import re
import sys
from typing import get_args

import pytest
import typer
from typer.testing import CliRunner

from programs import run_python
from selfsr import cli, report
from selfsr.errors import InputError
from selfsr.nets import AnyNetwork
from selfsr.nets.edsr import EdsrSpec
from selfsr.nets.spandrel.registry import read_architectures
from selfsr.recipe import shipped_recipes
from selfsr.training import loop

runner = CliRunner()
VERBS = {
    *("train", "finetune", "inspect", "evaluate", "compare", "upscale", "export", "degrade", "report", "study"),
    *("demo", "bench", "doctor", "prompt"),
}
GROUPS = {
    "data": {"check", "prepare", "sheet"},
    "models": {"add", "list", "show"},
    "recipes": {"list", "networks", "show", "copy", "schema"},
}


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
    [
        (errno.ENOSPC, "no space left on the disk for: x.png"),
        (errno.EACCES, "no permission for: x.png"),
        (errno.EFBIG, "the file is too large for this file system: x.png"),
        (errno.ENAMETOOLONG, "the name is too long for this file system: x.png"),
        (errno.EISDIR, "expected a file, got a folder: x.png"),
        (errno.ELOOP, "a symbolic link leads back to itself: x.png"),
        (errno.ESTALE, "the network drive has lost: x.png"),
        (errno.EIO, "the disk or the network reports an error for: x.png"),
        (errno.ETXTBSY, f"{os.strerror(errno.ETXTBSY)}: x.png"),
    ],
)
def test_file_error_is_one_sentence_and_status_3(monkeypatch, capsys, number: int, sentence: str) -> None:
    assert run_main(monkeypatch, OSError(number, os.strerror(number), "x.png")) == 3
    assert capsys.readouterr().err == f"selfsr: {sentence}; files written before are complete.\n"


def test_an_error_of_the_system_without_a_file_is_a_crash(monkeypatch) -> None:
    monkeypatch.setattr(cli, "app", lambda: os.kill(2**22 + 1, 0))
    with pytest.raises(ProcessLookupError):
        cli.main()


# Standard output (1) or error (2) is a pipe whose reader is gone.
MAIN_WITH_CLOSED_PIPE = """
import os, sys
from selfsr.cli import main
reader, writer = os.pipe()
os.close(reader)
os.dup2(writer, {stream})
sys.argv[0] = "selfsr"
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGPIPE")
@pytest.mark.parametrize(
    "verb",
    [
        ["--version"],
        ["--help"],
        ["doctor"],
        ["recipes", "schema"],
        ["recipes", "list"],
        ["recipes", "show", "small_edsr_x2"],
    ],
)
def test_a_closed_pipe_is_quiet_and_has_one_status(verb: list[str]) -> None:
    process = run_python("-c", MAIN_WITH_CLOSED_PIPE.format(stream=1), *verb)
    assert process.stderr == ""
    assert process.returncode == cli.CLOSED_PIPE_STATUS == 141


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGPIPE")
def test_messages_into_a_closed_pipe_have_the_same_status() -> None:
    process = run_python("-c", MAIN_WITH_CLOSED_PIPE.format(stream=2), "train", "nothing.yaml")
    assert process.returncode == cli.CLOSED_PIPE_STATUS


def test_names_that_are_not_utf8_are_printed(tmp_path) -> None:
    name = os.fsdecode(b"a\xe9")
    try:
        (tmp_path / name).mkdir()
    except OSError:
        pytest.skip("the file system has UTF-8 names only")
    code = (
        f"import typer; from selfsr import cli; name = {name!r}\n"
        "cli.app = lambda: (typer.echo(name), typer.echo(name, err=True))\ncli.main()"
    )
    process = run_python("-c", code)
    assert process.returncode == 0
    assert os.fsencode(process.stdout) == b"a\xe9\n"
    assert process.stderr == "a\\udce9\n"


def mistake(*arguments: str) -> str:
    error = runner.invoke(cli.app, list(arguments)).exception
    assert isinstance(error, InputError)
    return str(error)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "small_edsr_x2", "--dry-run", "--resume"], "train: expected no --resume with --dry-run"),
        (["train", "small_edsr_x2", "--dry-run", "--no-report"], "train: expected no --no-report with --dry-run"),
        (["train", "small_edsr_x2", "--dry-run", "--runs", "x"], "train: expected no --runs with --dry-run"),
        (["train", ".", "--resume", "--runs", "x"], "train: expected no --runs with a run folder"),
        (["study", "x.yaml", "--dry-run", "--no-reports"], "study: expected no --no-reports with --dry-run"),
        (["study", "x.yaml", "--summary", "--jobs", "2"], "study: expected no --jobs with --summary"),
        (["study", "x.yaml", "--summary", "--no-reports"], "study: expected no --no-reports with --summary"),
    ],
)
def test_no_option_is_accepted_and_ignored(arguments: list[str], sentence: str) -> None:
    option = sentence.split("no ")[1].split()[0]
    assert mistake(*arguments) == f"{sentence}, where it does nothing, got one; leave {option} out."


def test_a_crash_is_not_hidden(monkeypatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(cli, "app", broken)
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_recipes_are_listed_shown_and_copied(tmp_path) -> None:
    listed = runner.invoke(cli.app, ["recipes", "list"], env={"COLUMNS": "200"})
    assert "small_edsr_x2" in listed.output
    assert "A small EDSR x2, with self-paced pixel weighting: 122 thousand parameters" in listed.output
    copied = tmp_path / "my.yaml"
    assert runner.invoke(cli.app, ["recipes", "copy", "small_edsr_x2", str(copied)]).exit_code == 0
    assert copied.read_text() == runner.invoke(cli.app, ["recipes", "show", "small_edsr_x2"]).output
    again = runner.invoke(cli.app, ["recipes", "copy", "small_edsr_x2", str(copied)])
    assert isinstance(again.exception, InputError)
    assert "which exists" in str(again.exception)
    unknown = runner.invoke(cli.app, ["recipes", "show", "small_esdr_x2"])
    assert "did you mean small_edsr_x2?" in str(unknown.exception)


@pytest.mark.parametrize("terminal", [False, True])
def test_recipes_list_never_cuts_a_name(terminal: bool) -> None:
    environment = {"COLUMNS": "80", "NO_COLOR": "1", "TERM": "xterm"} | ({"FORCE_COLOR": "1"} if terminal else {})
    lines = runner.invoke(cli.app, ["recipes", "list"], env=environment).output.splitlines()
    words = {word for line in lines for word in line.split()}
    assert set(shipped_recipes()) <= words
    if not terminal:
        assert len(lines) == 1 + len(shipped_recipes())


def test_networks_are_listed_with_their_sizes() -> None:
    shown = runner.invoke(cli.app, ["recipes", "networks"], env={"COLUMNS": None})
    assert shown.exit_code == 0
    rows = [line.split() for line in shown.output.splitlines()]
    assert rows[0] == ["kind", "network", "scales", "channels", "weights", "paper"]
    (edsr,) = [row for row in rows if row[:1] == ["edsr"]]
    assert edsr[1:8] == ["EDSR", "x2,", "x3,", "x4,", "x8", "1,", "3"]
    by_hand = sum(parameter.numel() for parameter in EdsrSpec().build(4).parameters())
    assert edsr[8] == f"{by_hand:,}"
    assert rows[1 + len(get_args(AnyNetwork))] == []


@pytest.mark.parametrize("columns", ["80", None])
def test_architectures_of_spandrel_are_listed_by_their_scales(columns: str | None) -> None:
    shown = runner.invoke(cli.app, ["recipes", "networks"], env={"COLUMNS": columns}).output
    lines = shown.split("Architectures of spandrel")[1].splitlines()[2:]
    assert max(map(len, shown.splitlines())) <= 80 or columns is None
    assert lines[0].split() == ["scales", "architectures"]
    words = [word.strip(",") for line in lines[1:] for word in line.split()]
    scales, factors, is_name = {}, [], False
    for word in words:
        if re.fullmatch(r"x\d", word):
            factors = [int(word[1])] if is_name else [*factors, int(word[1])]
            is_name = False
        else:
            scales[word], is_name = tuple(factors), True
    assert scales == {name: architecture.scales for name, architecture in read_architectures().items()}
    assert (scales["DnCNN"], scales["FDAT"], scales["UpCunet3x"]) == ((1,), (1, 2, 3, 4), (3,))


def test_resume_of_a_missing_run_names_the_run_folder(tmp_path) -> None:
    sentence = f"train: expected a run folder or a recipe to resume, got {tmp_path}/none, which does not exist; "
    assert mistake("train", str(tmp_path / "none"), "--resume") == (f"{sentence}name a run folder, such as runs/NAME.")
    (tmp_path / "noun").mkdir()
    assert mistake("train", str(tmp_path / "none"), "--resume") == f"{sentence}did you mean {tmp_path}/noun?"


def test_ctrl_c_during_the_report_says_that_the_training_is_saved(monkeypatch, tmp_path) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "fit", lambda *_, **__: True)
    monkeypatch.setattr(report, "write_report", stop)
    result = runner.invoke(cli.app, ["train", "small_edsr_x2", "--runs", str(tmp_path)])
    folder = tmp_path / "small_edsr_x2"
    assert result.exit_code == 130
    assert result.stderr.splitlines() == [
        f"The training is finished and saved, without a report. Write it with: selfsr report {folder}",
        f"Weights: {folder / 'weights'}",
    ]


def test_doctor_prints_versions_devices_and_backends() -> None:
    told = runner.invoke(cli.app, ["doctor"], env={"COLUMNS": "200"})
    assert told.exit_code == 0
    for word in ("torch", "accelerate", "cpu:", "trains in", "eager: available", "triton: "):
        assert word in told.output
    assert sys.version.split()[0] in told.output
    assert "the tensor" not in told.output


def test_doctor_explains_triton_without_a_gpu(monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("selfsr._ops.backends._is_installed", lambda package: True)
    monkeypatch.setattr("selfsr._ops.backends._why_triton_fails", lambda: None)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    told = runner.invoke(cli.app, ["doctor"], env={"COLUMNS": "200"})
    assert "triton: unavailable, no GPU here that Triton supports\n" in told.output

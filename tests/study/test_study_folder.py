"""The study folder: it keeps its definition, grows only with `extend`, and is locked for one study at a time."""

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from selfsr.errors import InputError
from selfsr.study import open_study, run_study, summarize
from selfsr.study.folder import (
    check_run,
    is_finished,
    lock_study,
    read_last_step,
    read_plan,
    read_step,
    write_definition,
)
from selfsr.study.plan import StudyPlan

HERE = Path("here")
CURVE = [(0, 20.0), (20, 30.0)]


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as refused:
        call()
    return str(refused.value)


def test_read_plan_needs_only_the_folder(workspace: Path, plan_of: Callable[..., StudyPlan]) -> None:
    plan = write_definition(plan_of(metric="ssim_y", allowed_differences=[]), HERE)
    (workspace / "tiny.yaml").unlink()
    assert read_plan(HERE) == plan
    assert open_study(HERE) == (plan, HERE)
    assert write_definition(plan, HERE) == plan


def test_open_study_refuses_settings_for_a_folder(plan_of: Callable[..., StudyPlan]) -> None:
    write_definition(plan_of(), HERE)
    with pytest.raises(
        InputError, match=r"^study: expected a study file, got here/study.yaml, the definition of .* here\.$"
    ):
        open_study(HERE / "study.yaml")
    told = "study: --set and --out need a study file, got the study folder here; leave them out."
    assert refusal(lambda: open_study(HERE, ["base.steps=3"])) == told
    assert refusal(lambda: open_study(HERE, [], Path("there"))) == told


def test_another_definition_is_refused_with_what_differs(workspace: Path, plan_of: Callable[..., StudyPlan]) -> None:
    write_definition(plan_of(), HERE)
    before = (HERE / "study.yaml").read_text()
    changed = plan_of(
        set={"steps": 30, "ema_decay": None},
        metric="ssim_y",
        seeds=[2, 3],
        arms={"plain": None, "other": {"set": {"method.terms.pixel.weight": 2.0}}},
    )
    assert refusal(lambda: write_definition(changed, HERE)) == (
        "study: here has another study; the differences are metric (psnr_y there, ssim_y here); "
        "seeds ([1, 2] there, [2, 3] here); the arm paced (missing here); "
        "tiny: steps (20 and 30), tiny: ema_decay (0.999 and null); the arm other (new here): "
        "choose another folder with --out, or continue the old study: selfsr study here"
    )
    assert refusal(lambda: write_definition(changed, HERE, extend=True)).startswith("study: here has another study")
    assert (HERE / "study.yaml").read_text() == before


def test_extend_accepts_additions_and_records_them(plan_of: Callable[..., StudyPlan], write_runs: Callable) -> None:
    old = write_definition(plan_of(), HERE)
    write_runs(old, HERE, {"plain": {1: CURVE}, "paced": {1: CURVE, 2: CURVE}})
    more = plan_of(
        seeds=[1, 2, 3],
        arms={
            "plain": None,
            "paced": old.changes["paced"] and {"set": old.changes["paced"]},
            "l2": {"set": {"method.terms.pixel.kind": "l2"}},
        },
    )
    assert refusal(lambda: write_definition(more, HERE)) == (
        "study: here has another study; the differences are seeds ([1, 2] there, [1, 2, 3] here); "
        "the arm l2 (new here): add --extend to include the additions, which the results will mention; "
        "or choose another folder with --out, or continue the old study: selfsr study here"
    )
    write_definition(more, HERE, extend=True)
    told = "Extended when 3 runs were finished: seeds ([1, 2] there, [1, 2, 3] here); the arm l2 (new here)."
    assert write_definition(more, HERE).history == (told,)
    assert told in summarize(more, HERE).notes
    assert told in (HERE / "study.html").read_text()


def test_study_of_another_version_is_refused_except_for_summary(
    plan_of: Callable[..., StudyPlan], write_runs: Callable
) -> None:
    plan = write_definition(plan_of(), HERE)
    write_runs(plan, HERE, {"plain": {1: CURVE}, "paced": {1: CURVE}})
    path = HERE / "study.yaml"
    document = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**document, "selfsr": "0.0.7"}))
    told = refusal(lambda: run_study(plan, HERE, device="cpu"))
    assert told.startswith("study: here was started with selfsr 0.0.7, this is ")
    assert told.endswith(
        "and runs of two versions are not comparable; use that version, choose another folder with --out, "
        "or read the results with --summary."
    )
    assert refusal(lambda: open_study(HERE)) == told
    plan, folder = open_study(HERE, any_version=True)
    assert summarize(plan, folder).setups["tiny"].comparison is not None
    assert yaml.safe_load(path.read_text())["selfsr"] == "0.0.7"

    path.write_text(yaml.safe_dump({**document, "format": 2}))
    for call in (lambda: open_study(HERE, any_version=True), lambda: write_definition(plan, HERE)):
        assert refusal(call) == (
            "study: here has study format 2, this version reads 3; "
            "use the version that wrote it, or choose another folder with --out."
        )


def test_folder_with_other_files_is_refused_and_unchanged(workspace: Path, plan_of: Callable[..., StudyPlan]) -> None:
    told = refusal(lambda: run_study(plan_of(), Path("photos"), device="cpu"))
    assert told == (
        "study: photos is not empty and has no study (study.yaml is missing); choose another folder with --out."
    )
    assert sorted(entry.name for entry in Path("photos").iterdir()) == ["test", "train"]
    assert refusal(lambda: open_study(Path("photos"))) == (
        "study: photos is not a study folder (study.yaml is missing); pass a study file."
    )
    assert refusal(lambda: summarize(plan_of(), Path("nowhere"))) == (
        "study: nowhere does not exist; run the study first, without --summary."
    )
    assert not Path("nowhere").exists()


def test_run_of_another_recipe_is_refused(plan_of: Callable[..., StudyPlan], write_runs: Callable) -> None:
    plan = write_definition(plan_of(), HERE)
    write_runs(plan, HERE, {"plain": {1: CURVE}, "paced": {}})
    run = plan.runs()[0]
    check_run(HERE, run)
    recipe = HERE / "runs" / run.name / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("batch: 2", "batch: 4"))
    told = (
        "study: here/runs/tiny-plain-seed1 was trained with another recipe than the study's: batch (4 and 2); "
        "move the folder away to train the run again."
    )
    assert refusal(lambda: run_study(plan, HERE, device="cpu")) == told


def test_two_studies_do_not_work_in_one_folder(plan_of: Callable[..., StudyPlan]) -> None:
    plan = plan_of()
    with lock_study(HERE):
        assert refusal(lambda: run_study(plan, HERE, device="cpu")) == (
            "study: here is in use by another selfsr study, or by a run of a killed one "
            f"(process {os.getpid()} on {socket.gethostname()}); wait for it or stop it."
        )
    with lock_study(HERE):
        pass


def test_read_step_of_new_finished_and_resumed_runs(plan_of: Callable[..., StudyPlan], write_runs: Callable) -> None:
    plan = write_definition(plan_of(), HERE)
    run = plan.runs()[0]
    assert read_step(HERE, run) == 0
    write_runs(plan, HERE, {"plain": {1: CURVE}})
    assert is_finished(HERE, run)  # its checkpoints were deleted, its weights are there
    state = HERE / "runs" / run.name / "checkpoints" / "step_00000010" / "state.pt"
    state.parent.mkdir(parents=True)
    state.write_bytes(b"")
    assert read_step(HERE, run) == 10  # it was judged at its end, and killed before it saved


def test_the_last_step_of_a_log_that_is_being_written(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    assert read_last_step(log) == 0
    log.write_text('{"step": 1}\n' + json.dumps({"step": 2, "long": "x" * 2**20}) + '\n{"step": 3}\n{"step": 4, "lo')
    assert read_last_step(log) == 3
    log.write_text('{"st')
    assert read_last_step(log) == 0

"""Reading a study: what it says, its short forms, and every refusal with its sentence."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from selfsr.errors import InputError
from selfsr.study import open_study
from selfsr.study.plan import StudyPlan, check_inputs
from selfsr.study.spec import ArmCondition, Study

PACED = {"set": {"method.terms.pixel.pace": {"alpha": 4.0}}}


def test_runs_go_seed_by_seed_each_with_its_own_name_and_seed(workspace: Path) -> None:
    plan, folder = open_study(Path("claim.yaml"))
    assert folder == Path("studies/claim")
    assert [(run.name, run.seed) for run in plan.runs()] == [
        ("tiny-plain-seed1", 1), ("tiny-paced-seed1", 1), ("tiny-plain-seed2", 2), ("tiny-paced-seed2", 2),
    ]  # fmt: skip
    plain, paced = plan.runs()[2:]
    assert (plain.recipe.name, plain.recipe.seed) == ("tiny-plain-seed2", 2)
    assert plain.recipe.method.terms["pixel"].pace is None
    assert paced.recipe.method.terms["pixel"].pace.alpha == 4.0
    assert plan.baseline == "plain"
    assert plan.setups["tiny"].evaluation_set == "first"


def test_set_reaches_every_arm_and_the_command_line_goes_last(
    workspace: Path, write_study: Callable[..., Path]
) -> None:
    path = write_study(set={"steps": 50, "schedule": {"kind": "cosine"}})
    plan, folder = open_study(path, ["base.steps=40", "seeds=[7]", "base.optimizers.g.lr=1e-5"], Path("there"))
    assert folder == Path("there")
    assert plan.seeds == (7,)
    for run in plan.runs():
        assert run.recipe.steps == 40
        assert run.recipe.schedule.kind == "cosine"
        assert run.recipe.optimizers["g"].lr == 1e-5


def test_the_command_line_replaces_settings_of_one_recipe_but_not_of_an_arm(
    workspace: Path, write_study: Callable[..., Path]
) -> None:
    path = write_study(
        base=...,
        recipes={"long": {"base": "tiny.yaml", "set": {"steps": 60, "schedule": {"kind": "cosine"}}}},
        arms={"plain": {}, "quick": {"set": {"steps": 20}}},
        allowed_differences=["steps"],
    )
    plan, _ = open_study(path, ["base.steps=40", "base.schedule.warmup_steps=5"])
    assert {run.arm: run.recipe.steps for run in plan.runs()} == {"plain": 40, "quick": 20}
    assert all(run.recipe.schedule.warmup_steps == 5 for run in plan.runs())


def test_several_recipes_as_a_list_or_with_changes_of_their_own(
    workspace: Path, plan_of: Callable[..., StudyPlan]
) -> None:
    (workspace / "wide.yaml").write_text((workspace / "tiny.yaml").read_text())
    assert list(plan_of(base=..., recipes=["tiny.yaml", "wide.yaml"]).setups) == ["tiny", "wide"]
    plan = plan_of(
        base=...,
        set={"steps": 30},
        recipes={"small": "tiny.yaml", "long": {"base": "tiny.yaml", "set": {"steps": 60}}},
    )
    assert {run.name: run.recipe.steps for run in plan.runs() if run.seed == 1} == {
        "small-plain-seed1": 30, "small-paced-seed1": 30, "long-plain-seed1": 60, "long-paced-seed1": 60,
    }  # fmt: skip


def test_recipe_is_found_by_shipped_name_or_next_to_the_study(
    workspace: Path, plan_of: Callable[..., StudyPlan]
) -> None:
    shipped = plan_of(
        base="small_edsr_x2",
        arms={
            "plain": {"set": {"method.terms.pixel.pace": None}},
            "paced": {"set": {"method.terms.pixel.weight": 2.0}},
        },
    )
    assert shipped.setups["small_edsr_x2"].arms["plain"].network.features == 32
    elsewhere = workspace / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "own.yaml").write_text((workspace / "tiny.yaml").read_text())
    (elsewhere / "study.yaml").write_text((workspace / "claim.yaml").read_text().replace("tiny.yaml", "own.yaml"))
    assert list(open_study(elsewhere / "study.yaml")[0].setups) == ["own"]


def test_settings_that_come_with_a_declared_one_are_declared(plan_of: Callable[..., StudyPlan]) -> None:
    plan = plan_of(
        arms={
            "plain": None,
            "kind": {"set": {"method.terms.pixel.kind": "charbonnier"}},  # brings its eps
            "part": {"set": {"method.terms.pixel.pace.alpha": 2.0}},  # makes the block with beta and peak
            "term": {"set": {"method.terms.extra": {"kind": "l2", "weight": 0.1}}},
        }
    )
    assert plan.setups["tiny"].arms["part"].method.terms["pixel"].pace.peak == 2.0


def test_a_declared_condition_may_differ(plan_of: Callable[..., StudyPlan]) -> None:
    plan = plan_of(arms={"plain": None, "long": {"set": {"steps": 40}}}, allowed_differences=["steps"])
    assert plan.setups["tiny"].arms["long"].steps == 40


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another seed": (
        {"arms": {"plain": None, "b": {"set": {"seed": 3}}}},
        "study: arms.b.set.seed: every arm runs with the same seeds; list them under seeds.",
    ),
    "another name": ({"set": {"name": "x"}}, "study: set.name: the study names its runs itself; remove this setting."),
    "another evaluation": (
        {"arms": {"plain": None, "b": {"set": {"evaluate.sets": {"first": "photos/train"}}}}},
        "arms.b: is evaluated differently from plain: evaluate.sets.first.hr (photos/test and photos/train), "
        "evaluate.sets.second.hr (photos/test and absent), evaluate.sets.second.lr (null and absent), "
        "evaluate.sets.second.degrade (null and absent), evaluate.sets.second.seed (1 and absent); "
        "change evaluate for all arms under set.",
    ),
    "another scale": (
        {"arms": {"plain": None, "b": {"set": {"scale": 4}}}},
        "arms.b: has scale 4 and plain has 2, which is another task; list a recipe for each scale under recipes.",
    ),
    "more steps": (
        {"arms": {"plain": None, "b": {"set": {"steps": 40}}}},
        "arms.b: differs from plain in steps (20 and 40), which can explain a difference in scores; "
        "change it for all arms under set, or add allowed_differences: [steps].",
    ),
    "other data": (
        {"arms": {"plain": None, "b": {"set": {"data.hr": "photos/test"}}}},
        "arms.b: differs from plain in data.hr (photos/train and photos/test), which can explain a "
        "difference in scores; change it for all arms under set, or add allowed_differences: [data].",
    ),
    "more than it says": (
        {"arms": {"plain": None, "b": {"set": {"optimizers.g.kind": "adamw"}}}},
        "arms.b: differs from the recipe tiny in more settings than its set has: "
        "optimizers.g.betas ([0.9, 0.999] and [0.9, 0.99]); add these to its set.",
    ),
    "equal arms": (
        {"arms": {"plain": None, "b": {"set": {"method.terms.pixel.weight": 1.0}}}},
        "arms.b: is the same training as arms.plain in the recipe tiny; change or remove one of them.",
    ),
    "equal but for what is logged": (
        {"arms": {"plain": None, "b": {"set": {"log.every_steps": 5, "workers": 1}}}},
        "arms.b: is the same training as arms.plain in the recipe tiny; change or remove one of them.",
    ),
    "unused allowed difference": (
        {"allowed_differences": ["batch"]},
        "allowed_differences: no arm differs in batch; remove it.",
    ),
    "unknown setting of an arm": (
        {"arms": {"plain": None, "b": {"set": {"method.terms.pixel.pase": None}}}},
        "arms.b.set: method.terms.pixel.pase: unknown key; did you mean pace?",
    ),
    "unknown key": (
        {"seed": [1]},
        "seed: unknown key; did you mean seeds?",
    ),
    "one arm": (
        {"arms": {"plain": None}},
        "arms: expected at least 2 entries, got 1; add one.",
    ),
    "no recipe": ({"base": ...}, "study: expected base for one recipe or recipes for several, got neither."),
    "both": ({"recipes": ["tiny.yaml"]}, "study: expected base for one recipe or recipes for several, got both."),
    "no such recipe": (
        {"base": "tny.yaml"},
        "base: recipe: expected a YAML file or the name of a shipped recipe, got tny.yaml, which does not exist; "
        "did you mean tiny.yaml?",
    ),
    "two recipes of one name": (
        {"base": ..., "recipes": ["tiny.yaml", "more/tiny.yaml"]},
        "recipes: expected different file names, got ['tiny', 'tiny']; write a mapping of name: {base: file}.",
    ),
    "wrong baseline": ({"baseline": "plane"}, "study: baseline must be one of the arms plain, paced, got 'plane'."),
    "a seed twice": ({"seeds": [1, 1]}, "study: seeds must differ from one another, got [1, 1]."),
    "unknown set": (
        {"evaluation_set": "Set5"},
        "evaluation_set: expected a set of the recipe tiny (first, second), got 'Set5'.",
    ),
    "unknown score": (
        {"metric": "psnr"},
        "metric: expected one of psnr_y, ssim_y, psnr_rgb, ssim_rgb, got 'psnr'; did you mean psnr_y?",
    ),
    "no evaluation": (
        {"set": {"evaluate": None}},
        "the recipe tiny has no evaluation (evaluate is null); add sets under set: evaluate.sets.",
    ),
    "a name that is no folder's": (
        {"arms": {"plain": None, "a/b": PACED}},
        "study: arms: a name has letters, digits, '_', '.' and '-' only, got 'a/b'.",
    ),
    "one folder for two runs": (
        {
            "base": ...,
            "recipes": {"a": "tiny.yaml", "a-b": {"base": "tiny.yaml", "set": {"steps": 30}}},
            "arms": {"b-c": None, "c": PACED},
        },
        "recipe a with arm b-c and recipe a-b with arm c have the same run name a-b-c-seed1; rename one.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(write_study: Callable[..., Path], case: str) -> None:
    changes, message = REFUSED[case]
    path = write_study(**changes)
    with pytest.raises(InputError) as refused:
        open_study(path)
    assert str(refused.value).replace(f"{path.parent}/", "") == f"{path.name}: {message}"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("steps", "--set: expected path=value, such as base.steps=1000 or seeds=[1,2], got 'steps'."),
        (
            "arms.paced.note=x",
            "--set arms.paced.note=x: expected base.path=value for all recipes or key=value for the study; "
            "change arms and recipes in the file.",
        ),
        ("equal_scor=31", "--set equal_scor: unknown key; did you mean equal_score?"),
        ("seeds=x", "--set seeds: expected a list, such as [x], got 'x'."),
        ("base.step=5", "--set base.step: unknown key; did you mean steps?"),
        (
            "base.clip_norm=x",
            "--set base.clip_norm: expected a number, got 'x'.",
        ),
        ("base.seed=2", "--set base.seed: every arm runs with the same seeds; list them under seeds."),
    ],
)
def test_load_study_refuses_an_unknown_setting(workspace: Path, setting: str, message: str) -> None:
    with pytest.raises(InputError) as refused:
        open_study(Path("claim.yaml"), [setting])
    assert str(refused.value) == message


def test_a_setting_that_every_arm_replaces_is_refused(write_study: Callable[..., Path]) -> None:
    arms = {"weak": {"set": {"optimizers.g": {"lr": 1e-4}}}, "strong": {"set": {"optimizers.g.lr": 1e-3}}}
    with pytest.raises(InputError) as refused:
        open_study(write_study(arms=arms), ["base.optimizers.g.lr=1"])
    assert str(refused.value) == (
        "--set base.optimizers.g.lr: expected a change that has an effect, got one that every arm replaces by its own "
        "value (weak, strong); change the arms in the file."
    )


def test_a_missing_file_and_a_file_of_something_else(workspace: Path) -> None:
    with pytest.raises(InputError, match=r"^study: none.yaml does not exist; see docs/studies/README.md for how"):
        open_study(Path("none.yaml"))
    with pytest.raises(InputError) as refused:
        open_study(Path("tiny.yaml"))
    assert str(refused.value) == (
        "study: expected a study file, got tiny.yaml, which is a recipe; run `selfsr train tiny.yaml`."
    )
    (workspace / "list.yaml").write_text("- 1\n")
    with pytest.raises(InputError, match=r"^list.yaml: expected a mapping of options, got list\.$"):
        open_study(Path("list.yaml"))


def test_check_inputs_refuses_missing_images(workspace: Path) -> None:
    plan, _ = open_study(Path("claim.yaml"), ["base.evaluate.sets={Set5: nowhere}"])
    told = "study: recipe tiny, arm plain: evaluate.sets.Set5.hr: nowhere does not exist; "
    with pytest.raises(InputError, match=f"^{re.escape(told)}"):
        check_inputs(plan)
    check_inputs(open_study(Path("claim.yaml"))[0])


STUDENT = {
    "network": {"kind": "residual_shifting", "unet": {"channels": [16]}, "shift": {"steps": 4}, "one_step": True},
    "method": {"kind": "shift_distillation", "teacher": "one.safetensors"},
    "crop_px": 32,
}


def test_another_teacher_is_another_start(write_study: Callable[..., Path]) -> None:
    """A student starts from its teacher's weights."""
    arms = {"one": {}, "two": {"set": {"method.teacher": "two.safetensors"}}}
    with pytest.raises(
        InputError, match=r"arms\.two: differs from one in the weights that the method starts from \(one"
    ):
        open_study(write_study(set=STUDENT, arms=arms))
    plan, _ = open_study(write_study(set=STUDENT, arms=arms, allowed_differences=["start_from"]))
    with pytest.raises(InputError, match=r"arm one: method\.teacher: one\.safetensors does not exist"):
        check_inputs(plan)


def test_the_example_of_the_guide_is_a_study(workspace: Path) -> None:
    guide = Path(__file__).parents[2] / "docs" / "studies" / "README.md"
    example = re.search(r"```yaml\n(.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    (workspace / "study.yaml").write_text(example[1])
    plan, folder = open_study(Path("study.yaml"))
    assert folder == Path("studies/self_paced")
    assert list(plan.changes) == ["plain", "paced", "charbonnier"]
    assert len(plan.runs()) == 9
    terms = {arm: recipe.method.terms["pixel"] for arm, recipe in plan.setups["small_edsr_x2"].arms.items()}
    assert [(term.kind, term.pace is not None) for term in terms.values()] == [
        ("l1", False), ("l1", True), ("charbonnier", False),
    ]  # fmt: skip


def test_the_guide_names_every_key(workspace: Path) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "studies" / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", guide, re.MULTILINE)) == set(Study.model_fields)
    declared = next(line for line in guide.splitlines() if line.startswith("| `allowed_differences`"))
    assert re.findall(r"`(\w+)`", declared)[1:] == list(get_args(ArmCondition))

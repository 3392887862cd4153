"""Try the arms of a study for a few steps before it starts, to find mistakes and to estimate its time."""

from collections.abc import Callable, Sequence

from selfsr.errors import InputError
from selfsr.recipe import Recipe
from selfsr.study.plan import PlannedRun
from selfsr.study.progress import format_duration
from selfsr.training.dryrun import Cost, check_data, check_memory, measure_cost
from selfsr.training.guard import Diverged

# A recipe of the study and one of its arms, by name.
ArmKey = tuple[str, str]


def try_arms(
    reached: Sequence[tuple[PlannedRun, int]], device: str, notify: Callable[[PlannedRun], None]
) -> dict[ArmKey, Cost]:
    """Train a few steps of each arm that has unfinished runs, evaluate a few images, and return what a run costs.

    The training files of each recipe are decoded once. Nothing is written into the study folder.

    Args:
        reached: the runs of the study, each with its last saved step.
        device: "cpu", "cuda" or another value of `selfsr train --device`.
        notify: called with the first unfinished run of an arm, before it is tried.

    Returns:
        The cost of a run by the names of recipe and arm.

    Raises:
        InputError: a run could not start or evaluate, or a loss became NaN; the message names recipe and arm.
    """
    costs: dict[ArmKey, Cost] = {}
    checked: list[object] = []
    for run, step in reached:
        key = (run.setup, run.arm)
        if key in costs or step == run.recipe.steps:
            continue
        notify(run)
        try:
            data = (run.recipe.data, run.recipe.crops_px)
            if data not in checked:
                check_data(run.recipe)
                checked.append(data)
            check_memory(run.recipe, device)
            costs[key] = measure_cost(run.recipe, device=device)
        except (InputError, Diverged) as error:
            raise InputError(f"study: recipe {run.setup}, arm {run.arm}: {error}") from error
    return costs


def estimate_time_s(reached: Sequence[tuple[PlannedRun, int]], costs: dict[ArmKey, Cost], jobs: int) -> float:
    """Return the time until all runs are finished, in seconds, from what runs of their arms cost.

    Args:
        reached: the runs of the study, each with its last saved step.
        costs: as `try_arms` returns them.
        jobs: number of runs at once; they are taken to be as fast as one.
    """
    times_s = [
        estimate_run_s(run.recipe, step, costs[run.setup, run.arm]) for run, step in reached if step < run.recipe.steps
    ]
    return max(sum(times_s) / jobs, max(times_s, default=0.0))


def describe_cost(recipe: Recipe, cost: Cost) -> str:
    """Return the speed and the time of a run."""
    time = format_duration(estimate_run_s(recipe, 0, cost))
    return f"{cost.steps_per_s:.3g} steps/s, {recipe.steps:,} steps and their evaluations in about {time}"


def estimate_run_s(recipe: Recipe, step: int, cost: Cost) -> float:
    """Return the time of a run after a step, in seconds: its steps and its evaluations."""
    evaluations = 0
    if recipe.evaluate is not None:
        # At its start a run evaluates the network and bicubic upscaling.
        evaluations = recipe.evaluate.count_evaluations(recipe.steps, step) + (2 if step == 0 else 0)
    return (recipe.steps - step) / cost.steps_per_s + evaluations * cost.evaluation_s

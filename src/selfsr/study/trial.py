"""Try the arms of a study for a few steps before it starts, to find mistakes and to estimate its time."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from selfsr.console import format_duration
from selfsr.errors import InputError
from selfsr.machine.memory import is_out_of_memory
from selfsr.recipe import Recipe
from selfsr.study.devices import DeviceSlot
from selfsr.study.plan import PlannedRun, name_study_settings
from selfsr.study.progress import divide_time
from selfsr.training.dryrun import Cost, check_data, check_memory, measure_cost
from selfsr.training.guard import Diverged
from selfsr.training.memory import estimate_step_bytes

# A recipe of the study and one of its arms, by name.
ArmKey = tuple[str, str]


def try_arms(
    runs: Sequence[tuple[PlannedRun, int]], slots: Sequence[DeviceSlot], on_start: Callable[[PlannedRun], None]
) -> dict[ArmKey, Cost]:
    """Train and evaluate each unfinished arm briefly; return the cost of a run by recipe and arm.

    The training files of each recipe are decoded once. Nothing is written into the study folder.

    Args:
        runs: the runs of the study, each with its last saved step.
        slots: the devices of the study, one for each run that trains at once; arms are tried on the first.
        on_start: called with the first unfinished run of an arm, before it is tried.

    Raises:
        InputError: a run could not start or evaluate, or a loss became NaN; the message names recipe and arm.
    """
    costs: dict[ArmKey, Cost] = {}
    checked: list[object] = []
    sharing = max(Counter(slot.label for slot in slots).values())
    for run, step in runs:
        key = (run.setup, run.arm)
        if key in costs or step == run.recipe.steps:
            continue
        on_start(run)
        with _name_arm(run):
            data = (run.recipe.data, run.recipe.crops_px)
            if data not in checked:
                check_data(run.recipe)
                checked.append(data)
            device = slots[0].device
            check_memory(estimate_step_bytes(run.recipe, device=device), device, sharing)
            costs[key] = measure_cost(run.recipe, device=device)
    return costs


@contextlib.contextmanager
def _name_arm(run: PlannedRun) -> Iterator[None]:
    """Name recipe and arm in the message of an error that ends a run."""
    place = f"study: recipe {run.setup}, arm {run.arm}"
    try:
        yield
    except InputError as error:
        raise InputError(f"{place}: {name_study_settings(str(error))}") from error
    except Diverged as error:
        advice = "lower the learning rate under set, set clip_norm, or set precision to float32."
        raise InputError(f"{place}: {error.event}; {advice}") from error
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        advice = "lower batch or crop_px under set, or raise accumulate."
        raise InputError(f"{place}: expected enough free memory for a step, got too little; {advice}") from error


def estimate_time_s(runs: Sequence[tuple[PlannedRun, int]], costs: Mapping[ArmKey, Cost], devices: int) -> float:
    """Return the time until all runs are finished, in seconds, from what runs of their arms cost.

    Args:
        runs: the runs of the study, each with its last saved step.
        costs: as `try_arms` returns them.
        devices: number of different devices; runs that share one are assumed to gain no time.
    """
    unfinished = [(run, step) for run, step in runs if step < run.recipe.steps]
    return divide_time([costs[run.setup, run.arm].estimate_s(run.recipe, step) for run, step in unfinished], devices)


def describe_cost(recipe: Recipe, cost: Cost) -> str:
    """Return the speed and the time of a run."""
    time = format_duration(cost.estimate_s(recipe))
    return f"{cost.steps_per_s:.3g} steps/s; a run of {recipe.steps:,} steps with its evaluations takes about {time}"

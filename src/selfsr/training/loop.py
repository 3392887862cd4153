"""fit(): the one training loop, for every method. Read `fit` from top to bottom; the rest is what it calls."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from selfsr.console import bar
from selfsr.errors import InputError
from selfsr.machine.environment import write_environment
from selfsr.machine.interruption import Interruption
from selfsr.machine.memory import memory_in_use_mb
from selfsr.methods import Update
from selfsr.nets.base import set_scale
from selfsr.nets.weights.save import save_weights
from selfsr.recipe import Recipe, dump_recipe
from selfsr.runfolder.checkpoints import checkpoints, save_state
from selfsr.runfolder.log import Meter, RunLog, nested
from selfsr.step import Batch, Clock, MaskedSum
from selfsr.training.assemble import Run, assemble
from selfsr.training.evaluation import Evaluator, check_sets
from selfsr.training.guard import FiniteGuard, Stopwatch


def fit(recipe: Recipe, folder: Path, *, device: str = "auto", resume: bool = False) -> bool:
    """Train as the recipe says; return whether the run is finished (False: interrupted, and saved).

    Args:
        recipe: what to do.
        folder: the run folder. A new run refuses one that holds checkpoints.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        resume: go on from the newest checkpoint in `folder`.

    Raises:
        InputError: something the recipe names is missing or does not fit.
        Diverged: a loss became NaN or infinite; the message names the term and the step.
    """
    check_sets(recipe)
    run = assemble(recipe, folder, device=device, resume=resume)
    main = run.accelerator.is_main_process
    if main:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
        write_environment(folder / "environment.json", run.accelerator.device)
    log = RunLog(folder, after_step=run.step, tensorboard=recipe.log.tensorboard) if main else None
    evaluator = Evaluator(recipe, folder, run.accelerator.device) if main and recipe.evaluate else None
    meter, guard, watch = Meter(), FiniteGuard(), Stopwatch()
    with contextlib.closing(run.loader), Interruption() as interruption, _bar(run, main) as advance:
        if evaluator and log and run.step == 0:
            log.evaluation(evaluator.baseline(run.ema_net()))
        for step in range(run.step + 1, recipe.steps + 1):
            clock = Clock(step, recipe.steps_per_epoch, recipe.steps)
            torch.manual_seed(_step_seed(recipe.seed, run.accelerator.process_index, step))
            with watch.waiting():
                raw = next(run.loader)
            batches = run.loader.prepare(raw, run.accelerator.device, run.memory_format, recipe.accumulate)
            take_step(run, batches, clock, meter, guard)
            run.step = step
            advance()

            last = step == recipe.steps
            logs = last or step % recipe.log.every_steps == 0
            evaluates = recipe.evaluate is not None and (last or step % recipe.evaluate.every_steps == 0)
            saves = last or step % recipe.checkpoints.every_steps == 0
            stops = interruption.asked_for and (logs or run.accelerator.num_processes == 1)
            if logs or evaluates or saves or stops:
                guard.check(run.accelerator, folder)
            if logs:
                means = meter.read(run.accelerator)
                if log:
                    log.step(_record(run, clock, means, watch.read()))
                    advance(0, note=_note(means))
            if evaluates and evaluator and log:
                record = evaluator.evaluate(run.ema_net(), clock)
                log.evaluation(record)
                _keep_best(run, evaluator.score(record))
                watch.restart()
            if (saves or stops) and main:
                save_state(folder, step, run.state(), recipe.checkpoints.keep_last)
                _publish(run, "last")
                _keep_discriminators(run)
            if stops:
                break
    if log:
        log.close()
    run.accelerator.wait_for_everyone()
    return run.step == recipe.steps


def take_step(run: Run, batches: list[Batch], clock: Clock, meter: Meter, guard: FiniteGuard) -> None:
    """Take every update of one step, each over all micro-batches and processes.

    The micro-batches go through the method side by side: each is brought to its next update, their gradients add
    up, and then the optimizer steps once.
    """
    for net in (run.accelerator.unwrap_model(run.method.nets["g"]), run.ema.net):
        set_scale(net, batches[0].scale)
    totals = _total_counts(run, batches)
    sequences = [run.method.updates(batch, clock) for batch in batches]
    while True:
        net = None
        for index, sequence in enumerate(sequences):
            last = index == len(sequences) - 1
            with contextlib.nullcontext() if last else _without_sync(run):
                update = next(sequence, None)
                if update is None:
                    return
                parts = losses_to_backward(update, totals, len(batches), run.accelerator.num_processes)
                run.accelerator.backward(torch.stack(list(parts.values())).sum())
            for name, part in parts.items():
                meter.add(f"loss/{update.net}/{name}", part, steps=1 / len(batches))
                guard.watch(f"the loss term {name!r} of {update.net}", part, clock.step)
            for name, value in update.scalars.items():
                meter.add(name, value / len(batches), steps=1 / len(batches))
            net = update.net
        assert net is not None
        _step_optimizer(run, net, clock, meter, guard)


def losses_to_backward(
    update: Update, totals: dict[str, Tensor], micro_batches: int, processes: int
) -> dict[str, Tensor]:
    """Return each term's share in the loss to differentiate, such that gradients of all shares add up.

    Gradients are summed over micro-batches and averaged over processes. A mean is therefore divided by the
    micro-batches; a masked total is divided by the count over everything, and multiplied by the processes.
    """
    parts = {}
    for name, term in update.terms.items():
        if isinstance(term, MaskedSum):
            count = totals.get(name, term.count).clamp(min=1)
            parts[name] = term.total * (processes / count)
        else:
            parts[name] = term / micro_batches
    return parts


def _total_counts(run: Run, batches: list[Batch]) -> dict[str, Tensor]:
    if len(batches) == 1 and run.accelerator.num_processes == 1:
        return {}  # each MaskedSum's own count is the total
    counts = [run.method.counts(batch) for batch in batches]
    summed = {name: torch.stack([count[name] for count in counts]).sum() for name in counts[0]}
    return {name: run.accelerator.reduce(count, reduction="sum") for name, count in summed.items()}  # pyright: ignore[reportReturnType]


@contextlib.contextmanager
def _without_sync(run: Run) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for net in run.method.nets.values():
            stack.enter_context(run.accelerator.no_sync(net))
        yield


def _step_optimizer(run: Run, net: str, clock: Clock, meter: Meter, guard: FiniteGuard) -> None:
    recipe, optimizer = run.recipe, run.optimizers[net]
    factor = recipe.schedule.factor(clock.step, recipe.steps)
    for group in optimizer.param_groups:
        group["lr"] = recipe.optimizers[net].lr * factor
    limit = recipe.clip_norm or float("inf")
    norm = run.accelerator.clip_grad_norm_(run.method.nets[net].parameters(), limit)
    assert norm is not None
    meter.add(f"grad_norm/{net}", norm)
    if run.accelerator.scaler is None:  # the loss scaler of float16 meets infinite gradients and skips them
        guard.watch(f"the gradient of {net}", norm, clock.step)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    if net == "g" and recipe.ema_decay is not None:
        run.ema.update(run.accelerator.unwrap_model(run.method.nets["g"]))


def _step_seed(seed: int, process: int, step: int) -> int:
    # Any injective mix will do: the generator behind manual_seed hashes what it is given.
    return (seed * 65_537 + process) * 1_000_000_007 + step & (2**63 - 1)


def _record(run: Run, clock: Clock, means: dict[str, float], pace: dict[str, float]) -> dict:
    rates = {f"lr/{name}": optimizer.param_groups[0]["lr"] for name, optimizer in run.optimizers.items()}
    return {
        "step": clock.step,
        "epoch": clock.epoch,
        **nested({**means, **rates}),
        **pace,
        "memory_mb": round(memory_in_use_mb(run.accelerator.device), 1),
        "skipped_files": run.loader.skipped,
    }


def _note(means: dict[str, float]) -> str:
    losses = {name.removeprefix("loss/"): value for name, value in means.items() if name.startswith("loss/")}
    return "  ".join(f"{name} {value:.4g}" for name, value in losses.items())


def _keep_best(run: Run, score: float) -> None:
    name = run.recipe.evaluate.best_by if run.recipe.evaluate else ""
    if score > run.best.get(name, float("-inf")):
        run.best = {name: score}
        _publish(run, "best")


def _publish(run: Run, name: str) -> None:
    path = run.folder / "weights" / f"{name}.{run.recipe.checkpoints.weights_format}"
    path.parent.mkdir(exist_ok=True)
    save_weights(path, run.ema_net(), run.metadata())


def _keep_discriminators(run: Run) -> None:
    """Save the other networks of the method, from which another run may start its own."""
    for name, net in run.method.nets.items():
        if name != "g":
            save_weights(run.folder / "discriminators" / f"{name}.safetensors", net, {"step": str(run.step)})


def _bar(run: Run, main: bool):
    if not main:
        return contextlib.nullcontext(lambda *_, **__: None)
    return bar(f"Training {run.recipe.name}", run.recipe.steps, run.step)


def start_folder(folder: Path, resume: bool) -> None:
    """Refuse to start over what is already there.

    Raises:
        InputError: the folder holds a run that `resume` would go on with.
    """
    if not resume and checkpoints(folder):
        raise InputError(
            f"train: {folder} already holds a run with checkpoints; go on with --resume, "
            "or give the new one another name with --set name=..."
        )

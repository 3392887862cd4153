"""The training loop of all methods. Read `_fit` from top to bottom, then `take_step`."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from selfsr.console import print_event, print_line, print_lines, progress_bar
from selfsr.data.prefetch import choose_source
from selfsr.errors import InputError, shorten
from selfsr.fileio import write_atomic
from selfsr.machine.distributed import StopAgreement, is_first_process, share_from_first
from selfsr.machine.environment import write_environment
from selfsr.machine.interruption import Interruption
from selfsr.machine.lost import explain_lost_process
from selfsr.machine.memory import measure_memory_mb
from selfsr.nets.base import set_scale
from selfsr.recipe import Recipe, dump_recipe
from selfsr.recipe.private import hide_folders
from selfsr.runfolder.checkpoints import list_checkpoints, save_state
from selfsr.runfolder.lock import lock_folder
from selfsr.runfolder.log import Meter, RunLog, nest
from selfsr.runfolder.read import flatten
from selfsr.runfolder.trackers import Trackers
from selfsr.step import GENERATOR, Batch, Clock, MaskedSum, Update
from selfsr.training.assemble import TrainingRun, assemble
from selfsr.training.compilation import tolerate_failures
from selfsr.training.data_record import record_data
from selfsr.training.evaluation import check_sets, describe_inputs, list_set_files
from selfsr.training.guard import FiniteGuard, Stopwatch
from selfsr.training.machines import check_same_files
from selfsr.training.pacing_notes import GradientWatch, describe_paces
from selfsr.training.parameters import BASE_LR
from selfsr.training.pixel_weights import sum_pixel_weights
from selfsr.training.run_evaluation import DryRunEvaluation, RunEvaluation
from selfsr.training.saving import save_generator, save_other_nets


def fit(
    recipe: Recipe,
    folder: Path,
    *,
    device: str = "auto",
    resume: bool | Literal["auto"] = False,
    dry_run: DryRunEvaluation | None = None,
) -> bool:
    """Train from a recipe; return True if the run is finished, False if it was interrupted and saved.

    Args:
        recipe: describes the run.
        folder: the run folder; without `resume`, one without checkpoints.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        resume: continue from the newest checkpoint in `folder`; "auto" does if there is one, and starts otherwise.
        dry_run: for a dry run; it is filled in.

    Raises:
        InputError: something that the recipe names is missing or does not fit, the folder has checkpoints of another
            run, or another training uses it.
        Diverged: a loss or a gradient became NaN or infinite; the message names it and the step.
        LostProcess: another process of the run has ended; what was saved stays.
    """
    check_sets(recipe)
    with _lock(folder), explain_lost_process():
        return _fit(recipe, folder, device, resume, dry_run)


def _fit(
    recipe: Recipe, folder: Path, device: str, resume: bool | Literal["auto"], dry_run: DryRunEvaluation | None
) -> bool:
    run = assemble(recipe, folder, device=device, resume=resume)
    # After assembly: a new name for the run would not mend a wrong setting.
    share_from_first(lambda: _check_run_folder(run))
    check_same_files(run.loader.datasets, list_set_files(recipe))
    if is_main := run.accelerator.is_main_process:
        _write_definition(run)
        record_data(folder, run.loader.datasets, resume=run.resumed)
        _print_start(run, dry_run)
    after_step = run.step if run.resumed else -1
    log = RunLog(folder, after_step=after_step, trackers=_start_trackers(run, after_step)) if is_main else None
    evaluation = RunEvaluation(run, log, dry_run) if recipe.evaluate else None
    meter, guard, stopwatch, gradients = Meter(), FiniteGuard(), Stopwatch(), GradientWatch(recipe)
    agreement = StopAgreement()
    with (
        contextlib.closing(run.loader),
        contextlib.closing(choose_source(run.loader, run.accelerator.device)) as source,
        Interruption(saves=dry_run is None) as interruption,
        _progress(run) as advance,
    ):
        if evaluation and run.step == 0 and not dry_run:
            evaluation.evaluate_start()
            advance(0, pause_s=evaluation.seconds, further_s=evaluation.estimate_further_s(0))
        for step in range(run.step + 1, recipe.steps + 1):
            clock = Clock(step, recipe.steps_per_epoch, recipe.steps)
            torch.manual_seed(_step_seed(recipe.seed, run.accelerator.process_index, step))
            with stopwatch.waiting():
                raw_batch = source.load()
            batches = run.loader.prepare(raw_batch, run.accelerator.device, run.memory_format, recipe.accumulate)
            take_step(run, batches, clock, meter, guard)
            run.step = step
            advance()

            is_last = step == recipe.steps
            log_now = is_last or step % recipe.log.every_steps == 0
            evaluate_now = recipe.evaluate is not None and (is_last or step % recipe.evaluate.every_steps == 0)
            save_now = is_last or step % recipe.checkpoints.every_steps == 0
            stop_now = agreement.check(interruption.stop_requested)
            if log_now or evaluate_now or save_now or stop_now:
                guard.check(run.accelerator, folder)
            if log_now:
                means = meter.read(run.accelerator)
                if log:
                    record = _record(run, clock, means, stopwatch.read())
                    log.step(record)
                    print_event("step", record)
                    advance(0, note=_note(means))
                    print_lines([] if dry_run else gradients.check(means, clock))
            if evaluate_now and evaluation:
                score = evaluation.evaluate(clock)
                advance(0, pause_s=evaluation.seconds, further_s=evaluation.estimate_further_s(step))
                if run.plateau:
                    run.plateau.observe(share_from_first(lambda score=score: score))
                stopwatch.restart()
            if (save_now or stop_now) and is_main:
                save_state(folder, step, run.state(), recipe.checkpoints.keep_last)
                save_generator(run, "last")
                save_other_nets(run)
            if stop_now:
                break
        agreement.finish()
    if log:
        log.close()
    run.accelerator.wait_for_everyone()
    return run.step == recipe.steps


def _lock(folder: Path) -> contextlib.AbstractContextManager[int | None]:
    """Lock the run folder against other training runs; of several processes, the first one does."""
    return lock_folder(folder, "train", "another training") if is_first_process() else contextlib.nullcontext()


def take_step(run: TrainingRun, batches: list[Batch], clock: Clock, meter: Meter, guard: FiniteGuard) -> None:
    """Take every update of one step, each over all micro-batches and processes.

    Each micro-batch has its own sequence of updates. The sequences advance in lockstep: every sequence yields its
    next update, the gradients are summed, and then the optimizer takes one step.

    Raises:
        InputError: the recipe asks for results that repeat, and an operator has none on this device.
    """
    for net in (run.generator, run.ema.net):
        set_scale(net, batches[0].scale)
    for batch in batches:
        run.method.objective.count_edges(batch)
    if run.is_compiled and run.recipe.compile == "graphs":
        torch.compiler.cudagraph_mark_step_begin()  # nothing of the step before is needed
    with run.arithmetic.use(), tolerate_failures(run.is_compiled), _explain_nondeterminism(run):
        total_counts = _total_counts(run, batches)
        sum_pixel_weights(run, batches, clock)
        _take_updates(run, batches, clock, total_counts, meter, guard)
    meter.finish_step()
    guard.finish_step(clock.step)


def _take_updates(
    run: TrainingRun,
    batches: list[Batch],
    clock: Clock,
    total_counts: dict[str, Tensor],
    meter: Meter,
    guard: FiniteGuard,
) -> None:
    sequences = [run.method.updates(batch, clock) for batch in batches]
    while True:
        for index, sequence in enumerate(sequences):
            is_last = index == len(sequences) - 1
            with contextlib.nullcontext() if is_last else _without_sync(run):
                update = next(sequence, None)
                if update is None:
                    return
                losses = losses_to_backward(update, total_counts, len(batches), run.accelerator.num_processes)
                run.accelerator.backward(torch.stack(list(losses.values())).sum())
            for name, loss in losses.items():
                meter.add(f"loss/{update.net}/{name}", loss, steps=1 / len(batches))
                guard.watch(f"the loss term {name!r} of {update.net}", loss)
            for name, value in update.scalars.items():
                if isinstance(value, MaskedSum):
                    meter.add_part(name, value.total, value.count)
                else:
                    meter.add(name, value / len(batches), steps=1 / len(batches))
            if is_last:
                _step_optimizer(run, update.net, clock, meter, guard)
                if update.net == GENERATOR and run.recipe.ema_decay is not None:
                    run.ema.update(run.generator)


@contextlib.contextmanager
def _explain_nondeterminism(run: TrainingRun) -> Iterator[None]:
    """Turn PyTorch's error about an operator that does not repeat bit for bit into a sentence."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if not run.recipe.deterministic or "determinis" not in text:
            raise
        raise InputError(
            f"recipe: deterministic needs operators that repeat bit for bit on {run.accelerator.device.type}, got one "
            f"that does not ({shorten(text.split('. ')[0])}); set deterministic to false, or remove the loss or "
            "network that uses it."
        ) from error


def losses_to_backward(
    update: Update, total_counts: dict[str, Tensor], micro_batches: int, processes: int
) -> dict[str, Tensor]:
    """Scale the losses of one micro-batch so that the sum of all gradients is the gradient of the full batch.

    Gradients are summed over micro-batches and averaged over processes. So a mean is divided by the number of
    micro-batches. A `MaskedSum` is divided by its count over everything and multiplied by the number of processes.

    Args:
        update: losses of one micro-batch.
        total_counts: count of each `MaskedSum` over all micro-batches and processes; if missing, its own count is used.
        micro_batches: number of micro-batches in the step.
        processes: number of processes in the run.
    """
    losses = {}
    for name, loss in update.losses.items():
        if isinstance(loss, MaskedSum):
            count = total_counts.get(name, loss.count).clamp(min=1)
            losses[name] = loss.total * (processes / count)
        else:
            losses[name] = loss / micro_batches
    return losses


def _total_counts(run: TrainingRun, batches: list[Batch]) -> dict[str, Tensor]:
    if len(batches) == 1 and run.accelerator.num_processes == 1:
        return {}  # each MaskedSum's own count is the total
    counts = [run.method.count_masked_pixels(batch) for batch in batches]
    sums = {name: torch.stack([count[name] for count in counts]).sum() for name in counts[0]}
    return {name: run.accelerator.reduce(count, reduction="sum") for name, count in sums.items()}  # pyright: ignore[reportReturnType]


@contextlib.contextmanager
def _without_sync(run: TrainingRun) -> Iterator[None]:
    """Accumulate gradients in each process, without the sum over processes."""
    with contextlib.ExitStack() as stack:
        for net in run.method.nets.values():
            stack.enter_context(run.accelerator.no_sync(net))
        yield


def _step_optimizer(run: TrainingRun, net: str, clock: Clock, meter: Meter, guard: FiniteGuard) -> None:
    """Set the learning rate, clip the gradient, and take one optimizer step of a network."""
    recipe, optimizer = run.recipe, run.optimizers[net]
    factor = recipe.schedule.factor(clock.step, recipe.steps) * (run.plateau.factor if run.plateau else 1.0)
    for group in optimizer.param_groups:
        group["lr"] = group[BASE_LR] * factor
    norm = _clip_gradient(run, net)
    meter.add(f"grad_norm/{net}", norm)
    if run.accelerator.scaler is None:  # the loss scaler of float16 expects infinite gradients and skips their steps
        guard.watch(f"the gradient of {net}", norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _clip_gradient(run: TrainingRun, net: str) -> Tensor:
    """Return the norm of a network's gradient before it is clipped; without a limit, do not change the gradient."""
    parameters, limit = run.method.nets[net].parameters(), run.recipe.clip_norm
    if limit is None:
        run.accelerator.unscale_gradients(run.optimizers[net])
        return get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    norm = run.accelerator.clip_grad_norm_(parameters, limit)
    assert norm is not None
    return norm


def _step_seed(seed: int, process: int, step: int) -> int:
    # Any injective mix is good enough: torch.manual_seed hashes its argument.
    return (seed * 65_537 + process) * 1_000_000_007 + step & (2**63 - 1)


def _write_definition(run: TrainingRun) -> None:
    """Write the resolved recipe and the environment into the run folder."""
    write_atomic(run.folder / "recipe.yaml", dump_recipe(run.recipe))
    write_environment(run.folder / "environment.json", run.accelerator.device)


def _record(run: TrainingRun, clock: Clock, means: dict[str, float], speed: dict[str, float]) -> dict:
    """Return a line of `metrics.jsonl`."""
    learning_rates = {f"lr/{name}": optimizer.param_groups[0]["lr"] for name, optimizer in run.optimizers.items()}
    return {
        "step": clock.step,
        "epoch": clock.epoch,
        **nest({**means, **learning_rates}),
        **speed,
        "memory_mb": round(measure_memory_mb(run.accelerator.device), 1),
        "skipped_files": run.loader.skipped,
    }


def _start_trackers(run: TrainingRun, after_step: int) -> Trackers | None:
    """Start the trackers of the recipe, which get its options without folders of this machine."""
    recipe = run.recipe
    if not recipe.log.trackers:
        return None
    return Trackers(
        recipe.log.trackers,
        run.folder,
        project=recipe.log.project,
        run=recipe.name,
        options=dict(flatten(hide_folders(recipe))),
        after_step=after_step,
    )


def _print_start(run: TrainingRun, dry_run: DryRunEvaluation | None) -> None:
    """Print what is known of the run before its first step."""
    if run.resumed and run.step == run.recipe.steps:
        print_line(
            f"resume: the run in {run.folder} has done all its {run.recipe.steps} steps; nothing is left to train."
        )
    elif not dry_run:
        print_lines([*describe_paces(run.recipe), *describe_inputs(run.recipe)])


def _note(means: dict[str, float]) -> str:
    losses = {name.removeprefix("loss/"): value for name, value in means.items() if name.startswith("loss/")}
    return "  ".join(f"{name} {value:.4g}" for name, value in losses.items())


def _progress(run: TrainingRun):
    """Return a progress bar in the main process, and a context that shows nothing in the others."""
    if not run.accelerator.is_main_process:
        return contextlib.nullcontext(lambda *_, **__: None)
    return progress_bar(f"Training {run.recipe.name}", run.recipe.steps, run.step)


def _check_run_folder(run: TrainingRun) -> None:
    """Check that a new run does not overwrite another one."""
    if not run.resumed and list_checkpoints(run.folder):
        raise InputError(
            f"train: expected a new run folder, got {run.folder}, which has checkpoints; continue its run with "
            "--resume, or name the new run with --set name=..."
        )

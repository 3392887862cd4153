"""Say what a fine-tuning changed, and which commands follow it."""

import shlex
from pathlib import Path

from selfsr.evaluation.metrics import METRICS
from selfsr.runfolder.read import first_score, read_run_folders


def describe_gain(folder: Path) -> str | None:
    """Return a sentence about the score that chooses the best weights: better than the start, or not.

    Args:
        folder: the folder of a finished run.

    Returns:
        The sentence, or None if the run was not evaluated at its start and later.
    """
    (run,) = read_run_folders([folder])
    start, best = run.start_evaluation(), run.best_evaluation()
    if start is None or best is None:
        return None
    name = next(iter(run.best_by))
    metric = METRICS[name]
    before, after = (first_score(evaluation, name) for evaluation in (start, best))
    if before is None or after is None:
        return None
    unit = f" {metric.unit}" if metric.unit else ""
    scores = f"{metric.title} on held-out photos: {before:.4g}{unit} before, {after:.4g}{unit} at step {best['step']:,}"
    if after > before if metric.better == "higher" else after < before:
        return f"{scores}."
    return (
        f"No gain: {scores}, the best of the run. Keep the start model, or train longer, on more photos, or on photos "
        "that are more like those you want to upscale."
    )


def list_next_commands(model: str, folder: Path, scale: int) -> list[str]:
    """Return the commands that compare the run with its start, and export it.

    Example:
        >>> list_next_commands("4x.pth", Path("runs/4x_finetuned"), 4)[1]
        'Export:  selfsr export runs/4x_finetuned -o published --name 4x-NAME --onnx'
    """
    run = shlex.quote(str(folder))
    held_out = shlex.quote(str(folder / "held_out.txt"))
    return [
        f"Compare: selfsr compare {shlex.quote(model)} {run} --data {held_out} -o compare.html",
        f"Export:  selfsr export {run} -o published --name {scale}x-NAME --onnx",
    ]

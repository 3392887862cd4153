"""The memory of a training step as a table, for `selfsr train --dry-run --memory`."""

from selfsr.recipe import Recipe
from selfsr.training.memory import StepMemory


def describe_memory(memory: StepMemory | None, recipe: Recipe) -> list[str]:
    """Return the lines of the table.

    Args:
        memory: of a step; None if it cannot be estimated.
        recipe: the recipe of the run.
    """
    if memory is None:
        return ["Memory of a step: not estimated, because a loss computes sizes from values."]
    crops = ", ".join(f"{crop} px" for crop in sorted(set(recipe.crops_px.values())))
    images = recipe.batch // recipe.accumulate
    average = "EMA" if recipe.ema_decay is not None else "copy for evaluation"
    rows = {
        "frozen base": memory.frozen,
        "autoencoder": memory.autoencoder,
        "trained weights": memory.trained,
        average: memory.average,
        "other networks": memory.others,
        "optimizer": memory.optimizer,
        "passes at their peak": memory.passes,
        "sum": memory.peak,
    }
    notes = {
        "other networks": "discriminators, those of losses, and constants",
        "passes at their peak": f"of which gradients {_format(memory.gradients)}, and {_format(memory.kept)} kept for "
        "the backward pass",
    }
    lines = [
        f"Memory of a step in MB (2^20 bytes), estimated without data: {memory.precision}, crops of {crops}, "
        f"{images} {'image' if images == 1 else 'images'} in a micro-batch, one process."
    ]
    for name, size in rows.items():
        if size or name in ("trained weights", "sum"):
            note = f"   {notes[name]}" if name in notes else ""
            lines.append(f"  {name:<21}{_format(size):>9}{note}")
    lines.append("Not counted: what GPU and libraries allocate for themselves, and the evaluation.")
    return lines


def _format(size: int) -> str:
    """Return bytes in MB; small ones with a digit after the point."""
    megabytes = size / 2**20
    return f"{megabytes:,.0f}" if megabytes >= 10 else f"{megabytes:.1f}"

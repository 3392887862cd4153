"""Write the weights files of a run: the last, the best, and those of the discriminators."""

from selfsr.nets.weights.save import save_weights
from selfsr.training.assemble import TrainingRun
from selfsr.training.optimizers import averaged_weights


def save_if_best(run: TrainingRun, score: float) -> bool:
    """Save the weights if their score is the best so far, and return whether it is."""
    name = str(run.recipe.evaluate.best_by) if run.recipe.evaluate else ""
    if score <= run.best.get(name, float("-inf")):
        return False
    run.best = {name: score}
    save_generator(run, "best")
    return True


def save_generator(run: TrainingRun, name: str) -> None:
    """Save the generator that is evaluated, `weights/NAME`, with what a reader of the file needs."""
    path = run.folder / "weights" / f"{name}.{run.recipe.checkpoints.weights_format}"
    path.parent.mkdir(exist_ok=True)
    save_weights(path, run.ema_net(), run.metadata())


def save_other_nets(run: TrainingRun) -> None:
    """Save the weights of the discriminators; another run can start from them."""
    for name in run.recipe.method.reusable_nets:
        path = run.folder / "discriminators" / f"{name}.safetensors"
        with averaged_weights(run.optimizers[name]):
            save_weights(path, run.method.nets[name], {"step": str(run.step)})

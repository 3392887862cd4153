"""The evaluations of a run, or the one of a dry run: log and print the scores, and save the best weights."""

import time
from dataclasses import dataclass

from selfsr.errors import InputError
from selfsr.machine.distributed import share_from_first
from selfsr.runfolder.log import RunLog
from selfsr.step import Clock
from selfsr.training.assemble import TrainingRun
from selfsr.training.evaluation import Evaluator
from selfsr.training.saving import save_if_best
from selfsr.training.score_lines import ScoreLines


@dataclass
class DryRunEvaluation:
    """The evaluation of a dry run, at its end and on a few images: an option, and measurements that are filled in.

    Attributes:
        images_per_set: number of images of each evaluation set; more if a metric needs more.
        evaluated_images: filled in: number of images that were evaluated, over all sets and scales.
        all_images: filled in: number of images that an evaluation of the run has.
        evaluation_s: filled in: time of the evaluation with saving, in seconds.
    """

    images_per_set: int
    evaluated_images: int = 0
    all_images: int = 0
    evaluation_s: float = 0.0


class RunEvaluation:
    """Evaluate the run in all processes; the first one logs and prints the scores, and saves the best weights.

    Attributes:
        seconds: time of the last evaluation, with both parts of the first one; 0 before it.
    """

    def __init__(self, run: TrainingRun, log: RunLog | None, dry_run: DryRunEvaluation | None) -> None:
        assert run.recipe.evaluate is not None
        self._run, self._log, self._dry_run = run, log, dry_run
        self._evaluator = Evaluator(run.recipe, run.folder, run.accelerator.device)
        records = share_from_first(lambda: [] if log is None else log.evaluations.read())
        self._evaluator.start = next((record for record in records if record["step"] == 0), None)
        if run.step > 0 and self._evaluator.start is None and isinstance(run.recipe.evaluate.best_by, dict):
            raise InputError(
                f"resume: expected the scores of step 0 in {run.folder / 'eval.jsonl'}, to which evaluate.best_by is "
                "relative, got none; restore the file, or choose one metric for evaluate.best_by."
            )
        self.seconds = self._seconds_each = 0.0
        self._lines = ScoreLines(run.recipe.evaluate, next(reversed(records), None))
        if dry_run:
            dry_run.all_images = self._evaluator.count_images()
            self._evaluator.limit_images(dry_run.images_per_set)
            dry_run.evaluated_images = self._evaluator.count_images()

    def evaluate_start(self) -> None:
        """Evaluate the network and bicubic upscaling before the first step."""
        start = time.perf_counter()
        record = self._evaluator.evaluate_start(self._run.ema_net())
        if self._log is not None:
            self._log.evaluation(record)
            self._lines.show(record, is_best=False)
        self.seconds = time.perf_counter() - start
        self._seconds_each = self.seconds / 2

    def evaluate(self, clock: Clock) -> float:
        """Evaluate, and return the score that selects the best weights: `best_by`, negated if lower is better."""
        start = time.perf_counter()
        record = self._evaluator.evaluate(self._run.ema_net(), clock)
        score = self._evaluator.score(record)
        if self._log is not None:
            self._log.evaluation(record)
            is_best = save_if_best(self._run, score)
            if not self._dry_run:
                self._lines.show(record, is_best=is_best)
        self.seconds = self._seconds_each = time.perf_counter() - start
        if self._dry_run:
            self._dry_run.evaluation_s = self.seconds
        return score

    def estimate_further_s(self, step: int) -> float:
        """Return the time of all evaluations after a step, each as long as the last one, in seconds."""
        recipe = self._run.recipe
        assert recipe.evaluate is not None
        return recipe.evaluate.count_evaluations(recipe.steps, step) * self._seconds_each

"""Sum normalized pixel weights over the complete batch, before its first gradient (docs/pacing.md, eq. 17)."""

import torch

from selfsr.step import GENERATOR, Batch, Clock, Outputs
from selfsr.training.assemble import TrainingRun
from selfsr.training.keep_state import keep_state


def sum_pixel_weights(run: TrainingRun, batches: list[Batch], clock: Clock) -> None:
    """Give the objective the sums of its normalized pixel weights over all micro-batches and processes.

    The weights depend on the outputs, so the generator runs once more over every micro-batch, without a gradient. A
    batch that is not split needs no such pass: its terms have all weights.

    Args:
        run: the run, at the start of a step.
        batches: the micro-batches of this process.
        clock: time of the step.
    """
    objective, accelerator = run.method.objective, run.accelerator
    objective.parts = len(batches) * accelerator.num_processes
    if objective.parts == 1 or not objective.normalized:
        return
    net = run.method.nets[GENERATOR]
    with torch.no_grad(), keep_state(net, accelerator.device):
        log_sums = [objective.measure_log_sums(Outputs.from_network(net(batch.lr)), batch, clock) for batch in batches]
    of_processes = torch.as_tensor(accelerator.gather(torch.stack(log_sums)))
    objective.log_sums = dict(zip(objective.normalized, of_processes.logsumexp(dim=0), strict=True))

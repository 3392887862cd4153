"""Random numbers of diffusion: functions of a seed and a position, equal for any split of the work."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

# Side of the squares in which sampling noise is made; large enough that a generator per square costs little.
BLOCK_PX = 64
# Streams of numbers under one seed, so that they never coincide. The data loader uses 0 to 2.
_STEP_STREAMS, _TRAINING_NOISE_STREAM, _SAMPLING_STREAM = (3, 6), 4, 5


def draw_training_steps(seed: int, step: int, first_slot: int, count: int, steps: int, stream: int = 0) -> Tensor:
    """Draw the diffusion step of each training sample uniformly: a function of (seed, step, slot) only.

    Args:
        seed: seed of the run.
        step: optimizer step.
        first_slot: place of the first sample in the batch over all processes and micro-batches.
        count: number of samples.
        steps: diffusion steps T.
        stream: number of the draw, 0 or 1, for methods that draw twice in a step.

    Returns:
        int64 `[count]` in [0, T).
    """
    slots = range(first_slot, first_slot + count)
    return torch.tensor(
        [int(np.random.default_rng((seed, _STEP_STREAMS[stream], step, slot)).integers(steps)) for slot in slots]
    )


def draw_training_noise(
    seed: int, step: int, first_slot: int, shape: Sequence[int], device: torch.device, stream: int = 0
) -> Tensor:
    """Draw standard normal noise for each training sample: a function of (seed, step, slot) and the device's kind.

    Args:
        seed: seed of the run.
        step: optimizer step.
        first_slot: place of the first sample in the batch over all processes and micro-batches.
        shape: `[N, C, H, W]`.
        device: the device that makes the numbers.
        stream: number of the draw, for methods that draw several times in a step.
    """
    noise = torch.empty(tuple(shape), device=device)
    generator = torch.Generator(device)
    for row in range(shape[0]):
        generator.manual_seed(_mix(seed, _TRAINING_NOISE_STREAM, step, first_slot + row, stream))
        noise[row].normal_(generator=generator)
    return noise


def sampling_noise(
    seed: int, stage: int, channels: int, top: int, left: int, height: int, width: int, device: torch.device
) -> Tensor:
    """Return a window of the endless noise field of a seed, standard normal float32 `[1, channels, height, width]`.

    The field is made on the CPU in blocks, each from its own generator. So a window has the same numbers whatever
    tile, batch, file, thread or device it is for.

    Args:
        seed: seed of the sample.
        stage: number of the sampling step; each has a field of its own.
        channels: channels of the field.
        top: first row of the window.
        left: first column of the window.
        height: rows.
        width: columns.
        device: device of the result.

    Example:
        >>> field = sampling_noise(0, 3, 3, 0, 0, 80, 100, torch.device("cpu"))
        >>> part = sampling_noise(0, 3, 3, 50, 60, 30, 40, torch.device("cpu"))
        >>> torch.equal(field[..., 50:, 60:], part)
        True
    """
    noise = torch.empty(1, channels, height, width)
    for row in range(top // BLOCK_PX, -(-(top + height) // BLOCK_PX)):
        for column in range(left // BLOCK_PX, -(-(left + width) // BLOCK_PX)):
            generator = torch.Generator().manual_seed(_mix(seed, _SAMPLING_STREAM, stage, channels, row, column))
            block = torch.randn(channels, BLOCK_PX, BLOCK_PX, generator=generator)
            y, x = row * BLOCK_PX - top, column * BLOCK_PX - left
            rows, columns = slice(max(y, 0), y + BLOCK_PX), slice(max(x, 0), x + BLOCK_PX)
            noise[0, :, rows, columns] = block[:, max(-y, 0) : height - y, max(-x, 0) : width - x]
    return noise.to(device)


def _mix(*numbers: int) -> int:
    """Return a 63-bit seed from several numbers; equal only for equal numbers, as far as a hash can."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))

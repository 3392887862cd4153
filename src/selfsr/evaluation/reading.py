"""Read the images of an evaluation, each while the one before is upscaled and scored."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from torch import Tensor

from selfsr.errors import InputError
from selfsr.evaluation.degraded import DegradedInputs
from selfsr.images.files import image_to_tensor, read_image
from selfsr.images.pairing import find_size_problem
from selfsr.images.resize import bicubic_lr, mod_crop, round_to_bits

Pair = tuple[Tensor, Tensor]


def read_ahead(
    hr_paths: Sequence[Path],
    lr_paths: Sequence[Path] | None,
    indices: Sequence[int],
    scale: int,
    degraded: DegradedInputs | None,
) -> Iterator[Future[Pair]]:
    """Yield the result of reading each pair of images, while a thread reads the next one.

    Args:
        hr_paths: the ground truths.
        lr_paths: the inputs in the order of `hr_paths`; None makes them.
        indices: the pairs to read, in this order.
        scale: the upscaling factor.
        degraded: makes the inputs by a degradation; None makes them by bicubic.

    Yields:
        LR and HR, float `[1, 3, ., .]` in [0, 1] on the CPU, HR rounded to 8 bits; or the `InputError` or `OSError`
        with which reading failed.
    """
    with ThreadPoolExecutor(1) as reader:
        ahead: deque[Future[Pair]] = deque()
        try:
            for index in indices:
                lr_path = None if lr_paths is None else lr_paths[index]
                ahead.append(reader.submit(_read_pair, hr_paths[index], lr_path, scale, degraded))
                if len(ahead) > 1:
                    yield ahead.popleft()
            yield from ahead
        finally:  # after an error, do not read what nobody uses
            reader.shutdown(cancel_futures=True)


def _read_pair(
    hr_path: Path, lr_path: Path | None, scale: int, degraded: DegradedInputs | None
) -> tuple[Tensor, Tensor]:
    """Return LR and HR of one image, float `[1, 3, ., .]` in [0, 1] on the CPU, HR rounded to 8 bits."""
    source = read_image(hr_path)
    hr = round_to_bits(image_to_tensor(source))
    size = (hr.shape[-2], hr.shape[-1])
    try:
        hr = mod_crop(hr, scale)
    except InputError as error:
        raise InputError(f"{hr_path}: {error}") from error
    if degraded is not None:
        return degraded.make(source, hr_path, scale), hr
    if lr_path is None:
        return bicubic_lr(hr, scale), hr
    lr = image_to_tensor(read_image(lr_path))
    problem = find_size_problem(size, (lr.shape[-2], lr.shape[-1]), scale)
    if problem:
        raise InputError(f"{lr_path}: {problem}; check the scale, and that it belongs to {hr_path}.")
    return lr, hr

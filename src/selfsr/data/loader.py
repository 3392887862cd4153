"""Batches for ever: each a function of (seed, step), whatever the processes, the workers and the interruptions."""

import contextlib
import itertools
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from selfsr.console import print_line
from selfsr.data.crop import Crop
from selfsr.data.datasets import Dataset
from selfsr.data.device_degrade import DrawnBatch
from selfsr.errors import InputError
from selfsr.images.color import gray
from selfsr.images.resize import bicubic_lr
from selfsr.machine.device import to_device
from selfsr.machine.distributed import processes_here
from selfsr.step import Batch

# More than this read from the disk faster than disks can give.
_MOST_WORKERS = 16


@dataclass(frozen=True)
class Raw:
    """The crops of one step of this process, as small as they were in the files.

    Attributes:
        step: number of the step, from 0.
        of: which of the datasets, and so which scale, the step is of.
        hr: `[n, crop + 2 halo, crop + 2 halo, 3]`, uint8, or the bits of uint16 in int16, which every device has.
        lr: `[n, crop / scale, crop / scale, 3]` in the same way, or float32 in [0, 1], or None.
        mask: edges, uint8 `[n, crop, crop, 1]` of 0 and 1, or None.
        drawn: what the device makes of `hr`, which then are windows around the crops, or None.
        bad: files that could not be read, with the reason; other pictures stand in for them.
    """

    step: int
    of: int
    hr: Tensor
    lr: Tensor | None
    mask: Tensor | None
    drawn: DrawnBatch | None
    bad: dict[Path, str]


class Loader:
    """Yields the batches of steps `start_step`, `start_step` + 1, ... without end.

    The pictures go round in epochs, each a permutation of its own; sample j of the global batch of a step is a
    function of (seed, step, j) alone. Process `rank` of `world` gets its contiguous share of that batch. So the
    processes together see what a single one sees, and a run that is resumed sees what it would have seen. With data at
    several scales, each step is of one scale, drawn with equal chances as a function of (seed, step) alone.

    A file that goes bad during the run is replaced by the next one of the list, reported once and counted.

    Args:
        datasets: where crops come from; several are the same pictures at several scales.
        batch: samples of a step over all processes, a multiple of `world`.
        seed: start of all randomness.
        rank: number of this process.
        world: number of processes.
        start_step: steps that are done.
        workers: processes that load for this one; 0 loads in this process, "auto" decides from the dataset and the
            machine.

    Raises:
        InputError: `batch` is not a multiple of `world`.
    """

    def __init__(
        self,
        datasets: Dataset | Sequence[Dataset],
        *,
        batch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        start_step: int = 0,
        workers: int | Literal["auto"] = "auto",
    ) -> None:
        if batch % world:
            raise InputError(f"batch: expected a multiple of the {world} processes, got {batch}.")
        assert 0 <= rank < world, (rank, world)
        self.datasets = list(datasets) if isinstance(datasets, Sequence) else [datasets]
        cached = all(dataset.cached and not dataset.degrades for dataset in self.datasets)
        self.workers = choose_workers(cached) if workers == "auto" else workers
        self._bad: set[Path] = set()
        self._steps: Iterator[Raw | str] | None = None
        share = batch // world
        self._plan = _Plan(self.datasets, batch, seed, range(rank * share, (rank + 1) * share))
        self._start_step = start_step

    def __iter__(self) -> "Loader":
        return self

    def __next__(self) -> Raw:
        """Return the crops of the next step.

        Raises:
            InputError: no picture can be read any more, or a worker process died.
        """
        if self._steps is None:
            self._steps = self._start()
        try:
            raw = next(self._steps)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise InputError(
                f"data: a process that loads pictures died ({str(error).splitlines()[0].rstrip('.')}), most often for "
                "want of memory; set workers to 0, or data.cache to off."
            ) from error
        if isinstance(raw, str):
            raise InputError(raw)
        for path, reason in raw.bad.items():
            if path not in self._bad:
                self._bad.add(path)
                print_line(f"Skipping a file that went bad: {reason}")
        return raw

    @property
    def skipped(self) -> int:
        """How many files went bad since the start and are passed over."""
        return len(self._bad)

    def prepare(
        self,
        raw: Raw,
        device: torch.device,
        memory_format: torch.memory_format = torch.contiguous_format,
        accumulate: int = 1,
    ) -> list[Batch]:
        """Bring the crops to the device, make floats of them, LR where there is none, and luma where that is wanted.

        LR is made by bicubic, or by the degradations that were drawn for it. It is made and rounded in RGB, as a file
        would be, and luma is taken of both unrounded: the published code's way with networks of one channel.

        Args:
            raw: what `next` returned.
            device: where to.
            memory_format: layout of the images.
            accumulate: micro-batches to cut the batch into, in order.
        """
        samples, dataset = to_device(raw.hr, device), self.datasets[raw.of]
        halo, scale = dataset.halo_px, dataset.scale
        hr = _floats(samples[:, halo : samples.shape[1] - halo, halo : samples.shape[2] - halo])
        if raw.drawn is not None:
            crop_px, bits = dataset.crop_px, dataset.lr_bits
            hr, lr = raw.drawn.pair(hr, scale=scale, crop_px=crop_px, lr_bits=bits)
        elif raw.lr is None:
            lr = bicubic_lr(_floats(samples), scale, bits=dataset.lr_bits, halo_px=halo)
        else:
            lr = _floats(to_device(raw.lr, device))
        if dataset.channels == 1:
            hr, lr = gray(hr), gray(lr)
        hr, lr = (image.contiguous(memory_format=memory_format) for image in (hr, lr))
        masks = [None] * accumulate
        if raw.mask is not None:
            masks = to_device(raw.mask, device).permute(0, 3, 1, 2).bool().contiguous().chunk(accumulate)
        return [Batch(*part) for part in zip(hr.chunk(accumulate), lr.chunk(accumulate), masks, strict=True)]

    def close(self) -> None:
        """Stop the workers. `next` starts them again, from the beginning."""
        self._steps = None

    def _start(self) -> Iterator[Raw | str]:
        steps = itertools.count(self._start_step)
        if self.workers == 0:
            return map(self._plan.__getitem__, steps)
        with warnings.catch_warnings(), _child_signal_kept():
            # Python 3.12 warns of fork in a process with threads; the workers use none of those threads' locks.
            warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
            return iter(
                DataLoader(
                    self._plan,
                    batch_size=None,
                    sampler=steps,
                    num_workers=self.workers,
                    collate_fn=_as_it_is,
                    worker_init_fn=_start_worker,
                    # Forked workers share the cache of decoded pictures.
                    multiprocessing_context="fork" if sys.platform == "linux" else None,
                    generator=torch.Generator(),  # its draw must not move the trainer's
                )
            )


def choose_workers(cached: bool) -> int:
    """Return how many processes should load for each process that trains on this machine.

    Cutting a kept picture costs a twentieth of a millisecond: less than a second process would. Decoding and degrading
    cost milliseconds, and then every core but the one that trains should do it.

    Args:
        cached: whether samples only need to be cut from pictures in memory.
    """
    if cached:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(max(cores // processes_here() - 1, 1), _MOST_WORKERS)


class _Plan(TorchDataset):
    """Which samples make up a step; item s holds the samples of step s."""

    def __init__(self, datasets: Sequence[Dataset], batch: int, seed: int, slots: range) -> None:
        self._datasets = datasets
        self._batch = batch
        self._seed = seed
        self._slots = slots
        self._orders: dict[int, np.ndarray] = {}
        self._bad: dict[tuple[int, int], str] = {}

    def __getitem__(self, step: int) -> Raw | str:
        """Return the crops of a step, or why there are none: an exception would lose its type between processes."""
        of = 0
        if len(self._datasets) > 1:
            of = int(np.random.default_rng((self._seed, 2, step)).integers(len(self._datasets)))
        bad: dict[Path, str] = {}
        try:
            crops = [self._sample(of, step, slot, bad) for slot in self._slots]
        except InputError as error:
            return str(error)
        lrs = [crop.lr for crop in crops if crop.lr is not None]
        masks = [crop.mask for crop in crops if crop.mask is not None]
        draws = [crop.draw for crop in crops if crop.draw is not None]
        return Raw(
            step=step,
            of=of,
            hr=_stacked([crop.hr for crop in crops]),
            lr=_stacked(lrs) if lrs else None,
            mask=_stacked(masks) if masks else None,
            drawn=DrawnBatch.of(draws, crops[0].hr.shape[0]) if draws else None,
            bad=bad,
        )

    def _sample(self, of: int, step: int, slot: int, bad: dict[Path, str]) -> Crop:
        dataset = self._datasets[of]
        count = len(dataset)
        epoch, position = divmod(step * self._batch + slot, count)
        first = int(self._order(epoch)[position])
        for index in itertools.chain(range(first, count), range(first)):
            if (of, index) not in self._bad:
                try:
                    return dataset.sample(index, np.random.default_rng((self._seed, 0, step, slot)))
                except (InputError, OSError) as error:
                    self._bad[of, index] = str(error)
            bad[dataset.paths[index]] = self._bad[of, index]
        raise InputError(
            f"data.hr: none of the {count} pictures can be read any more, the first: {self._bad[of, first]}"
        )

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            if len(self._orders) > 1:  # a step touches two epochs at most, unless the set is smaller than the batch
                self._orders.clear()
            self._orders[epoch] = np.random.default_rng((self._seed, 1, epoch)).permutation(len(self._datasets[0]))
        return self._orders[epoch]


def _stacked(windows: list[np.ndarray]) -> Tensor:
    """Copy `[H, W, C]` views into one `[n, H, W, C]`; 8 and 16 bit together become 16 bit."""
    deepest = max((window.dtype for window in windows), key=lambda dtype: dtype.itemsize)
    out = np.empty((len(windows), *windows[0].shape), deepest)
    # A pixel as one opaque item: turned views are copied 2.5 times faster than sample by sample.
    pixel = np.dtype((np.void, out.shape[-1] * deepest.itemsize))
    for target, window in zip(out, windows, strict=True):
        if window.dtype != deepest:
            window = window.astype(deepest) * 257
        target.view(pixel)[...] = window.view(pixel)
    return torch.from_numpy(out.view(np.int16) if deepest == np.uint16 else out)


def _floats(samples: Tensor) -> Tensor:
    """Return float32 `[n, C, H, W]` in [0, 1] of `[n, H, W, C]`."""
    if samples.is_floating_point():
        return samples.permute(0, 3, 1, 2)
    if samples.dtype == torch.int16:
        return (samples.permute(0, 3, 1, 2).to(torch.int32) & 65535).to(torch.float32).div_(65535)
    return samples.permute(0, 3, 1, 2).to(torch.float32).div_(255)


def _as_it_is(item: Any) -> Any:
    return item


@contextlib.contextmanager
def _child_signal_kept() -> Iterator[None]:
    """Put back the handler that torch replaces: a worker's death shall be an error of `next`, not of any line."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        yield
        return
    handler = signal.getsignal(signal.SIGCHLD) or signal.SIG_DFL
    yield
    signal.signal(signal.SIGCHLD, handler)


def _start_worker(_: int) -> None:
    # Ctrl-C reaches every process of the terminal; the loop decides when to stop, and stops the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError, AttributeError):
        os.nice(1)  # when cores are short, the step goes first

"""Load endless batches, each determined by (seed, step) only."""

import contextlib
import itertools
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from selfsr.console import print_line, progress_bar
from selfsr.data.augment import AugmentSpec, apply_mixes
from selfsr.data.datasets import Dataset
from selfsr.data.sources import MixedDataset
from selfsr.data.steps import RawBatch, RawPart, StepDataset
from selfsr.data.store import ASKED_SHARE
from selfsr.errors import InputError
from selfsr.images.color import rgb_to_luma
from selfsr.images.resize import bicubic_lr
from selfsr.machine.arithmetic import TRUE_FLOAT32
from selfsr.machine.device import to_device
from selfsr.machine.distributed import is_first_process, local_process_count
from selfsr.machine.memory import measure_free_bytes
from selfsr.step import Batch

# More workers read faster than disks deliver.
_MOST_WORKERS = 16


class Loader:
    """Iterate over the batches of steps `start_step`, `start_step` + 1, ... without end.

    Images come in epochs, each with its own permutation. Sample j of the global batch of a step is determined by
    (seed, step, j) only. Process `rank` of `world` loads a contiguous share of the batch. So all processes together
    load the same batches as a single process, and a resumed run has the same batches as an uninterrupted one. With
    datasets at several scales, each step has one scale, sampled uniformly and determined by (seed, step) only. With
    several sources, each has its share of the samples and epochs of its own.

    If a file becomes unreadable during the run, the next image of the list replaces it; the file is reported once and
    counted.

    Args:
        datasets: the dataset, or datasets of the same images at several scales; each may have several sources.
        batch: samples of a step over all processes, a multiple of `world`.
        seed: the seed of all random choices.
        rank: number of this process.
        world: number of processes.
        start_step: number of steps that are done.
        workers: number of loader processes for this process; 0 loads in this process, "auto" chooses by the dataset
            and the machine.
        augment: the mixes of samples; None for none.

    Raises:
        InputError: `batch` is not a multiple of `world`.
    """

    def __init__(
        self,
        datasets: Dataset | MixedDataset | Sequence[Dataset | MixedDataset],
        *,
        batch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        start_step: int = 0,
        workers: int | Literal["auto"] = "auto",
        augment: AugmentSpec | None = None,
    ) -> None:
        if batch % world:
            raise InputError(f"batch: expected a multiple of the {world} processes, got {batch}; change one of them.")
        assert 0 <= rank < world, (rank, world)
        self.datasets: list[Dataset | MixedDataset] = list(datasets) if isinstance(datasets, Sequence) else [datasets]
        self._sources = [
            list(each.sources.values()) if isinstance(each, MixedDataset) else [each] for each in self.datasets
        ]
        only_cropping = all(source.cached and not source.is_degraded for source in itertools.chain(*self._sources))
        self.workers: int = choose_workers(only_cropping) if workers == "auto" else workers
        self._unreadable: set[Path] = set()
        self._steps: Iterator[RawBatch | str] | None = None
        local_batch = batch // world
        slots = range(rank * local_batch, (rank + 1) * local_batch)
        shares = self.datasets[0].shares if isinstance(self.datasets[0], MixedDataset) else (1.0,)
        self._source = StepDataset(self._sources, shares, batch, seed, slots, augment)
        self._start_step = start_step

    def __iter__(self) -> "Loader":
        return self

    def __next__(self) -> RawBatch:
        """Return the crops of the next step.

        Raises:
            InputError: no image is left that can be read, or a loader process died.
        """
        self.start()
        assert self._steps is not None
        try:
            raw = next(self._steps)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise InputError(
                f"data: expected running loader processes, got {str(error).splitlines()[0].rstrip('.')}, usually for "
                "lack of memory; set workers to 0, or data.cache to off."
            ) from error
        if isinstance(raw, str):
            raise InputError(raw)
        for path, reason in raw.unreadable.items():
            if path not in self._unreadable:
                self._unreadable.add(path)
                print_line(f"Skipping an unreadable file: {reason}")
        return raw

    def start(self) -> None:
        """Start the loader processes, if they are not running."""
        if self._steps is None:
            self._steps = self._start()

    def fill_device(self, device: torch.device) -> None:
        """Decode all images whose cache is "device" to the device; do nothing for others.

        Raises:
            InputError: they do not fit into its free memory.
        """
        sources = itertools.chain(*self._sources)
        stores = {id(store): store for source in sources for store in source.stores.values() if store.on_device}
        if not stores:
            return
        need_bytes = sum(store.decoded_bytes for store in stores.values())
        free_bytes = measure_free_bytes(device)
        if device.type == "cpu":
            free_bytes //= local_process_count()
        if need_bytes > ASKED_SHARE * free_bytes:
            raise InputError(
                f"data.cache: expected at most {ASKED_SHARE * free_bytes / 2**30:.1f} GB of decoded images for cache: "
                f"device, {ASKED_SHARE:.0%} of the free memory of {device}, got {need_bytes / 2**30:.1f} GB; set cache "
                "to memory or disk."
            )
        total = sum(map(len, stores.values()))
        shown = is_first_process()
        with progress_bar("Decoding images", total) if shown else contextlib.nullcontext(_do_nothing) as advance:
            for store in stores.values():
                store.fill_device(device, advance)

    @property
    def skipped(self) -> int:
        """Number of files that became unreadable since the start and are skipped."""
        return len(self._unreadable)

    @TRUE_FLOAT32.use()
    def prepare(
        self,
        raw: RawBatch,
        device: torch.device,
        memory_format: torch.memory_format = torch.contiguous_format,
        accumulate: int = 1,
    ) -> list[Batch]:
        """Copy crops to the device, convert them to floats, and make LR and luma if needed, all in true float32.

        LR is made by bicubic, or by the sampled degradations. It is made and rounded in RGB, like a file; luma is
        computed from both, unrounded, as in the published code of networks with one channel.

        Args:
            raw: a result of `next`.
            device: the device.
            memory_format: memory format of the images.
            accumulate: number of micro-batches, in order.

        Returns:
            The micro-batches.
        """
        made = [self._make_part(part, raw.scale_index, device) for part in raw.parts]
        hr, lr, mask = _join(made, [place for part in raw.parts for place in part.places])
        count = len(self._source.slots)
        if raw.mixes:
            hr, lr = apply_mixes(hr, lr, raw.mixes, count)
        hr, lr = (image.contiguous(memory_format=memory_format) for image in (hr, lr))
        masks = [None] * accumulate
        if mask is not None:
            masks = mask[:count].contiguous().chunk(accumulate)
        first_slot, size = self._source.slots.start, len(hr) // accumulate
        parts = enumerate(zip(hr.chunk(accumulate), lr.chunk(accumulate), masks, strict=True))
        return [Batch(*images, first_slot=first_slot + index * size) for index, images in parts]

    def _make_part(self, part: RawPart, scale_index: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return HR, LR and the masks of the crops of one source, on the device."""
        dataset = self._sources[scale_index][part.source]
        samples = dataset.stores["hr"].load_windows(part.hr, device)
        halo, scale = dataset.halo_px, dataset.scale
        hr = _to_unit_float_nchw(samples[:, halo : samples.shape[1] - halo, halo : samples.shape[2] - halo])
        if part.degradation is not None:
            crop_px, bits = dataset.crop_px, dataset.lr_bits
            hr, lr = part.degradation.make_pair(hr, scale=scale, crop_px=crop_px, lr_bits=bits)
        elif part.lr is None:
            lr = bicubic_lr(_to_unit_float_nchw(samples), scale, bits=dataset.lr_bits, halo_px=halo)
        elif "lr" in dataset.stores:
            lr = _to_unit_float_nchw(dataset.stores["lr"].load_windows(part.lr, device))
        else:
            lr = _to_unit_float_nchw(to_device(part.lr, device))
        if dataset.channels == 1:
            hr, lr = rgb_to_luma(hr), rgb_to_luma(lr)
        mask = None if part.mask is None else to_device(part.mask, device).permute(0, 3, 1, 2).bool()
        return hr, lr, mask

    def close(self) -> None:
        """Stop the loader processes. `next` starts them again, at `start_step`."""
        self._steps = None

    def _start(self) -> Iterator[RawBatch | str]:
        steps = itertools.count(self._start_step)
        if self.workers == 0:
            return map(self._source.__getitem__, steps)
        with warnings.catch_warnings(), _keep_child_signal_handler():
            # Python 3.12 warns of fork in a process with threads; the workers use no locks of those threads.
            warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
            return iter(
                DataLoader(
                    self._source,
                    batch_size=None,
                    sampler=steps,
                    num_workers=self.workers,
                    collate_fn=_return_item,
                    worker_init_fn=_start_worker,
                    # Forked workers share the cache of decoded images.
                    multiprocessing_context="fork" if sys.platform == "linux" else None,
                    generator=torch.Generator(),  # must not change the random state of training
                )
            )


def choose_workers(cached: bool) -> int:
    """Return the number of loader processes for each training process on this machine.

    Cropping a cached image takes a twentieth of a millisecond, less than a second process costs. Decoding and degrading
    take milliseconds; then all cores but that of the training process should load.

    Args:
        cached: whether samples are only cropped from images in memory.
    """
    if cached:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(max(cores // local_process_count() - 1, 1), _MOST_WORKERS)


def _join(
    made: Sequence[tuple[Tensor, Tensor, Tensor | None]], places: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return HR, LR and masks of all sources in the order of their places; no copy if there is one source."""
    if len(made) == 1:
        return made[0]
    order = torch.as_tensor(np.argsort(places), device=made[0][0].device)
    hr, lr = torch.cat([hr for hr, _, _ in made])[order], torch.cat([lr for _, lr, _ in made])[order]
    masks = [mask for *_, mask in made if mask is not None]
    return hr, lr, torch.cat(masks)[order] if masks else None


def _to_unit_float_nchw(samples: Tensor) -> Tensor:
    """Return float32 `[n, C, H, W]` in [0, 1] from `[n, H, W, C]`, uint8, uint16 as int16, or float."""
    if samples.is_floating_point():
        return samples.permute(0, 3, 1, 2)
    if samples.dtype == torch.int16:
        return (samples.permute(0, 3, 1, 2).to(torch.int32) & 65535).to(torch.float32).div_(65535)
    return samples.permute(0, 3, 1, 2).to(torch.float32).div_(255)


def _do_nothing() -> None: ...


def _return_item(item: Any) -> Any:
    return item


@contextlib.contextmanager
def _keep_child_signal_handler() -> Iterator[None]:
    """Restore the handler that torch replaces, so that a dead worker is an error of `next`, not of any line."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        yield
        return
    handler = signal.getsignal(signal.SIGCHLD) or signal.SIG_DFL
    yield
    signal.signal(signal.SIGCHLD, handler)


def _start_worker(_: int) -> None:
    # Ctrl-C reaches all processes of a terminal; the training loop decides when to stop, and stops the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError, AttributeError):
        os.nice(1)  # the training step has priority

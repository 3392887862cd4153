"""Load batches and copy them to a GPU in a thread, while the step before computes."""

import queue
import threading
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from selfsr.data.loader import Loader
from selfsr.data.steps import RawBatch, RawPart
from selfsr.machine.device import to_device

# Batches that wait on the device: one for the next step, and one while it is taken.
_DEPTH = 2


class Lane(Protocol):
    """The way of tensors to a device, next to the work that the device does already."""

    def copy(self, tensor: Tensor) -> Tensor:
        """Start the copy of a tensor, in the thread."""
        ...

    def mark(self) -> Any:
        """Return a mark of all copies so far, in the thread."""
        ...

    def receive(self, tensors: list[Tensor], mark: Any) -> None:
        """Let the following work of the calling thread begin after the copies before `mark`."""
        ...


class CudaLane:
    """Copies through page-locked memory on a CUDA stream of their own."""

    def __init__(self, device: torch.device) -> None:
        self._device: torch.device = device
        self._stream: torch.cuda.Stream = torch.cuda.Stream(device)

    def copy(self, tensor: Tensor) -> Tensor:
        """Start the copy of a tensor."""
        with torch.cuda.stream(self._stream):
            return to_device(tensor, self._device)

    def mark(self) -> Any:
        """Return an event after all copies so far."""
        return self._stream.record_event()

    def receive(self, tensors: list[Tensor], mark: Any) -> None:
        """Let the current stream wait for the event; the host does not."""
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(mark)
        for tensor in tensors:
            tensor.record_stream(stream)  # its memory must not be reused before this stream has read it


class Prefetcher:
    """Take batches from a loader ahead of time, in the same order.

    An error of the loader is raised by the `load` that would return its batch.

    Args:
        loader: the batches.
        lane: how they reach the device.
    """

    def __init__(self, loader: Loader, lane: Lane) -> None:
        self._loader = loader
        self._lane = lane
        self._ready: queue.Queue[tuple[RawBatch, Any] | BaseException] = queue.Queue(_DEPTH)
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def load(self) -> RawBatch:
        """Return the next batch, with its images on the device.

        Raises:
            InputError: no image is left that can be read, or a loader process died.
        """
        if self._thread is None:
            self._loader.start()  # here, since processes are best forked by the main thread
            self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)
            self._thread.start()
        item = self._ready.get()
        if isinstance(item, BaseException):
            raise item
        raw, mark = item
        self._lane.receive([image for part in raw.parts for image in _list_images(part).values()], mark)
        return raw

    def close(self) -> None:
        """Stop the thread, after the batch that it is loading."""
        self._stopped.set()
        while self._thread is not None and self._thread.is_alive():
            try:
                self._ready.get_nowait()  # the thread may wait for a free place
            except queue.Empty:
                self._thread.join(timeout=0.01)

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                raw = next(self._loader)
                parts = tuple(
                    replace(part, **{name: self._lane.copy(image) for name, image in _list_images(part).items()})
                    for part in raw.parts
                )
                self._ready.put((replace(raw, parts=parts), self._lane.mark()))
        except BaseException as error:  # raised again in `load`
            self._ready.put(error)


def _list_images(part: RawPart) -> dict[str, Tensor]:
    """Return the tensors of a part by name; degradations stay on the host, where their plans are read."""
    images = {"hr": part.hr, "lr": part.lr, "mask": part.mask}
    return {name: image for name, image in images.items() if image is not None}


class DirectSource:
    """Take batches from a loader when they are needed; the copy to the device is a part of `Loader.prepare`.

    Args:
        loader: the batches.
    """

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def load(self) -> RawBatch:
        """Return the next batch, in the memory of the host."""
        return next(self._loader)

    def close(self) -> None:
        """Do nothing: no thread is running."""


def choose_source(loader: Loader, device: torch.device) -> Prefetcher | DirectSource:
    """Return the source of batches for a device: only on CUDA do copies run next to the step."""
    return Prefetcher(loader, CudaLane(device)) if device.type == "cuda" else DirectSource(loader)

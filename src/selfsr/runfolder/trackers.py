"""Send losses, scores and sample images of a run to experiment trackers, through accelerate's classes."""

import importlib.util
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from accelerate.tracking import (
    GeneralTracker,
    MLflowTracker,
    TensorBoardTracker,
    TrackioTracker,
    WandBTracker,
)

from selfsr.console import print_line
from selfsr.errors import InputError, describe_exception
from selfsr.fileio import write_atomic

TrackerName = Literal["tensorboard", "wandb", "mlflow", "trackio"]

# File of the run folder with the names of the run in the trackers, so that it continues there.
_IDS = "trackers.json"
_INSTALL = {"tensorboard": 'pip install "selfsr[track]"'}
# Trackers that take images, with the options of the call.
_IMAGE_OPTIONS: dict[str, dict[str, Any]] = {"tensorboard": {"dataformats": "NHWC"}, "wandb": {}}


class Trackers:
    """The trackers of one run. A tracker that fails during the run is reported once and left out; the run continues.

    Args:
        names: the trackers.
        folder: the run folder.
        project: the project or experiment in the tracker.
        run: the name of the run.
        options: the options of the run as plain values, for trackers that show them.
        after_step: the last finished step of a run that continues; -1 for a new run.

    Raises:
        InputError: the package of a tracker is missing, or it does not start, such as without a login.
    """

    def __init__(
        self,
        names: Sequence[TrackerName],
        folder: Path,
        *,
        project: str,
        run: str,
        options: Mapping[str, str],
        after_step: int,
    ) -> None:
        for name in names:
            _check_package(name)
        ids = _read_ids(folder) if after_step >= 0 else {}
        self._trackers: dict[TrackerName, GeneralTracker] = {}
        for name in names:
            try:
                self._trackers[name] = _start(name, folder, project, run, ids, after_step)
                if name != "tensorboard" and after_step < 0:  # there the options would be a run of their own
                    self._trackers[name].store_init_configuration(dict(options))
            except Exception as error:  # the code of other people, and their servers
                reason = describe_exception(error)
                raise InputError(
                    f"log.trackers: expected {name} to start, got an error ({reason}); log in to it, or remove it from "
                    "log.trackers."
                ) from error
        if ids:
            write_atomic(folder / _IDS, json.dumps(ids, indent=2) + "\n")

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Send numbers by their names."""
        for name in list(self._trackers):
            self._try(name, lambda tracker: tracker.log(dict(values), step=step))

    def log_images(self, images: Mapping[str, np.ndarray], step: int) -> None:
        """Send images `[H, W, 3]`, uint8, by their names, to the trackers that take images."""
        batches = {name: image[None] for name, image in images.items()}
        for name in list(self._trackers):
            if name in _IMAGE_OPTIONS and batches:
                options = _IMAGE_OPTIONS[name]
                self._try(name, lambda tracker, options=options: tracker.log_images(batches, step=step, **options))

    def close(self) -> None:
        """Finish the run in all trackers."""
        for name in list(self._trackers):
            self._try(name, lambda tracker: tracker.finish())

    def _try(self, name: TrackerName, call: Callable[[Any], None]) -> None:
        try:
            call(self._trackers[name])
        except Exception as error:  # a server that is gone must not end a training of days
            del self._trackers[name]
            reason = describe_exception(error)
            print_line(
                f"log.trackers: expected {name} to take the values of the run, got an error ({reason}); the run "
                "continues without it, and its own logs have everything."
            )


def _check_package(name: TrackerName) -> None:
    if importlib.util.find_spec(name) is None:
        raise InputError(
            f"log.trackers: {name} needs its package, got an environment without it; install it with "
            f"{_INSTALL.get(name, f'pip install {name}')}, or remove it from log.trackers."
        )


def _start(
    name: TrackerName, folder: Path, project: str, run: str, ids: dict[str, str], after_step: int
) -> GeneralTracker:
    """Start a tracker; new names of the run are added to `ids`."""
    match name:
        case "tensorboard":
            tracker: Any = TensorBoardTracker("tensorboard", folder, purge_step=after_step + 1)
        case "wandb":
            run_id = ids.setdefault(name, secrets.token_hex(4))
            tracker = WandBTracker(project, name=run, id=run_id, dir=str(folder), resume="allow")
        case "mlflow":
            tracker = MLflowTracker(project, run_name=run, run_id=ids.get(name))
        case "trackio":
            run_id = ids.setdefault(name, f"{run}-{secrets.token_hex(2)}")
            tracker = TrackioTracker(project, name=run_id, resume="allow")
    tracker.start()
    if name == "mlflow":
        ids[name] = tracker.tracker.info.run_id
    return tracker


def _read_ids(folder: Path) -> dict[str, str]:
    try:
        ids = json.loads((folder / _IDS).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}  # the run goes to the trackers as a new one
    return {key: value for key, value in ids.items() if isinstance(value, str)} if isinstance(ids, dict) else {}

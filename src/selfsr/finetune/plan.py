"""Choose the recipe of a fine-tuning; options that the user leaves out follow from model, photos and device."""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from selfsr.errors import InputError
from selfsr.finetune.batch import choose_batch, measure_activation_bytes
from selfsr.finetune.photos import choose_crop_px, split_photos, write_list
from selfsr.images.files import read_header
from selfsr.losses.features import ARCHITECTURES
from selfsr.machine.device import choose_device
from selfsr.nets.weights.find import find_model
from selfsr.nets.weights.identify import require_trainable
from selfsr.recipe import Recipe, parse_recipe
from selfsr.runfolder.checkpoints import list_checkpoints
from selfsr.training.dryrun import Cost, measure_cost

# Evaluations of a run, without those of its start.
_EVALUATIONS = 5
# The part of the time that is planned; the rest is for loading, saving and a machine that slows down.
_PLANNED = 0.9
# If fewer steps fit into the time, the batch is halved, where possible.
_WANTED_STEPS = 300
_LEAST_STEPS = 10
# Below this number of steps the EMA is shorter.
_SHORT = 2000
# A crop on which all losses and discriminators are defined.
_GAN_CROP_PX = 64


@dataclass(frozen=True)
class Request:
    """The options of a fine-tuning.

    Attributes:
        model: weights file, or name of a shipped model.
        photos: folder of images, or a list of them.
        folder: the run folder; the run has its name.
        degrade: degradation preset that makes the inputs; None for bicubic.
        gan: train for perceptual quality, with a discriminator and the self-similarity loss, instead of PSNR.
        seconds: time of the run; None if `steps` is given.
        steps: optimizer steps; None if `seconds` is given.
        scale: upscaling factor, for networks with several; None for the scale of the file.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
    """

    model: str
    photos: Path
    folder: Path
    degrade: str | None = None
    gan: bool = False
    seconds: float | None = None
    steps: int | None = None
    scale: int | None = None
    device: str = "auto"


@dataclass(frozen=True)
class Plan:
    """The recipe of a fine-tuning, and the sentences that explain its choices."""

    recipe: Recipe
    notes: list[str] = field(default_factory=list)


def plan_finetune(request: Request) -> Plan:
    """Return the recipe, and write the lists of photos that it names into the run folder.

    The crop follows from the photos, the batch from the free memory, and the steps from a measured speed.

    Raises:
        InputError: the model or the photos cannot be used, the run folder has a run, or the time is too short.
    """
    start_s = perf_counter()
    if list_checkpoints(request.folder):
        raise InputError(
            f"finetune: expected a new run folder, got {request.folder}, which has checkpoints; continue its run with: "
            f"selfsr train {request.folder} --resume, or choose another --name."
        )
    spec, file = require_trainable(find_model(request.model))
    scale = request.scale or (file.scales[0] if len(file.scales) == 1 else None)
    if scale is None or (file.scales and scale not in file.scales):
        known = ", ".join(map(str, file.scales)) or "any"
        raise InputError(f"--scale: expected the scale of {request.model} ({known}), got {scale}; add --scale.")
    photos = split_photos(request.photos)
    crop_px = choose_crop_px(photos.train, scale, max(spec.minimum_px * scale, _GAN_CROP_PX if request.gan else 1))
    small = sum(min(header.height, header.width) < crop_px for header in map(read_header, photos.train))
    device = choose_device(request.device)
    net = spec.build(scale, file.channels).to(device).train()
    samples = spec.minimum_batch
    lr = torch.rand(samples, file.channels, crop_px // scale, crop_px // scale, device=device)
    batch = choose_batch(
        measure_activation_bytes(net, lr) / samples, device, gan=request.gan, minimum=spec.minimum_batch
    )
    del net, lr
    train, held_out = request.folder / "train.txt", request.folder / "held_out.txt"
    write_list(train, photos.train)
    write_list(held_out, photos.held_out)
    notes = [
        f"Photos: {len(photos.train)} for training"
        + (f" ({small} smaller than the crop, padded by reflection)" if small else "")
        + f", {len(photos.held_out)} held out for evaluation."
    ]
    document = _write_document(request, scale, crop_px, batch, train.resolve(), held_out.resolve())
    if request.gan:
        _add_gan(document, notes)
    if request.steps is not None:
        return Plan(_parse(_set_steps(document, request.steps)), notes)
    assert request.seconds is not None
    cost = measure_cost(_parse(_set_steps(document, _WANTED_STEPS)), device=request.device)
    planning_s = perf_counter() - start_s
    return _fit_time(document, request.seconds, planning_s, cost, spec.minimum_batch, notes)


def _fit_time(
    document: dict[str, Any], seconds: float, planning_s: float, cost: Cost, minimum_batch: int, notes: list[str]
) -> Plan:
    """Choose the steps that fit into `seconds` with the planning; halve the batch if fewer than 300 fit."""
    other_s = planning_s + (_EVALUATIONS + 2) * cost.evaluation_s
    training_s = seconds * _PLANNED - other_s
    batch, rate = document["batch"], cost.steps_per_s
    while training_s * rate < _WANTED_STEPS and batch // 2 >= minimum_batch:
        batch, rate = batch // 2, rate * 2
    steps = int(training_s * rate)
    if steps < _LEAST_STEPS:
        least_s = (_LEAST_STEPS / rate + other_s) / _PLANNED
        raise InputError(
            f"--for: expected at least {math.ceil(least_s / 60)}m here, for {_LEAST_STEPS} steps and the evaluations, "
            f"got {seconds / 60:.3g}m; give more time, or choose a smaller model."
        )
    notes.append(f"Measured {cost.steps_per_s:.3g} steps/s at batch {document['batch']}, in {planning_s:.0f} s.")
    if steps < _WANTED_STEPS:
        notes.append(f"Only {steps:,} steps fit into the time; expect little change, or give more time.")
    return Plan(_parse(_set_steps({**document, "batch": batch}, steps)), notes)


def _write_document(
    request: Request, scale: int, crop_px: int, batch: int, train: Path, held_out: Path
) -> dict[str, Any]:
    """Return the recipe of a fine-tuning for PSNR, without the options that depend on the steps."""
    degraded = {"degrade": request.degrade} if request.degrade else {}
    return {
        "name": request.folder.name,
        "scale": scale,
        "batch": batch,
        "crop_px": crop_px,
        "network": {"kind": "from_file"},
        "start_from": request.model,
        "data": {"kind": "folder", "hr": str(train), "small": "pad", **degraded},
        "method": {"kind": "regression", "terms": {"pixel": {"kind": "l1"}}},
        "optimizers": {"g": {"kind": "adam", "lr": 1e-4, "betas": [0.9, 0.99]}},
        "clip_norm": 1.0,
        "evaluate": {
            "sets": {"held_out": {"hr": str(held_out), **({"degrade": "training"} if request.degrade else {})}},
            "metrics": list(_list_metrics(gan=False)),
            "best_by": "psnr_y",
        },
    }


def _add_gan(document: dict[str, Any], notes: list[str]) -> None:
    """Add a discriminator, the self-similarity loss, and a perceptual loss if its weights are available."""
    terms = document["method"]["terms"]
    perceptual = next((name for name in ("vgg19", "vgg16") if _has_weights(name)), None)
    if perceptual:
        terms["perceptual"] = {"kind": "perceptual", "network": perceptual}
    else:
        notes.append(
            "Without a perceptual loss, because neither VGG19 nor VGG16 is in torch's hub folder "
            f"({ARCHITECTURES['vgg19'].weights.path.parent})."
        )
    terms["similarity"] = {"kind": "self_similarity", "stride": 3, "weight": {"match": "largest"}}
    discriminator = {"network": {"kind": "unet_sn"}, "form": "standard", "weight": 0.1}
    document["method"] = {"kind": "gan", "terms": terms, "discriminators": {"d": discriminator}}
    document["optimizers"]["d"] = dict(document["optimizers"]["g"])
    metrics = _list_metrics(gan=True)
    document["evaluate"].update(metrics=list(metrics), best_by=metrics[-1])


def _set_steps(document: dict[str, Any], steps: int) -> dict[str, Any]:
    """Return the recipe with the options that depend on the number of steps."""
    every_steps = max(1, -(-steps // _EVALUATIONS))
    result = {
        **document,
        "steps": steps,
        "schedule": {"kind": "cosine", "warmup_steps": min(100, steps // 10), "floor": 0.05},
        "ema_decay": 0.999 if steps >= _SHORT else 0.99,
        "evaluate": {**document["evaluate"], "every_steps": every_steps},
        "checkpoints": {"every_steps": every_steps},
        "log": {"every_steps": max(1, min(100, steps // 20))},
    }
    if similarity := document["method"]["terms"].get("similarity"):
        calibrated = {"match": "largest", "calibrate_steps": max(1, min(100, steps // 5))}
        terms = {**document["method"]["terms"], "similarity": {**similarity, "weight": calibrated}}
        result["method"] = {**document["method"], "terms": terms}
    return result


def _list_metrics(*, gan: bool) -> tuple[str, ...]:
    """Return the extra metrics: LPIPS if its weights are available, and the self-similarity distance for a GAN."""
    lpips = ("lpips",) if _has_weights("alexnet") else ()
    return ("self_similarity", *lpips) if gan else lpips


def _has_weights(network: str) -> bool:
    return ARCHITECTURES[network].weights.path.is_file()


def _parse(document: dict[str, Any]) -> Recipe:
    return parse_recipe(document, "finetune")


def name_run(model: str) -> str:
    """Return the name of a run from the name of its model, with characters that every file system accepts.

    Example:
        >>> name_run("models/4x UltraSharp.pth")
        '4x_UltraSharp_finetuned'
    """
    return re.sub(r"[^A-Za-z0-9.-]+", "_", Path(model).stem).strip("._-") + "_finetuned"

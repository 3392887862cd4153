"""Optimizers in the form that is fastest on a device, and checkpoints that fit every form."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch.optim import Adam, AdamW, Optimizer

# The options of PyTorch's optimizers that choose a form and change nothing else than the last bits.
_FORMS = ("foreach", "fused")


def fuse_optimizer(optimizer: Optimizer, device: torch.device, *, devices: Sequence[str] = ("cuda",)) -> Optimizer:
    """Return an optimizer that updates all parameters in a few kernels, if there is one for `device`.

    Adam and AdamW have such a form. PyTorch would launch a dozen kernels for each few tensors, and count the steps on
    the host. On a CPU the plain loop stays, whose bits are those of earlier versions.

    Args:
        optimizer: the optimizer, before its first step.
        device: device of its parameters.
        devices: types of devices on which to fuse.

    Example:
        >>> weight = torch.nn.Parameter(torch.zeros(2))
        >>> fuse_optimizer(Adam([weight], lr=0.1), torch.device("cpu"), devices=["cpu"]).defaults["fused"]
        True
    """
    kind = type(optimizer)
    if device.type not in devices or kind not in (Adam, AdamW):
        return optimizer
    known = set(inspect.signature(kind).parameters) - set(_FORMS)
    options = {name: value for name, value in optimizer.defaults.items() if name in known}
    groups = [{name: value for name, value in group.items() if name not in _FORMS} for group in optimizer.param_groups]
    return kind(groups, **options, fused=True)


def keep_form(optimizer: Any, state: dict[str, Any]) -> dict[str, Any]:
    """Return the state of a checkpoint in the form of `optimizer`; the run may have been on another device."""
    forms = [{name: group[name] for name in _FORMS if name in group} for group in optimizer.param_groups]
    groups = [{**saved, **form} for saved, form in zip(state["param_groups"], forms, strict=True)]
    return {**state, "param_groups": groups}

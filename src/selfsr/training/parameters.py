"""Choose by name which parameters of a network are trained, and at which learning rate."""

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase

import torch
from torch import nn

from selfsr.errors import InputError
from selfsr.recipe.optim import Optimizer
from selfsr.training.batch_norm import FrozenBatchNorm2d

# How many names a message lists.
_LISTED = 3
# Key of the learning rate before the schedule, in the groups of an optimizer.
BASE_LR = "base_lr"


def freeze(net: nn.Module, patterns: Sequence[str]) -> str:
    """Stop the training of parameters by name, in place, also of the statistics of batch norms in frozen layers.

    Args:
        net: the generator.
        patterns: names of parameters, in which `*` stands for any characters and `?` for one.

    Returns:
        One line with the number of frozen parameters; empty without patterns.

    Raises:
        InputError: a pattern matches no parameter, or all parameters are frozen.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1))
        >>> freeze(net, ["0.*"])
        'freeze: 16 of 31 trained numbers in 2 of 4 tensors stay as they are'
    """
    if not patterns:
        return ""
    named = {name: parameter for name, parameter in net.named_parameters() if parameter.requires_grad}
    frozen = {name for pattern in patterns for name in _match("freeze", pattern, named)}
    if len(frozen) == len(named):
        raise InputError(
            f"freeze: expected patterns that leave parameters to train, got {', '.join(patterns)}, which match all "
            f"{len(named)}; freeze fewer."
        )
    for name in frozen:
        named[name].requires_grad_(False)
    for module in net.modules():
        if type(module) is nn.BatchNorm2d and not any(parameter.requires_grad for parameter in module.parameters()):
            module.__class__ = FrozenBatchNorm2d
            module.eval()
    numbers = sum(named[name].numel() for name in frozen)
    total = sum(parameter.numel() for parameter in named.values())
    return f"freeze: {numbers:,} of {total:,} trained numbers in {len(frozen)} of {len(named)} tensors stay as they are"


def build_optimizer(net: nn.Module, spec: Optimizer, place: str) -> torch.optim.Optimizer:
    """Build an optimizer over the trained parameters of a network, with a group for each of its `groups`.

    Args:
        net: the network.
        spec: the optimizer of a recipe. Its first group has the parameters that no pattern matches.
        place: the key of its groups in the recipe, for error messages.

    Returns:
        The optimizer; each of its groups has the learning rate before the schedule under `BASE_LR`.

    Raises:
        InputError: a pattern matches no trained parameter that is not in an earlier group, or the optimizer cannot be
            built.
    """
    rest = {name: parameter for name, parameter in net.named_parameters() if parameter.requires_grad}
    groups = []
    for index, group in enumerate(getattr(spec, "groups", ())):
        names = _match(f"{place}.{index}.match", group.match, rest)
        groups.append({"params": [rest.pop(name) for name in names], "lr": group.lr})
    if rest:
        groups.insert(0, {"params": list(rest.values()), "lr": spec.lr})
    optimizer = spec.build(groups)
    for group in optimizer.param_groups:
        group[BASE_LR] = group["lr"]
    return optimizer


def _match(place: str, pattern: str, names: Sequence[str] | dict[str, nn.Parameter]) -> list[str]:
    matched = [name for name in names if fnmatchcase(name, pattern)]
    if not matched:
        near = difflib.get_close_matches(pattern, names, _LISTED, cutoff=0.3) or list(names)[:_LISTED]
        raise InputError(
            f"{place}: expected a pattern of names of trained parameters, got {pattern!r}, which matches none; "
            f"names are such as {', '.join(near) or 'none, as all are taken'}."
        )
    return matched

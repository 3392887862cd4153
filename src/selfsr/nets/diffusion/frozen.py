"""Networks with a frozen part that is neither copied, averaged nor saved."""

import copy
from collections.abc import Iterable, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from selfsr.errors import InputError

# The attribute of a frozen module with the names of its buffers.
_FROZEN_BUFFERS = "frozen_buffers"


class PartlyFrozen(nn.Module):
    """Base of networks whose state dict has the trained part only.

    Copies, such as an EMA, share the frozen part. The state dict has the trained parameters and the other buffers, so
    checkpoints and weights files have only these. The frozen part is identified by a checksum in the state, and the
    state is refused by a network with another frozen part.
    """

    base_sha256: Tensor

    def freeze_base(self, modules: Iterable[nn.Module], sha256: str) -> None:
        """Freeze the parameters that these modules have now. Parameters that are added later are trained.

        Args:
            modules: children of this network, or modules that will become its children.
            sha256: checksum of their values, in hexadecimal digits.
        """
        self._frozen: dict[int, nn.Parameter] = {}
        for module in modules:
            self.freeze_more(module)
        digits = torch.tensor(list(bytes.fromhex(sha256)), dtype=torch.uint8)
        self.register_buffer("base_sha256", digits)

    def freeze_more(self, module: nn.Module) -> None:
        """Freeze the parameters and buffers that a module has now; the checksum of the base covers them."""
        for parameter in module.parameters():
            parameter.requires_grad_(False)
            self._frozen[id(parameter)] = parameter
        for part in module.modules():  # copies keep the names, while a buffer is another tensor on another device
            setattr(part, _FROZEN_BUFFERS, frozenset(name for name, _ in part.named_buffers(recurse=False)))

    def frozen_names(self) -> set[str]:
        """Return the names of the parameters and buffers that never change."""
        names = {name for name, parameter in self.named_parameters() if id(parameter) in self._frozen}
        for place, part in self.named_modules():
            names |= {f"{place}.{name}" for name in getattr(part, _FROZEN_BUFFERS, ())}
        return names

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Change whether the trained parameters get a gradient; frozen ones never do."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad and id(parameter) not in self._frozen)
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the trained parameters and the buffers that are not frozen."""
        prefix = kwargs.get("prefix", args[1] if len(args) > 1 else "")
        state = super().state_dict(*args, **kwargs)
        for name in self.frozen_names():
            state.pop(prefix + name, None)
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load the trained parameters and the buffers.

        Raises:
            InputError: they were trained on another base.
            RuntimeError: names or shapes differ, if `strict`.
        """
        theirs = state_dict.get("base_sha256")
        if theirs is not None and theirs.device.type != "meta" and self.base_sha256.device.type != "meta":
            self.check_base(format_sha256(theirs))
        result = super().load_state_dict(state_dict, strict=False, assign=assign)
        frozen = self.frozen_names()
        missing = [name for name in result.missing_keys if name not in frozen]
        if strict and (missing or result.unexpected_keys):
            raise RuntimeError(
                f"Error(s) in loading state_dict for {type(self).__name__}: missing {missing}, unexpected "
                f"{result.unexpected_keys}"
            )
        return type(result)(missing, result.unexpected_keys)

    def check_base(self, sha256: str) -> None:
        """Check that weights with the checksum of their base fit this network.

        Raises:
            InputError: they were trained on another base.
        """
        ours = format_sha256(self.base_sha256)
        if ours != sha256:
            raise InputError(
                f"network.base: expected the base with the checksum {sha256[:12]}..., with which these weights were "
                f"trained, got one with {ours[:12]}...; name the folder of the right base."
            )

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        memo.update(self._frozen)
        for part in self.modules():
            buffers = [getattr(part, name) for name in getattr(part, _FROZEN_BUFFERS, ())]
            memo.update({id(buffer): buffer for buffer in buffers})
        twin.__dict__ = copy.deepcopy(self.__dict__, memo)
        return twin


def format_sha256(digits: Tensor) -> str:
    """Return the hexadecimal digits of a checksum that a state has as 32 bytes, uint8."""
    return bytes(digits.tolist()).hex()


def share_copy(module: nn.Module) -> Any:
    """Return a copy of a module that shares its parameters, so that layers can be added to one of the two.

    Example:
        >>> layer = nn.Linear(2, 3)
        >>> share_copy(layer).weight is layer.weight
        True
    """
    return copy.deepcopy(module, {id(parameter): parameter for parameter in module.parameters()})

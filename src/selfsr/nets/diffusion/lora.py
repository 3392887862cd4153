"""Low-rank adapters of a frozen network, by peft (Hu et al., "LoRA", ICLR 2022)."""

from collections.abc import Iterable
from typing import Any

from pydantic import Field, PositiveInt, field_validator
from torch import nn

from selfsr.errors import InputError
from selfsr.spec import Spec

# Names of the layers of diffusers' U-Nets, autoencoders and transformers, by kind.
LAYER_KINDS: dict[str, tuple[str, ...]] = {
    "attention": (
        "to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "proj_in",
        "proj_out",
    ),
    "feed_forward": ("ff.net.0.proj", "ff.net.2"),
    "conv": ("conv", "conv1", "conv2", "conv_shortcut", "conv_in", "conv_out"),
    "embedding": ("linear_1", "linear_2", "time_emb_proj"),
}  # fmt: skip


class LoraSpec(Spec):
    """Which layers of a frozen network get adapters, and of which rank.

    An adapter adds B A x to the output of a layer, with A of `rank` rows and B of `rank` columns. Its alpha is the
    rank, so the factor is 1, which programs assume for a file without alpha (docs/diffusion.md, eq. 17).
    """

    rank: PositiveInt = Field(
        16,
        description="rank of the adapters; a higher rank can change more and needs more memory. 4 to 256 are published",
    )
    targets: tuple[str, ...] = Field(
        ("attention", "feed_forward", "conv"),
        min_length=1,
        description="layers that get an adapter: attention, feed_forward, conv, embedding, or ends of layer names, "
        "such as to_q or ff.net.2",
    )

    @field_validator("targets")
    @classmethod
    def _check_targets(cls, targets: tuple[str, ...]) -> tuple[str, ...]:
        if any(not target.strip(". ") for target in targets):
            raise ValueError(f"expected names, got {list(targets)}; remove the empty ones")
        return targets

    def count(self, net: nn.Module) -> int:
        """Return how many numbers the adapters of a network have."""
        layers = self._find(net, "lora").values()
        return self.rank * sum(layer.weight.shape[0] + layer.weight[0].numel() for layer in layers)

    def add_to(self, net: nn.Module, place: str, parts: tuple[str, ...] = ("",)) -> None:
        """Add adapters to a network, in place; its output stays the same until they are trained.

        Args:
            net: the frozen network.
            place: the key of these options in the recipe, for error messages.
            parts: only layers whose name starts with one of these get adapters.

        Raises:
            InputError: peft is not installed, or a target matches no layer.
        """
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ImportError as error:
            raise InputError(
                f"{place}: adapters are built with peft, got an environment without it; install it with "
                'pip install "selfsr[diffusion]".'
            ) from error
        names = list(self._find(net, place, parts))
        frozen = {id(parameter) for parameter in net.parameters()}
        inject_adapter_in_model(LoraConfig(r=self.rank, lora_alpha=self.rank, target_modules=names), net)
        for parameter in net.parameters():
            if id(parameter) not in frozen:  # peft gives them the type of the frozen weights
                parameter.data = parameter.data.float()

    def _find(self, net: nn.Module, place: str, parts: tuple[str, ...] = ("",)) -> dict[str, Any]:
        """Return the layers that get an adapter, by name."""
        layers = {
            name: module
            for name, module in net.named_modules()
            if isinstance(module, nn.Linear | nn.Conv2d) and name.startswith(parts)
        }
        found: dict[str, Any] = {}
        for target in self.targets:
            ends = LAYER_KINDS.get(target, (target,))
            matched = {name: layer for name, layer in layers.items() if any(is_layer(name, end) for end in ends)}
            if not matched and target not in LAYER_KINDS:  # of the kinds, a network may lack one
                raise _refuse(place, repr(target), layers)
            found |= matched
        if not found:
            raise _refuse(place, ", ".join(self.targets), layers)
        return {name: layer for name, layer in layers.items() if name in found}


def _refuse(place: str, got: str, layers: Iterable[str]) -> InputError:
    some = ", ".join(list(layers)[:3])
    return InputError(
        f"{place}.targets: expected {', '.join(LAYER_KINDS)} or ends of layer names, got {got}, which matches no "
        f"layer; names are such as {some}."
    )


def is_layer(name: str, end: str) -> bool:
    """Return whether a layer has this name, or a name that ends in it after a dot."""
    return name == end or name.endswith(f".{end}")

"""A second denoiser on the frozen base of a network, with adapters of its own."""

from typing import Any, Self

from torch import Tensor

from selfsr.nets.diffusion.frozen import PartlyFrozen
from selfsr.nets.diffusion.lora import LoraSpec
from selfsr.nets.diffusion.pretrained import PretrainedNetwork


class AdaptedDenoiser(PartlyFrozen):
    """A denoiser that shares the frozen weights of a network and has its own adapters; its state is the adapters.

    Args:
        net: the network, which also has noise process, prompt and precision.
        lora: the adapters.
        place: the key of their options in the recipe, for error messages.

    Raises:
        InputError: peft is not installed, or a target matches no layer.
    """

    def __init__(self, net: PretrainedNetwork, lora: LoraSpec, place: str) -> None:
        super().__init__()
        self._net = [net]  # not a module of this one, which trains and saves its own adapters
        self.freeze_base([net.base.denoiser], net.base.sha256)
        self.unet: Any = net.make_denoiser()
        lora.add_to(self.unet, place)
        if net.unet.is_gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()

    def forward(self, noisy: Tensor, index: Tensor) -> Tensor:
        """Return the prediction for noisy latents `[N, c, h, w]` at an index of each, int64 `[N]`, with the prompt."""
        return self._net[0].run_denoiser(self.unet, noisy, index)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the network; the denoiser stays in evaluation mode, without dropout."""
        super().train(mode)
        self.unet.eval()
        return self

"""Register models with BasicSR that have the self-similarity loss: `import selfsr.integrations.basicsr_models`.

BasicSR's models call a pixel loss, a perceptual loss and the adversarial loss, and nothing else. For each model that
BasicSR has of `_BASES` there is one named `Selfsr...`, such as `SelfsrESRGANModel`, which also reads the block
`train.self_similarity_opt`, and gives a self-paced pixel loss the iteration of the run.
"""

import contextlib
import importlib
from typing import Any

from torch import Tensor, nn

from selfsr import InputError
from selfsr.integrations.adapters import (
    SelfPacedAdapter,
    SelfSimilarityAdapter,
    import_registry,
    register_class,
)

# Models by the module of `basicsr.models` that defines each.
_BASES = {
    "sr_model": "SRModel",
    "srgan_model": "SRGANModel",
    "esrgan_model": "ESRGANModel",
    "swinir_model": "SwinIRModel",
    "realesrnet_model": "RealESRNetModel",
    "realesrgan_model": "RealESRGANModel",
}


class PixelAndSimilarity(nn.Module):
    """The sum of a pixel loss and the self-similarity loss, in the place of the pixel loss.

    Args:
        pixel: the pixel loss; None for none.
        similarity: the self-similarity loss.

    Attributes:
        last: the value of the self-similarity loss in the last call; None before the first.
    """

    def __init__(self, pixel: nn.Module | None, similarity: nn.Module) -> None:
        super().__init__()
        self.pixel: nn.Module | None = pixel
        self.similarity: nn.Module = similarity
        self.last: Tensor | None = None

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return the sum, a scalar; both are float `[N, C, H, W]` in [0, 1]."""
        similarity = self.similarity(sr, hr)
        self.last = similarity.detach()
        return similarity if self.pixel is None else self.pixel(sr, hr) + similarity


def add_self_similarity(base: type[Any]) -> type[Any]:
    """Return a subclass of a BasicSR model that reads `train.self_similarity_opt`.

    The self-similarity loss sees the ground truth that the pixel loss sees. It is a part of the logged pixel loss, and
    is also logged by itself as `l_self_similarity`.

    Args:
        base: a model that builds `cri_pix` in `init_training_settings`.
    """

    class Model(base):
        def init_training_settings(self) -> None:
            super().init_training_settings()
            options = self.opt["train"].get("self_similarity_opt")
            if not options:
                raise InputError(
                    f"{type(self).__name__}: expected the block train.self_similarity_opt, got none; add it, or use "
                    f"{base.__name__}."
                )
            similarity = SelfSimilarityAdapter(**{key: value for key, value in options.items() if key != "type"})
            self.cri_pix = PixelAndSimilarity(self.cri_pix, similarity).to(self.device)

        def optimize_parameters(self, current_iter: int) -> None:
            if isinstance(self.cri_pix.pixel, SelfPacedAdapter):
                self.cri_pix.pixel.step = current_iter - 1
            super().optimize_parameters(current_iter)
            if self.cri_pix.last is not None:
                self.log_dict["l_self_similarity"] = self.cri_pix.last.item()

    Model.__name__ = Model.__qualname__ = f"Selfsr{base.__name__}"
    return Model


def _register_models() -> None:
    registry = import_registry("BasicSR", "basicsr", "MODEL_REGISTRY")
    for module, name in _BASES.items():
        with contextlib.suppress(ModuleNotFoundError):  # forks have only some of the models
            base = getattr(importlib.import_module(f"basicsr.models.{module}"), name)
            register_class(registry, "BasicSR", add_self_similarity(base))


_register_models()

"""One kind of error for everything a user can get wrong: where, what was expected, what came, what to do."""

import difflib
from collections.abc import Sequence

import torch
from torch import Tensor


class InputError(ValueError):
    """A user's mistake, told in one sentence. The command line prints it without a traceback and exits with 2."""


def check_images(where: str, **images: Tensor) -> None:
    """Check that all named tensors are float images `[N, C, H, W]` of one shape, dtype and device."""
    first_name, first = next(iter(images.items()))
    for name, image in images.items():
        if not isinstance(image, Tensor):
            raise InputError(f"{where}: {name} must be a torch.Tensor, got {type(image).__name__}.")
        if image.ndim != 4:
            raise InputError(
                f"{where}: {name} must have shape [N, C, H, W], got {list(image.shape)}; "
                f"add the batch axis with {name}[None] if it is one image."
            )
        if not image.is_floating_point():
            raise InputError(
                f"{where}: {name} must be a float tensor in [0, 1], got {image.dtype}; "
                f"for 8-bit images pass {name}.float() / 255."
            )
        if image.shape != first.shape:
            raise InputError(
                f"{where}: {first_name} and {name} must have one shape, "
                f"got {list(first.shape)} and {list(image.shape)}."
            )
        if image.device != first.device:
            raise InputError(
                f"{where}: {first_name} and {name} must be on one device, "
                f"got {first.device} and {image.device}; move one with .to()."
            )


def check_mask(where: str, mask: Tensor, image: Tensor) -> None:
    """Check that `mask` is bool `[N, 1, H, W]` and belongs to `image` `[N, C, H, W]`."""
    expected = [image.shape[0], 1, *image.shape[2:]]
    if list(mask.shape) != expected or mask.dtype != torch.bool:
        raise InputError(
            f"{where}: mask must be a bool tensor of shape {expected}, got {mask.dtype} {list(mask.shape)}; "
            "make one from numbers with mask > 0.5."
        )
    if mask.device != image.device:
        raise InputError(
            f"{where}: mask must be on {image.device} like the images, got {mask.device}; move it with .to()."
        )


def check_choice(where: str, name: str, value: object, known: Sequence[str]) -> None:
    """Check that an option is one of the known words; the error names the nearest one."""
    if value in known:
        return
    guess = difflib.get_close_matches(str(value), known, 1)
    advice = f"; did you mean {guess[0]!r}?" if guess else "."
    raise InputError(f"{where}: {name} must be one of {', '.join(known)}, got {value!r}{advice}")

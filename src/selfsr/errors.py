"""The error for a user's mistakes, and the checks of arguments that all losses share."""

import difflib
from collections.abc import Sequence

import torch
from torch import Tensor


class InputError(ValueError):
    """A mistake in the input: a wrong argument, option, recipe or file.

    Its message is one sentence with the place, what was expected, what came, and advice. The command line prints the
    message without a traceback and exits with 2. Mistakes in this package are other exceptions.

    >>> import torch, selfsr
    >>> try:
    ...     selfsr.edge_mask(torch.rand(1, 3, 8, 8), stride=0)
    ... except selfsr.InputError as error:
    ...     print(error)
    edge_mask: stride must be 1 or more, got 0; 1 keeps every pixel.

    Args:
        message: the sentence.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)


def check_images(caller: str, **images: Tensor) -> None:
    """Check that all named tensors are float images `[N, C, H, W]` of one shape on one device.

    Args:
        caller: name of the public function, the start of the message.
        images: tensors by the name of their argument.

    Raises:
        InputError: one is not.
    """
    first_name, first = next(iter(images.items()))
    for name, image in images.items():
        # Callers without a type checker pass anything.
        if not isinstance(image, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(f"{caller}: {name} must be a torch.Tensor, got {type(image).__name__}.")
        if image.ndim != 4:
            raise InputError(
                f"{caller}: {name} must have shape [N, C, H, W], got {list(image.shape)}; "
                f"add the batch axis with {name}[None] if it is one image."
            )
        if not image.is_floating_point():
            raise InputError(
                f"{caller}: {name} must be a float tensor in [0, 1], got {image.dtype}; "
                f"for 8-bit images pass {name}.float() / 255."
            )
        if image.shape != first.shape:
            raise InputError(
                f"{caller}: {first_name} and {name} must have one shape, "
                f"got {list(first.shape)} and {list(image.shape)}."
            )
        if image.device != first.device:
            raise InputError(
                f"{caller}: {first_name} and {name} must be on one device, "
                f"got {first.device} and {image.device}; move one with .to()."
            )


def check_mask(caller: str, mask: Tensor, image: Tensor) -> None:
    """Check that `mask` is bool `[N, 1, H, W]` and belongs to `image` `[N, C, H, W]`.

    Raises:
        InputError: it is not.
    """
    expected = [image.shape[0], 1, *image.shape[2:]]
    if list(mask.shape) != expected or mask.dtype != torch.bool:
        raise InputError(
            f"{caller}: mask must be a bool tensor of shape {expected}, got {mask.dtype} {list(mask.shape)}; "
            "make one from numbers with mask > 0.5."
        )
    if mask.device != image.device:
        raise InputError(
            f"{caller}: mask must be on {image.device} like the images, got {mask.device}; move it with .to()."
        )


def check_choice(caller: str, name: str, value: object, choices: Sequence[str]) -> None:
    """Check that an option is one of the known words.

    Raises:
        InputError: it is not; the message names the nearest one.
    """
    if value in choices:
        return
    nearest = difflib.get_close_matches(str(value), choices, 1)
    advice = f"; did you mean {nearest[0]!r}?" if nearest else "."
    raise InputError(f"{caller}: {name} must be one of {', '.join(choices)}, got {value!r}{advice}")

"""The error and the warning for a user's mistakes, and the checks of arguments that all losses share."""

import difflib
import os
import reprlib
import warnings
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

# By how much of the data range the ground truth may leave it. Rounding to bfloat16 adds 0.004.
_HR_MARGIN = 0.01
# The share of an output's values that must be more than one data range outside before a check warns. Untrained networks
# of the shipped recipes have none. Of a natural image in 0 to 255 nearly all are outside of -1 to 2.
_SR_OUTSIDE = 0.5
# How much closer to 2 hr - 1 than to hr an output in [-1, 1] is, and how far it follows the ground truth, at more than
# its contrast. Untrained networks are at least 1.2 times as far: they begin at zero, at the mean color or at bicubic.
_SIGNED_RATIO, _SIGNED_CORRELATION = 0.5, 0.7


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


def describe_value(value: object) -> str:
    """Return `repr(value)` in a length that a message can have."""
    shortener = reprlib.Repr()
    shortener.maxstring = shortener.maxother = shortener.maxlong = 100
    shortener.maxlevel = 4
    shortener.maxdict = shortener.maxlist = shortener.maxtuple = shortener.maxset = 10
    return shorten(shortener.repr(value))


def shorten(text: str, longest: int = 200) -> str:
    """Return a text, without its middle if it has more than `longest` characters."""
    return text if len(text) <= longest else f"{text[: longest // 2]}...{text[-longest // 4 :]}"


def describe_exception(error: BaseException) -> str:
    """Return the message of an exception in one short line, or the name of its class if it has none.

    Example:
        >>> describe_exception(OSError("no   space")), describe_exception(KeyboardInterrupt())
        ('no space', 'KeyboardInterrupt')
    """
    return shorten(" ".join(str(error).split()) or type(error).__name__)


class RangeWarning(UserWarning):
    """Images given to a loss are not in its data range, usually [0, 1].

    Networks that put out [-1, 1], and images in 0 to 255 are common; a loss computes a number for them as well, and
    training goes wrong without an error. `SelfSimilarityLoss`, `SelfPacedLoss`, `PerceptualLoss` and the trainer look
    at the images of their first call, outside of compiled and exported graphs, and never again. To silence it:
    `warnings.simplefilter("ignore", selfsr.RangeWarning)`.

    >>> import torch, selfsr, warnings
    >>> with warnings.catch_warnings(record=True) as shown:
    ...     warnings.simplefilter("always")
    ...     hr = torch.linspace(0, 255, 1024).view(1, 1, 32, 32)
    ...     loss = selfsr.SelfPacedLoss()(hr, hr, epoch=1)
    >>> print(shown[0].message)
    SelfPacedLoss: images in [0, 1] were expected, got sr from 0 to 255 and hr from 0 to 255; divide them by 255.

    Args:
        message: the sentence.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)


class RangeCheck:
    """Look once at the images of a loss, and warn if they are not in its data range.

    Args:
        caller: name of the loss, the start of the message.
        data_range: the value of white. Below 1, as for constants of published code, images in [0, 1] are expected.
    """

    def __init__(self, caller: str, data_range: float = 1.0) -> None:
        self.caller: str = caller
        self.white: float = max(data_range, 1.0)
        self.is_due: bool = True

    def skip(self) -> None:
        """Never look, because the caller of the loss has looked."""
        self.is_due = False

    def __call__(self, sr: Tensor, hr: Tensor) -> None:
        """Look at `sr` and `hr`, of one shape, at the first call; on a GPU this waits for the device.

        Compiled, traced and exported graphs never contain it. Tensors without values are left for a later call.
        """
        # The compiler must find is_compiling() first; it then leaves out everything else.
        if torch.compiler.is_compiling() or not self.is_due or not _has_values(sr, hr):
            return
        self.is_due = False
        with torch.no_grad():
            sr_low, sr_high, hr_low, hr_high, outside, is_signed = _measure(sr, hr, self.white)
        expected = f"[0, {self.white:g}]"
        margin = _HR_MARGIN * self.white
        if hr_low < -margin or hr_high > self.white + margin or outside > _SR_OUTSIDE or is_signed:
            advice = _advise_range(sr_low, sr_high, hr_low, hr_high, self.white)
        elif self.white > 2 and 0 < hr_high <= 1 + _HR_MARGIN:
            advice = f"multiply them by {self.white:g}, or set data_range to 1"
        else:
            return
        message = (
            f"{self.caller}: images in {expected} were expected, got sr from {sr_low:.3g} to {sr_high:.3g} and "
            f"hr from {hr_low:.3g} to {hr_high:.3g}; {advice}."
        )
        warnings.warn(RangeWarning(message), stacklevel=2)


def _has_values(*images: Tensor) -> bool:
    """Return whether values may be read: real tensors, not traced, and no capture of a CUDA graph."""
    if torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
        return False
    if any(type(image) not in (Tensor, nn.Parameter) for image in images):
        return False
    if any(image.device.type == "meta" or image.numel() == 0 for image in images):
        return False
    return not (images[0].is_cuda and torch.cuda.is_current_stream_capturing())


def _measure(sr: Tensor, hr: Tensor, white: float) -> list[float]:
    """Return both minima and maxima, the share of `sr` far outside, and whether `sr` looks like hr in [-1, 1]."""
    x, y = (image.detach().float().flatten() / white for image in (sr, hr))
    dx, dy = x - x.mean(), y - y.mean()
    covariance, variance = (dx * dy).mean(), (dy * dy).mean()
    correlation = covariance / ((dx * dx).mean() * variance).sqrt().clamp(min=1e-12)
    is_twice = (correlation > _SIGNED_CORRELATION) & (covariance > variance)
    is_closer = (x - (2 * y - 1)).abs().mean() < _SIGNED_RATIO * (x - y).abs().mean()
    is_signed = is_closer & is_twice & (x.amin() < -_HR_MARGIN)
    numbers = [x.amin() * white, x.amax() * white, y.amin() * white, y.amax() * white]
    outside = ((x < -1) | (x > 2)).float().mean()
    return [float(number) for number in torch.stack([*numbers, outside, is_signed.float()]).cpu()]


def _advise_range(sr_low: float, sr_high: float, hr_low: float, hr_high: float, white: float) -> str:
    hr_fits = hr_low >= -_HR_MARGIN * white and hr_high <= (1 + _HR_MARGIN) * white
    low, high = (sr_low, sr_high) if hr_fits else (hr_low, hr_high)
    what = "sr" if hr_fits else "them"
    if white == 1 and high > 2:
        return f"divide {what} by 255"
    if low < -0.3 * white and high <= 1.3 * white:
        return f"map {what} from [-1, 1] to [0, 1] by (x + 1) / 2" if white == 1 else f"shift {what} to the range"
    return "clamp hr to the range" if not hr_fits else "scale sr to the range"


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


def find_similar(name: str, names: Iterable[str]) -> str | None:
    """Return the most similar of some file names, preferably with the same suffix; None if none is similar."""
    close = difflib.get_close_matches(name, names, n=5, cutoff=0.6)
    suffix = os.path.splitext(name)[1].lower()
    same = [candidate for candidate in close if os.path.splitext(candidate)[1].lower() == suffix]
    return next(iter(same or close), None)


def suggest(value: object, choices: Iterable[str], otherwise: str = "") -> str:
    """Return the end of a sentence about a wrong word: the most similar right one as a question.

    If none is similar, it is `otherwise`, or a full stop.

    Example:
        >>> suggest("real_esrgn", ["real_esrgan", "bsrgan"])
        '; did you mean real_esrgan?'
    """
    nearest = difflib.get_close_matches(str(value), list(choices), 1)
    if nearest:
        return f"; did you mean {nearest[0]}?"
    return f"; {otherwise}." if otherwise else "."


def check_choice(caller: str, name: str, value: object, choices: Sequence[str]) -> None:
    """Check that an option is one of the known words.

    Raises:
        InputError: it is not; the message names the nearest one.
    """
    if value in choices:
        return
    nearest = difflib.get_close_matches(str(value), choices, 1)
    advice = f"; did you mean {nearest[0]!r}?" if nearest else "."
    raise InputError(f"{caller}: {name} must be one of {', '.join(choices)}, got {describe_value(value)}{advice}")

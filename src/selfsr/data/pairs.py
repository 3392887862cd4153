"""Which LR picture belongs to which HR picture, and whether their sizes fit."""

from collections.abc import Sequence
from pathlib import Path

from selfsr.errors import InputError


def match(
    hr_folder: Path, hr_paths: Sequence[Path], lr_folder: Path, lr_paths: Sequence[Path], scale: int
) -> tuple[dict[Path, Path], dict[Path, str]]:
    """Find the LR file of every HR file.

    `x/0001.png` of the HR folder belongs to `x/0001.*` or `x/0001x4.*` (with the scale) of the LR folder. LR files
    without HR are passed over.

    Returns:
        The LR file of each HR file that has one, and for each file that cannot be matched the reason.
    """
    problems: dict[Path, str] = {}
    lr_by_name = _by_name(lr_folder, lr_paths, problems)
    pairs: dict[Path, Path] = {}
    for name, path in _by_name(hr_folder, hr_paths, problems).items():
        partners = [lr_by_name[n] for n in (name, f"{name}x{scale}") if n in lr_by_name]
        if len(partners) == 1:
            pairs[path] = partners[0]
        elif partners:
            problems[path] = f"expected one LR picture, got {partners[0]} and {partners[1]}; remove one"
        else:
            problems[path] = (
                f"expected an LR picture {name}.* or {name}x{scale}.* in {lr_folder}, got none; add it or remove "
                "the HR picture"
            )
    return pairs, problems


def pair_up(
    hr_folder: Path, hr_paths: Sequence[Path], lr_folder: Path, lr_paths: Sequence[Path], scale: int
) -> list[Path]:
    """Return the LR file of every HR file, in the order of `hr_paths`; see `match`.

    Raises:
        InputError: an HR file has no LR file, or two; or two files of a folder differ by the suffix only.
    """
    pairs, problems = match(hr_folder, hr_paths, lr_folder, lr_paths, scale)
    if problems:
        path, reason = next(iter(problems.items()))
        others = f" ({len(problems) - 1} more like this)" if len(problems) > 1 else ""
        raise InputError(f"{path}: {reason}{others}.")
    return [pairs[path] for path in hr_paths]


def mismatch(hr: tuple[int, int], lr: tuple[int, int], scale: int) -> str | None:
    """Return what is wrong with the sizes (height, width) of a pair, or None.

    HR is cut at the bottom and the right to a multiple of the scale; LR must then be exactly `scale` times smaller.
    """
    expected = (hr[0] // scale, hr[1] // scale)
    if lr == expected:
        return None
    return (
        f"expected {expected[0]} x {expected[1]} pixels (height x width), HR of {hr[0]} x {hr[1]} at scale {scale}, "
        f"got {lr[0]} x {lr[1]}"
    )


def _by_name(folder: Path, paths: Sequence[Path], problems: dict[Path, str]) -> dict[str, Path]:
    """Return the files by their path below `folder` without the suffix; a second one of a name is a problem."""
    named: dict[str, Path] = {}
    for path in paths:
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in named:
            problems[path] = f"expected one picture of this name, got {named[name]} as well; remove one"
        else:
            named[name] = path
    return named

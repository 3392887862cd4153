"""Find the LR image of each HR image, by one rule for training, evaluation and `data check`."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from selfsr.errors import InputError
from selfsr.images.paths import find_root, list_images

# How many candidates an error names.
_SHOWN = 3
# The endings that published LR images add to the name of their HR image.
_ENDING = r"(?:[_-]?LR(?:BI)?)?[_-]?[xX]{scale}"


def match_lr(
    hr_folder: Path, hr_paths: Sequence[Path], lr_folder: Path, lr_paths: Sequence[Path], scale: int
) -> tuple[dict[Path, Path], dict[Path, str]]:
    """Match HR and LR images by their paths below the two folders, without the file type.

    The LR image of `x/0001.png` is `x/0001.*`, or the same name with one of the usual endings for the scale, such as
    `0001x4`, `0001_x4`, `0001X4`, `0001_LRBI_x4`. Only one image may fit. An image that is the only match of one HR
    image is not a match of any other: with `a` and `ax2` in both folders, `a` gets `a` and `ax2` gets `ax2`.
    LR images without an HR image are ignored.

    Args:
        hr_folder: the folder that contains all of `hr_paths`.
        hr_paths: the HR images.
        lr_folder: the folder that contains all of `lr_paths`.
        lr_paths: the LR images.
        scale: how many times larger HR is than LR.

    Returns:
        The LR image of each HR image that has one, and the reason for each file that has no partner.
    """
    problems: dict[Path, str] = {}
    hr_by_key = _index_by_key(hr_folder, hr_paths, problems)
    lr_by_key = _index_by_key(lr_folder, lr_paths, problems)
    lr_by_stem = _index_by_stem(lr_by_key, scale)
    candidates = {key: lr_by_stem.get(key, []) for key in hr_by_key}
    owners = _assign_single_candidates(candidates)
    pairs: dict[Path, Path] = {}
    for key, hr_path in hr_by_key.items():
        remaining = [lr_key for lr_key in candidates[key] if owners.get(lr_key, [key]) == [key]]
        if len(remaining) == 1:
            pairs[hr_path] = lr_by_key[remaining[0]]
        elif remaining:
            paths = [lr_by_key[lr_key] for lr_key in remaining]
            problems[hr_path] = f"expected one LR image, got {_join(paths)}; remove all but one"
        elif candidates[key]:
            taken = candidates[key][0]
            rivals = [hr_by_key[other] for other in owners[taken] if other != key]
            problems[hr_path] = (
                f"expected an LR image of its own, got {lr_by_key[taken]}, which also fits {_join(rivals)}; "
                f"name the LR images {key}x{scale} and so on"
            )
        else:
            problems[hr_path] = _describe_missing(key, lr_folder, lr_by_key, scale)
    return pairs, problems


def pair_lr(hr_folder: Path, hr_paths: Sequence[Path], lr_folder: Path, scale: int) -> list[Path]:
    """Return the LR image of each HR image, in the order of `hr_paths`; `match_lr` has the rule.

    Args:
        hr_folder: the folder that contains all of `hr_paths`.
        hr_paths: the HR images.
        lr_folder: the folder of the LR images, searched with its subfolders.
        scale: how many times larger HR is than LR.

    Raises:
        InputError: the LR folder is missing or empty, an HR image has no LR image or several, or two images of a
            folder differ by the file type only.
    """
    pairs, problems = match_lr(hr_folder, hr_paths, lr_folder, list_images(lr_folder), scale)
    if problems:
        path, reason = next(iter(problems.items()))
        more = f" ({len(problems) - 1} more like this)" if len(problems) > 1 else ""
        raise InputError(f"{path}: {reason}{more}.")
    return [pairs[path] for path in hr_paths]


def find_size_problem(hr: tuple[int, int], lr: tuple[int, int], scale: int) -> str | None:
    """Return why the sizes (height, width) of a pair do not fit, or None if they do.

    HR is cropped at the bottom and the right to a multiple of the scale; LR must then be exactly `scale` times smaller.
    """
    expected = (hr[0] // scale, hr[1] // scale)
    if lr == expected:
        return None
    return (
        f"expected {expected[0]} x {expected[1]} pixels (height x width) for an HR image of {hr[0]} x {hr[1]} at scale "
        f"{scale}, got {lr[0]} x {lr[1]}"
    )


def _index_by_key(folder: Path, paths: Sequence[Path], problems: dict[Path, str]) -> dict[str, Path]:
    """Return the files by their path below `folder` without the file type; report a second file of one name."""
    by_key: dict[str, Path] = {}
    root = find_root(folder, paths)
    for path in paths:
        key = path.relative_to(root).with_suffix("").as_posix()
        if key in by_key:
            problems[path] = f"expected one image of this name, got {by_key[key]} as well; remove one"
        else:
            by_key[key] = path
    return by_key


def _index_by_stem(lr_by_key: dict[str, Path], scale: int) -> dict[str, list[str]]:
    """Return the keys of LR images by the HR keys that they fit: their own, and that without the ending."""
    ending = re.compile(_ENDING.format(scale=scale) + "$")
    by_stem: dict[str, list[str]] = defaultdict(list)
    for key in lr_by_key:
        by_stem[key].append(key)
        shorter = ending.sub("", key)
        if shorter != key and Path(shorter).parent == Path(key).parent:
            by_stem[shorter].append(key)
    return by_stem


def _assign_single_candidates(candidates: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the owners of each LR image that is the only candidate left for an HR image."""
    owners: dict[str, list[str]] = defaultdict(list)
    changed = True
    while changed:
        changed = False
        for key, lr_keys in candidates.items():
            remaining = [lr_key for lr_key in lr_keys if owners.get(lr_key, [key]) == [key]]
            if len(remaining) == 1 and key not in owners[remaining[0]]:
                owners[remaining[0]].append(key)
                changed = True
    for key, lr_keys in candidates.items():  # a second image with the same only candidate
        if len(lr_keys) == 1 and key not in owners[lr_keys[0]]:
            owners[lr_keys[0]].append(key)
    return dict(owners)


def _describe_missing(key: str, lr_folder: Path, lr_by_key: dict[str, Path], scale: int) -> str:
    """Return the reason for an HR image without LR image; name images of this name in other folders."""
    expected = f"expected an LR image {key}.* or {key}x{scale}.* in {lr_folder}"
    name = Path(key).name
    fitting = re.compile(f"{re.escape(name)}(?:{_ENDING.format(scale=scale)})?")
    elsewhere = [path for other, path in lr_by_key.items() if fitting.fullmatch(Path(other).name)]
    if elsewhere:
        return f"{expected}, got {_join(elsewhere)}; pass the folder that has the same subfolders as the HR folder"
    return f"{expected}, got none; add it or remove the HR image"


def _join(paths: Sequence[Path]) -> str:
    names = [str(path) for path in paths[:_SHOWN]]
    if len(paths) > _SHOWN:
        names.append(f"{len(paths) - _SHOWN} more")
    return " and ".join(names) if len(names) < 3 else f"{', '.join(names[:-1])} and {names[-1]}"

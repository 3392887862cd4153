"""Find every file that would stop or spoil a training run before its first step."""

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from selfsr.console import bar
from selfsr.data.masks import check_mask, check_masks_folder, mask_of
from selfsr.data.pairs import match, mismatch
from selfsr.errors import InputError
from selfsr.images.files import Header, read_header, read_picture
from selfsr.images.paths import list_pictures


@dataclass(frozen=True)
class Problem:
    """A file that cannot be used.

    Attributes:
        path: the file.
        kind: "unreadable", "too small", "no pair", "wrong size", or of masks "no mask" or "wrong mask".
        reason: what was expected, what came, what to do.
    """

    path: Path
    kind: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True)
class CheckSummary:
    """What a folder holds, with its LR folder and its masks if there are such.

    Attributes:
        files: how many files were looked at; with masks, one more for each HR picture.
        problems: the files that cannot be used, in the order of their paths, those with masks last.
        notes: what is usable but worth knowing, with the number of files.
        layouts: number of readable files by (format, Pillow's mode, bits).
        sizes: (height, width) of the readable HR pictures, smallest area first.
        decoded_bytes: memory that the readable pictures take in RGB.
    """

    files: int
    problems: list[Problem]
    notes: dict[str, int]
    layouts: dict[tuple[str, str, int], int]
    sizes: list[tuple[int, int]]
    decoded_bytes: int


def check_folder(
    hr: Path,
    lr: Path | None = None,
    scale: int = 1,
    crop_px: int | None = None,
    *,
    masks: Path | None = None,
    threads: int | None = None,
) -> CheckSummary:
    """Decode every picture and every mask, several at a time, and compare sizes and names.

    Args:
        hr: folder of HR pictures.
        lr: folder of LR pictures, matched by name as the training data `kind: pairs` does.
        scale: how many times larger HR is than LR.
        crop_px: side of the HR crop that every picture must hold; None: any size will do.
        masks: folder of the edge masks of the HR pictures, matched by name as `data.masks` is; None: not looked for.
        threads: how many files are decoded at a time; None takes one per core. Decoders run outside Python's lock.

    Raises:
        InputError: a folder is missing or holds no picture.
    """
    if masks is not None:
        check_masks_folder(masks)
    hr_paths = list_pictures(hr)
    lr_paths = [] if lr is None else list_pictures(lr)
    paths = [*hr_paths, *lr_paths]
    problems: dict[Path, Problem] = {}
    headers: dict[Path, Header] = {}
    colors: Counter[str] = Counter()
    files = len(paths) + (0 if masks is None else len(hr_paths))
    pool = ThreadPoolExecutor(threads or os.cpu_count())
    try:
        with bar(f"Checking {hr}", files) as advance:
            for path, outcome in zip(paths, pool.map(_look_at, paths), strict=True):
                if isinstance(outcome, str):
                    problems[path] = Problem(path, "unreadable", outcome)
                else:
                    headers[path], found = outcome
                    colors.update(found)
                advance()
            with_masks = []
            if masks is not None:
                look = partial(_look_at_mask, folder=masks, hr=hr, headers=headers)
                for problem in pool.map(look, hr_paths):
                    with_masks += [problem] if problem else []
                    advance()
    finally:  # after Ctrl-C do not go on to the last file
        pool.shutdown(cancel_futures=True)
    for problem in [*_small(hr_paths, headers, crop_px), *_misfits(hr, hr_paths, lr, lr_paths, scale, headers)]:
        problems.setdefault(problem.path, problem)
    order = {path: place for place, path in enumerate(paths)}
    return CheckSummary(
        files=files,
        problems=sorted(problems.values(), key=lambda problem: order[problem.path]) + with_masks,
        notes={note: n for note, n in _notes(hr, hr_paths, lr_paths, headers, colors).items() if n},
        layouts=dict(Counter((h.format, h.mode, h.bits) for h in headers.values()).most_common()),
        sizes=sorted(
            ((headers[p].height, headers[p].width) for p in hr_paths if p in headers), key=lambda s: s[0] * s[1]
        ),
        decoded_bytes=sum(h.height * h.width * 3 * h.bits // 8 for h in headers.values()),
    )


def _look_at(path: Path) -> tuple[Header, list[str]] | str:
    """Return the header and which of "alpha" and "gray" the picture has, or what is wrong with the file."""
    try:
        header, picture = read_header(path), read_picture(path)
        return header, ["alpha"] * (picture.alpha is not None) + ["gray"] * (picture.channels == 1)
    except InputError as error:
        return str(error).removeprefix(f"{path}: ")
    except OSError as error:
        return _unreadable(error)


def _look_at_mask(picture: Path, folder: Path, hr: Path, headers: dict[Path, Header]) -> Problem | None:
    """Return what is wrong with the mask of a picture of the folder `hr`, if anything is."""
    try:
        mask = mask_of(picture, folder, hr)
    except InputError as error:
        return Problem(picture, "no mask", str(error).removeprefix(f"{picture}: "))
    header = headers.get(picture)
    try:
        check_mask(mask, picture, None if header is None else (header.height, header.width))
    except InputError as error:
        return Problem(mask, "wrong mask", str(error).removeprefix(f"{mask}: "))
    except OSError as error:
        return Problem(mask, "wrong mask", _unreadable(error))
    return None


def _unreadable(error: OSError) -> str:
    return f"expected a readable file, got {error.strerror or error}; check its permissions and the disk."


def _small(paths: Sequence[Path], headers: dict[Path, Header], crop_px: int | None) -> list[Problem]:
    if crop_px is None:
        return []
    reason = "expected at least {0} x {0} pixels, the size of the crop, got {1} x {2} (height x width); leave it out."
    return [
        Problem(path, "too small", reason.format(crop_px, headers[path].height, headers[path].width))
        for path in paths
        if path in headers and min(headers[path].height, headers[path].width) < crop_px
    ]


def _misfits(
    hr: Path, hr_paths: list[Path], lr: Path | None, lr_paths: list[Path], scale: int, headers: dict[Path, Header]
) -> list[Problem]:
    if lr is None:
        return []
    pairs, unmatched = match(hr, hr_paths, lr, lr_paths, scale)
    found = [Problem(path, "no pair", f"{reason}.") for path, reason in unmatched.items()]
    for large, small in pairs.items():
        if large in headers and small in headers:
            sizes = [(headers[path].height, headers[path].width) for path in (large, small)]
            reason = mismatch(sizes[0], sizes[1], scale)
            if reason:
                found.append(Problem(small, "wrong size", f"{reason}; make it again from {large}."))
    return found


def _notes(
    hr: Path, hr_paths: list[Path], lr_paths: list[Path], headers: dict[Path, Header], colors: Counter[str]
) -> dict[str, int]:
    names = Counter(path.relative_to(hr).with_suffix("") for path in hr_paths)
    formats = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".bmp": "BMP"}
    formats |= {".tif": "TIFF", ".tiff": "TIFF"}
    return {
        "share a name with another and differ by the suffix: the same picture twice?": sum(
            n for n in names.values() if n > 1
        ),
        "are of another format than their suffix says": sum(
            header.format != formats[path.suffix.lower()] for path, header in headers.items()
        ),
        "of the LR folder are JPEG, whose losses the model would learn to undo": sum(
            headers[path].format == "JPEG" for path in lr_paths if path in headers
        ),
        "have transparency, which training leaves out": colors["alpha"],
        "are CMYK or Lab, and are converted to sRGB": sum(h.mode in ("CMYK", "LAB") for h in headers.values()),
        "have a palette of at most 256 colors": sum(h.mode in ("P", "PA") for h in headers.values()),
        "are gray": colors["gray"],
    }

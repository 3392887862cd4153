"""Find all files that would stop a training run or harm its results, before its first step."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from selfsr.console import progress_bar
from selfsr.data.crop import SmallImages, choose_large, is_small
from selfsr.data.masks import check_mask, check_mask_folder, find_mask
from selfsr.errors import InputError
from selfsr.images.files import ImageHeader, read_header, read_image
from selfsr.images.formats import FORMATS
from selfsr.images.pairing import find_size_problem, match_lr
from selfsr.images.paths import find_root, list_images


@dataclass(frozen=True)
class FileProblem:
    """A file that training cannot use.

    Attributes:
        path: the file.
        kind: "unreadable", "too small", "no pair", "wrong size", "no mask" or "wrong mask".
        reason: what was expected, what came, and what to do.
    """

    path: Path
    kind: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True)
class CheckSummary:
    """The result of a check.

    Attributes:
        files: number of files, without skipped HR images; with masks, one more for each HR image.
        problems: the unusable files by path, then those with masks.
        notes: remarks on files that are no problems, with the number of files.
        layouts: number of readable files by (format, Pillow's mode, bits).
        sizes: (height, width) of the readable HR images, smallest area first.
        decoded_bytes: memory of all readable images in RGB, in bytes.
        further_frames: number of frames and pages after the first ones, which are not read.
    """

    files: int
    problems: list[FileProblem]
    notes: dict[str, int]
    layouts: dict[tuple[str, str, int], int]
    sizes: list[tuple[int, int]]
    decoded_bytes: int
    further_frames: int


def check_folder(
    hr: Path,
    lr: Path | None = None,
    scale: int = 1,
    crop_px: int | None = None,
    *,
    masks: Path | None = None,
    small: SmallImages = "error",
    threads: int | None = None,
) -> CheckSummary:
    """Decode all images and masks, several at a time, and compare sizes and names.

    Args:
        hr: folder of HR images.
        lr: folder of LR images, matched like training data of `kind: pairs`; None checks HR only.
        scale: how many times larger HR is than LR.
        crop_px: side of the training crop in pixels of HR; None accepts all sizes.
        masks: folder of edge masks, matched like `data.masks`; None checks no masks.
        small: what training does with images smaller than the crop, like `data.small`. Skipped images need no pair and
            no mask.
        threads: files to decode at a time; None takes one for each core. Decoders release Python's lock.

    Raises:
        InputError: a folder is missing or has no images, or all images are skipped.
    """
    if masks is not None:
        check_mask_folder(masks)
    hr_paths = list_images(hr)
    lr_paths = [] if lr is None else list_images(lr)
    paths = [*hr_paths, *lr_paths]
    files = len(paths) + (0 if masks is None else len(hr_paths))
    size_notes: dict[str, int] = {}
    pool = ThreadPoolExecutor(threads or os.cpu_count())
    mask_problems = []
    try:
        with progress_bar(f"Checking {hr}", files) as advance:
            headers, colors, problems = _inspect_images(paths, pool, advance)
            if crop_px is not None and small != "error":
                hr_paths, size_notes = _sort_out_small(hr, hr_paths, headers, crop_px, small)
            if masks is not None:
                inspect = partial(_inspect_mask, folder=masks, root=find_root(hr, paths), headers=headers)
                for problem in pool.map(inspect, hr_paths):
                    mask_problems += [problem] if problem else []
                    advance()
    finally:  # after Ctrl-C do not continue to the last file
        pool.shutdown(cancel_futures=True)
    for problem in [
        *_find_too_small(hr_paths, headers, crop_px, scale, small),
        *_find_wrong_pairs(hr, hr_paths, lr, lr_paths, scale, headers),
    ]:
        problems.setdefault(problem.path, problem)
    order = {path: number for number, path in enumerate(paths)}
    return CheckSummary(
        files=len(hr_paths) + len(lr_paths) + (0 if masks is None else len(hr_paths)),
        problems=sorted(problems.values(), key=lambda problem: order[problem.path]) + mask_problems,
        notes=size_notes
        | {note: n for note, n in _collect_notes(hr, hr_paths, lr_paths, headers, colors).items() if n},
        layouts=dict(Counter((h.format, h.mode, h.bits) for h in headers.values()).most_common()),
        sizes=sorted(
            ((headers[p].height, headers[p].width) for p in hr_paths if p in headers), key=lambda s: s[0] * s[1]
        ),
        decoded_bytes=sum(h.height * h.width * 3 * h.bits // 8 for h in headers.values()),
        further_frames=sum(h.frames - 1 for h in headers.values()),
    )


def _sort_out_small(
    hr: Path, paths: list[Path], headers: dict[Path, ImageHeader], crop_px: int, small: SmallImages
) -> tuple[list[Path], dict[str, int]]:
    """Return the HR images that training uses, and a note on those that are smaller than the crop."""
    readable = [path for path in paths if path in headers]
    if small == "pad":
        count = sum(is_small(headers[path], crop_px) for path in readable)
        return paths, {"are smaller than the crop, and are padded": count} if count else {}
    if not readable:
        return paths, {}
    sides_px = [min(headers[path].height, headers[path].width) for path in readable]
    large, count = choose_large(readable, sides_px, crop_px, hr)
    kept = set(large)
    used = [path for path in paths if path in kept or path not in headers]
    return used, {"are smaller than the crop, and are left out": count} if count else {}


def _inspect_images(
    paths: Sequence[Path], pool: ThreadPoolExecutor, advance: Callable[..., None]
) -> tuple[dict[Path, ImageHeader], Counter[str], dict[Path, FileProblem]]:
    """Decode all images; return their headers, the number with alpha and in gray, and the unreadable files."""
    headers: dict[Path, ImageHeader] = {}
    colors: Counter[str] = Counter()
    problems: dict[Path, FileProblem] = {}
    for path, inspected in zip(paths, pool.map(_inspect_image, paths), strict=True):
        if isinstance(inspected, str):
            problems[path] = FileProblem(path, "unreadable", inspected)
        else:
            headers[path], remarks = inspected
            colors.update(remarks)
        advance()
    return headers, colors, problems


def _inspect_image(path: Path) -> tuple[ImageHeader, list[str]] | str:
    """Return the header, and "alpha" and "gray" if they apply; or the reason why the file is unreadable."""
    try:
        header, image = read_header(path), read_image(path)
        return header, ["alpha"] * (image.alpha is not None) + ["gray"] * (image.channels == 1)
    except InputError as error:
        return str(error).removeprefix(f"{path}: ")
    except OSError as error:
        return _describe_unreadable(error)


def _inspect_mask(image: Path, folder: Path, root: Path, headers: dict[Path, ImageHeader]) -> FileProblem | None:
    """Return the problem with the mask of an image below `root`, or None."""
    try:
        mask = find_mask(image, folder, root)
    except InputError as error:
        return FileProblem(image, "no mask", str(error).removeprefix(f"{image}: "))
    header = headers.get(image)
    try:
        check_mask(mask, image, None if header is None else (header.height, header.width))
    except InputError as error:
        return FileProblem(mask, "wrong mask", str(error).removeprefix(f"{mask}: "))
    except OSError as error:
        return FileProblem(mask, "wrong mask", _describe_unreadable(error))
    return None


def _describe_unreadable(error: OSError) -> str:
    return f"expected a readable file, got {error.strerror or error}; check its permissions and the disk."


def _find_too_small(
    paths: Sequence[Path], headers: dict[Path, ImageHeader], crop_px: int | None, scale: int, small: SmallImages
) -> list[FileProblem]:
    if crop_px is None or small == "skip":
        return []
    smallest, reason, advice = (
        (scale, "one pixel of LR", "leave it out")
        if small == "pad"
        else (crop_px, "the size of the crop", "leave it out, or set data.small to skip or pad")
    )
    return [
        FileProblem(
            path,
            "too small",
            f"expected at least {smallest} x {smallest} pixels, {reason}, got {headers[path].height} x "
            f"{headers[path].width} (height x width); {advice}.",
        )
        for path in paths
        if path in headers and is_small(headers[path], smallest)
    ]


def _find_wrong_pairs(
    hr: Path, hr_paths: list[Path], lr: Path | None, lr_paths: list[Path], scale: int, headers: dict[Path, ImageHeader]
) -> list[FileProblem]:
    if lr is None:
        return []
    pairs, unmatched = match_lr(hr, hr_paths, lr, lr_paths, scale)
    problems = [FileProblem(path, "no pair", f"{reason}.") for path, reason in unmatched.items()]
    for hr_path, lr_path in pairs.items():
        if hr_path in headers and lr_path in headers:
            sizes = [(headers[path].height, headers[path].width) for path in (hr_path, lr_path)]
            reason = find_size_problem(sizes[0], sizes[1], scale)
            if reason:
                problems.append(FileProblem(lr_path, "wrong size", f"{reason}; make it again from {hr_path}."))
    return problems


def _collect_notes(
    hr: Path, hr_paths: list[Path], lr_paths: list[Path], headers: dict[Path, ImageHeader], colors: Counter[str]
) -> dict[str, int]:
    root = find_root(hr, hr_paths)
    names = Counter(path.relative_to(root).with_suffix("") for path in hr_paths)
    formats = {
        suffix: image_format.load_decoder().format
        for image_format in FORMATS
        if image_format.is_available
        for suffix in image_format.suffixes
    }
    return {
        "have the name of another file with another suffix, so may be the same image twice": sum(
            n for n in names.values() if n > 1
        ),
        "have another format than their suffix": sum(
            header.format != formats.get(path.suffix.lower(), header.format) for path, header in headers.items()
        ),
        "in the LR folder are JPEG; the model learns to remove its artifacts": sum(
            headers[path].format == "JPEG" for path in lr_paths if path in headers
        ),
        "have transparency, which training ignores": colors["alpha"],
        "are CMYK or Lab, and are converted to sRGB": sum(h.mode in ("CMYK", "LAB") for h in headers.values()),
        "have a palette of at most 256 colors": sum(h.mode in ("P", "PA") for h in headers.values()),
        "are gray": colors["gray"],
    }

"""List the images of a folder, and describe a path that does not exist."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from selfsr.errors import InputError, find_similar
from selfsr.images.formats import (
    FORMATS,
    UPSCALED_FORMATS,
    ImageFormat,
    find_missing_package,
    list_formats,
    readable_suffixes,
)

# The suffixes of files that are written; `readable_suffixes` has those that are read.
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".exr")
# How many suffixes a sentence names.
_SHOWN = 5


@dataclass(frozen=True)
class FolderListing:
    """The files of a folder and its subfolders, without hidden ones.

    Attributes:
        images: the image files, sorted by path.
        others: number of the other files by suffix, in lower case.
        closed: the subfolders that cannot be read.
        formats: the formats that were listed.
    """

    images: list[Path]
    others: Counter[str]
    closed: list[Path]
    formats: tuple[ImageFormat, ...] = FORMATS

    def describe_left_out(self) -> str | None:
        """Return a sentence about the files that are not listed, or None if there are none.

        Example:
            >>> FolderListing([], Counter({".gif": 2, ".txt": 1}), []).describe_left_out()
            '3 files of other kinds left out (2 .gif, 1 .txt).'
        """
        parts = []
        if total := self.others.total():
            kinds = f"{total:,} file{'s' if total > 1 else ''} of {'other kinds' if total > 1 else 'another kind'}"
            parts.append(f"{kinds} left out ({_join_counts(self.others)}){_advise_packages(self.others, self.formats)}")
        if self.closed:
            more = f" and {len(self.closed) - 1:,} more" if len(self.closed) > 1 else ""
            parts.append(f"no permission to read the folder {self.closed[0]}{more}")
        return f"{'; '.join(parts)}." if parts else None


def list_images(folder: Path, formats: tuple[ImageFormat, ...] = FORMATS) -> list[Path]:
    """List the image files in a folder and its subfolders, sorted by path; hidden files and folders are left out.

    A text file, `.txt`, is a list of images: a path in each line, relative to the folder of the list. Empty lines and
    lines that begin with # are left out.

    Raises:
        InputError: the folder or list is missing or contains no image, or a line of the list names none.
        OSError: the folder cannot be read.
    """
    return _read_list(folder) if is_image_list(folder) else list_folder(folder, formats).images


def list_sources(source: Path, output: Path, command: str, formats: tuple[ImageFormat, ...] = FORMATS) -> list[Path]:
    """List the images of an input folder or list, without earlier results if the output folder is in it.

    Args:
        source: as for `list_images`.
        output: the folder of the results.
        command: the command, for the error.
        formats: the formats that are listed.

    Raises:
        InputError: there are no others.
    """
    paths = list_images(source, formats)
    if not is_inside(output, source):
        return paths
    kept = [path for path in paths if not is_inside(path, output)]
    if not kept:
        raise InputError(
            f"{command}: expected images in {source}, got none outside of {output}; pass the folder of the originals."
        )
    return kept


def is_image_list(path: Path) -> bool:
    """Return whether a path is that of a list of images, rather than of a folder."""
    return path.suffix.lower() == ".txt" and path.is_file()


def find_root(folder: Path, paths: Sequence[Path]) -> Path:
    """Return the folder below which images have their names: `folder`, or the folder that all images of a list share.

    Args:
        folder: a folder or a list of images.
        paths: its images.
    """
    if not is_image_list(folder):
        return folder
    return Path(os.path.commonpath([path.parent for path in paths]))


def list_folder(folder: Path, formats: tuple[ImageFormat, ...] = FORMATS) -> FolderListing:
    """List the image files in a folder and its subfolders, and count what is left out.

    Raises:
        InputError: the folder is missing, is a file, or contains no image.
        OSError: the folder cannot be read.
    """
    if not folder.is_dir():
        if folder.exists():
            raise InputError(
                f"{folder}: expected a folder of images, got a file; name the folder that contains it, or a list of "
                "images (.txt)."
            )
        raise missing_path_error(folder, "a folder of images")
    os.listdir(folder)  # raises if it cannot be read; of subfolders, the others are read
    closed: list[Path] = []
    readable = readable_suffixes(formats)
    others: Counter[str] = Counter()
    images: list[Path] = []
    for root, names in _walk_folders(folder, closed):
        chosen = set()
        for name in names:
            suffix = os.path.splitext(name)[1].lower()
            if suffix in readable:
                chosen.add(name)
            else:
                others[suffix.rstrip(".")] += 1
        # `iterdir` makes a path in a third of the time that `Path(name)` takes.
        images += [path for path in Path(root).iterdir() if path.name in chosen] if chosen else []
    images.sort(key=lambda path: sort_key(str(path)))
    if not images:
        got = f"only other files ({_join_counts(others)})" if others else "none"
        advice = _advise_packages(others, formats) or "; name a folder that contains some"
        raise InputError(f"{folder}: expected images ({list_formats(formats)}), got {got}{advice}.")
    return FolderListing(images, others, closed, formats)


def _read_list(path: Path) -> list[Path]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: expected a list of images as UTF-8 text, a path in each line, got other bytes ({error.reason} at "
            f"byte {error.start}); save it as UTF-8."
        ) from error
    images = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        image = Path(os.path.normpath(path.parent / text))
        if not image.is_file():
            raise InputError(
                f"{path}, line {number}: expected the path of an image, relative to {path.parent}, got {text}, which "
                "is no file; correct or remove the line."
            )
        images.append(image)
    if not images:
        raise InputError(f"{path}: expected a path of an image in each line, got none; add some, or name a folder.")
    repeated = [str(image) for image, count in Counter(images).items() if count > 1]
    if repeated:
        raise InputError(f"{path}: expected each image once, got {repeated[0]} twice; remove one line.")
    return sorted(images)


def is_image_name(path: Path) -> bool:
    """Return whether a path has the suffix of an image format, even of one that cannot be read or written here."""
    return any(path.suffix.lower() in image_format.suffixes for image_format in UPSCALED_FORMATS)


def is_inside(path: Path, folder: Path) -> bool:
    """Return whether a path is below a folder, once links are followed; a link to itself is where it stands."""
    return Path(os.path.realpath(folder)) in Path(os.path.realpath(path)).parents


def _join_counts(others: Counter[str]) -> str:
    shown = sorted(others.items(), key=lambda item: (-item[1], item[0]))
    names = [f"{count:,} {suffix or 'without suffix'}" for suffix, count in shown[:_SHOWN]]
    if len(shown) > _SHOWN:
        names.append(f"{sum(count for _, count in shown[_SHOWN:]):,} more")
    return ", ".join(names)


def _advise_packages(suffixes: Sequence[str] | Counter[str], formats: tuple[ImageFormat, ...]) -> str:
    """Return advice to install what reads files with these suffixes, or an empty string."""
    packages = sorted(
        {package for suffix in suffixes if (package := find_missing_package(suffix, formats)) is not None}
    )
    return f"; run `pip install --upgrade {' '.join(packages)}` to read more of them" if packages else ""


def missing_path_error(path: Path, expected: str) -> InputError:
    """Return the error for a path that does not exist, or is a folder; proposes the most similar existing name.

    Args:
        path: the missing path.
        expected: what was expected there, with its article, such as "an image".
    """
    if path.is_dir():
        return InputError(f"{path}: expected {expected}, got a folder; name a file.")
    if path.is_symlink():
        return InputError(
            f"{path}: expected {expected}, got a link to {os.readlink(path)}, which leads to no file; replace it."
        )
    lost, parent = path.name, path.parent
    folders, files = "folder" in expected, expected.startswith("an image")
    while not parent.is_dir() and parent != parent.parent:
        lost, parent = parent.name, parent.parent
        folders, files = True, False
    try:
        names = [
            name
            for name in sorted(os.listdir(parent))
            if (folders if os.path.isdir(parent / name) else files and is_image_name(Path(name)))
        ]
    except OSError:
        names = []
    similar = find_similar(lost, names)
    hint = f"did you mean {parent / similar}?" if similar else f"check the path; {parent.resolve()} has no {lost}."
    return InputError(f"{path}: expected {expected}, got a path that does not exist; {hint}")


def sort_key(path: str) -> str:
    """Return the key that sorts paths folder by folder, as `Path`s are sorted, in a fraction of the time."""
    return os.path.normcase(path).replace(os.sep, "\0")


def _walk_folders(folder: Path, closed: list[Path]) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder with the names of its files; collect the folders that cannot be read."""
    seen = set()

    def note(error: OSError) -> None:
        closed.append(Path(error.filename))

    for root, folders, names in os.walk(folder, followlinks=True, onerror=note):
        real = os.path.realpath(root)
        if real in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield root, [name for name in names if not name.startswith(".")]

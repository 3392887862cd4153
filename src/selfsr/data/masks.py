"""Find, check and crop edge masks in files, such as those published with the self-similarity loss."""

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from selfsr.data.array_cache import ArrayLayouts
from selfsr.data.file_index import CacheFolder, Facts, index_files
from selfsr.data.store import ArrayStore, Cache, ImageStore
from selfsr.data.window import apply_symmetry, crop_with_reflection
from selfsr.errors import InputError
from selfsr.images.files import read_header, read_image
from selfsr.images.paths import find_root, missing_path_error

if TYPE_CHECKING:
    from types import ModuleType

# The name of the variable in published files.
_KEY = "mat"
_SUFFIXES = (".mat", ".png")


def find_masks(folder: Path, hr_folder: Path, hr_paths: Sequence[Path]) -> list[Path]:
    """Return the mask file of each image, in the order of `hr_paths`.

    The mask of `x/0001.png` in the HR folder is `x/0001.mat` or `x/0001.png` in the folder of masks.

    Raises:
        InputError: the folder is missing, or an image has no mask, or two.
    """
    check_mask_folder(folder)
    root = find_root(hr_folder, hr_paths)
    return [find_mask(path, folder, root) for path in hr_paths]


def check_mask_folder(folder: Path) -> None:
    """Check that the folder exists.

    Raises:
        InputError: it is missing, or a file.
    """
    if not folder.is_dir():
        if folder.exists():
            raise InputError(f"{folder}: expected a folder of masks, got a file; pass the folder that contains it.")
        raise missing_path_error(folder, "a folder of masks")


def find_mask(image: Path, folder: Path, hr_folder: Path) -> Path:
    """Return the mask file of an image in `hr_folder`.

    Raises:
        InputError: there is none, or two.
    """
    name = image.relative_to(hr_folder).with_suffix("").as_posix()
    masks = [path for path in (folder / f"{name}{suffix}" for suffix in _SUFFIXES) if path.is_file()]
    if len(masks) == 1:
        return masks[0]
    if masks:
        raise InputError(f"{image}: expected one mask, got {masks[0]} and {masks[1]}; remove one.")
    raise InputError(
        f"{image}: expected a mask {name}.mat or {name}.png in {folder}, got none; add it, remove the image, or "
        "leave data.masks out, since training can make masks."
    )


def check_mask(path: Path, image: Path, size: tuple[int, int] | None) -> None:
    """Read a mask and compare it with its image.

    Args:
        path: the mask.
        image: its image.
        size: height and width of the image; None if unknown, and not compared.

    Raises:
        InputError: the mask has another size, is damaged or contains something else.
        OSError: the file cannot be read.
    """
    _read_size(path)  # checks the kind of file
    mask_size = _read_mask(path).shape
    if size is not None:
        _check_size(path, mask_size, image, size)


class MaskStore(ArrayStore):
    """Masks by number: `.mat` files of MATLAB's version 5 with a matrix `mat`, as published, or gray `.png`.

    Values are 0 and 1 for an edge, in a `.png` also 0 and 255. The sizes of all files are checked at the start; values
    are checked in the first file at the start and in the others on use. A cached mask takes one bit for each pixel.

    Args:
        paths: the files, in the order of the images.
        images: the images.
        cache: see `ArrayStore`.

    Raises:
        InputError: a mask has another size than its image, is damaged or contains something else; or there are `.mat`
            files and scipy is not installed.
        OSError: a file cannot be read.
    """

    def __init__(self, paths: Sequence[Path], images: ImageStore, cache: Cache) -> None:
        self.paths: list[Path] = list(paths)
        self._image_paths = images.paths
        self._sizes = images.sizes
        files = None
        if isinstance(cache, CacheFolder):
            files = index_files(cache, "data.masks", self.paths, _describe_mask, lambda each: _layout_masks(each).bytes)
            sizes = [tuple(size) for size in files.facts[:, :2].tolist()]
        else:
            with ThreadPoolExecutor(8) as pool:
                sizes = list(pool.map(_read_size, self.paths))
        for index, size in enumerate(sizes):
            _check_size(self.paths[index], size, self._image_paths[index], tuple(self._sizes[index].tolist()))
        super().__init__("data.masks", _layout_masks(self._sizes), cache, files)
        _read_mask(self.paths[0])

    def crop(self, index: int, top: int, left: int, side: int, scale: int) -> np.ndarray:
        """Return a square of mask `index`, uint8 `[side, side, 1]` of 0 and 1, mirrored beyond its last LR pixel.

        Raises:
            InputError: the file is damaged, has other values, or changed after the start.
            OSError: the file cannot be read.
        """
        height, width = (length - length % scale for length in self._sizes[index].tolist())
        rows = self.read(index)[top : min(top + side, height)]
        mask = np.unpackbits(rows, axis=1, count=width)[:, :, None]
        return crop_with_reflection(mask, 0, left, side)

    def _decode(self, index: int) -> np.ndarray:
        mask = _read_mask(self.paths[index])
        _check_size(self.paths[index], mask.shape, self._image_paths[index], tuple(self._sizes[index].tolist()))
        return np.packbits(mask, axis=1)


def _describe_mask(path: Path) -> Facts:
    size = _read_size(path)
    if len(size) != 2:
        raise InputError(
            f"{path}: expected a mask of height and width, got {' x '.join(map(str, size))}; save it as a matrix."
        )
    return size[0], size[1], 0


def _layout_masks(facts: np.ndarray) -> ArrayLayouts:
    """Return the layouts of masks with a bit for each pixel, from int32 `[n, 2]` or more of height and width."""
    shapes = np.stack([facts[:, 0], -(-facts[:, 1] // 8)], axis=1)
    return ArrayLayouts(shapes, np.ones(len(facts), np.uint8))


def crop_mask(
    masks: MaskStore | None, index: int, position: tuple[int, int, int], side: int, scale: int
) -> np.ndarray | None:
    """Return the mask of a crop with the same symmetry, uint8 `[side, side, 1]` of 0 and 1; None without masks.

    Args:
        masks: the masks of all images.
        index: number of the image.
        position: top, left and symmetry, as `sample_crop` returns them.
        side: side of the crop.
        scale: scale of the crop; rows and columns beyond the last LR pixel do not count.
    """
    if masks is None:
        return None
    top, left, symmetry = position
    return apply_symmetry(masks.crop(index, top, left, side, scale), symmetry)


def _check_size(path: Path, size: tuple[int, ...], image: Path, expected: tuple[int, int]) -> None:
    if size != expected:
        raise InputError(
            f"{path}: expected a mask of {expected[0]} x {expected[1]} (height x width), the size of {image}, got "
            f"{' x '.join(map(str, size))}; make it again from that image."
        )


def _read_size(path: Path) -> tuple[int, ...]:
    """Return height and width by the header of a file."""
    if path.suffix == ".png":
        header = read_header(path)
        if header.mode not in ("1", "L"):
            raise InputError(
                f"{path}: expected an 8-bit gray mask, got Pillow's mode {header.mode}; write it as gray, 0 and 255."
            )
        return header.height, header.width
    scipy_io = _scipy_io(path)
    with _translate_scipy_errors(path):
        variables = {name: (shape, kind) for name, shape, kind in scipy_io.whosmat(path)}
    if _KEY not in variables:
        names = ", ".join(variables) or "none"
        raise InputError(f"{path}: expected a variable {_KEY!r}, got {names}; save the mask under this name.")
    shape, kind = variables[_KEY]
    if kind in ("cell", "struct", "object", "char", "sparse", "function", "opaque"):
        raise InputError(f"{path}: expected a matrix of numbers in {_KEY!r}, got {kind}; save it as uint8.")
    return tuple(shape)


def _read_mask(path: Path) -> np.ndarray:
    """Return the mask in a file, bool `[H, W]`."""
    if path.suffix == ".png":
        values, full = read_image(path).pixels[:, :, 0], 255
    else:
        scipy_io, full = _scipy_io(path), 1
        with _translate_scipy_errors(path):
            values = scipy_io.loadmat(path, variable_names=[_KEY])[_KEY]
    mask = values != 0
    highest = values.max(initial=0)
    if highest not in (0, 1, full) or not np.array_equal(values, mask * highest):
        allowed = "0 and 1" if full == 1 else "0 and 1, or 0 and 255"
        raise InputError(
            f"{path}: expected a mask of {allowed}, got values from {values.min()} to {highest}; save it again."
        )
    return mask


def _scipy_io(path: Path) -> "ModuleType":
    try:
        import scipy.io
    except ImportError as error:
        raise InputError(
            f"{path}: expected the package scipy for .mat files, got none; install it with pip install scipy, or save "
            "the masks as gray .png."
        ) from error
    return scipy.io


@contextlib.contextmanager
def _translate_scipy_errors(path: Path) -> Iterator[None]:
    """Re-raise errors of the system, and convert all others of scipy into an error that names the file."""
    try:
        yield
    except Exception as error:  # of damaged files, and of version 7.3, which is HDF5: nearly anything
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(
            f"{path}: expected a .mat file of MATLAB's version 5, got {reason}; save it again, with -v7."
        ) from error

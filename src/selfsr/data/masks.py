"""Edge masks from files, such as those published with the self-similarity loss: found, checked, cut out."""

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from selfsr.data.crop import turned
from selfsr.data.store import ArrayStore, Cache, Layout, PictureStore
from selfsr.errors import InputError
from selfsr.images.files import read_header, read_picture
from selfsr.images.paths import missing

if TYPE_CHECKING:
    from types import ModuleType

# The variable of published files.
_KEY = "mat"
_SUFFIXES = (".mat", ".png")


def find_masks(folder: Path, hr_folder: Path, hr_paths: Sequence[Path]) -> list[Path]:
    """Return the mask of every picture, in the order of `hr_paths`.

    `x/0001.png` of the HR folder has its mask in `x/0001.mat` or `x/0001.png` of the folder of masks.

    Raises:
        InputError: the folder is missing, or a picture has no mask, or two.
    """
    check_masks_folder(folder)
    return [mask_of(path, folder, hr_folder) for path in hr_paths]


def check_masks_folder(folder: Path) -> None:
    """Check that there is such a folder.

    Raises:
        InputError: it is missing, or a file.
    """
    if not folder.is_dir():
        if folder.exists():
            raise InputError(f"{folder}: expected a folder of masks, got a file; name the folder it lies in.")
        raise missing(folder, "a folder of masks")


def mask_of(picture: Path, folder: Path, hr_folder: Path) -> Path:
    """Return the mask of a picture of `hr_folder`.

    Raises:
        InputError: it has none, or two.
    """
    name = picture.relative_to(hr_folder).with_suffix("").as_posix()
    found = [path for path in (folder / f"{name}{suffix}" for suffix in _SUFFIXES) if path.is_file()]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"{picture}: expected one mask, got {found[0]} and {found[1]}; remove one.")
    raise InputError(
        f"{picture}: expected a mask {name}.mat or {name}.png in {folder}, got none; add it, remove the picture, or "
        "leave data.masks out, for masks are then made in the step."
    )


def check_mask(path: Path, picture: Path, size: tuple[int, int] | None) -> None:
    """Read a mask whole, and compare it with its picture.

    Args:
        path: the mask.
        picture: what it is the mask of.
        size: of the picture, (height, width); None where that is not known, and not compared.

    Raises:
        InputError: it is of another size, is not readable or holds something else.
        OSError: it cannot be read.
    """
    _size_of(path)  # whether it is a mask at all
    found = _read(path).shape
    if size is not None:
        _check_size(path, found, picture, size)


class MaskStore(ArrayStore):
    """The masks of pictures: `.mat` files with a matrix `mat` in MATLAB's version 5, as published, or gray `.png`.

    Their values are 0 and 1, where 1 is an edge; in a picture also 0 and 255. Sizes are looked at in every file
    beforehand; of the values only those of the first, and each mask's when it is used. What is kept in memory takes a
    bit for a pixel.

    Args:
        paths: the files, in the order of the pictures.
        pictures: what they are the masks of.
        cache: see `ArrayStore`.

    Raises:
        InputError: a mask is of another size than its picture, is not readable or holds something else; or there are
            `.mat` files and no scipy.
        OSError: a file cannot be read.
    """

    def __init__(self, paths: Sequence[Path], pictures: PictureStore, cache: Cache) -> None:
        self.paths = list(paths)
        self._picture_paths = pictures.paths
        self._sizes = [(header.height, header.width) for header in pictures.headers]
        with ThreadPoolExecutor(8) as pool:
            for index, size in enumerate(pool.map(_size_of, self.paths)):
                _check_size(self.paths[index], size, self._picture_paths[index], self._sizes[index])
        packed = [Layout((height, -(-width // 8)), np.dtype(np.uint8)) for height, width in self._sizes]
        super().__init__("data.masks", packed, cache)
        _read(self.paths[0])

    def window(self, index: int, top: int, left: int, side: int) -> np.ndarray:
        """Return a square of mask `index` that lies within it, uint8 `[side, side, 1]` of 0 and 1.

        Raises:
            InputError: the file is damaged or holds other values, or is no longer what it was.
            OSError: the file cannot be read.
        """
        rows = np.unpackbits(self.read(index)[top : top + side], axis=1, count=self._sizes[index][1])
        return rows[:, left : left + side, None]

    def _decode(self, index: int) -> np.ndarray:
        mask = _read(self.paths[index])
        _check_size(self.paths[index], mask.shape, self._picture_paths[index], self._sizes[index])
        return np.packbits(mask, axis=1)


def mask_crop(masks: MaskStore | None, index: int, place: tuple[int, int, int], side: int) -> np.ndarray | None:
    """Return the mask of a crop, turned like it, uint8 `[side, side, 1]` of 0 and 1; None without masks.

    Args:
        masks: of all pictures.
        index: number of the picture.
        place: top, left and turn, as `draw_crop` gives them.
        side: of the crop.
    """
    if masks is None:
        return None
    top, left, turn = place
    return turned(masks.window(index, top, left, side), turn)


def _check_size(path: Path, size: tuple[int, ...], picture: Path, wanted: tuple[int, int]) -> None:
    if size != wanted:
        raise InputError(
            f"{path}: expected a mask of {wanted[0]} x {wanted[1]} (height x width), the size of {picture}, got "
            f"{' x '.join(map(str, size))}; make it again from that picture."
        )


def _size_of(path: Path) -> tuple[int, ...]:
    """Return the size that a file says it has, (height, width)."""
    if path.suffix == ".png":
        header = read_header(path)
        if header.mode not in ("1", "L"):
            raise InputError(
                f"{path}: expected a gray mask of 8 bit, got Pillow's mode {header.mode}; write it as gray, 0 and 255."
            )
        return header.height, header.width
    scipy_io = _scipy_io(path)
    with _told_apart(path):
        variables = {name: (shape, kind) for name, shape, kind in scipy_io.whosmat(path)}
    if _KEY not in variables:
        names = ", ".join(variables) or "none"
        raise InputError(f"{path}: expected a variable {_KEY!r}, got {names}; save the mask under this name.")
    shape, kind = variables[_KEY]
    if kind in ("cell", "struct", "object", "char", "sparse", "function", "opaque"):
        raise InputError(f"{path}: expected a matrix of numbers in {_KEY!r}, got one of {kind}; save it as uint8.")
    return tuple(shape)


def _read(path: Path) -> np.ndarray:
    """Return the mask in a file, bool `[H, W]`."""
    if path.suffix == ".png":
        picture = read_picture(path)
        values, full = picture.pixels[:, :, 0], 255
    else:
        scipy_io, full = _scipy_io(path), 1
        with _told_apart(path):
            values = scipy_io.loadmat(path, variable_names=[_KEY])[_KEY]
    mask = values != 0
    highest = values.max(initial=0)
    if highest not in (0, 1, full) or not np.array_equal(values, mask * highest):
        wanted = "0 and 1" if full == 1 else "0 and 1, or 0 and 255"
        raise InputError(
            f"{path}: expected a mask of {wanted}, got values from {values.min()} to {highest}; save it again."
        )
    return mask


def _scipy_io(path: Path) -> "ModuleType":
    try:
        import scipy.io
    except ImportError as error:
        raise InputError(
            f"{path}: reading .mat files needs the package scipy; install it with pip install scipy, or save the masks "
            "as gray .png."
        ) from error
    return scipy.io


@contextlib.contextmanager
def _told_apart(path: Path) -> Iterator[None]:
    """Let errors of the system through, and turn all others of scipy into one that names the file."""
    try:
        yield
    except Exception as error:  # of damaged files, and of version 7.3, which is HDF5: nearly anything
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(
            f"{path}: expected a .mat file of MATLAB's version 5, got {reason}; save it again, with -v7."
        ) from error

"""Pack a batch for the Triton kernels: images side by side in panels, and numbers of masked pixels.

Images, with their reflected borders, lie side by side in panels of `pitch` columns, so that strips of 120 columns
(for a window of 9) fit many small images as well as a large one. The pitch is a compile-time constant: the next row
and channel are at constant distances, which removes the address arithmetic from the inner loops. The pitch is one of
few values, so that few kernels are ever compiled. `slots` has a pixel's number at its position and -1 elsewhere.
Around panels there are zeros (-1 in `slots`), wide enough for every window and displacement: no inner loop checks a
bound.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, int32
from torch.utils.weak import WeakTensorKeyDictionary

from selfsr._ops.launches import launch
from selfsr.selfsim.contract import Geometry, Pixels
from selfsr.selfsim.triton.layout import pack_kernel, slot_kernel

# Displacements that one program computes for a strip; one displacement to a warp.
ROWS = 8
# Lanes of a row; each lane has four columns.
LANES = 32
# Pixels of one program of a kernel over the list of masked pixels.
PIXEL_BLOCK = 128
# Columns of a panel. The images of a batch are spread over panels of this pitch. A few small images get a smaller
# pitch, and a wider image gets the next power of two. Few pitches mean few compiled kernels, and wide panels waste
# few columns.
PANEL_COLUMNS = 2048
SMALL_PANEL_COLUMNS = 512
# Programs that are enough to keep a GPU busy. With fewer, columns are cut into shorter walks.
ENOUGH_PROGRAMS = 1024
_PACK_BLOCK = 512


def next_power_of_two(least: int) -> int:
    """Return the smallest power of two that is `least` or more."""
    return 1 << max(least - 1, 0).bit_length()


@dataclass(frozen=True)
class PanelLayout:
    """Sizes of the panels, in pixels or counts."""

    images: int
    channels: int
    height: int
    width: int
    half_search: int
    half_window: int

    @classmethod
    def from_image(cls, padded: Tensor, geometry: Geometry) -> "PanelLayout":
        """Return the layout for a padded batch `[N, C, H + 2h, W + 2h]`."""
        images, channels, height, width = padded.shape
        return cls(images, channels, height, width, geometry.half_search, geometry.half_window)

    @property
    def left(self) -> int:
        """Columns before the first image: a displacement, and the distance to a 16-byte boundary."""
        return (self.half_search + 6) // 4 * 4

    @property
    def valid(self) -> int:
        """Columns of a strip that have complete windows."""
        return 4 * LANES - (2 * self.half_window + 3) // 4 * 4

    @property
    def rows(self) -> int:
        """Rows of a panel: a displacement above an image; below it a displacement and a block of rows."""
        return self.half_search + self.height + self.half_search + 3 * self.half_window + 2

    @property
    def per_panel(self) -> int:
        """Images in a panel."""
        return max(1, min(self.images, (PANEL_COLUMNS - self._margin) // self.width))

    @property
    def panels(self) -> int:
        """Panels of the batch."""
        return -(-self.images // self.per_panel)

    @property
    def strips(self) -> int:
        """Strips of `valid` columns in a panel."""
        return -(-self.per_panel * self.width // self.valid)

    @property
    def tiles(self) -> int:
        """Tiles of all columns of a lane row in a panel."""
        return -(-self.per_panel * self.width // (4 * LANES))

    @property
    def _margin(self) -> int:
        """Columns that a panel needs besides its images: on the left, and the most that a last tile reads."""
        return self.left + 4 * LANES + self.half_search

    @property
    def pitch(self) -> int:
        """Columns of a panel, with those around the images."""
        need = self._margin + max((self.strips - 1) * self.valid, (self.tiles - 1) * 4 * LANES)
        if need <= SMALL_PANEL_COLUMNS:
            return SMALL_PANEL_COLUMNS
        return max(PANEL_COLUMNS, next_power_of_two(need))

    def constants(self) -> dict[str, int]:
        """Return the compile-time constants that most kernels share."""
        h, f = self.half_search, self.half_window
        return {"H": h, "F": f, "PITCH": self.pitch, "LEFT": self.left, "TOP": h}

    def split_walks(self, displacements: int, panels: int, rows: int) -> tuple[int, int, int]:
        """Return groups of displacements, rows of a walk, and walks one below the other."""
        groups = -(-displacements // ROWS)
        few = ENOUGH_PROGRAMS // (groups * self.strips * panels)
        chunks = max(1, min(few, rows // (4 * (2 * self.half_window + 1))))
        chunk_rows = -(-rows // chunks)
        return groups, chunk_rows, -(-rows // chunk_rows)

    def class_size(self, truncated_y: bool, truncated_x: bool) -> int:
        """Count the displacements of a class; `walk.displacements` lists them."""
        f, inner = self.half_window, self.half_search - self.half_window
        positive, other = (f, f) if truncated_x else (inner, inner + 1)
        return positive * (f if truncated_y else inner + 1) + other * (f if truncated_y else inner)

    def classes(self) -> Iterator[tuple[bool, bool, int]]:
        """Yield each class of displacements as (truncated_y, truncated_x, its size), without empty ones."""
        for truncated_y in (False, True):
            for truncated_x in (False, True):
                size = self.class_size(truncated_y, truncated_x)
                if size:
                    yield truncated_y, truncated_x, size


class PixelMap:
    """Where the masked pixels are in the panels. It keeps no reference to the list of pixels.

    Attributes:
        layout: sizes of the panels.
        slots: int32 `[4, panels, rows, pitch]`, the number of the pixel at each position, or -1.
        touched: int32 `[panels, strips, 2]`, which rows have a pixel near a strip; see `slot_kernel`.
    """

    def __init__(self, pixels: Pixels, layout: PanelLayout):
        self.layout: PanelLayout = layout
        self.slots: Tensor = pixels.image.new_full((4, layout.panels, layout.rows, layout.pitch), -1, dtype=int32)
        self.touched: Tensor = pixels.image.new_zeros((layout.panels, layout.strips, 2), dtype=int32)
        launch(
            slot_kernel,
            -(-pixels.image.numel() // PIXEL_BLOCK),
            **name_pixels(pixels, layout),
            slots=self.slots,
            touched=self.touched,
            rows=layout.rows,
            panels=layout.panels,
            strips=layout.strips,
            H=layout.half_search,
            PITCH=layout.pitch,
            LEFT=layout.left,
            TOP=layout.half_search,
            VALID=layout.valid,
            BLOCK=PIXEL_BLOCK,
            num_warps=4,
            enable_fp_fusion=False,
        )

    @classmethod
    def share(cls, pixels: Pixels, layout: PanelLayout) -> "PixelMap":
        """Return the map of these pixels: one for both graphs and the gradient, as long as the pixels exist.

        The packed images are not shared: the gradient is computed from an image without NaN.
        """
        shared = _maps.get(pixels.image)
        if shared is None or shared.layout != layout:
            shared = _maps[pixels.image] = cls(pixels, layout)
        return shared


# By the tensor of the pixels' images, which the operator makes for each chunk. A map must not refer to its own key.
_maps: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def name_pixels(pixels: Pixels, layout: PanelLayout) -> dict[str, Tensor | int]:
    """Return the arguments of `layout.locate_pixels`, by which a kernel finds the masked pixels."""
    return {
        "image_of": pixels.image.contiguous(),
        "row_of": pixels.row.contiguous(),
        "column_of": pixels.column.contiguous(),
        "pixels": pixels.image.numel(),
        "per_panel": layout.per_panel,
        "width": layout.width,
    }


class PackedBatch:
    """The packed images and their masked pixels, for the forward and the backward pass.

    Attributes:
        layout: sizes of the panels.
        pixels: the masked pixels.
        count: their number M.
        planes: `[4, panels, rows, C, pitch]`, the images; copy s is moved s columns to the left.
        energy: `[panels, rows, pitch]`, the sum of squares over the channels.
        slots: see `PixelMap`.
        touched: see `PixelMap`.
    """

    def __init__(self, padded: Tensor, pixels: Pixels, geometry: Geometry):
        layout = PanelLayout.from_image(padded, geometry)
        self.layout: PanelLayout = layout
        self.pixels: Pixels = pixels
        self.count: int = pixels.image.numel()
        pixel_map = PixelMap.share(pixels, layout)
        self.slots: Tensor = pixel_map.slots
        self.touched: Tensor = pixel_map.touched
        area = (layout.panels, layout.rows)
        self.planes: Tensor = padded.new_empty(4, *area, layout.channels, layout.pitch)
        self.energy: Tensor = padded.new_empty(*area, layout.pitch)
        launch(
            pack_kernel,
            -(-layout.pitch // _PACK_BLOCK) * layout.rows * layout.panels,
            padded=padded,
            planes=self.planes,
            energy=self.energy,
            images=layout.images,
            per_panel=layout.per_panel,
            height=layout.height,
            width=layout.width,
            rows=layout.rows,
            panels=layout.panels,
            C=layout.channels,
            PITCH=layout.pitch,
            LEFT=layout.left,
            TOP=layout.half_search,
            BLOCK=_PACK_BLOCK,
            num_warps=4,
            enable_fp_fusion=False,
        )

    def pixel_arguments(self) -> dict[str, Tensor | int]:
        """Return the arguments of `layout.locate_pixels`."""
        return {**name_pixels(self.pixels, self.layout), "pixels": self.count}

    @property
    def bytes(self) -> int:
        """Bytes of all tensors that are kept here."""
        return sum(t.numel() * t.element_size() for t in (self.planes, self.energy, self.slots, self.touched))

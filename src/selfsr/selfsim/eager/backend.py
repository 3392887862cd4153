"""Window distances and their gradient in plain torch, on any device.

The cost hardly depends on the mask. The padded images of a batch lie end to end in one flat array. A displacement
d = (dy, dx) is then one offset, `dy * width + dx`, and a window sum is a few additions of the array to itself, shifted.
Values that a shift reads beyond the end of a row lie outside every search area and are never used. Only the half plane
(dy > 0, or dy = 0 and dx > 0) is computed, one dy after another: q(p, -d) is among the same sums (docs/selfsim.md,
eq. 9).
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsr.selfsim.contract import Geometry, Pixels

# The most values of one array of a slab of displacements on a CPU, so that temporary values stay in the cache.
_CPU_SLAB = 2**19


class _DisplacementSlab(NamedTuple):
    """Neighboring displacements of one dy; each is a row of a slab's arrays."""

    dy: int
    first_dx: int
    last_dx: int

    @property
    def rows(self) -> int:
        return self.last_dx - self.first_dx + 1

    @property
    def dxs(self) -> range:
        return range(self.first_dx, self.last_dx + 1)


class _RowRun(NamedTuple):
    """Rows of a slab whose offsets grow by `step` from one to the next."""

    first: int
    last: int
    offset: int
    step: int


class _FlatLayout:
    """The flat array of a batch, and where the windows of each displacement begin and end."""

    def __init__(self, padded: Tensor, pixels: Pixels, geometry: Geometry):
        self.half_search, self.half_window = geometry.half_search, geometry.half_window
        # E: up to this displacement a window lies completely inside the search area.
        self.inner = self.half_search - self.half_window
        images, _, height, self.width = padded.shape
        self.length = images * height * self.width
        # [C, length + h]: the flat array of each channel, with h more values, so that u + d always exists.
        self.planes = F.pad(padded.transpose(0, 1).reshape(-1, self.length), (0, self.half_search))
        # The first pixel of each search area; the masked pixel is h rows and columns further.
        self.corner = (pixels.image * height + pixels.row) * self.width + pixels.column
        self.to_center = self.half_search * (self.width + 1)
        self.reach = self.length - 2 * self.to_center
        values = _CPU_SLAB if padded.device.type == "cpu" else self.length * geometry.search_px
        # Slabs of equal size, since each has a fixed cost.
        slabs_per_dy = -(-geometry.search_px // max(values // self.length, 1))
        self.slab_rows = -(-geometry.search_px // slabs_per_dy)
        # Zeros before and after a row, enough for a window and for a shift by the search area's side.
        self.margin = max(self.half_window * (self.width + 1), geometry.search_px)

    def slabs(self) -> Iterator[_DisplacementSlab]:
        """Yield the half plane of displacements."""
        h = self.half_search
        for dy in range(h + 1):
            for first in range(1 if dy == 0 else -h, h + 1, self.slab_rows):
                yield _DisplacementSlab(dy, first, min(first + self.slab_rows - 1, h))

    def row_length(self, slab: _DisplacementSlab) -> int:
        """Return the number of u with both u and u + (dy, 0) in the flat array."""
        return self.length - slab.dy * self.width

    def first_offset(self, d: int) -> int:
        """a0 of eq. 6 along one axis: where the window at displacement `d` begins."""
        return max(-self.half_window, -self.half_search - d)

    def last_offset(self, d: int) -> int:
        """a1 of eq. 6 along one axis: where the window at displacement `d` ends."""
        return min(self.half_window, self.half_search - d)

    def window(self, d: int) -> int:
        """Side of what is left of the window at displacement `d`, along one axis."""
        return self.last_offset(d) - self.first_offset(d) + 1

    def shift(self, d: int) -> int:
        """e_d of eq. 9 along one axis: B_d at p - e_d is the window sum of -d at p."""
        return max(-self.inner, min(d, self.inner))

    def differences(self, slab: _DisplacementSlab, plane: Tensor, out: Tensor) -> Tensor:
        """Write `I(u) - I(u + d)` `[rows, length]` of one channel into `out`."""
        values = plane[: out.shape[1]]
        shifted = plane.as_strided(out.shape, (1, 1), plane.storage_offset() + slab.dy * self.width + slab.first_dx)
        return torch.sub(values, shifted, out=out)


def _group_runs(offsets: Iterable[int]) -> list[_RowRun]:
    """Group rows whose offsets are in arithmetic progression."""
    runs: list[_RowRun] = []
    for row, offset in enumerate(offsets):
        if runs:
            last = runs[-1]
            step = offset - (last.offset + (row - 1 - last.first) * last.step)
            if row - last.first == 1 or step == last.step:
                runs[-1] = _RowRun(last.first, row + 1, last.offset, step)
                continue
        runs.append(_RowRun(row, row + 1, offset, 0))
    return runs


def _view_rows(flat: Tensor, row_length: int, run: _RowRun, base: int, length: int) -> Tensor:
    """View the rows of a run, each from its own offset."""
    return flat.as_strided(
        (run.last - run.first, length),
        (row_length + run.step, 1),
        run.first * row_length + base + run.offset,
    )


def _double_sums(powers: list[Tensor], step: int, top: int) -> None:
    """Fill `powers[i]`, for i up to `top`, with sums of 2**i values of `powers[0]`, `step` apart."""
    valid = powers[0].shape[0]
    for i in range(top):
        by = step << i
        valid -= by
        torch.add(powers[i][:valid], powers[i][by : by + valid], out=powers[i + 1][:valid])


def _sum_width(powers: list[Tensor], width: int, step: int, out: Tensor, rows: slice) -> None:
    """Write sums of `width` values, `step` apart, into some rows of `out`, from sums of powers of two.

    `out` may be the highest of `powers`, whose values of these rows are then lost.
    """
    start, stop = rows.start, rows.stop
    top = width.bit_length() - 1
    have, target = powers[top], out[start:stop]
    covered = 1 << top
    for i in reversed(range(top)):
        if width >> i & 1:
            by = covered * step
            last = min(stop, out.shape[0] - by)
            torch.add(have[start:last], powers[i][start + by : last + by], out=out[start:last])
            have = out
            covered += 1 << i
    if have is not out:
        target.copy_(have[start:stop])


def _sum_windows(
    layout: _FlatLayout, slab: _DisplacementSlab, row_length: int, buffers: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Sum over windows: for each row of a slab and each start u, over the window as eq. 6 truncates it.

    Args:
        layout: the layout of the batch.
        slab: the displacements.
        row_length: length of a row.
        buffers: the first holds the values, rows one after another; the others are work memory.

    Returns:
        The sums, in one of the buffers, and the other buffers.
    """
    full = 2 * layout.half_window + 1
    height = layout.window(slab.dy)
    top = height.bit_length() - 1
    _double_sums(buffers, layout.width, top)
    _sum_width(buffers, height, layout.width, buffers[top], slice(0, buffers[top].shape[0]))
    # The sums over the height are the values to be summed over the width.
    powers = [buffers[top], *buffers[:top], *buffers[top + 1 :]]

    top = full.bit_length() - 1
    _double_sums(powers, 1, top)
    widths = [layout.window(dx) for dx in slab.dxs]
    for row, width in enumerate(widths):
        if width < full:
            _sum_width(powers, width, 1, powers[top], slice(row * row_length, (row + 1) * row_length))
    if full in widths:
        first = widths.index(full)
        last = first + widths.count(full)
        _sum_width(powers, full, 1, powers[top], slice(first * row_length, last * row_length))
    return powers[top], [*powers[:top], *powers[top + 1 :]]


def _allocate_buffers(layout: _FlatLayout, padded: Tensor, geometry: Geometry) -> list[Tensor]:
    """Allocate the buffers of a slab: one for each power of two in the window, at least two."""
    size = layout.slab_rows * (layout.length + layout.margin) + layout.margin
    return [padded.new_empty(size) for _ in range(max(2, geometry.window_px.bit_length()))]


def window_distances(padded: Tensor, pixels: Pixels, geometry: Geometry) -> Tensor:
    """See `selfsr.selfsim.contract.Backend`."""
    layout = _FlatLayout(padded, pixels, geometry)
    h, side, count = layout.half_search, geometry.search_px, layout.corner.shape[0]
    q = padded.new_empty(side, side, count)
    q[h, h] = 0
    buffers = _allocate_buffers(layout, padded, geometry)
    mirrored = padded.new_empty(side, count)
    for slab in layout.slabs():
        row_length = layout.row_length(slab)
        flat = [buffer[: slab.rows * row_length] for buffer in buffers]
        values, difference = (buffer.view(slab.rows, row_length) for buffer in (flat[0], flat[-1]))
        layout.differences(slab, layout.planes[0], values).square_()
        for plane in layout.planes[1:]:
            layout.differences(slab, plane, difference)
            values.addcmul_(difference, difference)
        sums, _ = _sum_windows(layout, slab, row_length, flat)

        begin = layout.to_center + layout.first_offset(slab.dy) * layout.width
        ahead = _group_runs(layout.first_offset(dx) for dx in slab.dxs)
        behind = _group_runs(layout.first_offset(dx) - layout.shift(dx) for dx in slab.dxs)
        _gather(sums, row_length, ahead, begin, layout, q[h + slab.dy, h + slab.first_dx : h + slab.last_dx + 1])
        begin -= layout.shift(slab.dy) * layout.width
        _gather(sums, row_length, behind, begin, layout, mirrored[: slab.rows])
        q[h - slab.dy, h - slab.last_dx : h - slab.first_dx + 1] = mirrored[: slab.rows].flip(0)
    del buffers
    _add_truncated(q, layout)
    return q.div_(padded.shape[1] * geometry.window_px**2).view(side * side, count)


def _gather(sums: Tensor, row_length: int, runs: list[_RowRun], begin: int, layout: _FlatLayout, out: Tensor) -> None:
    for run in runs:
        view = _view_rows(sums, row_length, run, begin, layout.reach)
        torch.gather(view, 1, layout.corner.expand(run.last - run.first, -1), out=out[run.first : run.last])


def _accumulate(values: Tensor) -> Tensor:
    """Return the cumulative sums along the first axis; `torch.cumsum` is slow across rows."""
    sums = values.clone()
    for i in range(1, len(sums)):
        sums[i] += sums[i - 1]
    return sums


def _sum_ends(values: Tensor, f: int) -> Tensor:
    """Sum the first f, ..., 2, 1, no, and the last 1, 2, ..., f of `values` `[n, ...]`; `[2f + 1, ...]`."""
    first, last = _accumulate(values[:f]), _accumulate(values[-f:].flip(0))
    return torch.cat((first.flip(0), torch.zeros_like(values[:1]), last))


def _sum_without_ends(values: Tensor, f: int) -> Tensor:
    """Sum the values that `_sum_ends` leaves out, by addition: a difference of sums would lose digits."""
    head, inner, tail = values[:f], values[f:-f].sum(0, keepdim=True), values[-f:]
    without_head = _accumulate(torch.cat((inner + tail.sum(0), head.flip(0))))
    without_tail = _accumulate(torch.cat((inner + head.sum(0), tail)))
    return torch.cat((without_head[:-1], without_tail.flip(0)))


def _sum_truncated(values: Tensor, f: int) -> Tensor:
    """Sum `values` `[n, n, M]` over the entries that each shift (y, x) truncates; `[2f+1, 2f+1, M]`."""
    columns = _sum_ends(values.transpose(0, 1), f).transpose(0, 1)
    return _sum_ends(values.sum(1), f)[:, None] + _sum_without_ends(columns, f)


def _add_truncated(q: Tensor, layout: _FlatLayout) -> None:
    """Add to q `[S, S, M]` the energy at offsets that leave the search area (eq. 8)."""
    f, h = layout.half_window, layout.half_search
    if f == 0:
        return
    k = 2 * f + 1
    energy = layout.planes.square().sum(0)
    patches = energy.as_strided((k, k, layout.reach), (layout.width, 1, 1), layout.inner * (layout.width + 1))
    truncated = _sum_truncated(torch.gather(patches, 2, layout.corner.expand(k, k, -1)), f)
    classes = torch.arange(-h, h + 1, device=q.device)
    classes = classes - classes.clamp(-layout.inner, layout.inner) + f
    for dy in range(-h, h + 1):
        q[h + dy] += truncated[dy - layout.shift(dy) + f][classes]


def window_distances_backward(padded: Tensor, grad_q: Tensor, pixels: Pixels, geometry: Geometry) -> Tensor:
    """See `selfsr.selfsim.contract.Backend`."""
    layout = _FlatLayout(padded, pixels, geometry)
    h, f, side = layout.half_search, layout.half_window, geometry.search_px
    images, channels, height, width = padded.shape
    g = grad_q.mul_(2 / (channels * geometry.window_px**2)).view(side, side, -1)
    gradient = torch.zeros_like(layout.planes)
    _add_truncated_gradient(gradient, g, layout)
    buffers = _allocate_buffers(layout, padded, geometry)
    for slab in layout.slabs():
        length = layout.row_length(slab)
        row_length = layout.margin + length
        size = slab.rows * row_length + layout.margin
        flat = [buffer[:size] for buffer in buffers]

        # m_d of eq. 10, each row shifted so that every window ends at the same offset f.
        spread = flat[0].zero_()
        begin = layout.margin + layout.to_center
        lags = [layout.last_offset(dx) - f for dx in slab.dxs]
        ahead = g[h + slab.dy, h + slab.first_dx : h + slab.last_dx + 1]
        behind = g[h - slab.dy, h - slab.last_dx : h - slab.first_dx + 1].flip(0)
        _scatter_add(ahead, spread, row_length, _group_runs(lags), begin, layout)
        begin -= layout.shift(slab.dy) * layout.width
        runs = _group_runs(lag - layout.shift(dx) for lag, dx in zip(lags, slab.dxs, strict=True))
        _scatter_add(behind, spread, row_length, runs, begin, layout)

        # M_d of eq. 10.
        sums, spare = _sum_windows(layout, slab, row_length, flat)
        begin = layout.margin - layout.last_offset(slab.dy) * layout.width - f
        weight = sums.as_strided((slab.rows, length), (row_length, 1), begin)

        # The other end u + d: rows that each start one value earlier, with zeros around, line up at u + d.
        rows = spare[0][: slab.rows * row_length].view(slab.rows, row_length)
        rows[:, : layout.margin] = 0
        spare[0][slab.rows * row_length :] = 0
        products, shifted_length = rows[:, layout.margin :], length + slab.rows - 1
        shifted = spare[0].as_strided((slab.rows, shifted_length), (row_length - 1, 1), layout.margin)
        shifted_begin = slab.dy * layout.width + slab.first_dx
        for plane, out in zip(layout.planes, gradient, strict=True):
            layout.differences(slab, plane, products).mul_(weight)
            out[:length] += products.sum(0)
            out[shifted_begin : shifted_begin + shifted_length] -= shifted.sum(0)
    return gradient[:, : layout.length].reshape(channels, images, height, width).transpose(0, 1).contiguous()


def _scatter_add(
    values: Tensor, flat: Tensor, row_length: int, runs: list[_RowRun], begin: int, layout: _FlatLayout
) -> None:
    """Add `values` `[rows, M]` at the masked pixels, in any order: the targets of a row are distinct."""
    for run in runs:
        view = _view_rows(flat, row_length, run, begin, layout.reach)
        index = layout.corner.expand(run.last - run.first, -1)
        view.scatter_(1, index, values[run.first : run.last] + view.gather(1, index))


def _add_truncated_gradient(gradient: Tensor, g: Tensor, layout: _FlatLayout) -> None:
    """Add to `gradient` `[C, T]` the gradient of the energy in eq. 8, which is linear in `g` `[S, S, M]`."""
    f = layout.half_window
    if f == 0:
        return
    k = 2 * f + 1
    weights = _sum_truncated(g, f)
    factor = torch.zeros_like(gradient[0])
    spread = factor.new_empty(k, layout.reach + k - 1)
    for row in range(k):
        spread.zero_()
        # Entry x of the window is written x further, so that the sum over entries is the value at each position.
        view = spread.as_strided((k, layout.reach), (spread.shape[1] + 1, 1))
        view.scatter_(1, layout.corner.expand(k, -1), weights[row])
        begin = layout.inner * (layout.width + 1) + row * layout.width
        factor[begin : begin + spread.shape[1]] += spread.sum(0)
    gradient += layout.planes * factor

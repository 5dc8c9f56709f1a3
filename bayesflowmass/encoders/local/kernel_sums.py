"""Sums of Gaussian kernels over the galaxies of a cluster, at each of its galaxies, in bounded memory.

The kernel of two galaxies, of width r [Mpc/h] on the sky and s [km/s] in velocity, is

    K_ij = exp(-[(x_j - x_i)^2 + (y_j - y_i)^2] / (2 r^2) - (v_j - v_i)^2 / (2 s^2)),

and what is needed of it are the sums over j of K_ij (1, v_j, v_j^2, x_j, y_j): one matrix product for each kernel.
The sums hold the galaxy itself, K_ii = 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from bayesflowmass.encoders.local.blocks import Edges, blocks_of, near_blocks
from bayesflowmass.encoders.ragged import chunks_by_richness, padded_index

Widths = Sequence[tuple[float, float]]

MOMENTS = 5
"""Sums for each galaxy and kernel: of K (1, v, v^2, x, y)."""

# Pairs of galaxies held at once: they stay in the cache of a core, or keep a GPU busy.
_PAIRS_AT_ONCE = {"cpu": 1 << 17, "cuda": 1 << 25}
# A cluster of so many galaxies or more is taken in blocks of half as many.
_GALAXIES_AT_ONCE = {"cpu": 512, "cuda": 8192}
# Padded galaxies that cost about as much as the operations of one more run.
_PADDED_AT_ONCE = 128
# An exponential that underflows costs up to 25 times another one, and so does arithmetic with its result. A kernel
# below exp(-60) = 9e-27 of its peak counts as that: nothing beside the galaxy itself in either precision.
_LOWEST = -60.0


def kernel_sums(points: Tensor, offsets: Tensor, widths: Widths) -> Tensor:
    """sum_j K_ij (1, v_j, v_j^2, x_j, y_j) for each galaxy i, over the galaxies j of its cluster.

    Differentiable; kernels are then computed again on the way back instead of being kept.

    Args:
        points: (n_points, 3) x, y [Mpc/h comoving] and v [km/s], cluster after cluster.
        offsets: (n + 1,) int64.
        widths: (r, s) of each kernel [Mpc/h comoving, km/s].

    Returns:
        (5, len(widths), n_points).
    """
    device = "cpu" if points.device.type == "cpu" else "cuda"
    counts = offsets.diff()
    order = torch.argsort(counts, stable=True)
    sizes = counts[order].tolist()
    n_small = sum(size < _GALAXIES_AT_ONCE[device] for size in sizes)
    # Autograd keeps what it needs; the next run must not write there.
    scratch = None if torch.is_grad_enabled() and points.requires_grad else _Scratch(points)
    parts, places = [points.new_zeros(MOMENTS, len(widths), 0)], [order[:0]]
    for first, last in _runs(sizes[:n_small], _PAIRS_AT_ONCE[device]):
        mine = order[first:last]
        index, real = padded_index(offsets[mine], counts[mine], sizes[last - 1])
        padded = points.index_select(0, index.flatten()).unflatten(0, index.shape)
        sums = _of_small(padded, real, widths, scratch)
        parts.append(sums if bool(real.all()) else sums[..., real.flatten()])
        places.append(index[real])
    for cluster in order[n_small:].tolist():
        start, stop = int(offsets[cluster]), int(offsets[cluster + 1])
        parts.append(
            _of_large(
                points[start:stop], widths, _GALAXIES_AT_ONCE[device] // 2, _PAIRS_AT_ONCE[device], scratch
            )
        )
        places.append(torch.arange(start, stop, device=points.device))
    return _reordered(torch.cat(parts, -1), torch.cat(places))


def _runs(sizes: Sequence[int], pairs: int) -> list[tuple[int, int]]:
    """Runs of clusters in order of their size, whose pairs stay within a budget; empty clusters are in none."""
    runs, first = [], sum(size == 0 for size in sizes)
    while first < len(sizes):
        some = sizes[first : first + max(1, pairs // sizes[first] ** 2)]
        # The budget of galaxies is that of the smallest cluster; at most an eighth of a run is padding.
        _, count = next(chunks_by_richness(some, max(1, pairs // sizes[first]), len(some), _PADDED_AT_ONCE))
        runs.append((first, first + count))
        first += count
    return runs


class _Scratch:
    """Memory for pairs that lives through a call: fresh pages for each run would cost more than the arithmetic."""

    def __init__(self, like: Tensor) -> None:
        self.held = like.new_empty(3, 0)

    def views(self, shape: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Three tensors of that shape."""
        size = math.prod(shape)
        if size > self.held.shape[1]:
            self.held = self.held.new_empty(3, size)
        first, second, third = (part[:size].view(*shape) for part in self.held)
        return first, second, third


def _of_small(points: Tensor, real: Tensor, widths: Widths, scratch: _Scratch | None) -> Tensor:
    """Sums of clusters (B, m, 3), of which some entries (B, m) are padding: (5, K, B m)."""
    moments = _moments(points) * real[:, None]
    sums: Tensor = _recomputed(_sums_of_pairs, points, moments, widths, scratch)
    return sums.permute(2, 0, 1, 3).flatten(2)


def _sums_of_pairs(points: Tensor, moments: Tensor, widths: Widths, scratch: _Scratch | None) -> Tensor:
    """sum_j K_ij of moments (B, 5, m) of points (B, m, 3): (K, B, 5, m)."""
    distances = _squared_distances(points, points, scratch)
    return torch.stack([moments @ _kernel(distances, width) for width in widths])


def _of_large(points: Tensor, widths: Widths, size: int, pairs: int, scratch: _Scratch | None) -> Tensor:
    """Sums of one cluster (n, 3), block by block, each pair of blocks once and only where they are near: (5, K, n)."""
    order, edges = blocks_of(points.detach(), widths, size)
    points = points[order]
    moments = _moments(points)
    near = near_blocks(points.detach(), edges, widths)
    # One tensor for each kernel, since each has its own neighbours.
    totals = [points.new_zeros(MOMENTS, len(points)) for _ in widths]
    for a, (start, stop) in enumerate(edges):
        rows = slice(start, stop)
        for kernels, columns in _strips(near[:, a], a, edges, max(size, pairs // (stop - start))):
            index = torch.cat([torch.arange(*edges[b]) for b in columns]).to(points.device)
            chosen = [widths[k] for k in kernels]
            mine, theirs = _recomputed(
                _sums_of_blocks,
                points[rows],
                points[index],
                moments[:, rows],
                moments[:, index],
                chosen,
                scratch,
            )
            # What two galaxies of this block give each other is in the sums of its rows.
            other = index >= stop
            for k, ours, others in zip(kernels, mine, theirs, strict=True):
                totals[k][:, rows] += ours
                totals[k].index_add_(1, index[other], others[:, other])
    return _reordered(torch.stack(totals, 1), order)


def _strips(near: Tensor, a: int, edges: Edges, most: int) -> list[tuple[list[int], list[int]]]:
    """Blocks from the a-th on that the same kernels reach from it, in strips of about ``most`` galaxies.

    Args:
        near: (K, n_blocks) whether a kernel reaches a block.

    Returns:
        (numbers of kernels, numbers of blocks) of each strip.
    """
    strips: list[tuple[list[int], list[int]]] = []
    held: dict[tuple[int, ...], int] = {}
    open_strip: dict[tuple[int, ...], list[int]] = {}
    for b in range(a, len(edges)):
        kernels = tuple(torch.nonzero(near[:, b])[:, 0].tolist())
        if not kernels:
            continue
        size = edges[b][1] - edges[b][0]
        if kernels not in open_strip or held[kernels] + size > most:
            open_strip[kernels], held[kernels] = [], 0
            strips.append((list(kernels), open_strip[kernels]))
        open_strip[kernels].append(b)
        held[kernels] += size
    return strips


def _sums_of_blocks(
    rows: Tensor,
    columns: Tensor,
    row_moments: Tensor,
    column_moments: Tensor,
    widths: Widths,
    scratch: _Scratch | None,
) -> tuple[Tensor, Tensor]:
    """Sums for rows (m, 3) over columns (c, 3), and for columns over rows: (K, 5, m) and (K, 5, c)."""
    distances = _squared_distances(columns, rows, scratch)
    mine, theirs = [], []
    for width in widths:
        kernel = _kernel(distances, width)
        mine.append(column_moments @ kernel)
        theirs.append(row_moments @ kernel.T)
    return torch.stack(mine), torch.stack(theirs)


def _squared_distances(
    rows: Tensor, columns: Tensor, scratch: _Scratch | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Squared distances of all pairs (*, m, n), on the sky [(Mpc/h)^2] and in velocity [(km/s)^2]; room for kernels."""
    shape = (*rows.shape[:-1], columns.shape[-2])
    first, second, third = (None, None, None) if scratch is None else scratch.views(shape)
    x, y, v = (
        torch.sub(row.contiguous()[..., :, None], column.contiguous()[..., None, :], out=out)
        for row, column, out in zip(rows.unbind(-1), columns.unbind(-1), (first, second, third), strict=True)
    )
    sky = torch.mul(x, x, out=first).addcmul_(y, y)
    return sky, torch.mul(v, v, out=third), second


def _kernel(distances: tuple[Tensor, Tensor, Tensor | None], width: tuple[float, float]) -> Tensor:
    r, s = width
    sky, velocity, out = distances
    exponent = torch.mul(sky, -0.5 / r**2, out=out).add_(velocity, alpha=-0.5 / s**2)
    return exponent.clamp_min_(_LOWEST).exp_()


def _moments(points: Tensor) -> Tensor:
    """1, v, v^2, x, y of points (*, m, 3): (*, 5, m)."""
    x, y, v = points.unbind(-1)
    return torch.stack([torch.ones_like(v), v, v * v, x, y], -2)


def _reordered(sums: Tensor, places: Tensor) -> Tensor:
    """Sums (5, K, n) of which the i-th belongs at ``places[i]``, in place."""
    inverse = torch.empty_like(places)
    inverse[places] = torch.arange(len(places), device=places.device)
    return sums.gather(-1, inverse.expand(sums.shape))


def _recomputed(function: Callable[..., Any], *arguments: Any) -> Any:
    """The value of a function; with gradients (no scratch, its last argument), of which only the arguments are kept."""
    if arguments[-1] is None:
        return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)
    return function(*arguments)

"""Sums over ragged groups: galaxies stored end to end, one group per cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

# Padded points that cost about as much as the operations of one more run on a CPU.
_FREE_PADDING = 1000


def check_offsets(points: Tensor, offsets: Tensor) -> Tensor:
    """Validate the offsets of ragged groups.

    Args:
        points: (n_points, D).
        offsets: (n + 1,) integers; group k is ``points[offsets[k]:offsets[k + 1]]``.

    Returns:
        (n + 1,) int64 on the device of the points.

    Raises:
        ValueError: if they do not start at 0, decrease, or do not end at n_points.
    """
    if points.ndim != 2:
        raise ValueError(f"points must have shape (n_points, D), not {tuple(points.shape)}")
    if offsets.ndim != 1 or offsets.numel() < 1 or offsets.is_floating_point():
        raise ValueError(
            f"offsets must be a vector of integers with one entry more than there are clusters, "
            f"not {offsets.dtype} of shape {tuple(offsets.shape)}"
        )
    offsets = offsets.to(device=points.device, dtype=torch.int64)
    first, last = int(offsets[0]), int(offsets[-1])
    if first != 0 or last != points.shape[0] or bool((offsets.diff() < 0).any()):
        raise ValueError(
            f"offsets must rise from 0 to the number of points, {points.shape[0]}, "
            f"but run from {first} to {last}{'' if first or last != points.shape[0] else ' and decrease'}"
        )
    return offsets


def group_of(offsets: Tensor, point: int) -> int:
    """Number of the group that owns a point."""
    return int(torch.searchsorted(offsets, point, right=True)) - 1


def spread(values: Tensor, offsets: Tensor, n_points: int) -> Tensor:
    """Repeat the value (n,) of each group for each of its points: (n_points,)."""
    return torch.repeat_interleave(values, offsets.diff(), output_size=n_points)


def segment_sum(values: Tensor, offsets: Tensor) -> Tensor:
    """Sum of values (n_points,) over each group: (n,); differentiable, and reproducible also on a GPU."""
    total: Tensor = torch.segment_reduce(values, "sum", offsets=offsets)
    return total


def padded_index(start: Tensor, count: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Indices that gather ragged groups into a padded array.

    Args:
        start: (B,) first point of each group.
        count: (B,) points of each group, at least one.
        width: length to pad to.

    Returns:
        Indices (B, width), the last point repeated in the padding, and the mask (B, width) of real entries.
    """
    column = torch.arange(width, device=start.device)
    index = start[:, None] + torch.minimum(column[None, :], count[:, None] - 1)
    return index, column[None, :] < count[:, None]


def chunks_by_richness(
    counts: Sequence[int], budget: int, max_groups: int, free_padding: int = _FREE_PADDING
) -> Iterator[tuple[int, int]]:
    """Cut groups sorted by increasing size into runs whose padded size stays within a budget.

    Args:
        counts: sizes in increasing order.
        budget: largest number of padded points in a run (a single larger group makes a run of its own).
        max_groups: largest number of groups in a run.
        free_padding: padded points that a run may waste in any case.

    Yields:
        (first, last) with last exclusive. Padding wastes at most an eighth of a run, or ``free_padding``
        points.
    """
    first = 0
    while first < len(counts):
        last, real = first + 1, counts[first]
        while last < len(counts) and last - first < max_groups:
            padded = counts[last] * (last + 1 - first)
            waste = padded - real - counts[last]
            if padded > budget or waste > max(padded // 8, free_padding):
                break
            real += counts[last]
            last += 1
        yield first, last
        first = last

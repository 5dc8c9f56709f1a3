"""Cutting ragged clusters into padded chunks of bounded memory, and evaluating them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from dataclasses import replace

import torch
from torch import Tensor

from bayesflowmass.common.threads import pool
from bayesflowmass.encoders.kde.axes import grid_axes
from bayesflowmass.encoders.kde.covariance import KernelShape
from bayesflowmass.encoders.kde.grid import Grid
from bayesflowmass.encoders.kde.kernels import kernel_sum, values_per_galaxy
from bayesflowmass.encoders.kde.plan import Group, Plan
from bayesflowmass.encoders.ragged import chunks_by_richness, padded_index

# Kernel factors, and image values, taken at once: a few MB, which stay in the cache of a CPU core; a GB on
# a GPU.
_VALUES_AT_ONCE = {"cpu": 1 << 21, "cuda": 1 << 27}
# Values on the integration nodes held at once.
_SLAB_AT_ONCE = 1 << 24


def densities(
    columns: Tensor,
    offsets: Tensor,
    kernel: KernelShape,
    weight: Tensor | None,
    grid: Grid,
    plan: Plan,
    dtype: torch.dtype,
) -> Tensor:
    """Kernel densities of ragged clusters on a grid.

    On a CPU without gradients the chunks are spread over ``torch.get_num_threads()`` threads, each
    computing alone: they do not wait for each other after every operation, and the bits are the same whatever
    their number.

    Args:
        columns: (D, n_points) float64 galaxies relative to the middle of the grid.
        offsets: (n + 1,) int64.
        kernel: n kernels.
        weight: (n_points,) float64 summing to one in each cluster, or None for 1 / n.
        grid: the grid.
        plan: how to evaluate each cluster.
        dtype: of the result.

    Returns:
        (n, *grid).
    """
    counts = offsets.diff()
    chunks = list(_chunks(plan, counts, grid, columns.device.type))
    if torch.is_grad_enabled() and (
        columns.requires_grad or kernel.marginal.requires_grad or weight is not None
    ):
        images = [_density(columns, offsets, kernel, weight, grid, chunk).to(dtype) for chunk in chunks]
        return torch.cat(images)[torch.argsort(torch.cat([chunk.numbers for chunk in chunks]))]
    result = torch.empty((len(counts), *grid.shape), dtype=dtype, device=columns.device)

    def fill(chunk: Group) -> None:
        image = _density(columns, offsets, kernel, weight, grid, chunk)
        result.index_copy_(0, chunk.numbers, image.to(dtype))

    n_threads = min(torch.get_num_threads(), len(chunks)) if columns.device.type == "cpu" else 1
    with torch.no_grad():
        if n_threads > 1:
            _run_in_threads(fill, chunks, n_threads)
        else:
            for chunk in chunks:
                fill(chunk)
    return result


def _run_in_threads(work: Callable[[Group], None], chunks: Sequence[Group], n_threads: int) -> None:
    """Apply work to every chunk, each thread of the pool computing on one core."""
    inference = torch.is_inference_mode_enabled()
    before = torch.get_num_threads()

    def alone(chunk: Group) -> None:
        # Each time, because the matrix library keeps this number for the whole process.
        torch.set_num_threads(1)
        with torch.inference_mode(inference), torch.no_grad():
            work(chunk)

    # The dearest chunks first, so that no thread is left with a long one at the end.
    futures = [pool(n_threads).submit(alone, chunk) for chunk in reversed(chunks)]
    try:
        for future in futures:
            future.result()
    finally:
        for future in futures:
            future.cancel()
        wait(futures)
        torch.set_num_threads(before)


def _chunks(plan: Plan, counts: Tensor, grid: Grid, device: str) -> list[Group]:
    chunks, device = [], "cpu" if device == "cpu" else "cuda"
    for group in plan.groups():
        members = group.numbers[torch.argsort(counts[group.numbers], stable=True)]
        shape = [n * order for n, order in zip(grid.shape, group.orders, strict=True)]
        galaxies = _VALUES_AT_ONCE[device] // values_per_galaxy(shape)
        clusters = max(1, _VALUES_AT_ONCE[device] // math.prod(shape))
        runs = chunks_by_richness(counts[members].tolist(), galaxies, clusters)
        chunks += [replace(group, numbers=members[first:last]) for first, last in runs]
    return chunks


def _density(
    columns: Tensor, offsets: Tensor, kernel: KernelShape, weight: Tensor | None, grid: Grid, chunk: Group
) -> Tensor:
    """Densities of the clusters of one chunk: (B, *grid)."""
    orders, numbers = chunk.orders, chunk.numbers
    start = offsets[numbers]
    counts = offsets[numbers + 1] - start
    listed = counts.tolist()
    gather, real = padded_index(start, counts, max(listed))
    flat = gather.reshape(-1)
    points = torch.stack([column.index_select(0, flat).reshape(gather.shape) for column in columns], 1)
    if weight is None:
        log_weights = -counts.to(torch.float64).log()[:, None]
    else:
        weight = weight.index_select(0, flat).reshape(gather.shape)
        real = real & (weight.detach() > 0)
        log_weights = torch.where(real, weight, 1.0).log()
    log_weights = torch.where(real, log_weights, -torch.inf)
    axes = grid_axes(grid, orders, chunk.blocks, points.device)
    # Slabs of whole bins and blocks along the first axis bound the memory of finely integrated grids.
    unit = max(orders[0], chunk.blocks[0])
    layers = math.prod(len(axis) for axis in axes[1:])
    slab = max(1, _SLAB_AT_ONCE // (len(numbers) * layers * unit)) * unit
    mine = kernel[numbers]
    slabs = [
        _bin_means(kernel_sum(points, log_weights, listed, [part, *axes[1:]], mine, chunk.level), orders)
        for part in axes[0].split(slab)
    ]
    return torch.cat(slabs, 1)


def _bin_means(values: Tensor, orders: tuple[int, ...]) -> Tensor:
    for d, order in enumerate(orders):
        if order != 1:
            share = Grid.node_weights(order).to(values)
            values = torch.tensordot(values.unflatten(1 + d, (-1, order)), share, ([2 + d], [0]))
    return values

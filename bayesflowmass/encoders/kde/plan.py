"""How each cluster's density is evaluated: bin centres or bin means, and in which arithmetic.

A plan depends on detached values only; results and gradients do not depend on it beyond rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from bayesflowmass.encoders.kde.covariance import KDEError, KernelShape
from bayesflowmass.encoders.kde.grid import Grid

# Galaxies further than this many kernel widths from a tile contribute less than exp(-CUT^2 / 2) = 1.3e-14 of
# the peak of one kernel to it and are left out.
CUT = 8.0
# Tiles along each axis at the level that tiles.
TILES = 4

# Largest exponent that may be split between factors. In float32 rounding sets it (a relative error of about
# 1e-7 times the exponent), in float64 overflow at 709.
_MAX_EXPONENT_32 = 60.0
_MAX_EXPONENT_64 = 650.0

# Bins of a block, within which the exponentials along an axis are products of fewer: 15 instead of 50 for
# blocks of five.
_BLOCK_BINS = (1, 2, 5)

# Gauss-Legendre nodes per bin, and up to which ratio of bin to kernel width the mean of a Gaussian over a
# bin is right to 1e-5 of its peak for every offset (tests/encoders/test_kde_bins.py checks).
_ORDERS = (1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 48, 64)
_RATIOS = (0.015, 0.34, 1.05, 1.9, 2.8, 3.7, 5.5, 9.0, 12.4, 19.1, 25.7, 38.9, 51.9)


class Level(IntEnum):
    """Arithmetic of a cluster, in order of cost."""

    FACTORISED_32 = 0
    FACTORISED_64 = 1
    TILED_64 = 2
    DIRECT_64 = 3


# Clusters that are worth a group of their own for the sake of their blocks.
_MIN_GROUP = 8

# Of the exponents of a galaxy's factors, how much may be split off into the factor that knows the place within
# a block, and how much all exponents of a kernel then may come to.
_SPLIT = {Level.FACTORISED_32: (15.0, 45.0), Level.FACTORISED_64: (100.0, 550.0)}


def largest_split(dtype: torch.dtype) -> float:
    """Largest exponent of the factor of a galaxy that knows the place within a block."""
    return _SPLIT[Level.FACTORISED_32 if dtype == torch.float32 else Level.FACTORISED_64][0]


@dataclass(frozen=True)
class Group:
    """Clusters that are evaluated alike.

    Attributes:
        orders: quadrature nodes per bin along each axis.
        blocks: nodes per block along each axis.
        level: arithmetic.
        numbers: (m,) the clusters, in increasing order.
    """

    orders: tuple[int, ...]
    blocks: tuple[int, ...]
    level: Level
    numbers: Tensor


@dataclass(frozen=True)
class Plan:
    """Plan of n clusters.

    Attributes:
        orders: (n, D) int64 quadrature nodes per bin along each axis; 1 is the bin centre.
        blocks: (n, D) int64 nodes per block along each axis; 1 takes every node by itself.
        levels: (n,) int64 ``Level``.
    """

    orders: Tensor
    blocks: Tensor
    levels: Tensor

    def groups(self) -> list[Group]:
        """Clusters of equal plan."""
        inverse = _number_rows(self.levels, *self.orders.T, *self.blocks.T)
        members = [torch.nonzero(inverse == k)[:, 0] for k in range(int(inverse.max()) + 1)]
        first = torch.stack([numbers[0] for numbers in members])
        plans = zip(
            self.orders[first].tolist(),
            self.blocks[first].tolist(),
            self.levels[first].tolist(),
            members,
            strict=True,
        )
        return [
            Group(tuple(orders), tuple(blocks), Level(level), mine) for orders, blocks, level, mine in plans
        ]


def bin_orders(kernel: KernelShape, grid: Grid) -> Tensor:
    """Nodes per bin that make the mean over every bin converge on all axes: (n, D).

    Raises:
        KDEError: naming a cluster whose kernel is too narrow to be integrated.
    """
    ratio = _spacing(grid, kernel) / kernel.conditional.detach()
    return _orders_of(ratio, torch.ones_like(ratio, dtype=torch.bool))


def narrow_orders(kernel: KernelShape, grid: Grid) -> tuple[Tensor, Tensor]:
    """Nodes per bin along the axes on which point values would mean nothing, 1 along the others.

    A kernel is narrow along an axis if twice its width there is less than a bin (the mass that bin centres
    then catch depends on where in its bin a galaxy lies, by 1.4 % and rapidly more). Axes are taken from
    the narrowest; the width along an axis is the one through the centre of the kernel, marginalised over
    axes already integrated.

    Returns:
        Nodes (n, D), and whether each axis is narrow (n, D).
    """
    marginal, conditional = kernel.marginal.detach(), kernel.conditional.detach()
    spacing = _spacing(grid, kernel)
    ndim = marginal.shape[1]
    order = torch.argsort(conditional / spacing, dim=1, stable=True)
    ratio = torch.empty_like(marginal)
    for k in range(ndim):
        axis = order[:, k : k + 1]
        if k == 0:
            width = conditional.gather(1, axis)
        elif k == ndim - 1:
            width = marginal.gather(1, axis)
        else:
            rest = order[:, k:]
            block = kernel.correlation.detach().gather(1, rest[:, :, None].expand(-1, -1, ndim))
            block = block.gather(2, rest[:, None, :].expand(-1, ndim - k, -1))
            width = marginal.gather(1, axis) / torch.linalg.inv(block)[:, :1, 0].sqrt()
        ratio.scatter_(1, axis, spacing[axis] / width)
    narrow = ratio > 2.0
    return _orders_of(ratio, narrow), narrow


def precision_levels(kernel: KernelShape, grid: Grid, size: Tensor, dtype: torch.dtype) -> Tensor:
    """Cheapest arithmetic that keeps the promised accuracy: (n,) ``Level``.

    Args:
        kernel: the kernels.
        grid: the grid.
        size: (D,) largest distance of a galaxy from the middle of the grid.
        dtype: of the result.
    """
    with torch.no_grad():
        half = _half(grid, size)
        whole = _largest_exponent(kernel, half, size)
        tile = _largest_exponent(kernel, half / TILES, size + half)
        levels = torch.where(tile <= _MAX_EXPONENT_64, int(Level.TILED_64), int(Level.DIRECT_64))
        levels = torch.where(whole <= _MAX_EXPONENT_64, int(Level.FACTORISED_64), levels)
        if dtype == torch.float32:
            levels = torch.where(whole <= _MAX_EXPONENT_32, int(Level.FACTORISED_32), levels)
        return levels


def block_nodes(kernel: KernelShape, grid: Grid, size: Tensor, orders: Tensor, levels: Tensor) -> Tensor:
    """Largest blocks of nodes along each axis whose exponents stay within bounds: (n, D) nodes per block.

    Args:
        kernel: n kernels.
        grid: the grid.
        size: (D,) largest distance of a galaxy from the middle of the grid.
        orders: (n, D) nodes per bin.
        levels: (n,) ``Level``; only factorised sums over the whole grid have blocks.
    """
    with torch.no_grad():
        half, spacing = _half(grid, size), _spacing(grid, kernel)
        reach, shift = _reach(kernel, half, size)
        spent = _exponent(kernel, half, reach, shift)
        one, together = (
            torch.tensor([_SPLIT.get(level, (-1.0, -1.0))[k] for level in Level], device=size.device)[levels]
            for k in range(2)
        )
        blocks = torch.ones_like(orders)
        for d, n_bins in enumerate(grid.shape):
            cost = torch.zeros_like(spent)
            for bins in _BLOCK_BINS:
                if bins > n_bins:
                    break
                # Bin centres lie half a bin inside the edges of a block.
                inside = bins - (orders[:, d] == 1).to(spent.dtype)
                place = 0.5 * inside * spacing[d] / kernel.conditional[:, d]
                of_galaxies = place * (reach[:, d] + shift[:, d])
                both = of_galaxies + place * half[d] / kernel.conditional[:, d]
                fits = (of_galaxies <= one) & (spent + both <= together)
                blocks[:, d] = torch.where(fits, bins * orders[:, d], blocks[:, d])
                cost = torch.where(fits, both, cost)
            spent = spent + cost
        alike = _number_rows(levels, *orders.T, *blocks.T)
        blocks[torch.bincount(alike)[alike] < _MIN_GROUP] = 1
        return blocks


def _number_rows(*columns: Tensor) -> Tensor:
    """Number each row (n,) of columns of non-negative integers: equal rows, equal numbers."""
    number = torch.zeros_like(columns[0])
    for column in columns:
        # One column after another: torch compares whole rows one by one, which is slow.
        number = torch.unique(number * (column.max() + 1) + column, return_inverse=True)[1]
    return number


def _largest_exponent(kernel: KernelShape, half: Tensor, size: Tensor) -> Tensor:
    """Bound of all positive exponents of a kernel, for tiles of that half extent and galaxies up to size."""
    return _exponent(kernel, half, *_reach(kernel, half, size))


def _reach(kernel: KernelShape, half: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Largest scaled coordinates (n, D) of grid and galaxies, and largest shifts of a galaxy's centre."""
    reach = torch.maximum(half, torch.minimum(size, half + CUT * kernel.marginal)) / kernel.conditional
    return reach, (kernel.partial.abs() @ reach[:, :, None])[..., 0]


def _exponent(kernel: KernelShape, half: Tensor, reach: Tensor, shift: Tensor) -> Tensor:
    # What a clamp adds to one factor is multiplied by the galaxy's cross terms and by those of the grid.
    grid = half / kernel.conditional
    of_grid = 0.5 * (grid * (kernel.partial.abs() @ grid[:, :, None])[..., 0]).sum(-1)
    return 0.5 * (reach * shift).sum(-1) + of_grid + 0.5 * (shift**2).sum(-1)


def _half(grid: Grid, size: Tensor) -> Tensor:
    """Half the extent of the grid along each axis: (D,) float64."""
    extent = [b - a for a, b in zip(grid.lower, grid.upper, strict=True)]
    return 0.5 * torch.tensor(extent, dtype=torch.float64, device=size.device)


def _orders_of(ratio: Tensor, where: Tensor) -> Tensor:
    limits = torch.tensor(_RATIOS, dtype=ratio.dtype, device=ratio.device)
    orders = torch.tensor((*_ORDERS, 0), device=ratio.device)
    index = torch.where(where, torch.searchsorted(limits, ratio.contiguous()), 0)
    if bool((index == len(_ORDERS)).any()):
        cluster, axis = (int(i) for i in torch.nonzero(index == len(_ORDERS))[0])
        raise KDEError(
            cluster,
            f"its kernel is {float(ratio[cluster, axis]):.0f} times narrower than a bin on axis "
            f"{axis}, too narrow "
            f"to be integrated; use a larger bandwidth, finer bins, or leave the cluster out",
        )
    return orders[index]


def _spacing(grid: Grid, kernel: KernelShape) -> Tensor:
    return torch.tensor(grid.spacing, dtype=torch.float64, device=kernel.marginal.device)

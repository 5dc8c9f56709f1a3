"""How each cluster is evaluated, against the bounds as they are defined, one kernel and one axis after the other."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from bayesflowmass.encoders.kde.covariance import KDEError, kernel_shape
from bayesflowmass.encoders.kde.grid import Grid
from bayesflowmass.encoders.kde.plan import (
    Level,
    Plan,
    bin_orders,
    block_nodes,
    largest_split,
    narrow_orders,
    precision_levels,
)

GRID = Grid((50, 50), (0.0, -2200.0), (1.6, 2200.0))
CUBE = Grid((6, 7, 9), (-1.6, -1.6, -2200.0), (1.6, 1.6, 2200.0))
ORDERS = {0.015: 1, 0.34: 2, 1.05: 3, 1.9: 4, 2.8: 5, 3.7: 6, 5.5: 8, 9.0: 12, 12.4: 16, 19.1: 24}
ORDERS |= {25.7: 32, 38.9: 48, 51.9: 64}


def kernels(grid, n=300, seed=0):
    """Kernels of many widths and correlations, and how far their galaxies reach."""
    rng = np.random.default_rng(seed)
    extent = np.subtract(grid.upper, grid.lower)
    sigma = extent * 10.0 ** rng.uniform(-2.2, 0.3, (n, grid.ndim))
    root = np.linalg.cholesky(0.35 * np.ones((grid.ndim, grid.ndim)) + 0.65 * np.eye(grid.ndim))
    skew = np.eye(grid.ndim) + rng.normal(size=(n, grid.ndim, grid.ndim)) * 10.0 ** rng.uniform(
        -2, 0.5, (n, 1, 1)
    )
    covariance = skew @ root @ root.T @ np.swapaxes(skew, 1, 2)
    norm = np.sqrt(np.einsum("nii->ni", covariance))
    covariance *= (sigma / norm)[:, :, None] * (sigma / norm)[:, None, :]
    size = torch.tensor(extent * 0.8)
    return kernel_shape(torch.tensor(covariance), torch.tensor(1.0, dtype=torch.float64), size), size


def exponents(kernel, i, half, size):
    """The bound on the exponents of kernel i, by its definition, and the largest scaled places and shifts."""
    width, marginal = kernel.conditional[i].numpy(), kernel.marginal[i].numpy()
    cross = np.abs(kernel.partial[i].numpy())
    reach = np.maximum(half, np.minimum(size, half + 8.0 * marginal)) / width
    shift, grid = cross @ reach, half / width
    bound = sum(
        0.5 * reach[d] * shift[d] + 0.5 * grid[d] * (cross @ grid)[d] + 0.5 * shift[d] ** 2
        for d in range(len(half))
    )
    return bound, reach, shift


@pytest.mark.parametrize("grid", [GRID, CUBE], ids=["2-D", "3-D"])
def test_the_cheapest_arithmetic_is_taken_whose_exponents_stay_in_bounds(grid):
    kernel, size = kernels(grid)
    half, far = 0.5 * np.subtract(grid.upper, grid.lower), size.numpy()
    for dtype in (torch.float32, torch.float64):
        found = precision_levels(kernel, grid, size, dtype).tolist()
        assert set(found) == set(Level) - ({Level.FACTORISED_32} if dtype == torch.float64 else set())
        for i, level in enumerate(found):
            whole, tile = (exponents(kernel, i, *at)[0] for at in ((half, far), (half / 4, far + half)))
            expected = (
                Level.FACTORISED_64
                if whole <= 650.0
                else Level.TILED_64
                if tile <= 650.0
                else Level.DIRECT_64
            )
            assert level == (Level.FACTORISED_32 if whole <= 60.0 and dtype == torch.float32 else expected)


@pytest.mark.parametrize("grid", [GRID, CUBE], ids=["2-D", "3-D"])
def test_blocks_are_the_largest_whose_exponents_stay_in_bounds(grid):
    kernel, size = kernels(grid)
    half, spacing = 0.5 * np.subtract(grid.upper, grid.lower), np.array(grid.spacing)
    orders = torch.ones(len(kernel.marginal), grid.ndim, dtype=torch.int64)
    orders[::3, 0] = 2
    levels = precision_levels(kernel, grid, size, torch.float32)
    limits = {Level.FACTORISED_32: (15.0, 45.0), Level.FACTORISED_64: (100.0, 550.0)}
    expected = np.ones(orders.shape, dtype=int)
    for i, level in enumerate(levels.tolist()):
        spent, reach, shift = exponents(kernel, i, half, size.numpy())
        for d, width in enumerate(kernel.conditional[i].tolist()):
            taken = 0.0
            for bins in (1, 2, 5):
                # Bin centres lie half a bin inside the edges of a block.
                place = 0.5 * (bins - (orders[i, d] == 1).item()) * spacing[d] / width
                one = place * (reach[d] + shift[d])
                both = one + place * half[d] / width
                if level in limits and one <= limits[level][0] and spent + both <= limits[level][1]:
                    expected[i, d], taken = bins * orders[i, d], both
            spent += taken
    plans = [
        tuple(row) for row in zip(levels.tolist(), *orders.T.tolist(), *expected.T.tolist(), strict=True)
    ]
    # Fewer than eight clusters are not worth a group of their own.
    expected[[plans.count(plan) < 8 for plan in plans]] = 1
    assert {1, 2, 5} <= set(expected.ravel().tolist())
    np.testing.assert_array_equal(block_nodes(kernel, grid, size, orders, levels), expected)


def test_blocks_have_no_more_bins_than_their_axis():
    grid = Grid((2, 50), GRID.lower, GRID.upper)
    kernel, size = kernels(grid)
    ones = torch.ones(len(kernel.marginal), 2, dtype=torch.int64)
    blocks = block_nodes(kernel, grid, size, ones, precision_levels(kernel, grid, size, torch.float64))
    assert np.unique(blocks[:, 0]).tolist() == [1, 2]
    assert np.unique(blocks[:, 1]).tolist() == [1, 2, 5]


def test_the_largest_split_is_that_of_the_arithmetic():
    assert (largest_split(torch.float32), largest_split(torch.float64)) == (15.0, 100.0)


def fewest(ratio):
    """Nodes for a ratio of bin to kernel width."""
    return next(order for limit, order in ORDERS.items() if ratio <= limit)


@pytest.mark.parametrize("grid", [GRID, CUBE], ids=["2-D", "3-D"])
def test_axes_are_narrow_by_their_width_over_those_that_are_integrated_already(grid):
    kernel, _ = kernels(grid, seed=1)
    kernel = kernel[(torch.tensor(grid.spacing) / kernel.conditional).amax(1) < 51.9]
    orders, narrow = narrow_orders(kernel, grid)
    assert bool(narrow.any(1).all()) is False
    for i in range(len(orders)):
        scaled = kernel.conditional[i].numpy() / grid.spacing
        left = list(np.argsort(scaled, kind="stable"))
        covariance = kernel.correlation[i] * kernel.marginal[i][:, None] * kernel.marginal[i]
        while left:
            # Through the centre of the kernel, marginalised over the axes before.
            width = float(torch.linalg.inv(covariance[left][:, left])[0, 0]) ** -0.5
            axis = left.pop(0)
            ratio = grid.spacing[axis] / width
            assert bool(narrow[i, axis]) == (ratio > 2.0)
            assert int(orders[i, axis]) == (fewest(ratio) if ratio > 2.0 else 1)


def test_means_over_bins_are_integrated_on_all_axes():
    kernel, _ = kernels(GRID, seed=2)
    ratio = np.array(GRID.spacing) / kernel.conditional.numpy()
    few = ratio.max(1) < 51.9
    found = bin_orders(kernel[torch.from_numpy(few)], GRID).numpy()
    np.testing.assert_array_equal(found, np.vectorize(fewest)(ratio[few]))
    wide = torch.tensor(np.where(np.arange(5)[:, None] == [3], 51.95, 51.85) / [1.0, 2.0])
    scaled = torch.tensor(GRID.spacing, dtype=torch.float64) / wide
    narrow = kernel_shape(torch.diag_embed(scaled**2), torch.tensor(1.0, dtype=torch.float64), scaled.amax(0))
    with pytest.raises(KDEError, match="cluster 3: its kernel is 52 times narrower than a bin on axis 0"):
        bin_orders(narrow, GRID)
    assert bin_orders(narrow[torch.tensor([0, 1, 2])], GRID)[:, 0].tolist() == [64] * 3


def test_groups_hold_the_clusters_of_each_plan_in_their_order():
    rng = np.random.default_rng(0)
    orders, blocks = (torch.from_numpy(rng.integers(1, 4, (80, 2))) for _ in range(2))
    levels = torch.from_numpy(rng.integers(0, 4, 80))
    groups = Plan(orders, blocks, levels).groups()
    plans = [(group.orders, group.blocks, group.level) for group in groups]
    assert len(set(plans)) == len(plans)
    assert sorted(itertools.chain(*(group.numbers.tolist() for group in groups))) == list(range(80))
    for group in groups:
        assert group.numbers.tolist() == sorted(group.numbers.tolist())
        for k in group.numbers.tolist():
            mine = tuple(orders[k].tolist()), tuple(blocks[k].tolist()), Level(int(levels[k]))
            assert mine == (group.orders, group.blocks, group.level)

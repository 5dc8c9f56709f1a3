"""Exponentials as products within blocks of nodes: the same densities, where the exponents allow it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import gaussian_kde

from bayesflowmass.encoders import KDEEncoder
from bayesflowmass.encoders.kde.axes import AxisNodes, grid_axes
from bayesflowmass.encoders.kde.covariance import kernel_shape, sample_covariance
from bayesflowmass.encoders.kde.grid import Grid
from bayesflowmass.encoders.kde.kernels import kernel_sum
from bayesflowmass.encoders.kde.plan import Level, block_nodes, precision_levels

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
GRID = Grid((50, 50), (0.0, -2200.0), (1.6, 2200.0))
# Clusters of one plan that are worth a group.
ALIKE = 8


def galaxies(seed, sigma, correlation=0.0, n=40):
    white = np.random.default_rng(seed).normal(size=(n, 2))
    white[:, 1] = correlation * white[:, 0] + np.sqrt(1.0 - correlation**2) * white[:, 1]
    points = white * sigma + (0.8, 0.0)
    points[0] = (0.784, 44.0)
    return points


def planned(points, dtype, h0=0.15, copies=ALIKE):
    """Kernel, levels and blocks of a cluster given several times."""
    columns = torch.tensor(np.tile(points - GRID.middle, (copies, 1)).T)
    offsets = torch.arange(copies + 1) * len(points)
    size = columns.abs().amax(1)
    kernel = kernel_shape(sample_covariance(columns, offsets), torch.tensor(h0, dtype=torch.float64), size)
    levels = precision_levels(kernel, GRID, size, dtype)
    return kernel, levels, block_nodes(kernel, GRID, size, torch.ones((copies, 2), dtype=torch.int64), levels)


@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 10**6),
    correlation=st.floats(-0.7, 0.7),
    sigma=st.sampled_from([(0.4, 900.0), (0.2, 600.0), (0.6, 1500.0), (0.1, 400.0), (5.0, 700.0)]),
    convention=st.sampled_from(["covariance", "scipy"]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_a_group_worth_its_blocks_equals_scipy(seed, correlation, sigma, convention, dtype):
    points = torch.tensor(galaxies(seed, sigma, correlation), dtype=dtype)
    encoder = KDEEncoder(convention=convention, normalisation="density", narrow="keep")
    image = encoder(points.repeat(ALIKE, 1), torch.arange(ALIKE + 1) * len(points))[-1].double().numpy()
    mesh = np.stack([m.ravel() for m in np.meshgrid(*(GRID.nodes(d).numpy() for d in (0, 1)), indexing="ij")])
    factor = 0.15 if convention == "scipy" else 0.15**0.5
    expected = gaussian_kde(points.double().numpy().T, factor)(mesh).reshape(50, 50)
    assert np.abs(image - expected).max() < TOLERANCE[dtype] * expected.max()


@pytest.mark.parametrize("in_block", [(5, 5), (7, 2), (1, 4), (50, 3)])
def test_any_block_gives_the_same_sum_also_where_the_last_is_cut_short(in_block):
    points = galaxies(1, (0.5, 1000.0), 0.3)
    kernel = planned(points, torch.float64)[0][torch.tensor([0])]
    about = torch.tensor((points - GRID.middle).T)[None]
    log_weights = torch.full((1, len(points)), -np.log(len(points)), dtype=torch.float64)
    sums = [
        kernel_sum(
            about, log_weights, [len(points)], grid_axes(GRID, (1, 1), blocks, about.device), kernel, level
        )
        for blocks, level in ((in_block, Level.FACTORISED_64), ((1, 1), Level.DIRECT_64))
    ]
    torch.testing.assert_close(*sums, rtol=1e-11, atol=1e-13 * float(sums[1].max()))


@pytest.mark.parametrize(
    ("sigma", "dtype", "expected"),
    [
        ((0.5, 1000.0), torch.float32, [5, 5]),
        ((0.5, 300.0), torch.float32, [5, 2]),
        ((0.5, 100.0), torch.float32, [5, 1]),
        ((0.5, 300.0), torch.float64, [5, 5]),
    ],
)
def test_blocks_are_as_large_as_the_exponents_allow(sigma, dtype, expected):
    points = galaxies(2, sigma)
    points[:, 1] -= np.polyval(np.polyfit(points[:, 0], points[:, 1], 1), points[:, 0])
    assert planned(points, dtype)[2].tolist() == [expected] * ALIKE
    assert planned(points, dtype, copies=ALIKE - 1)[2].tolist() == [[1, 1]] * (ALIKE - 1)


def test_gradients_through_blocks_equal_those_without():
    points = torch.tensor(galaxies(3, (0.5, 1000.0), 0.4))
    gradients = []
    for copies in (1, ALIKE):
        x = points.clone().requires_grad_(True)
        images = KDEEncoder(normalisation="density")(
            x.repeat(copies, 1), torch.arange(copies + 1) * len(points)
        )
        (images / images.detach().amax() * torch.linspace(-1, 1, 50)).sum().div(copies).backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


def test_nodes_are_their_block_and_their_place():
    axis = AxisNodes(torch.linspace(-3.0, 3.0, 11, dtype=torch.float64), 4)
    scaled = axis.scaled(torch.tensor([0.5, 2.0], dtype=torch.float64), torch.float64)
    rebuilt = (scaled.coarse[:, :, None] + scaled.fine[:, None]).flatten(1)[:, :11]
    torch.testing.assert_close(rebuilt, scaled.nodes)
    coarse = scaled.coarse.repeat_interleave(4, 1)[:, :11]
    torch.testing.assert_close(scaled.from_blocks, (coarse**2 - scaled.nodes**2) / 2)

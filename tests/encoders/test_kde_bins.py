"""Kernels narrower than a bin: means over bins against independent integrals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr
from scipy.stats import gaussian_kde

from bayesflowmass.encoders import KDEEncoder, KDEError
from bayesflowmass.encoders.kde.plan import _ORDERS, _RATIOS

SMALL = {"grid": (6, 5), "lower": (0.0, -500.0), "upper": (1.2, 500.0), "normalisation": "density"}


def fine_bin_means(points, encoder, axes, factor=4):
    """Means over bins of scipy's density, by Gauss-Legendre cells of 12 nodes, factor cells to a bin."""
    grid = encoder.grid
    x, w = np.polynomial.legendre.leggauss(12)
    nodes, weights = [], []
    for d, n in enumerate(grid.shape):
        if d in axes:
            cell = grid.spacing[d] / factor
            nodes.append((grid.lower[d] + cell * (np.arange(n * factor)[:, None] + 0.5 + 0.5 * x)).ravel())
            weights.append(np.tile(0.5 * w, factor) / factor)
        else:
            nodes.append(grid.lower[d] + grid.spacing[d] * (np.arange(n) + 0.5))
            weights.append(np.ones(1))
    mesh = np.stack([m.ravel() for m in np.meshgrid(*nodes, indexing="ij")])
    density = gaussian_kde(points.T, encoder.h0**0.5)(mesh)
    density = density.reshape(grid.shape[0], len(weights[0]), grid.shape[1], len(weights[1]))
    return np.einsum("aibj,i,j->ab", density, *weights)


def cluster(seed, sigma, correlation=0.0, n=12):
    white = np.random.default_rng(seed).normal(size=(n, 2))
    white[:, 1] = correlation * white[:, 0] + np.sqrt(1 - correlation**2) * white[:, 1]
    return white * sigma + (0.6, 30.0)


def image(encoder, points):
    return encoder(torch.tensor(points), torch.tensor([0, len(points)]))[0].numpy()


@pytest.mark.parametrize(("order", "ratio"), list(zip(_ORDERS, _RATIOS, strict=True)))
def test_quadrature_table_keeps_its_promise(order, ratio):
    x, w = np.polynomial.legendre.leggauss(order)
    centre = np.linspace(0.0, ratio / 2 + 6.0, 3000)
    means = (0.5 * w[:, None] * np.exp(-0.5 * (0.5 * x[:, None] * ratio - centre) ** 2)).sum(0)
    exact = np.sqrt(2 * np.pi) * (ndtr(ratio / 2 - centre) - ndtr(-ratio / 2 - centre)) / ratio
    assert np.abs(means - exact).max() < 1.001e-5 * exact.max()


@settings(deadline=None, max_examples=10)
@given(
    seed=st.integers(0, 10**6),
    sigma=st.sampled_from([(0.4, 150.0), (0.05, 300.0), (0.06, 60.0), (0.4, 100.0)]),
    correlation=st.floats(-0.9, 0.9),
)
def test_bin_means_equal_a_fine_integral(seed, sigma, correlation):
    points = cluster(seed, sigma, correlation)
    encoder = KDEEncoder(**SMALL, evaluate="bin")
    expected = fine_bin_means(points, encoder, axes=(0, 1))
    assert np.abs(image(encoder, points) - expected).max() < 3e-5 * expected.max()


@pytest.mark.parametrize(
    ("sigma", "axes"), [((0.9, 60.0), (1,)), ((0.05, 900.0), (0,)), ((0.06, 60.0), (0, 1))]
)
def test_narrow_axes_alone_are_integrated_by_default(sigma, axes):
    points = cluster(1, sigma)
    encoder = KDEEncoder(**SMALL)
    expected = fine_bin_means(points, encoder, axes)
    assert np.abs(image(encoder, points) - expected).max() < 3e-5 * expected.max()


def test_wide_kernels_stay_at_bin_centres():
    points = cluster(2, (0.9, 900.0))
    kept = image(KDEEncoder(**SMALL, narrow="keep"), points)
    assert np.array_equal(image(KDEEncoder(**SMALL), points), kept)


def test_mass_is_conserved_however_narrow_the_kernel():
    for sigma in (90.0, 60.0, 20.0, 12.0):
        points = cluster(3, (0.1, sigma), n=40)
        encoder = KDEEncoder(**SMALL, evaluate="bin")
        mass = image(encoder, points).sum() * np.prod(encoder.grid.spacing)
        assert abs(mass - 1.0) < 1e-3


def test_poor_cluster_in_scipys_convention_does_not_stop_a_batch():
    rng = np.random.default_rng(4)
    points = np.concatenate([rng.normal((0.5, 0.0), (0.3, 120.0), (10, 2)), cluster(5, (0.4, 800.0), n=60)])
    images = KDEEncoder(convention="scipy")(torch.tensor(points), torch.tensor([0, 10, 70]))
    assert bool(torch.isfinite(images).all())
    torch.testing.assert_close(images.sum((1, 2)), torch.ones(2, dtype=torch.float64))


def test_refusal_names_the_cluster_the_axis_and_the_remedy():
    points = np.concatenate([cluster(6, (0.9, 900.0)), cluster(7, (0.9, 60.0))])
    with pytest.raises(KDEError, match=r"cluster 1: its kernel .* wide on axis 1 .* narrow='integrate'"):
        KDEEncoder(**SMALL, narrow="refuse")(torch.tensor(points), torch.tensor([0, 12, 24]))


def test_a_kernel_too_narrow_to_integrate_is_refused():
    with pytest.raises(KDEError, match=r"cluster 0: its kernel is \d+ times narrower than a bin on axis 1"):
        image(KDEEncoder(**SMALL), cluster(8, (0.5, 1.0)))


def test_three_dimensional_bins():
    rng = np.random.default_rng(9)
    points = rng.normal(0.0, (0.5, 0.4, 60.0), (30, 3))
    options = {"grid": (4, 4, 10), "lower": (-1.6, -1.6, -1000.0), "upper": (1.6, 1.6, 1000.0)}
    encoder = KDEEncoder(**options, evaluate="bin", normalisation="density")
    coarse = image(encoder, points)
    fine = image(
        KDEEncoder(**{**options, "grid": (16, 16, 80)}, evaluate="bin", normalisation="density"), points
    )
    means = fine.reshape(4, 4, 4, 4, 10, 8).mean((1, 3, 5))
    assert np.abs(coarse - means).max() < 3e-5 * means.max()

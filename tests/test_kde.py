"""The kernel density against scipy, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import gaussian_kde

from bayesflowmass.encoders import KDEEncoder, KDEError

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


def scipy_images(encoder, points, offsets, factor):
    grid = encoder.grid
    centres = [low + step * (np.arange(n) + 0.5) for low, step, n in zip(grid.lower, grid.spacing, grid.shape)]
    mesh = np.stack([m.ravel() for m in np.meshgrid(*centres, indexing="ij")])
    return np.stack(
        [
            gaussian_kde(points[a:b].T, bw_method=factor)(mesh).reshape(grid.shape)
            for a, b in zip(offsets[:-1], offsets[1:])
        ]
    )


def factor(encoder):
    h0 = float(encoder.bandwidth)
    return h0 if encoder.convention == "scipy" else h0**0.5


def ragged(seed, counts, correlation=0.0, sigma=(0.4, 500.0), mean=(0.8, 0.0)):
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    white = rng.normal(size=(offsets[-1], len(sigma)))
    white[:, -1] = correlation * white[:, 0] + np.sqrt(1 - correlation**2) * white[:, -1]
    return white * sigma + mean, offsets


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    counts=st.lists(st.integers(5, 120), min_size=1, max_size=5),
    correlation=st.one_of(st.sampled_from([0.0, 0.9, -0.99, 0.999, -0.999]), st.floats(-0.95, 0.95)),
    scale=st.sampled_from([(0.4, 500.0), (0.1, 200.0), (0.6, 1500.0), (5.0, 300.0)]),
    convention=st.sampled_from(["covariance", "scipy"]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_equals_scipy(seed, counts, correlation, scale, convention, dtype):
    points, offsets = ragged(seed, counts, correlation, scale)
    points = torch.tensor(points, dtype=dtype)
    encoder = KDEEncoder(convention=convention, normalisation="density", narrow="keep")
    images = encoder(points, torch.tensor(offsets))
    expected = scipy_images(encoder, points.double().numpy(), offsets, factor(encoder))
    peak = expected.max((1, 2))
    assert images.dtype == dtype
    assert (np.abs(images.double().numpy() - expected).max((1, 2)) / peak).max() < TOLERANCE[dtype]


def test_singular_covariance_names_the_cluster():
    points, offsets = ragged(0, [20, 20, 20])
    points[20:40, 1] = 300.0
    with pytest.raises(KDEError, match="cluster 1: all its galaxies have the same value on axis 1"):
        KDEEncoder()(torch.tensor(points), torch.tensor(offsets))

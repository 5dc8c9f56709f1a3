"""The caustic of the benchmark of memberships: it finds an edge that is there."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.caustic import amplitude


@pytest.mark.parametrize("escape", [800.0, 1600.0])
def test_the_amplitude_is_the_edge_of_what_is_bound(escape):
    """Galaxies fill |v| < A(R), and a tenth as many lie anywhere; their mean square is a quarter of that of A."""
    rng = np.random.default_rng(0)
    r, background = 1.2 * rng.random(600), 1.2 * rng.random(60)
    edge = escape / (1.0 + r)
    # A parabola of half width A has a dispersion of A / sqrt(5); four times the square is a little less than A^2.
    v = edge * (2.0 * rng.beta(2.0, 2.0, 600) - 1.0)
    whole = np.concatenate([r, background]), np.concatenate([v, rng.uniform(-2500.0, 2500.0, 60)])
    found = amplitude(*whole, np.arange(660) < 600, 1.2, 2500.0)[:600]
    inner = r < 0.6
    assert np.median(found[inner] / edge[inner]) == pytest.approx(1.0, abs=0.2)


def test_few_galaxies_have_an_amplitude_too():
    rng = np.random.default_rng(1)
    found = amplitude(rng.random(10), 500.0 * rng.normal(size=10), np.ones(10, dtype=bool), 1.2, 2500.0)
    assert np.isfinite(found).all()
    assert (found >= 0.0).all()

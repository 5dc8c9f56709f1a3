"""The caustic of the benchmark of memberships: it finds an edge that is there."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.caustic import amplitude


@pytest.mark.parametrize("escape", [800.0, 1600.0])
def test_the_amplitude_is_that_of_the_edge_and_of_the_dispersion(escape):
    """Galaxies fill |v| < E(R) = escape / (1 + R), R < 1.2, and a tenth as many lie anywhere.

    A parabola of half width E has a mean square of E^2 / 5. The mean of E^2 is escape^2 / 2.2 over all R and
    escape^2 / 1.6 inside the mean R, so <A^2> = 4 <v^2> makes A smaller than E by (0.8 * 1.6 / 2.2)^(1/2) = 0.763.
    """
    rng = np.random.default_rng(0)
    r, background = 1.2 * rng.random(600), 1.2 * rng.random(60)
    edge = escape / (1.0 + r)
    v = edge * (2.0 * rng.beta(2.0, 2.0, 600) - 1.0)
    whole = np.concatenate([r, background]), np.concatenate([v, rng.uniform(-2500.0, 2500.0, 60)])
    found = amplitude(*whole, np.arange(660) < 600, 1.2, 2500.0)[:600]
    # The dispersion of 600 galaxies is known to 3 %, the edge of a smooth density less well.
    assert np.median(found[r < 0.6] / edge[r < 0.6]) == pytest.approx(0.763, abs=0.08)


def test_few_galaxies_have_an_amplitude_too():
    rng = np.random.default_rng(1)
    found = amplitude(rng.random(10), 500.0 * rng.normal(size=10), np.ones(10, dtype=bool), 1.2, 2500.0)
    assert np.isfinite(found).all()
    assert (found >= 0.0).all()

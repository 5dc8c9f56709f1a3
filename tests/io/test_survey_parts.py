"""Which galaxies of a survey are near clusters, and which of them are in several, in small examples and all pairs."""

from __future__ import annotations

import numpy as np
import pytest

from bayesflowmass.cosmology import SPEED_OF_LIGHT
from bayesflowmass.io.frames import to_cmb
from bayesflowmass.io.shared_galaxies import clusters_of_galaxies, shared_columns, shared_counts
from bayesflowmass.io.sky import rest_frame_velocity, sky_offsets
from bayesflowmass.io.survey import Survey


def survey(n=4000, seed=0):
    rng = np.random.default_rng(seed)
    ra, dec, z = rng.uniform(20, 40, n), rng.uniform(-60, -50, n), rng.uniform(0.02, 0.2, n)
    return Survey(ra, dec, z, {"row": np.arange(n)}, ra, dec, (z.min(), z.max()), {})


def within(galaxies, ra, dec, z, angle, velocity):
    """Rows of the galaxies within reach of one cluster."""
    full = np.full(galaxies.ra.size, 1.0)
    separation = np.hypot(*sky_offsets(galaxies.ra, galaxies.dec, ra * full, dec * full))
    return np.flatnonzero(
        (separation < angle) & (np.abs(rest_frame_velocity(galaxies.z, z * full)) <= velocity)
    )


def test_the_galaxies_near_one_cluster_are_those_within_its_reach():
    galaxies = survey()
    for angle, velocity in ((0.05, 5000.0), (0.02, 20_000.0)):
        one = [np.array([value]) for value in (30.0, -55.0, 0.1, angle, velocity)]
        near = galaxies.near(*one)
        np.testing.assert_array_equal(near.others["row"], within(galaxies, 30.0, -55.0, 0.1, angle, velocity))
        assert 5 < near.ra.size < 2000
        np.testing.assert_array_equal(near.z, galaxies.z[near.others["row"]])
        assert near.all_ra.size == 4000
    # The galaxy at the very end of the depth is near.
    z = np.array([0.1 + 1e-3])
    exact = SPEED_OF_LIGHT * (z - 0.1) / 1.1
    alone = Survey(np.array([30.0]), np.array([-55.0]), z, {}, z, z, (0.0, 1.0), {})
    for reach, found in ((exact * (1 + 1e-9), 1), (exact * (1 - 1e-9), 0)):
        assert alone.near(*(np.array([v]) for v in (30.0, -55.0, 0.1, 0.1)), reach).ra.size == found


def test_near_many_clusters_nobody_is_missed_and_few_are_kept_in_vain():
    galaxies, rng = survey(), np.random.default_rng(1)
    n = 40
    ra, dec, z = rng.uniform(20, 40, n), rng.uniform(-60, -50, n), rng.uniform(0.02, 0.2, n)
    angle, velocity = 0.002 / z, np.full(n, 3000.0)
    near = galaxies.near(ra, dec, z, angle, velocity)
    wanted = [within(galaxies, *one) for one in zip(ra, dec, z, angle, velocity, strict=True)]
    everyone = np.unique(np.concatenate(wanted))
    assert set(everyone) <= set(near.others["row"])
    # Clusters of similar redshifts share their reach.
    assert near.ra.size < 3 * everyone.size + 50


def test_galaxies_of_several_clusters_are_counted_once_for_each():
    # Galaxies 5, 6, 7 in cluster 0; 6, 7, 7 in 1; 7 in 2; nobody in 3; 9 in 4.
    found, offsets = np.array([5, 6, 7, 6, 7, 7, 7, 9]), np.array([0, 3, 6, 7, 7, 8])
    assert clusters_of_galaxies(found).tolist() == [1, 2, 4, 2, 4, 4, 4, 1]
    row = np.repeat(np.arange(5), np.diff(offsets))
    assert shared_counts(found, row, 5).tolist() == [2, 2, 1, 0, 0]
    columns = shared_columns(found, offsets, np.array(["a", "bb", "c", "d", "e"]))
    assert columns["n_shared"].tolist() == [2, 2, 1, 0, 0]
    assert columns["shares_with"][0] == "bb"
    assert columns["shares_with"][2] == "bb"
    assert columns["shares_with"][3:].tolist() == ["", ""]
    nobody = shared_columns(found[:0], np.zeros(3, dtype=np.int64), np.array([10, 200]))
    assert nobody["n_shared"].tolist() == [0, 0]
    assert nobody["shares_with"].tolist() == ["", ""]
    assert shared_columns(np.array([1, 1]), np.array([0, 1, 2]), np.array([10, 200]))[
        "shares_with"
    ].tolist() == [
        "200",
        "10",
    ]


@pytest.mark.parametrize(
    ("ra", "dec", "cosine"), [(167.94191, -6.94426, 1.0), (347.94191, 6.94426, -1.0), (77.94191, 0.0, 0.0)]
)
def test_the_motion_of_the_sun_is_taken_out_exactly(ra, dec, cosine):
    beta = 369.82 / SPEED_OF_LIGHT
    z = np.array([0.0, 0.5])
    expected = (1.0 + z) * np.sqrt(1.0 - beta**2) / (1.0 - beta * cosine) - 1.0
    np.testing.assert_allclose(to_cmb(z, np.full(2, ra), np.full(2, dec)), expected, atol=1e-12)

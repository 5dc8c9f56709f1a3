"""The page that holds the preset sky to simulations and surveys: what it measures, and what it calls a miss."""

import numpy as np
import pytest

from bayesflowmass.mocks import MockParameters
from benchmarks.mock_targets.comparison import TARGETS, Target
from benchmarks.mock_targets.occupation import OCCUPATIONS, occupation_table, satellites
from benchmarks.mock_targets.sky import EDGES, galaxy_targets, joint_distance, orbit_rows, page


def sample(shift=0.0, n=7000):
    rng = np.random.default_rng(0)
    r = rng.uniform(0.0, 3.0, n)
    return r, np.minimum(rng.uniform(0.0, 2.0, n) + shift, 2.999), rng.integers(0, 5, n)


def test_rows_are_shares_dispersions_and_counts_of_each_annulus():
    r, v, orbit = sample()
    rows = orbit_rows((r, v, orbit))
    np.testing.assert_allclose(rows[:, :5].sum(axis=1), 1.0)
    outer = (r >= EDGES[-2]) & (orbit == 4)
    assert rows[-1, 7] == pytest.approx(np.sqrt((v[outer] ** 2).mean()))
    assert rows[:, 8].sum() == pytest.approx(r.size / ((orbit <= 1) & (r < 1.0)).sum())


def test_the_distance_of_distributions_is_zero_for_the_same_and_one_for_disjoint_ones():
    assert joint_distance(sample(), sample(), 2) == 0.0
    r, v, orbit = sample()
    assert joint_distance((r, 0.4 * v, orbit), (r, np.full(v.size, 2.9), orbit), 2) == pytest.approx(1.0)


def test_the_page_marks_what_is_missed():
    paper = {target.key: target.low for target in TARGETS}
    rows = [(Target("one", "a number", 1.0, 1.0, 0.1, "somebody"), 1.3)]
    occupation = ("a table", [True])
    same, moved = (page(sample(), sample(shift), rows, occupation, paper, "command") for shift in (0.0, 0.8))
    assert "a table" in same
    assert same.count("**") == 2
    assert "**no**" in same
    assert "24 of 24 met" in same
    assert moved.count("**") > 10


def test_rich_haloes_have_the_profile_and_richness_of_the_three_hundred():
    for target, value in galaxy_targets(150, 3, MockParameters.preset("sky")):
        # 150 haloes: an error of 0.02 of the scatter, 0.06 of the slope.
        assert target.low - target.tolerance - 0.06 <= value <= target.high + target.tolerance + 0.06, (
            target.key
        )


def test_satellites_at_fixed_depth_are_as_many_as_published():
    # M200c = 10^14 Msun/h is M200m = 1.35e14 at z = 0.1: ((1.35e14 - 10^12.35) / 10^12.98)^1.
    assert satellites("Zehavi et al. 2011", -20.0, 14.0) == pytest.approx(13.9, abs=0.2)
    table, met = occupation_table(0, MockParameters.preset("sky"))
    assert all(met)
    assert table.count("\n") == 1 + len(met)
    poor = occupation_table(0, MockParameters.preset("sky", {"richness_at_1e14": 20.0}))[1]
    assert sum(poor) < len(met) / 2
    assert len(OCCUPATIONS) == 3

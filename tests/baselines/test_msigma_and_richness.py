"""Baselines against reference formulas and planted relations."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesflowmass.baselines import fit_msigma, gapper, standard_deviation
from bayesflowmass.baselines.dispersion import velocity_dispersion
from bayesflowmass.baselines.richness import fit_richness
from bayesflowmass.cosmology import efunc

velocities = st.lists(st.floats(-2500, 2500), min_size=2, max_size=30)
ragged = st.lists(velocities, min_size=1, max_size=6)


def _flat(clusters):
    return np.concatenate([np.asarray(c, dtype=float) for c in clusters]), [len(c) for c in clusters]


def _gapper_by_definition(v):
    """Beers, Flynn and Gebhardt 1990, equations 8-10: gaps g_i = v_(i+1) - v_(i), weights i (n - i)."""
    v = np.sort(v)
    n = len(v)
    total = 0.0
    for i in range(1, n):
        total += i * (n - i) * (v[i] - v[i - 1])
    return np.sqrt(np.pi) / (n * (n - 1)) * total


@settings(deadline=None, max_examples=40)
@given(ragged)
def test_standard_deviation_of_ragged_clusters_equals_numpy_cluster_by_cluster(clusters):
    got = standard_deviation(*_flat(clusters))
    np.testing.assert_allclose(got, [np.std(c, ddof=1) for c in clusters], rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=40)
@given(ragged)
def test_gapper_of_ragged_clusters_equals_its_definition(clusters):
    got = gapper(*_flat(clusters))
    np.testing.assert_allclose(got, [_gapper_by_definition(c) for c in clusters], rtol=1e-9, atol=1e-8)


@settings(deadline=None, max_examples=20)
@given(velocities, st.floats(-1e3, 1e3), st.floats(0.1, 10))
def test_dispersions_ignore_a_shift_and_scale_with_velocity(v, shift, factor):
    v = np.asarray(v)
    for kind in ("std", "gapper"):
        base = velocity_dispersion(v, [v.size], kind)
        moved = velocity_dispersion(factor * v + shift, [v.size], kind)
        np.testing.assert_allclose(moved, factor * base, rtol=1e-7, atol=1e-7)


def test_dispersions_are_unbiased_for_gaussian_velocities():
    v = 700 * np.random.default_rng(0).normal(size=20 * 5000)
    counts = np.full(5000, 20)
    assert gapper(v, counts).mean() == pytest.approx(700, rel=0.01)
    assert np.sqrt(np.mean(standard_deviation(v, counts) ** 2)) == pytest.approx(700, rel=0.01)


def test_dispersions_of_no_clusters_are_empty():
    assert standard_deviation([], []).shape == (0,)
    assert gapper([], []).shape == (0,)


@pytest.mark.parametrize(
    ("v", "counts", "message"),
    [
        ([1.0, 2.0], [3], "add up to 3, but there are 2 velocities"),
        ([1.0, 2.0, 3.0], [2, 1], "at least two galaxies; cluster 1 has 1"),
        ([1.0, np.nan], [2], "not finite, the first is galaxy 1"),
    ],
    ids=["lengths", "one galaxy", "nan"],
)
def test_dispersions_refuse_bad_input(v, counts, message):
    for function in (standard_deviation, gapper):
        with pytest.raises(ValueError, match=message):
            function(v, counts)


def test_unknown_dispersion_and_form_are_named():
    with pytest.raises(ValueError, match="'mad' is unknown; it is one of std, gapper"):
        velocity_dispersion([1.0, 2.0], [2], "mad")
    with pytest.raises(ValueError, match="'direct' is unknown; it is one of inverse, regression, evrard"):
        fit_msigma("direct", [1.0, 2.0], [2], 0.1, [14.0])


def _clusters(n=400, galaxies=3, noise=0.0, seed=1, redshift=0.117):
    """Clusters whose standard deviation is exactly a power law of E(z) M, times lognormal noise."""
    rng = np.random.default_rng(seed)
    mass = rng.uniform(13.5, 15.25, n)
    log10_sigma = 3.0 + 0.3 * (mass + np.log10(efunc(redshift)) - 15) + noise * rng.normal(size=n)
    shape = rng.normal(size=(n, galaxies))
    shape /= shape.std(axis=1, ddof=1, keepdims=True)
    return (10 ** log10_sigma[:, None] * shape).ravel(), np.full(n, galaxies), mass


def test_evrard_relation_gives_a_cluster_of_1e15_at_1103_9_km_s():
    pair = 1103.9 / np.sqrt(2)
    _, counts, mass = _clusters()
    relation = fit_msigma("evrard", _clusters()[0], counts, 0.117, mass)
    predicted = relation.predict([-pair, pair], [2], 0.117)
    assert predicted[0] == pytest.approx(15.0, abs=2e-4)
    assert relation.slope == pytest.approx(1 / 0.3361)


@pytest.mark.parametrize("form", ["inverse", "regression"])
def test_fitted_relations_recover_a_noiseless_power_law_at_any_redshift(form):
    redshift = np.random.default_rng(2).uniform(0.02, 0.4, 400)
    v, counts, mass = _clusters(redshift=redshift)
    relation = fit_msigma(form, v, counts, redshift, mass)
    assert relation.slope == pytest.approx(1 / 0.3)
    np.testing.assert_allclose(relation.predict(v, counts, redshift), mass, atol=1e-9)
    assert relation.scatter < 1e-9


def test_inverse_is_unbiased_at_fixed_mass_and_regression_shrinks():
    v, counts, mass = _clusters(n=4000, noise=0.1)
    inverse = fit_msigma("inverse", v, counts, 0.117, mass)
    regression = fit_msigma("regression", v, counts, 0.117, mass)
    by_inverse, by_regression = (r.predict(v, counts, 0.117) for r in (inverse, regression))
    assert np.polyfit(mass, by_inverse, 1)[0] == pytest.approx(1.0, abs=0.02)
    # Regression dilution: slope r^2 = var(b x) / (var(b x) + noise^2).
    signal = 0.3**2 * mass.var()
    assert np.polyfit(mass, by_regression, 1)[0] == pytest.approx(signal / (signal + 0.01), abs=0.03)
    assert inverse.scatter == pytest.approx(0.1 / 0.3, rel=0.05)
    assert regression.scatter < inverse.scatter


def test_a_cluster_without_dispersion_is_refused_and_too_few_clusters_too():
    v, counts, mass = _clusters()
    relation = fit_msigma("inverse", v, counts, 0.117, mass)
    with pytest.raises(ValueError, match="All velocities of cluster 1 are equal"):
        relation.predict([1.0, 2.0, 5.0, 5.0], [2, 2], 0.117)
    with pytest.raises(ValueError, match="at least three different clusters; found 2"):
        fit_msigma("inverse", v[:6], counts[:2], 0.117, mass[:2])


def test_relations_are_json():
    v, counts, mass = _clusters()
    json.dumps(asdict(fit_msigma("evrard", v, counts, 0.1, mass)), allow_nan=False)
    json.dumps(asdict(fit_richness(np.arange(10, 410), mass)), allow_nan=False)


def test_richness_recovers_a_smooth_relation_and_its_scatter():
    rng = np.random.default_rng(3)
    n = rng.integers(10, 800, 5000)
    x = np.log10(n / 100)
    mass = 14.2 + 1.1 * x - 0.15 * x**2 + 0.2 * rng.normal(size=n.size)
    relation = fit_richness(n, mass)
    assert relation.scatter == pytest.approx(0.2, rel=0.05)
    np.testing.assert_allclose(
        relation.predict([20, 100, 500]),
        14.2 + 1.1 * np.log10([0.2, 1, 5]) - 0.15 * np.log10([0.2, 1, 5]) ** 2,
        atol=0.02,
    )


def test_richness_continues_as_a_straight_line_beyond_its_training_range():
    n = np.arange(20, 500)
    relation = fit_richness(n, 14 + np.log10(n / 100) ** 3)
    x = np.log10(np.array([600, 1200, 2400]))
    steps = np.diff(relation.predict([600, 1200, 2400])) / np.diff(x)
    assert steps[0] == pytest.approx(steps[1])
    assert steps[0] == pytest.approx(3 * np.log10(4.99) ** 2, rel=1e-6)


def test_richness_refuses_empty_clusters_and_too_few_counts():
    with pytest.raises(ValueError, match="cluster 1 has 0 galaxies"):
        fit_richness([10, 0, 20], [14, 14, 14])
    with pytest.raises(ValueError, match="at least 5 different galaxy counts; found 2"):
        fit_richness([10, 20, 10], [14, 14.5, 14])

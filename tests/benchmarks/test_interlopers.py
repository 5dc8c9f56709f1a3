"""Interloper scores, areas under the curve and partial correlations, against brute force and known truths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from bayesflowmass.catalog import CatalogError
from bayesflowmass.cosmology import efunc
from bayesflowmass.mocks import simulate_catalog
from benchmarks.interpretation.interlopers import fit_interloper_score, phase_space_features, roc_areas
from benchmarks.interpretation.residuals import LATENT_TRUTHS, latent_truths, partial_correlations


def pairs_won(score, truth):
    difference = score[truth][:, None] - score[~truth][None]
    return (np.sign(difference) + 1.0).sum() / 2.0, difference.size


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), n=st.integers(3, 40), levels=st.integers(1, 50))
def test_areas_count_the_pairs_that_interlopers_win(seed, n, levels):
    rng = np.random.default_rng(seed)
    score, truth = rng.integers(0, levels, n).astype(float), rng.random(n) < 0.4
    truth[:2] = [True, False]
    rows = np.sort(rng.integers(0, 4, n))
    found = roc_areas({"score": score}, truth, rows, np.arange(4), n_resamples=2)["score"]
    won, size = pairs_won(score, truth)
    assert found["area"] == pytest.approx(won / size)
    parts = [pairs_won(score[rows == k], truth[rows == k]) for k in range(4)]
    total = sum(size for _, size in parts)
    if total:
        assert found["within"] == pytest.approx(sum(won for won, _ in parts) / total)
    else:
        assert np.isnan(found["within"])


def test_errors_of_areas_are_those_of_the_mann_whitney_statistic():
    # One galaxy to a halo: the known error without any difference between the two kinds.
    n, rng = 600, np.random.default_rng(2)
    truth = np.arange(n) % 3 == 0
    found = roc_areas({"noise": rng.normal(size=n)}, truth, np.arange(n), np.arange(n), n_resamples=400)
    expected = np.sqrt((n + 1) / (12 * truth.sum() * (~truth).sum()))
    # An error of 400 resamples is known to 3.5 %; the sample itself adds about as much.
    assert found["noise"]["area_se"] == pytest.approx(expected, rel=0.18)
    assert abs(found["noise"]["area"] - 0.5) < 4 * expected


def test_galaxies_of_one_halo_are_resampled_together():
    rng = np.random.default_rng(3)
    haloes = np.repeat(np.arange(60), 2)
    score = np.repeat(rng.normal(size=60), 20)
    rows, truth = np.repeat(np.arange(120), 10), np.tile(np.arange(10) < 4, 120)
    one, own = (
        roc_areas({"s": score + 0.3 * truth}, truth, rows, halo, n_resamples=200)["s"]["area_se"]
        for halo in (haloes, np.arange(120))
    )
    assert one > 1.15 * own


def test_differences_are_paired():
    rng = np.random.default_rng(4)
    n = 2000
    truth, rows = rng.random(n) < 0.3, np.arange(n) // 20
    score = rng.normal(size=n) + truth
    areas = roc_areas(
        {"a": score, "b": score + 0.05 * rng.normal(size=n)}, truth, rows, np.arange(100), reference="a"
    )
    assert areas["a"]["difference"] == 0.0 == areas["a"]["difference_se"]
    assert areas["b"]["difference_se"] < 0.2 * areas["b"]["area_se"]
    assert areas["b"]["difference"] == pytest.approx(areas["b"]["area"] - areas["a"]["area"])


def test_areas_refuse_one_kind_and_scores_without_numbers():
    rows, halo = np.zeros(4, dtype=int), np.arange(1)
    with pytest.raises(ValueError, match="members and interlopers"):
        roc_areas({"s": np.arange(4.0)}, np.ones(4), rows, halo)
    with pytest.raises(ValueError, match="score 's' must be one finite number"):
        roc_areas({"s": [0.0, 1.0, np.nan, 2.0]}, [True, False, True, False], rows, halo)


def logistic_sample(n, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, n))
    odds = 0.5 - 1.2 * a + 0.8 * a * b
    return {"a": a, "b": b}, rng.random(n) < 1.0 / (1.0 + np.exp(-odds)), odds


def test_a_score_maximises_its_penalised_likelihood():
    values, truth, _ = logistic_sample(300, 5)
    score = fit_interloper_score(values, truth, degree=2, ridge=2.0)
    z = [np.clip((values[k] - values[k].mean()) / values[k].std(), -4, 4) for k in ("a", "b")]
    design = np.stack([np.ones(300), z[0], z[1], z[0] ** 2, z[0] * z[1], z[1] ** 2], 1)

    def objective(c):
        logit = design @ c
        return np.logaddexp(0, logit).sum() - logit[truth].sum() + (c[1:] ** 2).sum()

    best = optimize.minimize(objective, np.zeros(6), method="BFGS", options={"gtol": 1e-8})
    np.testing.assert_allclose(score.coefficients, best.x, atol=1e-5)
    np.testing.assert_allclose(score.log_odds(values), design @ best.x, atol=1e-4)
    np.testing.assert_allclose(score.probability(values), 1 / (1 + np.exp(-score.log_odds(values))))


def test_a_score_finds_the_odds_that_made_the_sample():
    values, truth, _ = logistic_sample(20_000, 6)
    fresh, _, odds = logistic_sample(1000, 7)
    error = fit_interloper_score(values, truth).log_odds(fresh) - odds
    # Ten coefficients from 20 000 galaxies: log odds are known to about sqrt(10 / 20000 / 0.2) = 0.05.
    assert np.sqrt((error**2).mean()) < 0.12


def test_separable_kinds_have_finite_scores():
    a = np.linspace(-1, 1, 50)
    score = fit_interloper_score({"a": a}, a > 0)
    assert np.isfinite(score.coefficients).all()
    assert score.log_odds({"a": [1.0]})[0] > 0 > score.log_odds({"a": [-1.0]})[0]


def test_scores_refuse_what_they_cannot_use():
    values, truth, _ = logistic_sample(50, 8)
    score = fit_interloper_score(values, truth)
    with pytest.raises(ValueError, match="feature 'b' is missing; there are a"):
        score.log_odds({"a": [0.0]})
    with pytest.raises(ValueError, match="feature 'b' is not finite"):
        fit_interloper_score({"a": [0.0, 1.0], "b": [np.inf, 0.0]}, [True, False])
    with pytest.raises(ValueError, match="found one kind only"):
        fit_interloper_score(values, np.ones(50))
    with pytest.raises(ValueError, match="feature 'c' does not vary"):
        fit_interloper_score({"c": np.ones(50)}, truth)
    with pytest.raises(ValueError, match="at least one feature"):
        fit_interloper_score({}, truth)


def test_scaled_features_are_those_of_the_mock():
    catalog = simulate_catalog(40, redshift=(0.05, 0.3), seed=3)
    mass = catalog.column("log10_mass")
    features = phase_space_features(catalog, mass, np.ones(catalog.n_galaxies_total))
    rows = catalog.galaxy_rows
    np.testing.assert_allclose(
        features["v_scaled"] * catalog.column("v200c")[rows], features["speed"], rtol=2e-3
    )
    # R200c = V200c / (10 H), comoving.
    z = catalog.column("redshift")
    r200 = catalog.column("v200c") * (1 + z) / (1000 * efunc(z, catalog.metadata.cosmology))
    np.testing.assert_allclose(features["r_scaled"] * r200[rows], features["r_proj"], rtol=2e-3)
    np.testing.assert_allclose(features["attribution"], catalog.n_galaxies[rows])
    with pytest.raises(CatalogError, match=r"log10_mass has shape \(3,\); 40 clusters"):
        phase_space_features(catalog, mass[:3])
    with pytest.raises(CatalogError, match="leave_one_out has shape"):
        phase_space_features(catalog, mass, mass)


def test_partial_correlations_are_those_of_regressions():
    rng = np.random.default_rng(9)
    n = 400
    mass = rng.uniform(14, 15, n)
    a = mass + 0.3 * rng.normal(size=n)
    b = 0.5 * a + rng.normal(size=n)
    y = 0.2 * b - 0.1 * mass + 0.1 * rng.normal(size=n)
    found = partial_correlations(y, {"a": a, "b": b}, mass, halo_id=np.arange(n), n_resamples=2)
    rank = {k: stats.rankdata(v) for k, v in {"y": y, "a": a, "b": b, "m": mass}.items()}
    fixed = np.stack([np.ones(n), rank["m"], rank["m"] ** 2], 1)

    def left(values, design):
        return values - design @ np.linalg.lstsq(design, values, rcond=None)[0]

    alone = np.corrcoef(left(rank["y"], fixed), left(rank["a"], fixed))[0, 1]
    both = np.column_stack([fixed, rank["b"]])
    joint = np.corrcoef(left(rank["y"], both), left(rank["a"], both))[0, 1]
    assert found["a"]["alone"] == pytest.approx(alone, abs=1e-9)
    assert found["a"]["joint"] == pytest.approx(joint, abs=1e-9)
    linear = np.column_stack([np.ones(n), mass, mass**2, a, b])
    slope = np.linalg.lstsq(linear, y, rcond=None)[0][4] * b.std()
    assert found["b"]["slope"] == pytest.approx(slope, rel=1e-6)


def test_a_latent_that_only_follows_another_has_no_joint_correlation():
    n, rng = 3000, np.random.default_rng(10)
    mass, cause = rng.uniform(14, 15, n), rng.normal(size=n)
    follower = cause + rng.normal(size=n)
    y = 0.05 * cause + 0.1 * rng.normal(size=n)
    found = partial_correlations(
        y, {"cause": cause, "follower": follower}, mass, halo_id=np.arange(n), n_resamples=100
    )
    assert found["follower"]["alone"] > 8 * found["follower"]["alone_se"]
    # Four standard errors: one seed in 16 000 fails by chance.
    assert abs(found["follower"]["joint"]) < 4 * found["follower"]["joint_se"] + 0.03
    assert found["cause"]["joint"] > 8 * found["cause"]["joint_se"]
    assert found["cause"]["joint_se"] == pytest.approx(1 / np.sqrt(n), rel=0.3)
    assert found["all"]["explained"] == pytest.approx(0.2, abs=0.05)
    assert found["cause"]["slope"] == pytest.approx(0.05, abs=4 * found["cause"]["slope_se"])


def test_partial_correlations_refuse_what_does_not_vary():
    y = np.arange(5.0)
    with pytest.raises(ValueError, match="flat does not vary"):
        partial_correlations(y, {"flat": np.ones(5)}, y, halo_id=y)
    with pytest.raises(ValueError, match="a must have one finite number for each of the 5 clusters"):
        partial_correlations(y, {"a": np.ones(4)}, y, halo_id=y)


def test_mocks_have_all_latent_truths():
    catalog = simulate_catalog(200, masses="hmf", log10_mass_range=(14.0, 15.0), seed=2)
    latents = latent_truths(catalog)
    assert list(latents) == list(LATENT_TRUTHS)
    mass = catalog.column("log10_mass")
    for name in ("dispersion", "richness"):
        assert abs(np.corrcoef(latents[name], mass)[0, 1]) < 1e-6
    with pytest.raises(CatalogError, match="concentration"):
        latent_truths(catalog.without("concentration"))

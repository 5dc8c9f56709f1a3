"""Tests of the tests: bands that hold what they promise, faults that are caught, exact posteriors that pass."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from bayesflowmass.diagnostics import (
    PosteriorSummary,
    assess_calibration,
    interval_score,
    merged_edges,
    pit_histogram,
    uniformity,
)
from bayesflowmass.diagnostics.bins import quantile_edges
from bayesflowmass.diagnostics.dependence import (
    correlated_uniforms,
    effective_number,
    halo_correlation,
    pair_covariance,
)
from bayesflowmass.diagnostics.expectation import compare_by_true_mass
from bayesflowmass.diagnostics.highest_density import highest_density_level
from bayesflowmass.diagnostics.multiplicity import holm
from bayesflowmass.posterior import MassPosterior
from benchmarks.calibration.controls import FAULTS, gaussian_control


def rejected(share, trials, at_least=None, at_most=None):
    """Whether a share of trials lies where a binomial of the stated rate lies but for one time in a thousand."""
    if at_least is not None:
        return share * trials >= stats.binom.ppf(0.001, trials, at_least)
    return share * trials <= stats.binom.ppf(0.999, trials, at_most)


# Dependence between projections


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.9])
def test_halo_correlation_recovers_the_simulated_one(rho):
    halo = np.repeat(np.arange(3000), 3)
    u = correlated_uniforms(halo, rho, 1, np.random.default_rng(1))[0]
    assert halo_correlation(u, halo) == pytest.approx(rho, abs=0.06)
    assert halo_correlation(u, np.arange(u.size)) == 0.0


def test_pair_covariance_is_that_of_the_bivariate_normal():
    for p, rho in ((0.5, 0.7), (0.1, 0.4), (0.97, 0.9)):
        q = stats.norm.ppf(p)
        joint = stats.multivariate_normal.cdf([q, q], cov=[[1, rho], [rho, 1]])
        assert pair_covariance(np.array([p]), rho)[0] == pytest.approx(joint - p * p, abs=1e-6)


def test_effective_number_runs_from_clusters_to_haloes():
    halo = np.repeat(np.arange(100), 4)
    assert effective_number(halo, 0.0) == 400
    assert effective_number(halo, 1.0) == pytest.approx(100)
    assert 100 < effective_number(halo, 0.5) < 400


# Simultaneous bands


def test_the_band_of_independent_clusters_holds_the_whole_ecdf_at_its_probability():
    rng = np.random.default_rng(2)
    tests = [uniformity(rng.random(400), n_simulations=499, n_grid=25) for _ in range(200)]
    outside = [np.any((t.difference < t.lower - 1e-9) | (t.difference > t.upper + 1e-9)) for t in tests]
    assert outside == [not t.inside for t in tests]
    assert rejected(np.mean(outside), 200, at_most=0.05)
    assert rejected(np.mean(outside), 200, at_least=0.02)


@pytest.mark.parametrize("copula", ["gaussian", "one in two alike"])
def test_bands_allow_for_projections_of_one_halo_and_without_them_would_cry_wolf(copula):
    """The mixture is not the Gaussian copula of the simulation: its rate is stated as below 15 %. Bands for
    independent clusters reject at least 30 % of the exact samples.
    """
    rng = np.random.default_rng(3)
    halo = np.repeat(np.arange(150), 5)
    aware, naive = [], []
    for _ in range(40):
        if copula == "gaussian":
            u = correlated_uniforms(halo, 0.8, 1, rng)[0]
        else:
            same = np.repeat(rng.random(150)[:, None], 5, 1)
            u = np.where(rng.random((150, 1)) < 0.5, same, rng.random((150, 5))).ravel()
        aware.append(uniformity(u, halo, n_simulations=199, n_grid=25).p_value <= 0.05)
        naive.append(uniformity(u, n_simulations=199, n_grid=25).p_value <= 0.05)
    assert rejected(np.mean(aware), 40, at_most=0.05 if copula == "gaussian" else 0.15)
    assert rejected(np.mean(naive), 40, at_least=0.3)


def test_the_band_is_the_binomial_one_for_a_single_point():
    test = uniformity(np.random.default_rng(4).random(2), n_grid=2, n_simulations=9999)
    assert test.grid.tolist() == [0.5]
    # Two clusters: both on one side happens half the time, so that no band short of all of [0, 1] holds 95 %.
    assert test.lower[0] == pytest.approx(-0.5, abs=1e-6)
    assert test.upper[0] == pytest.approx(0.5, abs=1e-6)


def test_histogram_bands_widen_for_projections():
    rng = np.random.default_rng(5)
    halo = np.repeat(np.arange(400), 5)
    u = correlated_uniforms(halo, 0.95, 1, rng)[0]
    alone, together = pit_histogram(u), pit_histogram(u, halo_id=halo)
    assert together.band[1] - together.band[0] > 1.5 * (alone.band[1] - alone.band[0])


def test_bands_are_reproducible_and_refuse_what_is_no_probability():
    u = np.random.default_rng(6).random(50)
    assert np.array_equal(uniformity(u, seed=1).upper, uniformity(u, seed=1).upper)
    with pytest.raises(ValueError, match=r"first in row 1: 1\.5"):
        uniformity([0.5, 1.5])


# Numbers against closed forms


def test_highest_density_level_equals_the_closed_form_and_sees_two_peaks():
    x = np.linspace(-9, 9, 401)
    truth = np.array([0.3, -1.0, 2.5])
    one = stats.norm.pdf(x), stats.norm.cdf(x)
    got = highest_density_level(stats.norm.pdf(truth), *(np.tile(a, (3, 1)) for a in (x, one[1], one[0])))
    np.testing.assert_allclose(got, 2 * stats.norm.cdf(np.abs(truth)) - 1, atol=2e-3)

    def pdf(m):
        return 0.7 * stats.norm.pdf(m, -3, 0.8) + 0.3 * stats.norm.pdf(m, 3, 0.8)

    cdf = 0.7 * stats.norm.cdf(x, -3, 0.8) + 0.3 * stats.norm.cdf(x, 3, 0.8)
    level = pdf(3.4)
    expected = integrate.quad(lambda m: pdf(m) * (pdf(m) > level), -9, 9, limit=400, points=[-3, 3])[0]
    got = highest_density_level([level], x[None], cdf[None], pdf(x)[None])
    assert got[0] == pytest.approx(expected, abs=3e-3)


def test_summaries_of_a_posterior_equal_the_gaussian_closed_forms():
    rng = np.random.default_rng(7)
    mean, sigma = rng.uniform(13.8, 15, 60), 0.13
    true = mean + sigma * rng.normal(size=60)
    normal = torch.distributions.Normal(torch.from_numpy(mean), sigma)
    posterior = MassPosterior(normal, log10_mass_range=(12.0, 17.0), redshift=0.1)
    got = PosteriorSummary.from_posterior(posterior, true)
    expected = PosteriorSummary.gaussian(true, mean, sigma, 5.0 / np.sqrt(12.0))
    names = {"hpd": 3e-3, "population_quantiles": 1e-5, "crps": 1e-6, "sigma": 1e-5, "prior_sigma": 0.02}
    for name in vars(expected):
        limit = names.get(name, 1e-7)
        np.testing.assert_allclose(getattr(got, name), getattr(expected, name), atol=limit, err_msg=name)
    both = PosteriorSummary.concatenate([got, got])
    assert len(both) == 120


def test_interval_score_is_its_definition_and_least_for_the_true_quantiles():
    assert interval_score(0.0, 1.0, 2.0, 0.8) == pytest.approx(1.0 + 2.0 / 0.2 * 1.0)
    y = np.random.default_rng(8).normal(size=200_000)
    q = stats.norm.ppf(0.84)
    scores = [interval_score(y, -w * q, w * q, 0.68).mean() for w in (0.8, 1.0, 1.25)]
    assert scores[1] == min(scores)


def test_holm_equals_the_textbook_example_and_leaves_out_tests_that_were_not_made():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    got = holm([0.01, np.nan, 0.04])
    np.testing.assert_allclose(got[[0, 2]], [0.02, 0.04])
    assert np.isnan(got[1])


def test_bins_are_merged_until_each_holds_enough():
    mass = np.concatenate([np.full(5, 13.6), np.full(60, 13.9), np.full(80, 14.1), np.full(3, 15.1)])
    np.testing.assert_allclose(merged_edges(mass, 0.25, 50), [13.5, 14.0, 15.25])
    counts = np.histogram(mass, merged_edges(mass, 0.25, 50))[0]
    assert counts.min() >= 50
    edges = quantile_edges(np.arange(1000), 5, 50)
    np.testing.assert_allclose(np.diff(edges), 200, atol=1.5)
    assert quantile_edges(np.full(10, 0.1), 4, 50).tolist() == [0.1, 0.1]


# Verdicts


def assess(fault, seed, projections=1, n=600, **options):
    control = gaussian_control(fault, n, seed, n_projections=projections)
    settings = {"n_resamples": 2, "n_simulations": 399, "n_grid": 25, "n_sets": 19}
    settings |= {"population": "flat", "prior": "flat"}
    return assess_calibration(
        control.summary,
        halo_id=control.halo_id,
        groups={"richness": control.richness, "redshift": control.redshift},
        **(settings | options),
    )


@pytest.mark.parametrize("projections", [1, 3])
@pytest.mark.parametrize("fault", [f for f in FAULTS if f != "none"])
def test_every_negative_control_is_caught_with_a_power_of_ninety_per_cent(fault, projections):
    """600 clusters, familywise 5 %: at least 90 % of samples are rejected (docs/results/calibration.md).

    Three projections of each halo leave about 250 independent clusters; with them the narrow control is
    tried on 1500 clusters.
    """
    n = 1500 if (fault, projections) == ("narrow", 3) else 600
    trials = 4
    caught = [assess(fault, seed, projections, n)["verdict"].startswith("Mis") for seed in range(trials)]
    assert rejected(np.mean(caught), trials, at_least=0.9)


@pytest.mark.parametrize("projections", [1, 3])
def test_an_exact_posterior_is_accused_in_at_most_one_sample_of_twenty(projections):
    trials = 15
    results = [assess("none", 100 + seed, projections, 400) for seed in range(trials)]
    accused = [r["verdict"].startswith("Mis") for r in results]
    assert rejected(np.mean(accused), trials, at_most=0.05)
    assert all(r["n_tests"] > 10 for r in results)


def test_a_posterior_that_ignores_the_data_is_uniform_overall_and_caught_by_richness():
    result = assess("ignores the data", 0)
    assert result["overall"]["inside"]
    assert result["overall"]["contraction"] == pytest.approx(0.0, abs=1e-12)
    assert not any(test["inside"] for test in result["by"]["richness"]["tests"][::4])
    assert "predicted_mass" not in result["by"]


def test_the_verdict_names_what_is_wrong_and_where():
    bias, narrow = assess("bias", 1, n=2000), assess("narrow", 1, n=2000)
    assert "all clusters (masses too high by 0." in bias["verdict"]
    assert " sigma" in bias["verdict"]
    assert "posteriors too narrow (scores spread by 1.2" in narrow["verdict"]
    assert bias["overall"]["mean_residual"] == pytest.approx(-0.05, abs=0.01)
    assert narrow["overall"]["z_square"] == pytest.approx(1 / 0.64, rel=0.12)
    assert assess("none", 1)["overall"]["fault"] is None


def test_numbers_of_an_exact_posterior_are_nominal_and_json_able():
    result = assess("none", 2, n=2000, n_resamples=50)
    overall = result["overall"]
    for name, nominal in (
        ("coverage_68", 0.68),
        ("coverage_hpd_95", 0.95),
        ("z_mean", 0.0),
        ("z_square", 1.0),
    ):
        assert abs(overall[name] - nominal) < 4 * overall[f"{name}_se"], name
    assert abs(overall["slope_of_truth"] - 1.0) < 4 * overall["slope_of_truth_se"]
    assert overall["slope"] < 0.97
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert assess("none", 2, n=2000, n_resamples=50) == result


def test_what_the_model_is_not_told_is_shown_but_not_judged():
    result = assess("ignores the data", 3, unused=("richness",))
    assert result["verdict"].startswith("Consistent")
    assert "not told the richness" in result["verdict"]
    assert not result["by"]["richness"]["told"]
    assert all("inside" not in test for test in result["by"]["richness"]["tests"])


def test_a_mixed_pair_of_population_and_prior_has_no_nominal_verdict():
    result = assess("none", 4, population="hmf")
    assert result["verdict"].startswith("No nominal verdict.")
    assert result["overall"]["inside"] is None


# Bins of true mass


def test_at_fixed_truth_an_exact_posterior_is_biased_as_the_model_expects():
    control = gaussian_control("none", 4000, 5)
    edges = np.array([12.0, 13.75, 14.0, 14.25, 14.5, 14.75, 17.0])
    result = compare_by_true_mass(control.summary, control.halo_id, edges, n_sets=199)
    assert result["mean_residual"][0] < -0.02
    assert result["mean_residual"][-1] > 0.02
    np.testing.assert_allclose(result["mean_residual"], result["expected_mean_residual"], atol=0.012)
    for name in ("mean_residual", "scatter", "coverage_68", "coverage_95"):
        low, high = (np.array(result[f"band_{end}_{name}"]) for end in ("low", "high"))
        assert np.all(low < high)


def test_the_expectation_by_true_mass_accuses_an_exact_posterior_at_the_stated_rate_and_catches_a_bias():
    """Holm over four statistics at 5 %; a bias of 0.05 dex is caught in at least 90 % of samples."""
    edges = np.array([12.0, 13.75, 14.0, 14.25, 14.5, 14.75, 17.0])
    names = ("mean_residual", "scatter", "coverage_68", "coverage_95")

    def smallest(fault, seed, projections):
        control = gaussian_control(fault, 900, seed, n_projections=projections)
        result = compare_by_true_mass(control.summary, control.halo_id, edges, n_sets=99, seed=seed)
        return min(result[f"p_holm_{name}"] for name in names)

    for projections in (1, 3):
        exact = [smallest("none", seed, projections) <= 0.05 for seed in range(40)]
        assert rejected(np.mean(exact), 40, at_most=0.05)
        biased = [smallest("bias", seed, projections) <= 0.05 for seed in range(10)]
        assert rejected(np.mean(biased), 10, at_least=0.9)

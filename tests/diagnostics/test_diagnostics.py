"""Diagnostics against closed forms, planted parameters, and posteriors known to be right or wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from bayesflowmass.diagnostics import (
    bootstrap_errors,
    coverage,
    crps_from_density,
    crps_gaussian,
    fit_equation8,
    log_density_gaussian,
    pit_histogram,
    residual,
    summarise,
    uniformity,
)
from bayesflowmass.diagnostics.bins import binned_statistics, mass_edges
from bayesflowmass.diagnostics.bootstrap import bootstrap_counts
from bayesflowmass.diagnostics.calibration import nominal_pair
from bayesflowmass.diagnostics.equation8 import shot_noise_msigma
from bayesflowmass.diagnostics.residuals import residual_statistics


def _plain(true, predicted):
    return {k: v[0] for k, v in residual_statistics(true, predicted)(np.ones((1, true.size))).items()}


def test_residual_is_positive_where_the_mass_is_underestimated():
    np.testing.assert_allclose(residual([14.5], [14.2]), [0.3])


def test_residual_names_the_first_row_that_is_not_finite():
    with pytest.raises(
        ValueError, match=r"1 predicted log10 masses are not finite, the first in row 1 \(nan\)"
    ):
        residual([14.0, 14.1], [14.0, np.nan])
    with pytest.raises(ValueError, match="one shape"):
        residual([14.0, 14.1], [14.0])


def test_residual_statistics_equal_numpy_ones():
    rng = np.random.default_rng(1)
    true = rng.uniform(13.5, 15.3, 500)
    predicted = 14 + 0.8 * (true - 14) + 0.1 * rng.normal(size=500)
    got = _plain(true, predicted)
    epsilon = true - predicted
    inside = (true >= 14) & (true <= 15)
    massive = (true >= 14.8) & (true < 15.2)
    assert got["mean_residual"] == pytest.approx(epsilon.mean(), abs=1e-12)
    assert got["scatter"] == pytest.approx(epsilon.std(ddof=1), rel=1e-12)
    assert got["slope"] == pytest.approx(stats.linregress(true, predicted).slope, rel=1e-10)
    assert got["scatter_over_slope"] == pytest.approx(got["scatter"] / got["slope"])
    assert got["scatter_14_15"] == pytest.approx(epsilon[inside].std(ddof=1), rel=1e-12)
    assert got["slope_14_15"] == pytest.approx(
        stats.linregress(true[inside], predicted[inside]).slope, rel=1e-9
    )
    assert got["mean_abs_residual_14p8_15p2"] == pytest.approx(np.abs(epsilon[massive]).mean(), rel=1e-12)


@settings(deadline=None, max_examples=20)
@given(shift=st.floats(-0.5, 0.5), slope=st.floats(0.3, 1.5), seed=st.integers(0, 1000))
def test_scatter_over_slope_undoes_shrinkage_and_a_shift_changes_only_the_mean(shift, slope, seed):
    rng = np.random.default_rng(seed)
    true = rng.uniform(13.5, 15.3, 200)
    predicted = true + 0.1 * rng.normal(size=200)
    base = _plain(true, predicted)
    moved = _plain(true, predicted + shift)
    assert moved["scatter"] == pytest.approx(base["scatter"], rel=1e-8)
    assert moved["mean_residual"] == pytest.approx(base["mean_residual"] - shift, abs=1e-9)
    shrunk = _plain(true, 14 + slope * (predicted - 14))
    assert shrunk["slope"] == pytest.approx(slope * base["slope"], rel=1e-8)


def test_integer_weights_equal_repeated_rows():
    rng = np.random.default_rng(2)
    true = rng.uniform(13.8, 15.2, 60)
    predicted = true + 0.1 * rng.normal(size=60)
    counts = rng.integers(0, 4, 60)
    weighted = residual_statistics(true, predicted)(counts[None].astype(float))
    repeated = _plain(np.repeat(true, counts), np.repeat(predicted, counts))
    for name, value in weighted.items():
        assert value[0] == pytest.approx(repeated[name], rel=1e-9, abs=1e-12), name


def test_statistics_of_an_empty_mass_range_are_nan_not_zero():
    got = _plain(np.array([13.6, 13.7, 13.8]), np.array([13.5, 13.9, 13.8]))
    assert np.isnan(got["scatter_14_15"])
    assert np.isnan(got["mean_abs_residual_14p8_15p2"])


# Bootstrap


def test_bootstrap_keeps_projections_of_one_halo_together_and_draws_every_halo_count():
    halo = np.array(["b", "a", "b", "c", "a"])
    weights = np.concatenate(list(bootstrap_counts(halo, 50, seed=3)))
    assert weights.shape == (50, 5)
    np.testing.assert_array_equal(weights[:, 0], weights[:, 2])
    np.testing.assert_array_equal(weights[:, 1], weights[:, 4])
    np.testing.assert_array_equal(weights[:, [0, 1, 3]].sum(axis=1), 3)


def test_bootstrap_error_of_a_mean_is_the_textbook_one_and_grows_with_correlated_projections():
    rng = np.random.default_rng(4)
    values = rng.normal(size=1000)

    def mean(weights):
        return {"mean": weights @ values / weights.sum(axis=1)}

    alone = bootstrap_errors(mean, np.arange(1000), 400, seed=0)["mean"]
    assert alone == pytest.approx(values.std() / np.sqrt(1000), rel=0.12)
    values = np.repeat(values[:250], 4)
    together = bootstrap_errors(mean, np.repeat(np.arange(250), 4), 400, seed=0)["mean"]
    assert together == pytest.approx(values.std() / np.sqrt(250), rel=0.12)


def test_bootstrap_is_reproducible_and_undefined_for_a_single_halo():
    values = np.array([1.0, 2.0, 4.0])

    def mean(weights):
        return {"mean": weights @ values / weights.sum(axis=1)}

    one, two = (bootstrap_errors(mean, np.arange(3), 20, seed=5)["mean"] for _ in range(2))
    assert one == two
    assert np.isnan(bootstrap_errors(mean, np.zeros(3), 20, seed=5)["mean"])
    with pytest.raises(ValueError, match="at least 2 resamples"):
        bootstrap_errors(mean, np.arange(3), 1)


# Equation 8


def _equation8_sample(sigma_n, sigma_0, n, seed):
    rng = np.random.default_rng(seed)
    true = rng.uniform(13.5, 15.2, n)
    members = rng.poisson(60 * 10 ** (true - 14)) + 1
    sigma = np.sqrt(sigma_n**2 * 100 / members + sigma_0**2)
    return true, 14.1 + 0.85 * (true - 14) + sigma * rng.normal(size=n), members


def test_equation8_recovers_planted_parameters_within_its_bootstrap_errors():
    true, predicted, members = _equation8_sample(0.07, 0.05, 6000, seed=6)
    fit = fit_equation8(true, predicted, members)
    errors = summarise(true, predicted, halo_id=np.arange(true.size), n_members=members, n_resamples=60)
    assert abs(fit.sigma_N - 0.07) < 4 * errors["sigma_N_se"] < 0.01
    assert abs(fit.sigma_0 - 0.05) < 4 * errors["sigma_0_se"] < 0.02
    assert fit.slope == pytest.approx(0.85, abs=0.01)
    assert fit.intercept + fit.slope * (14 - fit.pivot) == pytest.approx(14.1, abs=0.01)
    assert fit.n_range == (members.min(), members.max())
    assert fit.log10_mass_range == (true.min(), true.max())


def test_equation8_maximises_the_gaussian_likelihood():
    true, predicted, members = _equation8_sample(0.1, 0.04, 400, seed=7)
    fit = fit_equation8(true, predicted, members)

    def nll(sigma_n, sigma_0, slope, intercept):
        v = sigma_n**2 * 100 / members + sigma_0**2
        r = predicted - intercept - slope * (true - fit.pivot)
        return 0.5 * np.sum(r**2 / v + np.log(v))

    best = (fit.sigma_N, fit.sigma_0, fit.slope, fit.intercept)
    for i in range(4):
        for step in (-1e-3, 1e-3):
            moved = list(best)
            moved[i] += step
            assert nll(*moved) > nll(*best)


@pytest.mark.parametrize(
    ("sigma_n", "sigma_0"), [(0.1, 0.0), (0.0, 0.1)], ids=["shot noise only", "floor only"]
)
def test_equation8_stays_non_negative_at_its_borders(sigma_n, sigma_0):
    fit = fit_equation8(*_equation8_sample(sigma_n, sigma_0, 3000, seed=8))
    assert fit.sigma_N == pytest.approx(sigma_n, abs=0.02)
    assert fit.sigma_0 == pytest.approx(sigma_0, abs=0.03)


def test_equation8_counts_clusters_without_members_and_refuses_too_few():
    true, predicted, members = _equation8_sample(0.1, 0.05, 50, seed=9)
    members[:3] = 0
    fit = fit_equation8(true, predicted, members)
    assert (fit.n_clusters, fit.n_without_members) == (47, 3)
    with pytest.raises(ValueError, match="at least ten clusters with members"):
        fit_equation8(true[:5], predicted[:5], members[:5])


def test_shot_noise_floor_is_nine_hundredths_of_a_dex_at_a_hundred_members():
    assert shot_noise_msigma(100) == pytest.approx(0.0921, abs=1e-4)


# Scores


@settings(deadline=None, max_examples=15)
@given(mean=st.floats(13.5, 15.0), sigma=st.floats(0.03, 0.3), offset=st.floats(-4, 4))
def test_crps_of_a_gaussian_is_its_defining_integral(mean, sigma, offset):
    truth = mean + offset * sigma
    low, high = mean - 12 * sigma, mean + 12 * sigma
    below = integrate.quad(lambda x: stats.norm.cdf(x, mean, sigma) ** 2, low, truth)[0]
    above = integrate.quad(lambda x: stats.norm.sf(x, mean, sigma) ** 2, truth, high)[0]
    assert crps_gaussian(truth, mean, sigma) == pytest.approx(below + above, abs=1e-8)


@settings(deadline=None, max_examples=15)
@given(mean=st.floats(13.5, 15.0), sigma=st.floats(0.03, 0.2), offset=st.floats(-4, 4))
def test_crps_on_a_grid_equals_the_closed_form(mean, sigma, offset):
    grid = np.linspace(12.0, 16.5, 601)
    truth = np.array([mean + offset * sigma])
    got = crps_from_density(
        truth, grid, stats.norm.cdf(grid, mean, sigma)[None], stats.norm.pdf(grid, mean, sigma)[None]
    )
    assert got[0] == pytest.approx(crps_gaussian(truth[0], mean, sigma), abs=1e-6)


def test_crps_accepts_one_grid_per_cluster():
    mean, sigma = np.array([14.0, 14.6]), np.array([0.05, 0.2])
    grid = mean[:, None] + sigma[:, None] * np.linspace(-7, 7, 201)
    cdf = stats.norm.cdf(grid, mean[:, None], sigma[:, None])
    pdf = stats.norm.pdf(grid, mean[:, None], sigma[:, None])
    truth = np.array([14.03, 14.1])
    got = crps_from_density(truth, grid, cdf, pdf)
    np.testing.assert_allclose(got, crps_gaussian(truth, mean, sigma), atol=1e-7)


def test_crps_counts_the_distance_to_a_truth_outside_the_grid():
    grid = np.linspace(13, 14, 501)
    cdf, pdf = stats.norm.cdf(grid, 13.5, 0.05), stats.norm.pdf(grid, 13.5, 0.05)
    got = crps_from_density([12.5, 14.5], grid, np.stack([cdf] * 2), np.stack([pdf] * 2))
    np.testing.assert_allclose(got, crps_gaussian([12.5, 14.5], 13.5, 0.05), atol=1e-6)


def test_crps_refuses_a_grid_that_cuts_the_density_and_shapes_that_differ():
    grid = np.linspace(13.5, 14, 50)
    cdf, pdf = stats.norm.cdf(grid, 13.5, 0.1)[None], stats.norm.pdf(grid, 13.5, 0.1)[None]
    with pytest.raises(ValueError, match=r"holds only 0\.5000 of the density of cluster 0; widen it"):
        crps_from_density([13.6], grid, cdf, pdf)
    with pytest.raises(ValueError, match=r"\(clusters, grid\)"):
        crps_from_density([13.6, 13.7], grid, cdf, pdf)
    with pytest.raises(ValueError, match="increase"):
        crps_from_density([13.6], grid[::-1], cdf, pdf)


def test_log_density_of_a_gaussian_equals_scipy():
    assert log_density_gaussian(14.2, 14.0, 0.1) == pytest.approx(stats.norm.logpdf(14.2, 14.0, 0.1))


# Calibration


def _pit(n, width, seed):
    """PIT of Gaussian posteriors whose width is ``width`` times the true one."""
    rng = np.random.default_rng(seed)
    sigma = rng.uniform(0.05, 0.2, n)
    return stats.norm.cdf(rng.normal(size=n) * sigma / (width * sigma))


@pytest.mark.parametrize("level", [0.68, 0.95])
def test_coverage_of_an_exact_posterior_is_nominal_within_binomial_error(level):
    n = 20_000
    assert coverage(_pit(n, 1.0, seed=10), level) == pytest.approx(
        level, abs=4 * np.sqrt(level * (1 - level) / n)
    )


def test_a_posterior_twenty_per_cent_too_narrow_is_caught_with_stated_power():
    """500 clusters: the two-sided test of coverage_68 at 5 % rejects in more than 98 % of trials.

    Expected coverage is 2 Phi(0.8 z_0.84) - 1 = 0.574, five standard errors (0.0209) below 0.68; a calibrated
    sample is rejected in about 5 % of trials.
    """
    n, trials = 500, 200
    limit = 1.96 * np.sqrt(0.68 * 0.32 / n)
    narrow = [_pit(n, 0.8, seed) for seed in range(trials)]
    exact = [_pit(n, 1.0, seed) for seed in range(trials)]
    by_coverage = np.mean([abs(coverage(u, 0.68) - 0.68) > limit for u in narrow])
    false_alarms = np.mean([abs(coverage(u, 0.68) - 0.68) > limit for u in exact])
    assert by_coverage > 0.98
    assert false_alarms < 0.10
    expected = 2 * stats.norm.cdf(0.8 * stats.norm.ppf(0.84)) - 1
    assert np.mean([coverage(u, 0.68) for u in narrow]) == pytest.approx(expected, abs=0.005)
    false_alarms_ecdf = np.mean([uniformity(u, n_simulations=199).p_value < 0.05 for u in exact])
    assert false_alarms_ecdf < 0.10


def test_a_biased_posterior_leaves_the_simultaneous_band_of_the_pit_ecdf():
    rng = np.random.default_rng(11)
    ecdf = uniformity(stats.norm.cdf(rng.normal(size=1000) + 0.3))
    assert np.any(ecdf.difference < ecdf.lower)
    assert ecdf.p_value == 0.001


def test_pit_histogram_band_holds_all_bins_of_calibrated_samples_at_its_probability():
    inside = 0
    for seed in range(200):
        h = pit_histogram(np.random.default_rng(seed).random(2000), bins=20)
        inside += bool(np.all((h.density >= h.band[0]) & (h.density <= h.band[1])))
    assert inside >= 180
    assert h.density.mean() == pytest.approx(1.0)


def test_pit_values_outside_the_unit_interval_are_refused():
    with pytest.raises(ValueError, match=r"first in row 1: 1\.2"):
        coverage([0.3, 1.2], 0.68)
    with pytest.raises(ValueError, match="No PIT"):
        pit_histogram([])


@pytest.mark.parametrize(
    ("population", "prior", "nominal"),
    [
        ("flat", "flat", True),
        ("hmf", "hmf", True),
        ("hmf", "flat", False),
        ("flat", "hmf", False),
        (None, "flat", False),
    ],
)
def test_only_matching_population_and_prior_can_be_nominal(population, prior, nominal):
    possible, sentence = nominal_pair(population, prior)
    assert possible is nominal
    assert ("should be nominal" in sentence) is nominal


# Bins and summary


def test_bins_hold_every_cluster_once_and_equal_numpy_per_bin():
    rng = np.random.default_rng(13)
    true = rng.uniform(13.5, 15.0, 800)
    predicted = true + 0.1 * rng.normal(size=800)
    edges = mass_edges(true, 0.25)
    assert edges[0] <= true.min()
    assert edges[-1] >= true.max()
    got = binned_statistics(
        true,
        predicted,
        by=true,
        edges=edges,
        halo_id=np.arange(800),
        averages={"one": np.ones(800)},
        n_resamples=50,
    )
    assert sum(got["n"]) == 800
    second = (true >= edges[1]) & (true < edges[2])
    epsilon = (true - predicted)[second]
    assert got["mean_residual"][1] == pytest.approx(epsilon.mean())
    assert got["scatter"][1] == pytest.approx(epsilon.std(ddof=1))
    assert got["residual_q84"][1] == pytest.approx(np.quantile(epsilon, 0.84))
    assert got["mean_residual_se"][1] == pytest.approx(epsilon.std() / np.sqrt(second.sum()), rel=0.4)
    assert got["one"][1] == 1.0
    with pytest.raises(ValueError, match="outside the bins"):
        binned_statistics(true, predicted, by=true, edges=[14.0, 14.5], halo_id=np.arange(800))


def test_summary_is_json_with_an_error_beside_every_number_and_the_slope_beside_the_scatter():
    true, predicted, members = _equation8_sample(0.07, 0.05, 300, seed=14)
    rng = np.random.default_rng(15)
    result = summarise(
        true,
        predicted,
        halo_id=np.arange(300) // 2,
        n_members=members,
        pit=rng.random(300),
        log_density=rng.normal(size=300),
        crps=rng.random(300),
        sigma=np.full(300, 0.1),
        n_resamples=20,
    )
    text = json.loads(json.dumps(result, allow_nan=False))
    names = [
        "mean_residual",
        "scatter",
        "slope",
        "scatter_over_slope",
        "scatter_14_15",
        "mean_abs_residual_14p8_15p2",
        "nll",
        "crps",
        "coverage_68",
        "coverage_95",
        "sigma_N",
        "sigma_0",
    ]
    for name in names:
        assert np.isfinite(text[name]), name
        assert text[f"{name}_se"] > 0, name
    assert text["n_haloes"] == 150
    assert text["equation_8"]["n_clusters"] == 300
    assert {"scatter", "scatter_se", "coverage_68", "nll"} <= set(text["bins_predicted"])


def test_summary_refuses_a_density_that_excludes_its_truth_and_an_empty_sample():
    with pytest.raises(ValueError, match="gives its true mass no probability"):
        summarise([14.0, 14.1], [14.0, 14.1], halo_id=[0, 1], log_density=[0.0, -np.inf])
    with pytest.raises(ValueError, match="no clusters to evaluate"):
        summarise([], [], halo_id=[])
    with pytest.raises(ValueError, match="one value for each of the 2 clusters"):
        summarise([14.0, 14.1], [14.0, 14.1], halo_id=[0, 1], pit=[0.5])

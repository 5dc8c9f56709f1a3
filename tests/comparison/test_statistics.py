"""Numbers of a comparison whose answers are known, and the errors of these numbers."""

from __future__ import annotations

import numpy as np
import pytest
from comparisons import BINS, SIGMA, comparison_of, gaussian_run
from scipy import stats

from bayesflowmass.comparison.statistics import Comparison, Method, mass_bins
from bayesflowmass.diagnostics.paired import Estimate, crossed_estimate, mean_influence, scatter_influence


class TestErrors:
    @pytest.mark.parametrize("influence", [mean_influence, scatter_influence])
    def test_influences_are_those_of_leaving_a_cluster_out(self, influence):
        x, inside = np.random.default_rng(1).gumbel(size=300), np.arange(300) % 3 > 0
        found = influence(x, inside)
        n = inside.sum()
        for i in (1, 2, 298):
            without = inside & (np.arange(300) != i)
            # theta - theta_(-i) = psi_i n / (n - 1) to first order in 1 / n.
            assert found.value - influence(x, without).value == pytest.approx(found.psi[i], abs=3 / n**1.5)
        assert found.psi.sum() == pytest.approx(0.0, abs=1e-12)
        assert (found.psi[~inside] == 0).all()

    @pytest.mark.parametrize(
        ("n_seeds", "seed_scatter", "halo_scatter"),
        [(1, 0.0, 1.0), (2, 0.3, 1.0), (5, 0.0, 0.0), (5, 0.05, 1.0), (5, 0.3, 1.0)],
    )
    def test_errors_are_the_scatter_of_repeated_experiments_and_tests_keep_their_level(
        self, n_seeds, seed_scatter, halo_scatter
    ):
        # 400 experiments: the scatter is known to 3.5 %; three times that, and 2 % for the size of the sample.
        # Rejections of a true hypothesis at 5 %: at most 8.8 % in 400 (probability below 1e-3 if the level is kept).
        rng = np.random.default_rng([n_seeds, int(100 * seed_scatter)])
        halo = np.repeat(np.arange(80), 3)
        everywhere = np.ones(halo.size, dtype=bool)
        values, errors, p, naive = [], [], [], []
        for _ in range(400):
            shared = halo_scatter * rng.normal(size=80)
            samples = [
                seed_scatter * rng.normal()
                + (shared + rng.normal(size=80))[halo]
                + rng.normal(size=halo.size)
                for _ in range(n_seeds)
            ]
            influences = [mean_influence(x, everywhere) for x in samples]
            estimate = crossed_estimate(influences, halo, everywhere)
            values.append(estimate.value)
            errors.append(estimate.error)
            p.append(estimate.p_value())
            naive.append(crossed_estimate(influences, np.arange(halo.size), everywhere).error)
        ratio = np.std(values) / np.sqrt(np.mean(np.square(errors)))
        assert ratio == pytest.approx(1.0, abs=0.125)
        assert np.mean(np.array(p) < 0.05) <= 0.0875
        if halo_scatter and seed_scatter < 0.1:
            # Negative control: clusters taken as independent.
            assert np.std(values) / np.sqrt(np.mean(np.square(naive))) > 1.12

    def test_p_values_of_haloes_and_few_seeds_are_those_of_simulated_sums(self):
        rng = np.random.default_rng(2)
        draws = 0.7 * rng.standard_t(40, 2_000_000) + 0.5 * rng.standard_t(2, 2_000_000)
        estimate = Estimate(1.7, np.hypot(0.7, 0.5), 0.7, 0.5, 0.7, 41, 3)
        assert estimate.p_value() == pytest.approx(np.mean(np.abs(draws) > 1.7), abs=1e-3)
        assert estimate.p_above(-0.4) == pytest.approx(np.mean(draws > 2.1), abs=1e-3)
        assert estimate.p_above(3.0) == pytest.approx(np.mean(draws > -1.3), abs=1e-3)

    def test_p_values_end_at_those_of_student(self):
        haloes = Estimate(0.2, 0.1, 0.1, None, 0.1, 50, 1)
        assert haloes.p_value() == pytest.approx(2 * stats.t.sf(2, 49), rel=1e-9)
        seeds = Estimate(0.2, 0.1, 0.05, 0.1, 0.0, 50, 4)
        assert seeds.p_value() == pytest.approx(2 * stats.t.sf(2, 3), rel=1e-9)
        assert Estimate(0.0, 0.0, 0.0, None, 0.0, 50, 1).p_value() == 1.0
        assert np.isnan(Estimate(0.0, np.nan, np.nan, None, np.nan, 1, 1).p_value())


class TestKnownAnswer:
    def test_scores_coverage_and_width_of_two_gaussian_models(self):
        # In closed form, w the factor of the width: E log p = -ln(w sigma sqrt(2 pi)) - 1 / (2 w^2).
        width = 0.75
        comparison = comparison_of(width, n=20_000)
        expected = {
            "log_score": np.log(width) + 0.5 / width**2 - 0.5,
            "coverage_68": 0.68 - (2 * stats.norm.cdf(width * stats.norm.ppf(0.84)) - 1),
            "coverage_95": 0.95 - (2 * stats.norm.cdf(width * stats.norm.ppf(0.975)) - 1),
            "width_68": 2 * stats.norm.ppf(0.84) * SIGMA * (1 - width),
            "scatter": 0.0,
            "mean_residual": 0.0,
        }
        for bin_ in BINS:
            for name, value in expected.items():
                found = comparison.difference("bayes", name, bin_, "predicted")
                assert abs(found.value - value) <= 4 * found.error + 1e-12, (name, bin_)
            distance = comparison.distance_from_nominal("bayes", "coverage_68", bin_, "predicted")
            assert abs(distance.value + expected["coverage_68"]) < 4 * distance.error
            alone = comparison.alone("bayes", "epistemic_share", bin_, "predicted")
            assert alone.value == pytest.approx((0.03 / SIGMA) ** 2)

    def test_pairing_removes_what_the_models_share(self):
        comparison = comparison_of(0.9)
        bin_ = BINS[-1]
        paired = comparison.difference("bayes", "log_score", bin_, "true").error
        alone = comparison.alone("bayes", "log_score", bin_, "true").error
        assert paired < 0.3 * alone

    def test_bins_of_prediction_hold_what_each_model_puts_there_and_scores_what_both_do(self):
        truth = np.full(400, 14.2)
        low, high = gaussian_run(truth, truth - 0.05, SIGMA), gaussian_run(truth, truth + 0.4, SIGMA)
        comparison = Comparison([Method("a", (low,)), Method("b", (high,))], np.arange(400), "a")
        below, above = mass_bins((14.0, 14.5, 15.0))[:2]
        assert comparison.count(below, "a") == 400
        assert comparison.count(below, "b") == 0
        assert comparison.count(above, "b") == 400
        # The mean of the two medians is 14.375: all of them below.
        assert comparison.difference("b", "crps", below, "predicted").n_haloes == 400
        assert np.isnan(comparison.difference("b", "crps", above, "predicted").value)
        assert np.isnan(comparison.difference("b", "coverage_68", below, "predicted").value)

    def test_seeds_are_paired_by_their_number(self):
        truth = np.linspace(14.0, 15.0, 300)
        shifts = {"3": 0.01, "5": 0.02, "8": 0.03}
        runs = [gaussian_run(truth, truth + shift, SIGMA, seed) for seed, shift in shifts.items()]
        shuffled = tuple(reversed(runs))
        comparison = Comparison([Method("a", tuple(runs)), Method("b", shuffled[:2])], np.arange(300), "a")
        found = comparison.difference("b", "mean_residual", BINS[-1], "true")
        assert (found.value, found.error, found.n_seeds) == (0.0, 0.0, 2)
        foreign = gaussian_run(truth, truth, SIGMA, "9"), gaussian_run(truth, truth, SIGMA, "10")
        comparison = Comparison([Method("a", tuple(runs)), Method("b", foreign)], np.arange(300), "a")
        with pytest.raises(ValueError, match=r"'b' \(9, 10\) and of 'a' \(3, 5, 8\) have no seed in common"):
            comparison.difference("b", "crps", BINS[-1], "true")

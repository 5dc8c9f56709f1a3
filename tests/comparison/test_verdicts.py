"""What is said of models whose differences are known: words, their numbers, and how rare false claims are."""

from __future__ import annotations

import numpy as np
import pytest
from comparisons import BINS, SIGMA, comparison_of, gaussian_run
from scipy import stats

from bayesflowmass.comparison.statistics import Comparison, Method, mass_bins
from bayesflowmass.comparison.verdicts import section_verdicts, summary_sentence


class TestVerdicts:
    def test_a_narrow_point_model_is_found_out_in_words_with_numbers(self):
        comparison = comparison_of(0.75, n=8000)
        verdicts = section_verdicts(comparison, BINS, nominal=True)
        first = next(v for v in verdicts if v.quantity == "coverage_68")
        assert first.answer == "better"
        expected = 100 * (0.68 - (2 * stats.norm.cdf(0.75 * stats.norm.ppf(0.84)) - 1))
        assert 100 * first.gain == pytest.approx(expected, abs=4 * 100 * first.error)
        assert (
            f"closer to nominal by {100 * first.gain:.1f} ± {100 * first.error:.1f} points" in first.sentence
        )
        assert "corrected" in first.sentence
        score = next(v for v in verdicts if v.quantity == "log_score")
        assert score.sentence.startswith(f"log score better by {score.gain:.3f} ± {score.error:.3f} nats")
        summary = summary_sentence(verdicts, "bayes", "point", 1)
        assert summary.startswith("bayes against point: coverage closer to nominal in all bins;")
        assert summary.endswith("One training of each: nothing is said about other trainings.")

    def test_the_reverse_comparison_says_the_reverse(self):
        comparison = comparison_of(0.75, n=8000)
        mirrored = Comparison(list(comparison.methods.values()), comparison.halo, "bayes")
        answers = {v.quantity: v.answer for v in section_verdicts(mirrored, BINS, nominal=True)}
        assert answers == {"coverage_68": "worse", "log_score": "worse", "crps": "worse"}
        sentences = [v.sentence for v in section_verdicts(mirrored, BINS, nominal=True)]
        assert any("farther from nominal" in s for s in sentences)

    def test_models_that_differ_in_nothing_that_matters_are_called_not_worse(self):
        comparison = comparison_of(1.01, n=8000)
        verdicts = section_verdicts(comparison, BINS, nominal=True)
        assert {v.answer for v in verdicts if v.quantity != "coverage_68"} == {"not worse"}
        assert all("a loss beyond" in v.sentence for v in verdicts if v.quantity != "coverage_68")

    def test_false_claims_are_as_rare_as_promised_and_true_ones_are_made(self):
        # Models of equal quality with noise of their own: a claim in at most 5 % of comparisons; in 150 at most 16
        # (probability of more at 5 %: 1e-3). One that is 15 % too narrow: power above 0.9, in 40 at least 30.
        rng = np.random.default_rng(5)
        claims = 0
        for _ in range(150):
            n = 900
            true = rng.uniform(13.5, 15.5, n)
            runs = [gaussian_run(true, true + SIGMA * rng.normal(size=n), SIGMA) for _ in range(2)]
            comparison = Comparison([Method("a", (runs[0],)), Method("b", (runs[1],))], np.arange(n), "a")
            answers = [v.answer for v in section_verdicts(comparison, BINS, nominal=True)]
            claims += any(a in ("better", "worse") for a in answers)
        assert claims <= 16
        found = 0
        for _ in range(40):
            verdicts = section_verdicts(comparison_of(0.85, n=3000, rng=rng), BINS, nominal=True)
            found += verdicts[-3].answer == "better"
            assert verdicts[-3].quantity == "coverage_68"
        assert found >= 30

    def test_coverage_is_not_judged_where_it_cannot_be_nominal(self):
        comparison = comparison_of(0.75)
        verdicts = section_verdicts(comparison, BINS, nominal=False, why_not="mixed pair")
        coverage = [v for v in verdicts if v.quantity == "coverage_68"]
        assert {v.answer for v in coverage} == {"not tested"}
        assert coverage[0].sentence == "coverage not judged (mixed pair)"
        assert "coverage not judged" in summary_sentence(verdicts, "bayes", "point", 2)
        assert "One training" not in summary_sentence(verdicts, "bayes", "point", 2)

    def test_a_bin_of_few_haloes_is_not_judged(self):
        comparison = comparison_of(0.5, n=60)
        narrow = mass_bins((14.0, 14.1))
        assert {v.answer for v in section_verdicts(comparison, narrow, nominal=True)} == {"not tested"}
        assert "fewer than 20" in section_verdicts(comparison, narrow, nominal=True)[1].sentence

    def test_a_bin_in_which_the_reference_has_one_cluster_is_not_judged(self):
        truth = np.full(400, 14.2)
        alone = np.where(np.arange(400) == 0, 14.6, 14.1)
        reference, other = (gaussian_run(truth, median, SIGMA) for median in (alone, np.full(400, 14.6)))
        comparison = Comparison([Method("a", (reference,)), Method("b", (other,))], np.arange(400), "a")
        coverage = section_verdicts(comparison, mass_bins((14.5, 15.0)), nominal=True)[0]
        assert coverage.sentence == "coverage not judged: fewer than 20 haloes (1)"

    def test_what_is_not_shown_comes_with_its_number_and_an_uncorrected_p(self):
        verdicts = section_verdicts(comparison_of(0.97, n=400), BINS, nominal=True)
        undecided = [v for v in verdicts if v.answer == "undecided"]
        assert any(v.quantity == "coverage_68" for v in undecided)
        for v in undecided:
            assert v.p <= v.p_holm
            assert "before correction)" in v.sentence
            assert f"{v.p:.3f}" in v.sentence

    def test_a_loss_that_is_certain_and_small_is_called_both(self):
        comparison = comparison_of(1.04, n=40_000)
        mirrored = Comparison(list(comparison.methods.values()), comparison.halo, "bayes")
        score = [v for v in section_verdicts(mirrored, BINS, nominal=True) if v.quantity == "log_score"][-1]
        assert score.answer == "worse"
        assert ", less than 0.02 (" in score.sentence

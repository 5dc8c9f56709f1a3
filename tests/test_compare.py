"""Models whose differences are known, compared: numbers, errors, verdicts, and what is said of mistakes."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats
from small_model import toy_catalog, toy_estimator

from bayesflowmass import compare_runs
from bayesflowmass.compare import compare, main
from bayesflowmass.compare_models import find_work, parse_models
from bayesflowmass.compare_predictions import Run, columns_of, read_predictions, write_predictions
from bayesflowmass.compare_statistics import Comparison, Method, mass_bins
from bayesflowmass.compare_verdicts import section_verdicts, summary_sentence
from bayesflowmass.config import CompareSettings
from bayesflowmass.diagnostics import PosteriorSummary
from bayesflowmass.diagnostics.paired import Estimate, crossed_estimate, mean_influence, scatter_influence
from bayesflowmass.plots.comparison import FIRST_PAGE, plot_comparison
from bayesflowmass.plots.style import COLUMN_WIDTH

SIGMA = 0.12
BINS = mass_bins((14.0, 14.5, 15.0))


def gaussian_run(truth, mean, sigma, seed="0", epistemic=0.0, cluster_id=None):
    """Predictions of Gaussian PDFs."""
    summary = PosteriorSummary.gaussian(truth, mean, sigma, 0.4)
    ids = np.arange(truth.size) if cluster_id is None else cluster_id
    return Run(seed, columns_of(summary, np.full(truth.size, float(epistemic))), ids, None, {}, f"run {seed}")


def exact_sample(n, rng):
    """Truths of which N(mean, SIGMA) is the exact posterior at any mean, the population being wide."""
    mean = rng.uniform(13.7, 15.3, n)
    return mean + SIGMA * rng.normal(size=n), mean


def comparison_of(width, n=4000, rng=None, n_seeds=1, epistemic=0.03):
    """An exact Bayesian method against a point model that is wider or narrower by a factor."""
    truth, mean = exact_sample(n, rng if rng is not None else np.random.default_rng(0))
    point = Method("point", tuple(gaussian_run(truth, mean, width * SIGMA, str(s)) for s in range(n_seeds)))
    bayes = tuple(gaussian_run(truth, mean, SIGMA, str(s), epistemic) for s in range(n_seeds))
    return Comparison([point, Method("bayes", bayes)], np.arange(n), "point")


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


def write(path, truth, mean, sigma, epistemic=0.0, catalog=None, note=None):
    summary = PosteriorSummary.gaussian(truth, mean, sigma, 0.4)
    write_predictions(path, catalog, columns_of(summary, np.full(truth.size, float(epistemic))), note or {})
    return path


@pytest.fixture(scope="module")
def clusters():
    catalog = toy_catalog(900, seed=4)
    return catalog.with_columns(halo_id=np.arange(900) // 2)


@pytest.fixture(scope="module")
def work(clusters, tmp_path_factory):
    """Like that of the flagship comparison."""
    folder = tmp_path_factory.mktemp("work")
    clusters.write(folder / "test.parquet")
    truth = clusters.column("log10_mass")
    rng = np.random.default_rng(6)
    for name in ("small", "large"):
        noise = SIGMA * rng.normal(size=truth.size)
        for seed in range(4):
            mean = truth + noise + 0.01 * rng.normal(size=truth.size)
            write(
                folder / name / f"point-{seed}/predictions.parquet",
                truth,
                mean,
                0.7 * SIGMA,
                catalog=clusters,
            )
            write(folder / name / f"laplace-{seed}/predictions.parquet", truth, mean, SIGMA, 0.05, clusters)
    return folder


class TestCommand:
    def test_a_work_folder_is_compared_set_by_set(self, work, tmp_path, capsys):
        out = tmp_path / "out"
        assert main(["--work", str(work), "--out", str(out)]) == 0
        text = capsys.readouterr().out
        assert "laplace against point: coverage closer to nominal" in text
        stored = json.loads((out / "comparison.json").read_text())
        assert [s["name"] for s in stored["sections"]] == ["large", "small"]
        assert stored["n_haloes"] == 450
        section = stored["sections"][0]
        assert section["reference"] == "point"
        assert section["methods"]["laplace"]["bayesian"]
        assert not section["methods"]["point"]["bayesian"]
        assert "epistemic_share" not in section["methods"]["point"]["by_true"][0]
        last = section["differences"]["laplace"]["by_predicted"][-1]
        assert last["bin"] == "14.0-15.4"
        assert last["log_score"]["error"] > 0
        assert last["coverage_68_distance"]["value"] < 0
        page = (out / "comparison.md").read_text()
        assert page.startswith("# Deterministic against Bayesian on massive clusters")
        assert page.index("15.0-15.4") < page.index("## By true mass")
        tables = [line for line in page.splitlines() if line.startswith("|")]
        assert {line.count("|") for line in tables} == {11, 12}
        for stem in ("first_page_small", "accuracy_large"):
            assert (out / f"{stem}.pdf").is_file()
            assert (out / f"{stem}.png").is_file()

    def test_sets_can_be_chosen(self, work):
        assert list(find_work(work, ["small"])) == ["small"]
        assert [run.seed for run in find_work(work / "small")["small"]["point"]] == ["0", "1", "2", "3"]
        with pytest.raises(ValueError, match="holds nothing for the set 'tiny'; it has large, small"):
            find_work(work, ["tiny"])

    def test_methods_can_be_chosen(self, work):
        assert list(find_work(work, methods=["point", "laplace"])["small"]) == ["point", "laplace"]
        with pytest.raises(
            ValueError, match=r"set 'large' of .* has no method 'laplas'; it has laplace, point"
        ):
            find_work(work, methods=["point", "laplas"])

    def test_models_predict_once_and_a_rerun_reads(self, clusters, tmp_path, monkeypatch, capsys):
        clusters.filter(clusters.column("log10_mass") > 14.0).write(tmp_path / "test.parquet")
        for name in ("a", "b"):
            toy_estimator(uses_richness=name == "b").save(tmp_path / name)
        command = [
            "--models",
            str(tmp_path / "a"),
            f"other={tmp_path / 'b'}",
            "--catalog",
            str(tmp_path / "test.parquet"),
        ]
        command += [
            "--out",
            str(tmp_path / "out"),
            "--edges",
            "14",
            "14.7",
            "15.5",
            "--no-progress",
            "--device",
            "cpu",
        ]
        assert main(command) == 0
        assert "predicts" in capsys.readouterr().out
        first = json.loads((tmp_path / "out/comparison.json").read_text())
        note = read_predictions(tmp_path / "out/a-0/predictions.parquet", "0").note
        assert note["prior"] == "flat"

        def fail(*args, **kwargs):
            raise AssertionError("predicted again")

        monkeypatch.setattr(compare_runs, "predict", fail)
        assert main(command) == 0
        assert json.loads((tmp_path / "out/comparison.json").read_text()) == first
        with pytest.raises(AssertionError, match="predicted again"):
            main([*command, "--prior", "hmf"])

    def test_baselines_are_among_the_models(self, clusters, tmp_path):
        clusters.write(tmp_path / "test.parquet")
        toy_catalog(500, seed=8).write(tmp_path / "train.parquet")
        toy_estimator().save(tmp_path / "a")
        command = [
            "--models",
            str(tmp_path / "a"),
            "--catalog",
            str(tmp_path / "test.parquet"),
            "--baselines",
        ]
        command += ["--baseline-catalog", str(tmp_path / "train.parquet"), "--out", str(tmp_path / "out")]
        command += ["--no-progress", "--device", "cpu"]
        assert main(command) == 0
        section = json.loads((tmp_path / "out/comparison.json").read_text())["sections"][0]
        assert list(section["methods"]) == [
            "a",
            "msigma_inverse",
            "msigma_regression",
            "msigma_evrard",
            "richness",
        ]
        # The network of random weights knows nothing; the galaxy count does.
        gain = section["differences"]["richness"]["by_true"][-1]["scatter"]
        assert gain["value"] < -3 * gain["error"]

    def test_predictions_of_evaluate_are_understood(self, tmp_path):
        truth = np.linspace(14, 15, 50)
        run = gaussian_run(truth, truth + 0.1, SIGMA)
        names = {"log10_mass": "log10_mass_true", "median": "log10_mass"}
        table = {names.get(k, k): v for k, v in run.columns.items()} | {"cluster_id": np.arange(50)}
        pq.write_table(pa.table(table), tmp_path / "predictions.parquet")
        found = read_predictions(tmp_path / "predictions.parquet", "0")
        np.testing.assert_array_equal(found.columns["median"], truth + 0.1)
        np.testing.assert_array_equal(found.columns["log10_mass"], truth)

    def test_clusters_may_come_in_any_order(self, tmp_path):
        truth = np.linspace(14, 15, 200)
        order = np.random.default_rng(0).permutation(200)
        straight = gaussian_run(truth, truth + 0.02, SIGMA)
        shuffled = gaussian_run(truth[order], truth[order] + 0.02, SIGMA, cluster_id=order)
        result = compare(
            {"": {"a": [straight], "b": [shuffled]}}, tmp_path, edges=(14.0, 14.5, 15.0), figures=False
        )
        for entry in result["sections"][0]["differences"]["b"]["by_true"]:
            assert abs(entry["crps"]["value"]) < 1e-15
        assert "the population is unknown and coverage is not judged" in result["remarks"][0]

    def test_a_mixed_pair_is_said_to_be_one(self, work, clusters, tmp_path):
        runs = {label: [read_predictions(r[0].path, "0")] for label, r in find_work(work)["small"].items()}
        result = compare({"": runs}, tmp_path, catalog=clusters, prior="hmf", figures=False)
        assert not result["coverage_can_be_nominal"]
        assert "give the prior of the set (--prior flat)" in result["remarks"][0]
        coverage = [v for v in result["sections"][0]["verdicts"] if v["quantity"] == "coverage_68"]
        assert {v["sentence"] for v in coverage} == {"coverage not judged (population and prior differ)"}
        assert "closer to nominal" not in "".join(result["sections"][0]["summary"])


def test_a_method_far_off_does_not_hide_the_others_in_the_figure(work, tmp_path):
    result = compare(
        {
            "": {
                label: [read_predictions(r.path, r.seed) for r in runs]
                for label, runs in find_work(work)["small"].items()
            }
        },
        tmp_path,
        figures=False,
    )
    section = result["sections"][0]
    for i, factor in enumerate((1.0, 1.5, 100.0)):
        copy = json.loads(json.dumps(section["differences"]["laplace"]))
        for entry in copy["by_predicted"]:
            entry["log_score"]["value"] *= factor
        section["methods"][f"m{i}"], section["differences"][f"m{i}"] = section["methods"]["laplace"], copy
    figure = plot_comparison(section, FIRST_PAGE)
    figure.canvas.draw()
    assert figure.get_size_inches()[0] == pytest.approx(COLUMN_WIDTH)
    assert all(axis.get_ylabel() for axis in figure.axes)
    drawn = max(abs(e["log_score"]["value"]) for e in section["differences"]["m1"]["by_predicted"])
    assert max(np.abs(figure.axes[1].get_ylim())) < 3 * drawn
    triangles = [line for line in figure.axes[1].lines if line.get_marker() == "^" and len(line.get_xdata())]
    assert sum(len(line.get_xdata()) for line in triangles if line.get_ydata()[0] == 0.95) == 5


class TestNames:
    def test_numbered_folders_are_seeds_of_one_method(self, work):
        found = parse_models([str(work / "small" / name) for name in ("point-0", "laplace-1", "point-1")])
        assert {label: [run.seed for run in runs] for label, runs in found.items()} == {
            "point": ["0", "1"],
            "laplace": ["1"],
        }

    def test_labels_group_any_folders(self, work):
        found = parse_models([f"mine={work / 'small/point-1'},{work / 'large/point-1'}"])
        assert [run.seed for run in found["mine"]] == ["0", "1"]
        found = parse_models([f"mine={work / 'small/point-1/predictions.parquet'},{work / 'large/point-0'}"])
        assert [run.seed for run in found["mine"]] == ["1", "0"]

    def test_two_runs_of_one_seed_are_refused(self, work):
        with pytest.raises(ValueError, match="are both run 1 of 'point'; give each method a label"):
            parse_models([str(work / "small/point-1"), str(work / "large/point-1")])


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (
            ["--models", "nowhere", "{work}/small/point-0"],
            "The run 'nowhere' does not exist; give a model folder",
        ),
        (["--models", "a=", "b"], "'a=' does not name models; expected RUN or LABEL=RUN,RUN."),
        (["--models", "{work}"], "holds neither model.json nor predictions.parquet"),
        (["--models", "{work}/small/point-0"], "There is only one model to compare, 'point'"),
        ([], "either --models or --work says what to compare"),
        (["--models", "x", "--work", "{work}"], "either --models or --work"),
        (["--work", "{work}/nothing"], "does not exist; give a folder that holds SET/METHOD-SEED"),
        (["--work", "{work}", "--reference", "poin"], "The reference 'poin' is not among the models"),
        (["--work", "{work}", "--edges", "15", "14"], "at least two edges, increasing"),
        (
            ["--work", "{work}", "--baselines"],
            "Baselines need clusters to be fitted on; give --baseline-catalog",
        ),
        (["--models", "{work}/test.parquet", "{work}/small/point-0"], "has no column median"),
        (["--models", "{work}/other.parquet", "{work}/small/point-0"], "are not of the same clusters"),
        (
            ["--models", "{work}/wrong.parquet", "{work}/small/point-0"],
            "disagree on the true log10_mass of cluster",
        ),
        (
            ["--models", "{work}/hmf.parquet", "{work}/small/point-0"],
            "under the hmf prior and flat is asked for",
        ),
        (["--models", "{work}/broken.parquet", "{work}/small/point-0"], "is not a readable parquet file"),
    ],
)
def test_mistakes_are_answered_in_one_sentence(argv, words, work, clusters, tmp_path, capsys):
    truth = clusters.column("log10_mass")
    write(work / "other.parquet", truth[:800], truth[:800], SIGMA, catalog=clusters[:800])
    write(work / "wrong.parquet", truth + 0.01, truth, SIGMA, catalog=clusters)
    write(work / "hmf.parquet", truth, truth, SIGMA, catalog=clusters, note={"prior": "hmf"})
    (work / "broken.parquet").write_bytes(b"PAR1 broken")
    code = main([word.format(work=work) for word in argv] + ["--out", str(tmp_path)])
    error = capsys.readouterr().err
    assert code == 2
    assert words in error
    assert len(error.strip().splitlines()) == 1


def test_a_model_without_a_catalogue_is_refused(tmp_path, capsys):
    toy_estimator().save(tmp_path / "a")
    toy_estimator().save(tmp_path / "b")
    code = main(["--models", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "o")])
    assert code == 2
    assert "must predict and there is no catalogue; give --catalog FILE" in capsys.readouterr().err


def test_the_output_must_not_be_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file; give a folder"):
        CompareSettings(models=("a", "b"), out=tmp_path / "file")

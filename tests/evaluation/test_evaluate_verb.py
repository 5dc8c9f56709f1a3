"""Evaluation of models whose quality is known, on small mock catalogues."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from bayesflowmass.baselines import fit_baselines, predict_baselines
from bayesflowmass.catalog import CatalogError
from bayesflowmass.estimator import TrainingInfo
from bayesflowmass.evaluate import evaluate, main
from bayesflowmass.evaluation import test_sets
from bayesflowmass.evaluation.table import (
    COLUMNS,
    comparison_rows,
    format_markdown,
    format_text,
    summary_rows,
)
from bayesflowmass.mocks import simulate_catalog
from bayesflowmass.posterior import MassPosterior

SIGMA = 0.12
RANGE = (13.2, 15.6)


class GaussianEstimator:
    """Stands in for a trained model: p(M | cluster) = N(noisy truth, width), known to be right or too
    narrow.
    """

    def __init__(self, width: float = SIGMA, seed: int = 0) -> None:
        self.width = width
        self.seed = seed
        self.novelty = None
        self.flow = SimpleNamespace(set_trunk=None)
        self.training_info = TrainingInfo(
            log10_mass_range=RANGE, selection={"r_max": 1.6, "v_max": 2500.0, "min_galaxies": 10}
        )

    def draw(self, n_draws=None, seed=0):
        return None

    def encode(self, catalog):
        return torch.zeros(len(catalog), 1)

    def assess(self, catalog, contexts):
        return None

    def under(self, posterior, prior, log10_mass_range=None):
        return posterior.with_prior(prior, log10_mass_range)

    def posterior(
        self,
        catalog,
        prior="flat",
        n_draws=None,
        seed=0,
        contexts=None,
        draws=None,
        log10_mass_range=None,
        recalibrated=None,
    ):
        true = np.asarray(catalog.column("log10_mass"), dtype=np.float64)
        # The noise belongs to the cluster: the same whichever batch it comes in.
        noise = np.array(
            [np.random.default_rng([self.seed, int(h)]).normal() for h in catalog.column("halo_id")]
        )
        normal = torch.distributions.Normal(torch.from_numpy(true + SIGMA * noise), self.width)
        return MassPosterior(
            normal,
            log10_mass_range=RANGE,
            redshift=catalog.column("redshift"),
            cluster_id=catalog.column("cluster_id"),
            n_galaxies=catalog.n_galaxies,
        ).with_prior(prior, log10_mass_range)


@pytest.fixture(scope="module")
def training():
    return simulate_catalog(500, masses="flat", log10_mass_range=RANGE, seed=1)


@pytest.fixture(scope="module")
def flat_test():
    return simulate_catalog(700, masses="flat", log10_mass_range=RANGE, seed=2)


@pytest.fixture(scope="module")
def hmf_test():
    return simulate_catalog(600, masses="hmf", log10_mass_range=(13.8, 15.4), seed=3, n_projections=2)


@pytest.fixture(scope="module")
def flat_run(flat_test, training, tmp_path_factory):
    out = tmp_path_factory.mktemp("flat")
    metrics = evaluate(GaussianEstimator(), flat_test, out, baseline_catalog=training, n_resamples=20)
    return metrics, out


def test_metrics_file_holds_every_promised_number_with_its_error(flat_run):
    metrics, out = flat_run
    stored = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert stored == json.loads(json.dumps(metrics))
    for key in ("prior", "population", "n_clusters", "coverage_can_be_nominal"):
        assert key in stored
    names = [
        *("mean_residual", "scatter", "slope", "scatter_over_slope", "scatter_14_15", "nll", "crps"),
        *("mean_abs_residual_14p8_15p2", "coverage_68", "coverage_95", "sigma_N", "sigma_0"),
    ]
    for entry in (stored, *stored["baselines"].values()):
        for name in names:
            assert np.isfinite(entry[name]), name
            assert entry[f"{name}_se"] is not None, name
    assert {
        "msigma_inverse",
        "msigma_regression",
        "msigma_evrard",
        "richness",
        "msigma_inverse_gapper",
    } <= set(stored["baselines"])
    assert stored["equation_8"]["n_clusters"] > 600
    assert "members" in stored["n_members_definition"]


def test_an_exact_model_is_recovered_as_such(flat_run):
    metrics, _ = flat_run
    assert metrics["coverage_can_be_nominal"]
    assert metrics["scatter"] == pytest.approx(SIGMA, rel=0.1)
    assert abs(metrics["mean_residual"]) < 4 * SIGMA / np.sqrt(700)
    assert metrics["coverage_68"] == pytest.approx(0.68, abs=0.07)
    assert metrics["nll"] == pytest.approx(np.log(SIGMA * np.sqrt(2 * np.pi)) + 0.5, abs=0.1)
    assert metrics["crps"] == pytest.approx(SIGMA / np.sqrt(np.pi), rel=0.1)
    assert metrics["scatter"] < metrics["baselines"]["msigma_inverse"]["scatter"]


def test_figures_and_predictions_are_written_for_every_cluster(flat_run, flat_test):
    metrics, out = flat_run
    figures = {p.name for p in out.iterdir() if p.suffix in (".pdf", ".png")}
    for stem in ("predicted_vs_true", "residuals", "pit", "coverage", "calibration_by_mass", "pdfs"):
        assert {f"{stem}.pdf", f"{stem}.png"} <= figures
    table = pq.read_table(out / "predictions.parquet")
    assert table.num_rows == len(flat_test)
    truth, median = table["log10_mass_true"].to_numpy(), table["log10_mass"].to_numpy()
    np.testing.assert_allclose(table["residual"].to_numpy(), truth - median)
    assert np.mean(truth - median) == pytest.approx(metrics["mean_residual"], abs=1e-12)
    assert not [p for p in out.iterdir() if p.name.startswith(".")]


def test_a_too_narrow_model_and_a_mixed_pair_show(hmf_test, training, tmp_path):
    metrics = evaluate(
        GaussianEstimator(0.6 * SIGMA),
        hmf_test,
        tmp_path,
        baseline_catalog=training,
        n_resamples=10,
        figures=False,
    )
    assert metrics["coverage_68"] < 0.55
    assert (metrics["population"], metrics["prior"]) == ("hmf", "flat")
    assert not metrics["coverage_can_be_nominal"]
    assert "mixed pair cannot be nominal" in metrics["coverage_statement"]
    assert metrics["n_haloes"] < metrics["n_clusters"]


def test_calibration_is_judged_under_the_prior_that_the_test_masses_have(hmf_test, training, tmp_path):
    """A right model and a too narrow one, masses under the flat prior, clusters of the mass function."""
    options = {"baseline_catalog": training, "n_resamples": 10, "figures": False}
    for width, right in ((SIGMA, True), (0.6 * SIGMA, False)):
        metrics = evaluate(GaussianEstimator(width), hmf_test, tmp_path, prior="flat", **options)
        calibration = json.loads((tmp_path / "calibration.json").read_text(encoding="utf-8"))
        assert (metrics["prior"], metrics["calibration_prior"], calibration["prior"]) == (
            "flat",
            "hmf",
            "hmf",
        )
        assert calibration["nominal"]
        assert calibration["overall"]["inside"] is right
        asked = evaluate(GaussianEstimator(width), hmf_test, tmp_path, prior="hmf", **options)
        assert asked["calibration"] == metrics["calibration"]


def test_the_mass_function_prior_takes_the_limits_of_its_test_set_and_scores_better_on_it(
    hmf_test, training, tmp_path
):
    arguments = {"baseline_catalog": training, "n_resamples": 10, "figures": False}
    under_flat = evaluate(GaussianEstimator(), hmf_test, tmp_path / "flat", prior="flat", **arguments)
    under_hmf = evaluate(GaussianEstimator(), hmf_test, tmp_path / "hmf", prior="hmf", **arguments)
    assert under_hmf["prior_log10_mass_range"] == [13.8, 15.4]
    assert under_flat["prior_log10_mass_range"] == list(RANGE)
    assert under_hmf["coverage_can_be_nominal"]
    assert under_hmf["nll"] < under_flat["nll"]


def test_the_summary_holds_the_best_of_each_simple_method():
    def numbers(scatter):
        return {"scatter_over_slope_14_15": scatter, "scatter_14_15": scatter, "slope_14_15": 1.0}

    entries = {
        "msigma_inverse": 0.3,
        "msigma_inverse_envelope": 0.2,
        "virial_formula": 0.25,
        "richness": 0.18,
    }
    metrics = numbers(0.1) | {
        "baselines": {name: numbers(scatter) for name, scatter in entries.items()},
        "population": "hmf",
        "kind": "contaminated",
    }
    rows = summary_rows(metrics)
    assert [name for name, _ in rows] == [
        "this model",
        "M-sigma, best of 2 (inverse, 2.7 sigma(R))",
        "virial and projected mass",
        "galaxy count",
        "[Kodi Ramanah+2020: flow]",
    ]
    assert [row["scatter_14_15"] for _, row in rows] == [0.1, 0.2, 0.25, 0.18, 0.089]


def test_the_table_names_the_model_the_baselines_and_published_results(flat_run):
    metrics, _ = flat_run
    names = [name for name, _ in comparison_rows(metrics)]
    assert names[0] == "this model"
    assert "M-sigma, inverse" in names
    assert "galaxy count alone" in names
    assert not any("Kodi Ramanah" in name for name in names)
    published = comparison_rows({**metrics, "population": "hmf"})[len(names) :]
    assert published[0][0] == "[Kodi Ramanah+2020: flow]"
    assert published[0][1]["scatter_14_15"] == 0.089
    text = format_text(metrics)
    assert "flat-mass test set, flat prior" in text
    assert "coverage should be nominal" in text
    assert len({len(line) for line in text.splitlines()[2:12]}) == 1
    markdown = format_markdown(metrics).splitlines()
    rows = [line for line in markdown if line.startswith("|")]
    assert {line.count("|") for line in rows} == {len(COLUMNS) + 2}
    assert "±" in rows[2]
    assert not any("- ±" in line for line in rows)
    assert all(any(line.startswith(name) for line in text.splitlines()) for name in names)


def test_baseline_clusters_are_simulated_as_the_training_set_was(flat_test, monkeypatch):
    monkeypatch.setattr(test_sets, "BASELINE_CLUSTERS", 50)
    catalog = test_sets.baseline_set(GaussianEstimator().training_info, flat_test.metadata, seed=5)
    assert len(catalog) == 50
    assert catalog.metadata.masses["distribution"] == "flat"
    assert (catalog.metadata.kind, catalog.metadata.mode) == ("contaminated", "paper")
    assert catalog.n_galaxies.min() >= 10


def test_baselines_work_on_a_catalogue_and_need_its_masses(training, flat_test):
    predictions = predict_baselines(fit_baselines(training), flat_test)
    assert all(p.log10_mass.shape == (len(flat_test),) for p in predictions.values())
    with pytest.raises(CatalogError, match="no column log10_mass"):
        fit_baselines(training.without("log10_mass"))


def test_a_catalogue_without_masses_or_clusters_is_refused(flat_test, tmp_path):
    for catalog in (flat_test.without("log10_mass"), flat_test[:0]):
        with pytest.raises(CatalogError, match="true masses are needed"):
            evaluate(GaussianEstimator(), catalog, tmp_path)


def test_the_command_refuses_a_missing_model_with_one_sentence(tmp_path, capsys):
    code = main(["--model", str(tmp_path / "none"), "--catalog", "x.parquet", "--out", str(tmp_path / "o")])
    assert code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1

"""Stored predictions: one name, one meaning, whoever wrote the file; clusters without a mass keep their row."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from comparisons import gaussian_run
from small_model import toy_catalog, with_uncertain_weights

from bayesflowmass.compare import compare
from bayesflowmass.comparison.models import RunSource
from bayesflowmass.comparison.runs import model_run
from bayesflowmass.evaluate import evaluate
from bayesflowmass.evaluation import predict, read_predictions, write_predictions
from bayesflowmass.evaluation.files import COLUMNS, MORE_COLUMNS, columns_of, stored
from bayesflowmass.recalibrate import describe, recalibrate

POOR = [3, 8]


@pytest.fixture(scope="module")
def clusters():
    """Forty clusters of which two have a single galaxy."""
    catalog = toy_catalog(40, seed=2)
    keep = ~np.isin(catalog.galaxy_rows, POOR)
    keep[catalog.offsets[POOR]] = True
    return catalog.filter_galaxies(keep)


@pytest.fixture(scope="module")
def training():
    return toy_catalog(300, seed=5)


@pytest.fixture(scope="module")
def evaluation(estimator, clusters, training, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    evaluate(estimator, clusters, folder, baseline_catalog=training, n_resamples=3, figures=False)
    return folder


def test_evaluate_and_compare_write_the_same_columns_with_the_same_values(
    estimator, clusters, evaluation, tmp_path
):
    estimator.save(tmp_path / "model")
    source = RunSource(tmp_path / "model", "0", is_model=True)
    made = model_run(source, tmp_path / "out", clusters, "", prior="flat", n_draws=None, seed=0, device="cpu")
    by_evaluate = pq.read_table(evaluation / "predictions.parquet")
    by_compare = pq.read_table(tmp_path / "out" / "predictions.parquet")
    baselines = [n for n in by_evaluate.column_names if n.startswith("log10_mass_") and n not in
                 {*COLUMNS, *MORE_COLUMNS}]  # fmt: skip
    assert by_evaluate.drop_columns(baselines).equals(by_compare)
    assert {"log10_mass_richness", "log10_mass_msigma_inverse"} <= set(baselines)
    read = read_predictions(evaluation / "predictions.parquet")
    for name in COLUMNS:
        np.testing.assert_array_equal(read.columns[name], made.columns[name])
    assert read.note["prior"] == made.note["prior"] == "flat"
    assert read.note["prior_log10_mass_range"] == made.note["prior_log10_mass_range"]


def test_every_column_of_a_file_says_what_it_means(evaluation):
    table = pq.read_table(evaluation / "predictions.parquet")
    described = json.loads(table.schema.metadata[b"bayesflowmass"])["columns"]
    baselines = {n for n in table.column_names if n.startswith("log10_mass_")} - {
        "log10_mass_true",
        "log10_mass_mean",
    }
    assert set(table.column_names) - set(described) - baselines == {"cluster_id"}
    assert described["log10_mass"].startswith("median of the posterior")
    assert described["log10_mass_true"].startswith("true")


def test_a_cluster_without_a_mass_keeps_its_row_its_truth_and_its_flag(clusters, evaluation):
    table = pq.read_table(evaluation / "predictions.parquet")
    for name in ("log10_mass", "sigma", "pit", "log10_mass_richness"):
        assert np.flatnonzero(table[name].is_null().to_numpy()).tolist() == POOR
    np.testing.assert_array_equal(table["log10_mass_true"], clusters.column("log10_mass"))
    assert [table["flags"][row].as_py().split(",")[0] for row in POOR] == ["too_few_galaxies"] * 2
    metrics = json.loads((evaluation / "metrics.json").read_text(encoding="utf-8"))
    assert (metrics["n_clusters"], metrics["n_without_mass"]) == (38, 2)
    assert metrics["flags"]["too_few_galaxies"] == 2
    read = read_predictions(evaluation / "predictions.parquet")
    assert np.flatnonzero(~read.usable).tolist() == POOR


def test_the_others_are_measured_as_if_it_were_not_there(estimator, clusters, evaluation, training, tmp_path):
    others = clusters.filter(clusters.n_galaxies > 2)
    alone = evaluate(estimator, others, tmp_path, baseline_catalog=training, n_resamples=3, figures=False)
    beside = json.loads((evaluation / "metrics.json").read_text(encoding="utf-8"))
    for key in ("scatter", "nll", "crps", "coverage_68", "slope"):
        assert beside[key] == pytest.approx(alone[key], rel=1e-6), key
    baseline = ("baselines", "msigma_inverse", "scatter")
    assert beside[baseline[0]][baseline[1]][baseline[2]] == alone[baseline[0]][baseline[1]][baseline[2]]


def test_parts_of_the_width_are_null_for_a_point_model_alone(estimator, clusters, tmp_path):
    for model, null in ((estimator, True), (with_uncertain_weights(estimator), False)):
        columns = columns_of(predict(model, clusters), clusters)
        write_predictions(tmp_path / "p.parquet", clusters, columns, {})
        read = read_predictions(tmp_path / "p.parquet")
        assert np.isnan(read.columns["sigma_epistemic"][read.usable]).all() == null
        assert read.bayesian != null
    columns["sigma_epistemic"] = np.where(read.usable, 0.0, np.nan)
    write_predictions(tmp_path / "p.parquet", clusters, columns, {})
    assert not read_predictions(tmp_path / "p.parquet").bayesian


def without_masses(run, rows):
    """The predictions without those of some clusters."""
    missing = np.isin(np.arange(len(run.cluster_id)), rows)
    columns = {name: np.where(missing, np.nan, values) for name, values in run.columns.items()}
    return replace(run, columns=columns | {"log10_mass_true": run.columns["log10_mass_true"]})


def test_comparing_leaves_out_what_one_model_gives_no_mass_and_says_so(tmp_path):
    truth = np.linspace(14.0, 15.0, 40)
    whole, other = (gaussian_run(truth, truth + shift, 0.1) for shift in (0.05, 0.1))
    options = {"edges": (14.0, 15.0), "figures": False}
    result = compare({"": {"a": [whole], "b": [without_masses(other, POOR)]}}, tmp_path, **options)
    assert result["n_clusters"] == 38
    assert "2 clusters have no mass from one of the models and are left out of all." in result["remarks"]
    halves = without_masses(whole, range(20)), without_masses(other, range(20, 40))
    with pytest.raises(ValueError, match="No cluster has a mass from every one of the models"):
        compare({"": {"a": [halves[0]], "b": [halves[1]]}}, tmp_path, **options)


def test_recalibration_leaves_out_what_has_no_mass_and_says_so(estimator, clusters):
    many = clusters[np.tile(np.arange(40), 20)].with_columns(cluster_id=np.arange(800))
    found = recalibrate(estimator, many, conformal_fraction=0.5, min_count=100)[1]
    assert found["n_without_mass"] == 40
    assert found["held_out"]["raw"]["n_clusters"] + found["n_clusters"] == 760
    assert "  40 clusters cannot have a mass and were left out." in describe(found)


class TestFilesOfVersion01:
    @pytest.fixture
    def table(self):
        truth = np.linspace(14.0, 15.0, 30)
        run = gaussian_run(truth, truth + 0.1, 0.12, epistemic=0.02)
        assert set(COLUMNS) <= set(run.columns)
        return {
            "cluster_id": np.arange(30),
            **{name: run.columns[name] for name in (*COLUMNS, "sigma_epistemic")},
        }

    def check(self, path, truth):
        read = read_predictions(path, "4")
        np.testing.assert_array_equal(read.columns["log10_mass_true"], truth)
        np.testing.assert_array_equal(read.columns["log10_mass"], truth + 0.1)
        assert (read.seed, read.bayesian, read.usable.all()) == ("4", True, True)
        # It is not taken for what this version would write.
        assert not stored(path, {"prior": "flat"})

    def test_of_compare_in_which_log10_mass_is_the_truth(self, table, tmp_path):
        truth = table.pop("log10_mass_true")
        old = {"median": table.pop("log10_mass"), "log10_mass": truth, **table}
        schema = {b"bayesflowmass": json.dumps({"prior": "flat", "units": "log10"})}
        pq.write_table(pa.table(old).replace_schema_metadata(schema), tmp_path / "p.parquet")
        self.check(tmp_path / "p.parquet", truth)

    def test_of_evaluate_in_which_it_is_the_median(self, table, tmp_path):
        pq.write_table(pa.table(table), tmp_path / "p.parquet")
        self.check(tmp_path / "p.parquet", table["log10_mass_true"])


def test_a_truth_without_probability_is_refused_by_name(clusters, tmp_path):
    truth = np.linspace(14.0, 15.0, 40)
    columns = dict(gaussian_run(truth, truth, 0.1).columns)
    columns["log_density"] = np.where(np.arange(40) == 7, -np.inf, columns["log_density"])
    write_predictions(tmp_path / "p.parquet", clusters, columns, {})
    with pytest.raises(
        ValueError, match="log_density is not finite for 1 clusters, the first 7; its true mass lies"
    ):
        read_predictions(tmp_path / "p.parquet")

"""The command `figures`: every figure of the paper from model folders and a test set."""

from __future__ import annotations

import json

import numpy as np
import pytest
from astropy.table import Table
from small_model import toy_catalog, toy_estimator

from bayesflowmass.catalog import CatalogError
from bayesflowmass.diagnostics import fit_equation8
from bayesflowmass.evaluation.paper import (
    expected_counts,
    literature_masses,
    scatter_pair,
)
from bayesflowmass.evaluation.test_sets import drawn_like, like_training
from bayesflowmass.evaluation.truth import clusters_of_three_masses
from bayesflowmass.figures import figures, main
from bayesflowmass.mocks.masses import sample_mass_function


def known(n, seed):
    """Toy clusters whose members are known: those slower than 1500 km/s."""
    catalog = toy_catalog(n, seed=seed)
    return catalog.with_galaxies(gal_is_member=np.abs(catalog.galaxies("v_los")) < 1500.0)


def test_the_command_draws_each_figure_of_the_paper_and_notes_its_numbers(tmp_path, capsys):
    estimator = toy_estimator()
    estimator.save(tmp_path / "model")
    known(60, 3).write(tmp_path / "test.parquet")
    known(60, 4).write(tmp_path / "pure.parquet")
    known(300, 5).write(tmp_path / "train.parquet")
    ids = ["Coma", "A85"]
    Table({"cluster_id": ids, "log10_mass": [14.8, 14.5], "q16": [14.7, 14.4], "q84": [14.9, 14.7]}).write(
        tmp_path / "masses.ecsv"
    )
    Table(
        {"cluster_id": ids[::-1], "log10_mass": [14.9, 14.9], "lower": [0.1, 0.1], "upper": [0.1, 0.2]}
    ).write(tmp_path / "literature.csv")
    flags = {
        "model": "model",
        "pure": "model",
        "also": "model",
        "catalog": "test.parquet",
        "pure-catalog": "pure.parquet",
        "training-catalog": "train.parquet",
        "masses": "masses.ecsv",
        "literature": "literature.csv",
        "out": "out",
    }
    words = [word for name, value in flags.items() for word in (f"--{name}", str(tmp_path / value))]
    assert main([*words, "--bootstrap", "20", "--no-progress", "--device", "cpu"]) == 0
    # The record of the command stands beside them.
    stems = {path.stem for path in (tmp_path / "out").iterdir()} - {"run"}
    names = (
        "phase_space masses architecture pdfs predicted_vs_true equation8 robustness real_clusters saliency"
    )
    assert stems == {f"figure_{i + 1}_{name}" for i, name in enumerate(names.split())} | {"figures"}
    printed = capsys.readouterr().out.split()
    assert len(printed) == 19
    record = json.loads((tmp_path / "out" / "figures.json").read_text(encoding="utf-8"))
    assert {"this model, pure", "this model, contaminated", "model", "galaxy count alone"} <= set(
        record["equation_8"]
    )
    assert len(record["three_clusters"]) == 3


def test_figure_8_needs_both_tables(tmp_path, capsys):
    toy_estimator().save(tmp_path / "model")
    code = main(["--model", str(tmp_path / "model"), "--catalog", "none", "--masses", "m.ecsv"])
    assert code == 2
    assert "--literature" in capsys.readouterr().err


def test_a_catalogue_that_knows_no_members_is_refused():
    with pytest.raises(CatalogError, match="members"):
        scatter_pair(toy_catalog(50), np.full(50, 14.0), 5, 0)


def test_a_catalogue_without_masses_is_refused(tmp_path):
    with pytest.raises(CatalogError, match="log10_mass"):
        figures(toy_estimator(), toy_catalog(5).without("log10_mass"), tmp_path)


def test_equation_8_counts_the_members():
    catalog = known(80, 2)
    predicted = catalog.column("log10_mass") + np.random.default_rng(0).normal(0.0, 0.1, 80)
    members = np.array([catalog[k].galaxies("gal_is_member").sum() for k in range(80)])
    fit = fit_equation8(catalog.column("log10_mass"), predicted, members)
    sigma_n, sigma_0, se_n, se_0 = scatter_pair(catalog, predicted, 20, 0)
    assert (sigma_n, sigma_0) == (fit.sigma_N, fit.sigma_0)
    assert se_n > 0
    assert se_0 > 0


def test_equation_8_does_not_count_clusters_without_a_mass():
    catalog = known(80, 2)
    predicted = catalog.column("log10_mass") + np.random.default_rng(0).normal(0.0, 0.1, 80)
    has = np.arange(80) % 7 != 3
    found = scatter_pair(catalog, np.where(has, predicted, np.nan), 20, 0)
    assert found == scatter_pair(catalog.filter(has), predicted[has], 20, 0)
    assert np.isfinite(found).all()


def test_three_clusters_are_those_nearest_to_three_masses():
    mass = np.array([14.99, 13.0, 13.31, 14.0, 14.7, 15.0])
    assert clusters_of_three_masses(mass).tolist() == [2, 3, 4]
    assert clusters_of_three_masses([14.0]).tolist() == [0]


def test_the_curve_of_figure_2_predicts_the_counts_of_a_mass_function_set():
    """5000 draws; each of eight bins within 4.5 Poisson errors of the integral of the curve."""
    draws = sample_mass_function(5000, 13.5, 15.6, 0.117, np.random.default_rng(1))
    catalog = toy_catalog(5000).with_columns(log10_mass=draws).with_metadata(masses={"distribution": "hmf"})
    curve = expected_counts(catalog)
    assert curve is not None
    edges = np.linspace(13.5, 14.7, 9)
    count = np.histogram(draws, edges)[0]
    x = np.linspace(13.5, 14.7, 801)
    density = np.interp(x, *curve)
    expected = np.array([np.trapezoid(density[i : i + 101], x[i : i + 101]) for i in range(0, 800, 100)])
    # The normalisation rests on the clusters above 14.2, and has their Poisson error.
    error = np.hypot(np.sqrt(expected), expected / np.sqrt((draws > 14.2).sum()))
    assert np.all(np.abs(count - expected) < 4.5 * error)


def test_no_curve_is_drawn_for_a_flat_set():
    assert expected_counts(toy_catalog(50)) is None


def test_pure_clusters_are_simulated_with_the_masses_of_the_test_set():
    catalog = toy_catalog(12).with_metadata(
        masses={"distribution": "hmf", "log10_mass_min": 14.0, "log10_mass_max": 14.4}
    )
    changes = drawn_like(catalog) | {"kind": "pure"}
    pure = like_training(toy_estimator().training_info, 12, seed=0, simulate=changes)
    assert len(pure) == 12
    assert pure.metadata.kind == "pure"
    assert pure.column("log10_mass").min() >= 14.0
    assert pure.column("log10_mass").max() <= 14.4


def test_literature_is_matched_by_name_and_errors_become_lengths():
    masses = Table(
        {"cluster_id": ["a", "b"], "log10_mass": [14.0, 15.0], "q16": [13.9, 14.8], "q84": [14.2, 15.1]}
    )
    reference = Table(
        {"cluster_id": ["b", "c"], "log10_mass": [14.9, 1], "lower": [0.1, 1], "upper": [0.2, 1]}
    )
    names, ours, theirs = literature_masses(masses, reference)
    assert names == ["b"]
    np.testing.assert_allclose([ours.log10_mass, ours.lower, ours.upper], [[15.0], [0.2], [0.1]])
    np.testing.assert_allclose([theirs.log10_mass, theirs.lower, theirs.upper], [[14.9], [0.1], [0.2]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m, r: m.remove_column("q16"), "no column q16"),
        (lambda m, r: r.remove_column("lower"), "no column lower"),
        (lambda m, r: m.meta.update(mdef="500c"), "M500c"),
        (lambda m, r: r.replace_column("cluster_id", ["x"]), "No cluster"),
    ],
)
def test_tables_that_cannot_be_compared_are_refused(change, message):
    masses = Table({"cluster_id": ["a"], "log10_mass": [14.0], "q16": [13.9], "q84": [14.2]})
    reference = Table({"cluster_id": ["a"], "log10_mass": [14.9], "lower": [0.1], "upper": [0.2]})
    change(masses, reference)
    with pytest.raises(CatalogError, match=message):
        literature_masses(masses, reference)

"""The verb ``calibrate`` from catalogue to files, with a model and a likelihood that have learnt nothing."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
from astropy.table import Table

from bayesflowmass.calibrate import main
from bayesflowmass.catalog import CatalogError
from bayesflowmass.evaluation.survey_mocks import CENTRALS, unknown_of
from bayesflowmass.hierarchical import SummaryLikelihood, survey
from bayesflowmass.posterior.arviz_adapter import read_arviz
from tests.support.small_model import toy_catalog, toy_estimator


@pytest.fixture
def files(tmp_path, monkeypatch):
    estimator = toy_estimator()
    estimator.save(tmp_path / "model")
    catalog = toy_catalog(12, seed=3, log10_mass=14.6)
    few = np.arange(catalog.n_galaxies_total) < catalog.n_galaxies[0] - 5
    catalog.filter_galaxies(~few).write(tmp_path / "cat.parquet")
    fast = functools.partial(SummaryLikelihood.fit.__func__, SummaryLikelihood, n_updates=50)
    monkeypatch.setattr(SummaryLikelihood, "fit", lambda *a, **k: fast(*a, **k))
    return tmp_path


def command(files, *more):
    words = ["--model", files / "model", "--galaxies", files / "cat.parquet", "--out", files / "out"]
    words += ["--n-mocks", 1000, "--n-samples", 10, "--chains", 1, "--no-progress", *more]
    return main([str(word) for word in words])


def test_catalogue_in_masses_and_theta_out(files, capsys, monkeypatch):
    monkeypatch.setattr(survey, "_DEPTH", 2)
    assert command(files, "--prior", "sz:14.2") == 0
    assert "11 of 12 clusters have enough galaxies" in capsys.readouterr().out
    table = Table.read(files / "out" / "masses.ecsv")
    assert np.ma.getmaskarray(table["log10_mass"]).tolist() == [True] + 11 * [False]
    assert np.ma.allclose(table["log10_mass"] - table["log10_mass_before"], table["shift"])
    tree = read_arviz(files / "out" / "posterior.nc")
    assert tree["posterior"]["log10_mass"].shape == (1, 10, 11)
    found = json.loads((files / "out" / "calibration.json").read_text(encoding="utf-8"))
    assert set(found["theta"]) == {"velocity_bias", "infall_region_amplitude", "richness_at_1e14"}
    for name, one in found["theta"].items():
        low, high = one["prior"]
        assert low < one["q2.5"] < one["q97.5"] < high
        assert name in tree["posterior"]

    def refuse(*_, **__):
        raise AssertionError("learnt again")

    monkeypatch.setattr(SummaryLikelihood, "fit", refuse)
    monkeypatch.setattr(survey, "_SVI_STEPS", 5)
    assert command(files, "--prior", "sz:14.2", "--method", "svi") == 0
    assert "made before for such a survey" in capsys.readouterr().out


def test_tables_are_read_and_told_of_as_by_infer(files, capsys, monkeypatch):
    catalog = toy_catalog(12, seed=3, log10_mass=14.6)
    clusters = Table({"Name": catalog.column("cluster_id"), "zcl": catalog.column("redshift")})
    galaxies = Table({"Cl": catalog.column("cluster_id")[catalog.galaxy_rows]})
    galaxies |= {"R": catalog.r_proj, "velocity": catalog.galaxies("v_los")}
    clusters.write(files / "clusters.csv")
    galaxies.write(files / "galaxies.csv")
    seen = {}

    def stop(folder, estimator, catalog, *_, **__):
        seen["catalog"] = catalog
        raise CatalogError("Enough was seen.")

    monkeypatch.setattr("bayesflowmass.evaluation.survey_mocks.learn_or_read", stop)
    words = ["--galaxies", files / "galaxies.csv", "--clusters", files / "clusters.csv", "--cleaned"]
    words += [
        "--column",
        "cluster_id=Cl",
        "clusters.cluster_id=Name",
        "redshift=zcl",
        "r_proj=R",
        "v_los=velocity",
    ]
    words += ["--unit", "r_proj=comoving Mpc/h", "v_los=km/s", "--aperture", "1.2", "--mode", "mixed"]
    assert command(files, *words) == 2
    assert "Enough was seen." in capsys.readouterr().err
    assert seen["catalog"].n_galaxies_total == catalog.n_galaxies_total
    assert np.all(np.asarray(seen["catalog"].column("aperture")) == 1.2)
    assert seen["catalog"].metadata.mode == "mixed"
    assert seen["catalog"].metadata.selection["cleaned"]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--prior", "hmm"), "Unknown prior 'hmm'"),
        (("--prior", "richness:5000"), "None of the 12 clusters has 5000 galaxies"),
        (("--unknown", "velocity_bas=[0.9, 1.1]"), "'velocity_bas' cannot be inferred from a survey"),
        (("--unknown", "velocity_bias=[1.1, 0.9]"), "two increasing numbers"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence_before_the_work(files, capsys, monkeypatch, more, sentence):
    monkeypatch.setattr("bayesflowmass.evaluation.survey_mocks.survey_mocks", lambda *_, **__: 1 / 0)
    assert command(files, *more) == 2
    assert sentence in capsys.readouterr().err


def test_an_unknown_mode_is_a_parameter():
    catalog = toy_catalog(3, mode="mixed")
    assert CENTRALS in unknown_of(toy_estimator(), catalog)
    assert CENTRALS not in unknown_of(toy_estimator(), catalog.with_metadata(mode="survey"))

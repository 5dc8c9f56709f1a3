"""`bayesflowmass adapt`: from tables to a model of their own and a verdict, taken up after interruptions."""

from __future__ import annotations

import json

import numpy as np
import pytest
from astropy.table import Table

from bayesflowmass import adapt as verb
from bayesflowmass.adapt import adapt, main
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.mocks import simulate_catalog
from bayesflowmass.survey import measured, settings_file
from bayesflowmass.train import main as train
from tests.support.small_model import hash_weights

SMALL = {"learning_rate": 1e-3, "warmup_updates": 1, "max_updates": 12, "validate_every": 6}
TINY = """
simulate: {n_clusters: 400, redshift_range: [0.05, 0.3], mode: mixed}
encoder: {grid: [12, 12], scaling: sqrt, constant: 40, extras: [redshift], optional: [mode, completeness, aperture]}
augmentation:
  {completeness: [0.1, 1.0], aperture: [0.6, 2.0], known: {mode: 0.5, completeness: 0.5, aperture: 0.5}}
flow: {kind: affine, options: {hidden: [16]}}
fit: {max_updates: 60, validate_every: 20, batch_size: 50}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A small trained model, and the tables of a survey."""
    folder = tmp_path_factory.mktemp("adapt")
    (folder / "tiny.yaml").write_text(TINY, encoding="utf-8")
    words = ["--config", str(folder / "tiny.yaml"), "--out", str(folder / "start"), "--device", "cpu"]
    assert train([*words, "--no-progress"]) == 0
    survey = simulate_catalog(40, log10_mass_range=(14.0, 15.2), redshift=(0.1, 0.2), mode="survey", seed=2)
    names = survey.column("cluster_id")
    rows = {"cluster_id": np.repeat(names, survey.n_galaxies)}
    rows |= {name: np.asarray(survey.galaxies(name)) for name in ("x", "y", "v_los")}
    Table(rows).write(folder / "galaxies.csv")
    truth = survey.column("log10_mass")
    Table({"cluster_id": names, "redshift": survey.column("redshift"), "other": truth}).write(
        folder / "clusters.csv"
    )
    return folder


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(settings_file, "_FIT", SMALL | {"batch_size": 50})
    monkeypatch.setattr(measured, "_MOCKS", 400)
    for name, value in (("_TRAINED_ON", 300), ("_MOST", 400), ("_PILOT", 100), ("_JUDGED", 150)):
        monkeypatch.setattr(verb, name, value)


def words(place, out, *more):
    tables = ["--galaxies", str(place / "galaxies.csv"), "--clusters", str(place / "clusters.csv")]
    return [
        *tables,
        "--start",
        str(place / "start"),
        "--out",
        str(out),
        "--device",
        "cpu",
        "--no-progress",
        *more,
    ]


def test_one_command_does_the_whole_and_goes_on_after_an_interruption(
    place, small, tmp_path, monkeypatch, capsys
):
    once, twice = tmp_path / "once", tmp_path / "twice"
    assert main(words(place, once, "--reference", "other", "--mode", "survey")) == 0
    said = capsys.readouterr()
    report = json.loads((once / "survey.json").read_text(encoding="utf-8"))
    assert report["verdict"] in said.out
    assert "worth it" in report["verdict"]
    assert report["survey"]["n_judged"] == 40
    assert f"Masses: bayesflowmass infer --galaxies {place}/galaxies.csv" in said.out
    assert f"--model {once}" in said.out
    assert f"out: {once}" in (once / "survey.yaml").read_text(encoding="utf-8")

    def ctrl_c(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("bayesflowmass.training.run.fit_novelty", ctrl_c)
        assert main(words(place, twice, "--mode", "survey")) == 130
    assert not (twice / "model.json").exists()
    with monkeypatch.context() as patch:
        patch.setattr("bayesflowmass.survey.measured.measure", ctrl_c)
        assert main(words(place, twice, "--mode", "survey")) == 0
    assert "is taken as it is" in capsys.readouterr().err
    models = [MassEstimator.load(folder, "cpu") for folder in (once, twice)]
    assert hash_weights(models[0].flow) == hash_weights(models[1].flow)
    start = MassEstimator.load(place / "start", "cpu")
    assert models[0].encoder.describe() == start.encoder.describe()
    assert hash_weights(models[0].flow) != hash_weights(start.flow)


def test_after_the_configuration_the_command_says_how_to_go_on(place, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("bayesflowmass.adapt.adapt", lambda **_: {})
    assert main(words(place, tmp_path, "--stop-at-configuration")) == 0
    assert "give the command again without --stop-at-configuration" in capsys.readouterr().out


def test_the_parts_are_usable_alone(place, small, tmp_path):
    out = tmp_path / "model"
    adapt(
        place / "galaxies.csv",
        place / "clusters.csv",
        out=out,
        start=place / "start",
        stop_at_configuration=True,
        progress=False,
    )
    assert [path.name for path in out.iterdir()] == ["survey.yaml"]
    text = (out / "survey.yaml").read_text(encoding="utf-8")
    (out / "survey.yaml").write_text(text.replace("max_updates: 12", "max_updates: 7"), encoding="utf-8")
    assert train(["--config", str(out / "survey.yaml"), "--device", "cpu", "--no-progress"]) == 0
    result = adapt(
        place / "galaxies.csv",
        place / "clusters.csv",
        out=out,
        start=place / "start",
        device="cpu",
        progress=False,
    )
    assert result["mocks"]["n"] > 50


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--reference", "mass"], "--reference mass: the clusters have no such column"),
        (["--reference", "redshift"], "expected log10 M200c"),
        (["--clusters", "nothing.csv"], "--clusters: 'nothing.csv' does not exist"),
        (["--column", "x=ra"], "there is no column ra"),
        (["--assume", "depth=3"], "--assume depth: this model can be told"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(place, tmp_path, capsys, more, sentence):
    assert main(words(place, tmp_path / "out", *more)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("bayesflowmass adapt: error:")
    assert sentence in error

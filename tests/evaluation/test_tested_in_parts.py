"""An evaluation made part by part is the one that is made at once, whoever makes it and whatever happens meanwhile."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from counted_bar import counted_bars
from small_model import toy_catalog, toy_estimator

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.catalog.files import parts_of
from bayesflowmass.common.lock import sole_writer
from bayesflowmass.evaluate import evaluate, main
from bayesflowmass.evaluation import tested_in_parts
from bayesflowmass.evaluation.files import PREDICTIONS
from bayesflowmass.evaluation.tested_in_parts import evaluate_in_parts

N = 60
FEW = {"n_resamples": 3, "figures": False}
HERE = {"n_draws": None, "seed": 0, "device": "cpu", "workers": 1, "progress": False}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model, clusters for the baselines, and a catalogue in three files: one cluster has no mass, nor has the last
    file any.
    """
    place = tmp_path_factory.mktemp("parts")
    toy_estimator().save(place / "model")
    toy_catalog(300, seed=8).write(place / "training.parquet")
    whole = toy_catalog(N, seed=3).with_columns(halo_id=np.arange(N) // 2)
    number = np.arange(whole.n_galaxies_total) - whole.offsets[whole.galaxy_rows]
    whole = whole.filter_galaxies(~((whole.galaxy_rows == 7) | (whole.galaxy_rows >= 50)) | (number < 2))
    (place / "cat").mkdir()
    for name, rows in (("a", slice(0, 25)), ("b", slice(25, 50)), ("c", slice(50, N))):
        whole[rows].write(place / "cat" / f"{name}.parquet")
    return place


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Each file is a part."""
    monkeypatch.setattr(tested_in_parts, "parts_of", lambda path: parts_of(path, 20))


def in_parts(place, out, **options):
    training = ClusterCatalog.read(place / "training.parquet")
    return evaluate_in_parts(
        place / "model",
        place / "cat",
        out,
        baseline_catalog=training,
        **{"prior": "flat", **HERE, **FEW, **options},
    )


@pytest.fixture(scope="module")
def at_once(place, tmp_path_factory):
    """Numbers and predictions of the whole catalogue."""
    out = tmp_path_factory.mktemp("at_once")
    catalog, training = (ClusterCatalog.read(place / name) for name in ("cat", "training.parquet"))
    metrics = evaluate(toy_estimator(), catalog, out, baseline_catalog=training, **FEW)
    return metrics, out


def close(ours, theirs, where=""):
    """Numbers to the rounding of matrix products of another size, all else equal."""
    assert type(ours) is type(theirs), where
    if isinstance(ours, dict):
        assert list(ours) == list(theirs), where
        for name in ours:
            close(ours[name], theirs[name], f"{where}.{name}")
    elif isinstance(ours, list):
        assert len(ours) == len(theirs), where
        for i, pair in enumerate(zip(ours, theirs, strict=True)):
            close(*pair, f"{where}[{i}]")
    elif isinstance(ours, float):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-4), where
    else:
        assert ours == theirs, where


@pytest.mark.parametrize("prior", ["flat", "hmf"])
def test_parts_make_the_numbers_and_the_predictions_of_the_whole(prior, place, at_once, tmp_path):
    """Under the prior of the test masses and under another, where calibration is judged under theirs."""
    if prior == "flat":
        metrics, other = at_once
    else:
        other = tmp_path / "whole"
        catalog, training = (ClusterCatalog.read(place / name) for name in ("cat", "training.parquet"))
        metrics = evaluate(toy_estimator(), catalog, other, baseline_catalog=training, prior=prior, **FEW)
    close(in_parts(place, tmp_path / "parts", prior=prior), metrics)
    calibration, expected = (
        json.loads((folder / "calibration.json").read_text(encoding="utf-8"))
        for folder in (tmp_path / "parts", other)
    )
    # A truth that is drawn beside an edge may fall on its other side.
    assert calibration["prior"] == expected["prior"]
    close(calibration["overall"], expected["overall"])
    ours, theirs = (pq.read_table(folder / PREDICTIONS) for folder in (tmp_path / "parts", other))
    assert ours.schema.equals(theirs.schema, check_metadata=True)
    for name in ours.column_names:
        values, others = ours[name].to_numpy(), theirs[name].to_numpy()
        if values.dtype.kind == "f":
            np.testing.assert_allclose(values, others, rtol=0, atol=2e-5, err_msg=name)
        else:
            assert values.tolist() == others.tolist(), name
    assert not (tmp_path / "parts" / f"{PREDICTIONS}.work").exists()


def test_processes_make_the_same_files(place, tmp_path, monkeypatch):
    bars = counted_bars(monkeypatch, tested_in_parts)
    for workers in (1, 2):
        in_parts(place, tmp_path / str(workers), workers=workers)
    for name in ("metrics.json", "calibration.json", PREDICTIONS):
        one, two = ((tmp_path / workers / name).read_bytes() for workers in ("1", "2"))
        assert one == two, name
    assert [(bar.n, bar.total, bar.shown) for bar in bars] == [(N, N, False)] * 2


def test_the_command_goes_in_parts_and_draws_what_the_whole_draws(place, tmp_path, monkeypatch, capsys):
    """The three clusters whose PDFs are shown are those of the whole, read again from their parts."""
    from bayesflowmass.evaluation import figures

    drawn, three = [], []
    monkeypatch.setattr(figures, "save_figure", lambda picture, path: drawn.append(path.name) or [])
    whole = figures.Evaluated
    monkeypatch.setattr(
        figures, "Evaluated", lambda **found: three.append(found["three"].median) or whole(**found)
    )
    out = tmp_path / "by_command"
    files = ["--model", str(place / "model"), "--catalog", str(place / "cat"), "--out", str(out)]
    more = ["--baseline-catalog", str(place / "training.parquet"), "--bootstrap", "3", "--no-progress"]
    assert main([*files, *more, "--workers", "1"]) == 0
    assert "In " in capsys.readouterr().out
    assert {"predicted_vs_true", "pdfs", "pit"} <= set(drawn)
    assert main([*files, *more]) == 0
    np.testing.assert_allclose(three[0], three[1], rtol=0, atol=2e-5)


def test_an_interrupted_run_goes_on_with_the_parts_it_has(place, at_once, tmp_path, monkeypatch):
    made, write = [], tested_in_parts.write_whole

    def stop_at_the_second(path, content):
        if len(made) == 1:
            raise KeyboardInterrupt
        made.append(path.name)
        return write(path, content)

    monkeypatch.setattr(tested_in_parts, "write_whole", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt, match="the same command goes on from there"):
        in_parts(place, tmp_path)
    assert not (tmp_path / PREDICTIONS).exists()
    monkeypatch.setattr(
        tested_in_parts, "write_whole", lambda path, content: made.append(path.name) or write(path, content)
    )
    close(in_parts(place, tmp_path), at_once[0])
    assert len(made) == len(set(made)) == 3


def test_other_settings_another_model_or_a_second_process_are_not_mixed_in(place, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr(tested_in_parts, "gathered", interrupted)
        with pytest.raises(KeyboardInterrupt):
            in_parts(place, tmp_path)
    with pytest.raises(ValueError, match="holds parts of an unfinished run"):
        in_parts(place, tmp_path, prior="hmf")
    with monkeypatch.context() as changed:
        changed.setattr(tested_in_parts, "model_hash", lambda _: "another")
        with pytest.raises(ValueError, match="holds parts of an unfinished run"):
            in_parts(place, tmp_path)
    with (
        sole_writer(tmp_path / f"{PREDICTIONS}.work", "evaluate"),
        pytest.raises(ValueError, match="in use by"),
    ):
        in_parts(place, tmp_path)


def test_a_catalogue_without_masses_or_of_clusters_without_any_is_one_sentence(place, tmp_path):
    training = ClusterCatalog.read(place / "training.parquet")
    last = ClusterCatalog.read(place / "cat" / "c.parquet")
    last.write(tmp_path / "poor.parquet")
    last.without("log10_mass").write(tmp_path / "unknown.parquet")
    for name, message in (
        ("poor", "None of the 10 clusters can have a mass: cluster 50 has fewer than"),
        ("unknown", "column 'log10_mass' is missing"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate_in_parts(
                place / "model",
                tmp_path / f"{name}.parquet",
                tmp_path / "out",
                baseline_catalog=training,
                prior="flat",
                **HERE,
                **FEW,
            )

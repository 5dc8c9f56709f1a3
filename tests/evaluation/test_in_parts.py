"""Masses made part by part are those that are made at once, whoever makes them and whatever happens meanwhile."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from counted_bar import counted_bars
from small_model import toy_catalog, toy_estimator

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.catalog.files import parts_of
from bayesflowmass.common.lock import sole_writer
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.evaluation import in_parts
from bayesflowmass.evaluation.predictions import predict
from bayesflowmass.evaluation.tested import gathered, packed, put_to_test
from bayesflowmass.infer import infer, main
from bayesflowmass.posterior.write_table import write_table
from bayesflowmass.training.novelty import fit_novelty

N = 60


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model, and a catalogue in three files, one of whose clusters has no mass."""
    place = tmp_path_factory.mktemp("parts")
    toy_estimator().save(place / "model")
    whole = toy_catalog(N, seed=3)
    keep = (whole.galaxy_rows != 7) | (np.arange(whole.n_galaxies_total) - whole.offsets[7] < 2)
    whole = whole.filter_galaxies(keep)
    (place / "cat").mkdir()
    for number, rows in enumerate((slice(0, 25), slice(25, 45), slice(45, N))):
        whole[rows].write(place / "cat" / f"part_{number}.parquet")
    return place


@pytest.fixture
def small_parts(monkeypatch):
    """Each file is a part."""
    monkeypatch.setattr(in_parts, "parts_of", lambda path: parts_of(path, 20))


def command(place, out, *more):
    return main(
        [
            "--model",
            str(place / "model"),
            "--galaxies",
            str(place / "cat"),
            "--out",
            str(out),
            "--no-progress",
            *more,
        ]
    )


def same(path, expected):
    """The table in a file and another one: nulls, values, and the header but for the command."""
    write_table(expected, path.with_name("expected.parquet"))
    ours, theirs = (pq.read_table(one) for one in (path, path.with_name("expected.parquet")))
    path.with_name("expected.parquet").unlink()
    assert ours.column_names == theirs.column_names
    for name in ours.column_names:
        values, others = ours[name].to_pylist(), theirs[name].to_pylist()
        assert [one is None for one in values] == [one is None for one in others], name
        known = [pair for pair in zip(values, others, strict=True) if pair[0] is not None]
        if known and isinstance(known[0][0], float):
            # Matrix products of another size round differently.
            np.testing.assert_allclose(*np.array(known).T, rtol=0, atol=1e-5, err_msg=name)
        else:
            assert values == others, name
    headers = [json.loads(table.schema.metadata[b"bayesflowmass_masses"]) for table in (ours, theirs)]
    assert headers[0] | {"command": "", "model": ""} == headers[1] | {"command": "", "model": ""}


def test_parts_make_the_table_of_the_whole(place, tmp_path, small_parts, capsys, monkeypatch):
    bars = counted_bars(monkeypatch, in_parts)
    assert command(place, tmp_path / "m.parquet", "--workers", "1") == 0
    same(tmp_path / "m.parquet", infer(toy_estimator(), ClusterCatalog.read(place / "cat")))
    said = capsys.readouterr()
    assert f"{N} clusters" in said.out
    assert "too few for a kernel density" in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["m.parquet"]
    assert [(bar.n, bar.total, bar.shown) for bar in bars] == [(N, N, False)]


@pytest.fixture(scope="module")
def watchful(place, tmp_path_factory):
    """The model, which now knows what its training set looked like."""
    model = toy_estimator()
    sets, info = (toy_catalog(n, seed=n) for n in (410, 210)), model.training_info
    model.novelty = fit_novelty(model.encoder, *sets, info, seed=0, device=torch.device("cpu"))
    return MassEstimator.load(model.save(tmp_path_factory.mktemp("watchful") / "model"), "cpu")


def test_parts_say_of_the_catalogue_as_a_whole_what_is_said_at_once(
    place, watchful, tmp_path, small_parts, monkeypatch
):
    monkeypatch.setattr(in_parts, "loaded_model", lambda *_: watchful)
    assert command(place, tmp_path / "m.parquet", "--workers", "1") == 0
    whole = infer(watchful, ClusterCatalog.read(place / "cat"))
    table = pq.read_table(tmp_path / "m.parquet")
    header = json.loads(table.schema.metadata[b"bayesflowmass_masses"])
    assert header["novelty"] == whole.meta["novelty"]
    assert header["p_sample"] == pytest.approx(whole.meta["p_sample"], abs=0.01)
    found = table["p_novelty"].to_numpy()
    np.testing.assert_allclose(found, np.ma.filled(whole["p_novelty"], np.nan), atol=0.02)


def test_what_is_kept_of_parts_is_what_was_said_of_them(watchful, tmp_path):
    catalog, files = toy_catalog(9, seed=3), []
    for k in range(3):
        files.append(tmp_path / f"{k}.npz")
        np.savez(files[-1], **packed(put_to_test(watchful, catalog[3 * k : 3 * k + 3], {}, a_part=True)))
    found, whole = gathered(files, catalog.metadata), predict(watchful, catalog)
    assert found.predictions.flags.tolist() == whole.flags.tolist()
    np.testing.assert_allclose(found.predictions.summary.median, whole.summary.median, atol=1e-5)
    for name in ("p_value", "features"):
        kept, said = (getattr(one.strange, name) for one in (found.predictions, whole))
        assert kept.dtype == (np.float16 if name == "features" else said.dtype)
        np.testing.assert_allclose(kept, said, atol=0.02)


@pytest.mark.parametrize("poor", [0, 2])
def test_a_part_without_any_mass_has_masked_rows(poor, place, tmp_path, small_parts):
    """As the same clusters have among others; a catalogue without any mass is one sentence."""
    whole = toy_catalog(30, seed=3)
    number = np.arange(whole.n_galaxies_total) - whole.offsets[whole.galaxy_rows]
    few = (whole.galaxy_rows // 10 == poor) & (number > 1)
    folder = tmp_path / "cat"
    folder.mkdir()
    whole = whole.filter_galaxies(~few)
    for part in range(3):
        whole[10 * part : 10 * part + 10].write(folder / f"part_{part}.parquet")
    options = ["--model", str(place / "model"), "--out", str(tmp_path / "m.parquet"), "--workers", "1"]
    assert main(["--galaxies", str(folder), *options, "--no-progress"]) == 0
    same(tmp_path / "m.parquet", infer(toy_estimator(), whole))


def test_a_catalogue_without_any_mass_is_one_sentence(place, tmp_path, capsys):
    whole = toy_catalog(4, seed=3)
    whole = whole.filter_galaxies(np.arange(whole.n_galaxies_total) - whole.offsets[whole.galaxy_rows] < 2)
    whole.write(tmp_path / "cat.parquet")
    options = ["--model", str(place / "model"), "--out", str(tmp_path / "m.parquet"), "--workers", "1"]
    assert main(["--galaxies", str(tmp_path / "cat.parquet"), *options, "--no-progress"]) == 2
    error = capsys.readouterr().err
    assert "None of the clusters can have a mass: cluster 0 has fewer than" in error
    assert error.count("\n") == 1


def test_processes_make_the_same_table(place, tmp_path, small_parts):
    tables = []
    for workers in ("1", "2"):
        assert command(place, tmp_path / f"{workers}.parquet", "--workers", workers) == 0
        tables.append(pq.read_table(tmp_path / f"{workers}.parquet"))
    assert tables[0].equals(tables[1])


def test_an_interrupted_run_goes_on_with_the_parts_it_has(place, tmp_path, small_parts, monkeypatch, capsys):
    out, made = tmp_path / "m.parquet", []
    write = in_parts.write_table

    def stop_at_the_second(table, path):
        if len(made) == 1:
            raise KeyboardInterrupt
        made.append(path.name)
        return write(table, path)

    monkeypatch.setattr(in_parts, "write_table", stop_at_the_second)
    assert command(place, out, "--workers", "1") == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert not out.exists()
    monkeypatch.setattr(
        in_parts, "write_table", lambda table, path: made.append(path.name) or write(table, path)
    )
    assert command(place, out, "--workers", "1") == 0
    assert len(made) == len(set(made)) == 3
    same(out, infer(toy_estimator(), ClusterCatalog.read(place / "cat")))


def test_what_does_not_go_in_parts_is_one_sentence(place, tmp_path, capsys):
    out = tmp_path / "m.parquet"
    for more, message in (
        (["--workers", "2", "--cards", str(tmp_path / "cards")], "--cards needs the catalogue as a whole"),
        (["--scheduler", "tcp://127.0.0.1:1"], "No Dask scheduler answers at 'tcp://127.0.0.1:1'"),
    ):
        assert command(place, out, *more) == 2
        error = capsys.readouterr().err
        assert message in error or "--scheduler needs Dask" in error
        assert error.count("\n") == 1
    with sole_writer(tmp_path / "m.parquet.work", "infer"):
        assert command(place, out, "--workers", "1") == 2
    assert "is in use by infer" in capsys.readouterr().err


def test_other_files_or_settings_are_not_mixed_with_finished_parts(
    place, tmp_path, small_parts, monkeypatch, capsys
):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(in_parts, "_put_together", interrupted)
    assert command(place, tmp_path / "m.parquet", "--workers", "1") == 130
    assert command(place, tmp_path / "m.parquet", "--workers", "1", "--prior", "hmf") == 2
    assert "holds parts of an unfinished run" in capsys.readouterr().err


def test_a_changed_selection_is_not_mixed_with_finished_parts(
    place, tmp_path, small_parts, monkeypatch, capsys
):
    def interrupted(*_):
        raise KeyboardInterrupt

    chosen = tmp_path / "selection.csv"
    options = ("--workers", "1", "--selection", str(chosen))
    chosen.write_text("log10_mass,probability\n13,0.1\n16,1\n", encoding="utf-8")
    monkeypatch.setattr(in_parts, "_put_together", interrupted)
    assert command(place, tmp_path / "m.parquet", *options) == 130
    chosen.write_text("log10_mass,probability\n13,0.1\n16,0.15\n", encoding="utf-8")
    assert command(place, tmp_path / "m.parquet", *options) == 2
    assert "holds parts of an unfinished run" in capsys.readouterr().err


def test_a_part_that_is_gone_is_named(place):
    part = next(parts_of(place / "cat", 20))
    moved = part.groups[0][0].rename(place / "elsewhere")
    try:
        with pytest.raises(ValueError, match=r"part_0.parquet: a part of the catalogue is missing"):
            part.read()
    finally:
        moved.rename(part.groups[0][0])


def test_a_model_trained_anew_in_its_folder_is_read_anew(tmp_path):
    folder = str(tmp_path / "model")
    toy_estimator().save(folder)
    first = in_parts.loaded_model(folder, "cpu")
    assert in_parts.loaded_model(folder, "cpu") is first
    toy_estimator(uses_richness=True).save(folder)
    assert in_parts.loaded_model(folder, "cpu").training_info.uses_richness
    assert not first.training_info.uses_richness

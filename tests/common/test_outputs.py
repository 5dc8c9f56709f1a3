"""What cannot be written is said before the work, and what is written comes back as it was."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from astropy.table import MaskedColumn, Table
from hypothesis import given, settings
from hypothesis import strategies as st
from small_model import toy_catalog, toy_estimator

from bayesflowmass.common import outputs
from bayesflowmass.common.outputs import check_can_write, check_folder, check_table_path, check_texts
from bayesflowmass.evaluate import main as evaluate_main
from bayesflowmass.infer import main as infer_main
from bayesflowmass.posterior.write_table import write_table

ENDINGS = ["ecsv", "fits", "vot", "parquet"]
TOO_LONG = "n" * 300


def test_a_place_that_can_be_written_is_left_as_it_was(tmp_path):
    assert check_can_write(tmp_path / "m.ecsv") == tmp_path / "m.ecsv"
    assert check_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("check", "place", "said"),
    [
        (check_can_write, f"{TOO_LONG}.ecsv", "File name too long"),
        (check_can_write, "no/m.ecsv", "the folder .* does not exist; make it first"),
        (check_can_write, "file/m.ecsv", "'.*/file' is a file, not a folder; give another --out"),
        (check_can_write, "file/below/m.ecsv", "'.*/file' is a file, not a folder; give another --out"),
        (check_can_write, "folder", "it is a folder; give the name of a file"),
        (check_table_path, "m.doc", r"must end in one of \.ecsv"),
        (check_folder, "file", "is a file; give a folder"),
        (check_folder, "file/below", "is a file; give a folder"),
        (check_folder, TOO_LONG, "File name too long"),
        (check_folder, f"new/{TOO_LONG}", "File name too long"),
    ],
)
def test_a_place_that_cannot_be_written_is_named(check, place, said, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept", encoding="utf-8")
    with pytest.raises(ValueError, match=said):
        check(tmp_path / place)
    assert (tmp_path / "file").read_text(encoding="utf-8") == "kept"


def test_a_read_only_disk_is_named(tmp_path, monkeypatch):
    def read_only(**where):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(outputs.tempfile, "mkstemp", read_only)
    for check in (check_can_write, check_folder):
        with pytest.raises(ValueError, match="Read-only file system; give another --out"):
            check(tmp_path / "m.ecsv")


def test_commands_look_at_their_outputs_before_they_read(tmp_path, capsys):
    """The inputs are no tables and no models: whoever read them would say so."""
    (tmp_path / "x").write_text("nothing", encoding="utf-8")
    inputs = ["--model", str(tmp_path), "--out", str(tmp_path / TOO_LONG / "m.ecsv")]
    assert infer_main(["--galaxies", str(tmp_path / "x"), *inputs]) == 2
    assert evaluate_main(["--catalog", str(tmp_path / "x"), *inputs]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "--out" in first
    assert "--out" in second
    assert "File name too long" in second


# numpy's strings end at their last character that is not NUL, so a table never holds such an end.
NAMES = st.text(max_size=5).map(lambda name: name.rstrip("\0"))
IDS = st.lists(NAMES, min_size=1, max_size=4)


@pytest.mark.parametrize("ending", ENDINGS)
@settings(max_examples=60, deadline=None)
@given(ids=IDS)
def test_names_come_back_as_they_were_or_are_refused(ending, ids, tmp_path_factory):
    path = tmp_path_factory.mktemp("t") / f"t.{ending}"
    table = Table({"cluster_id": np.array(ids), "m": MaskedColumn(np.zeros(len(ids)), mask=True)})
    table.meta["command"] = f"infer --galaxies {ids[0]}"
    try:
        check_texts(path, ids, "cluster_id")
    except ValueError:
        with pytest.raises(ValueError, match="Cannot write the cluster_id"):
            write_table(table, path)
        assert not path.exists()
        return
    write_table(table, path)
    again = Table.read(path, format="ascii.ecsv", encoding="utf-8") if ending == "ecsv" else Table.read(path)
    back = ["" if np.ma.is_masked(one) else one for one in again["cluster_id"]]
    assert [one.decode() if isinstance(one, bytes) else str(one) for one in back] == table[
        "cluster_id"
    ].tolist()


@pytest.mark.parametrize("name", ["A 85 ☉", "Übersee", "tab\tbed"])
def test_ids_that_the_format_cannot_hold_are_named_before_the_model_is_loaded(
    name, tmp_path, monkeypatch, capsys
):
    model = toy_estimator().save(tmp_path / "model")
    clusters = toy_catalog(2).with_columns(cluster_id=[name, "B"])
    clusters.write(tmp_path / "c.parquet")
    os.truncate(model / "model.safetensors", 100)
    words = [
        "--model",
        str(model),
        "--galaxies",
        str(tmp_path / "c.parquet"),
        "--out",
        str(tmp_path / "m.fits"),
    ]
    assert infer_main(words) == 2
    error = capsys.readouterr().err
    assert "Cannot write the cluster_id" in error
    assert "FITS holds plain ASCII only; give --out a name ending in .parquet" in error
    assert not Path(tmp_path / "m.fits").exists()


def test_a_path_beyond_ascii_is_written_into_the_header_with_escapes(tmp_path):
    table = Table({"cluster_id": ["A"]}, meta={"command": "infer --galaxies Übersee\x1b.csv"})
    write_table(table, tmp_path / "m.fits")
    assert Table.read(tmp_path / "m.fits").meta["COMMAND"] == r"infer --galaxies \xdcbersee\x1b.csv"

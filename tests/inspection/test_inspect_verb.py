"""`bayesflowmass inspect`: what a file is, what is wrong with it, and which command takes it."""

from __future__ import annotations

import inspect as standard_inspect
import shlex

import numpy as np
import pytest
from astropy.table import Table
from box_files import cosmosim, dr1, rockstar, universemachine
from small_model import toy_catalog, toy_estimator
from survey_tables import caustic, halo_cnn, mamposst, ned, one_cluster, redmapper_clusters, sag, skyserver

from bayesflowmass.catalog import CatalogError
from bayesflowmass.cli import main as command
from bayesflowmass.infer import infer
from bayesflowmass.inspect import inspect_file, main


def frame_table():
    catalog = toy_catalog(3)
    table = Table({"cluster_id": np.asarray(catalog.column("cluster_id"))[catalog.galaxy_rows]})
    for name in ("x", "y", "v_los"):
        table[name] = np.array(catalog.galaxies(name))
    return table


def test_the_module_does_not_hide_the_standard_library():
    assert standard_inspect.signature(inspect_file).parameters["path"]


def test_a_catalogue_is_described_and_leads_to_infer_and_evaluate(tmp_path, capsys):
    toy_catalog(5).write(tmp_path / "cat.parquet")
    assert command(["inspect", str(tmp_path / "cat.parquet")]) == 0
    text = capsys.readouterr().out
    assert "a catalogue of bayesflowmass (parquet)" in text
    assert "5 clusters" in text
    assert "mode: paper" in text
    assert "bayesflowmass infer --galaxies" in text
    assert "bayesflowmass evaluate" in text
    assert inspect_file(tmp_path).title.startswith("a catalogue")


def test_a_truncated_or_wrong_catalogue_cannot_be_used(tmp_path):
    path = tmp_path / "cat.parquet"
    toy_catalog(50).write(path)
    path.write_bytes(path.read_bytes()[:2000])
    report = inspect_file(path)
    assert not report.usable
    assert "not a whole parquet file" in report.problems[0]
    toy_catalog(5).with_columns(redshift=[-1.0, 0.1, 0.1, 0.1, 0.1]).write(path)
    assert "redshift is -1" in inspect_file(path).problems[0]


def test_a_model_folder_says_what_it_was_trained_for(tmp_path):
    folder = toy_estimator().save(tmp_path / "run")
    report = inspect_file(folder)
    assert report.usable
    assert "interloper mode paper" in report.text()
    assert "posterior of the weights: none; recalibrated: no" in report.text()
    assert "{" not in report.text()
    assert f"--model {folder}" in report.commands[0]
    assert inspect_file(folder / "model.json").usable
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    assert not inspect_file(folder).usable
    weights.unlink()
    assert "it has no model.safetensors" in inspect_file(folder).problems[0]


def test_unfinished_runs_other_folders_and_settings_are_named(tmp_path):
    (tmp_path / "checkpoint").mkdir()
    report = inspect_file(tmp_path)
    assert report.title == "a training run that has not finished"
    assert "--resume" in report.commands[0]
    (tmp_path / "empty").mkdir()
    assert "neither a model" in inspect_file(tmp_path / "empty").problems[0]
    (tmp_path / "a.yaml").write_text("seed: 3\n", encoding="utf-8")
    assert inspect_file(tmp_path / "a.yaml").commands == [
        f"bayesflowmass train --config {tmp_path / 'a.yaml'}"
    ]
    (tmp_path / "a.yaml").write_text("sed: 3\n", encoding="utf-8")
    assert "did you mean 'seed'" in inspect_file(tmp_path / "a.yaml").problems[0]


@pytest.mark.parametrize(
    ("write", "name", "title"),
    [
        (cosmosim, "a.csv", "Rockstar haloes from the CosmoSim database"),
        (rockstar, "hlist_0.89510.list", "Rockstar haloes (text)"),
        (universemachine, "sfr_catalog_0.895100.npy", "UniverseMachine galaxies"),
        (dr1, "sfr_catalog_0.895100.bin", "UniverseMachine DR1"),
    ],
)
def test_boxes_are_read_to_their_end(tmp_path, write, name, title):
    path = write(tmp_path / name)
    report = inspect_file(path)
    assert report.title.startswith(title)
    assert "hosts or centrals" in report.text()
    assert report.usable
    role = "--galaxies" if write in (universemachine, dr1) else "--hosts"
    assert "bayesflowmass simulate --hosts" in report.text()
    assert f"{role} {path}" in report.text()
    assert inspect_file(path, quick=True).usable
    data = path.read_bytes()
    path.write_bytes(data[: int(0.667 * len(data))])
    assert not inspect_file(path).usable


def test_tables_of_known_formats_lead_to_infer(tmp_path):
    ned().write(tmp_path / "ned.csv")
    report = inspect_file(tmp_path / "ned.csv")
    assert report.title == "NED table"
    assert "a table of clusters (cluster_id, ra, dec, redshift) goes with it" in report.text()
    one_cluster().write(tmp_path / "c.csv")
    both = inspect_file(tmp_path / "ned.csv", clusters=tmp_path / "c.csv")
    assert "1 cluster with 30 galaxies" in both.text()
    assert "--clusters " in both.commands[0]
    redmapper_clusters().write(tmp_path / "r.fits")
    assert "a table of clusters" in inspect_file(tmp_path / "r.fits").facts
    assert "1 cluster with 30 galaxies" in inspect_file(caustic(tmp_path / "a.txt")).text()
    coma = inspect_file(mamposst(tmp_path / "coma.dat"))
    assert "--redshift Z" in coma.commands[0]
    assert "does not say the redshift" in coma.problems[0]
    galaxies, clusters = sag(tmp_path)
    assert inspect_file(galaxies, clusters=clusters).usable
    assert "--redshift Z" in inspect_file(halo_cnn(tmp_path / "h.npy")[0]).commands[0]
    assert inspect_file(halo_cnn(tmp_path / "h.npy")[0], redshift=0.1).problems == []


def test_broken_cells_are_counted_column_by_column(tmp_path):
    table = skyserver()
    table.remove_columns(["objid", "speczerr"])
    table.rename_column("specz", "z")
    table["cluster_id"] = np.ones(30, dtype=int)
    table["ra"][[3, 8]] = np.nan
    table["dec"] = table["dec"].astype("U20")
    table["dec"][5] = "north"
    table["z"][7] = 9.5
    table.write(tmp_path / "a.csv")
    report = inspect_file(tmp_path / "a.csv")
    assert not report.usable
    assert "2 rows without a number in ra: the first is row 4" in report.problems[0]
    assert "1 row without a number in dec: the first is row 6, which is 'north'" in report.problems[1]
    assert "1 row with z outside -0.02 to 3: the first is row 8, 9.5" in report.problems[2]


def test_what_was_not_measured_is_a_note_and_no_problem(tmp_path):
    table = frame_table()
    table["v_err"] = 30.0
    table["v_err"][:2] = [99999.0, -1.0]
    table.write(tmp_path / "a.csv")
    report = inspect_file(tmp_path / "a.csv", redshift=0.1)
    said = [fact for fact in report.facts if "not measured" in fact]
    assert said == [
        f"note: v_err: -1, 99999 is taken for not measured, in 2 of {len(table)} rows; the first is row 1."
    ]
    assert report.usable
    assert report.problems == []
    table["v_err"][1] = 40000.0
    table.write(tmp_path / "a.csv", overwrite=True)
    report = inspect_file(tmp_path / "a.csv", redshift=0.1)
    assert "1 row with v_err outside 0 to 30000: the first is row 2, 40000" in report.problems[0]
    assert not report.usable


def test_clusters_that_get_no_mass_are_counted_with_the_reason(tmp_path):
    table = frame_table()
    table["redshift"] = 0.1
    ids = np.unique(table["cluster_id"])
    table["v_los"][table["cluster_id"] == ids[1]] = 100.0
    rows = np.flatnonzero(table["cluster_id"] == ids[2])
    table.remove_rows(rows[2:])
    table.write(tmp_path / "a.csv")
    report = inspect_file(tmp_path / "a.csv")
    assert report.usable
    poor, flat = report.problems
    assert f"clusters without a mass: 1 of 3; the first, {ids[2]}, has fewer than 3 galaxies" in poor
    assert (
        f"clusters without a mass: 1 of 3; the first, {ids[1]}, has galaxies without spread in R or v" in flat
    )
    table[table["cluster_id"] == ids[1]].write(tmp_path / "b.csv")
    assert not inspect_file(tmp_path / "b.csv").usable


def test_other_names_are_guessed_and_the_guess_works(tmp_path):
    table = frame_table()
    table.rename_columns(["cluster_id", "v_los"], ["grp no", "vpec"])
    table.write(tmp_path / "a b.csv")
    report = inspect_file(tmp_path / "a b.csv")
    assert not report.usable
    words = shlex.split(report.commands[0])
    assert words == ["bayesflowmass", "inspect", str(tmp_path / "a b.csv"), "--column", "v_los=vpec"]
    names = {"cluster_id": "grp no", "v_los": "vpec"}
    report = inspect_file(tmp_path / "a b.csv", column=names, redshift=0.117)
    assert report.usable
    assert "cluster_id=grp no" in shlex.split(report.commands[0])


def test_names_that_all_know_need_no_guess(tmp_path):
    table = frame_table()
    table.rename_columns(["cluster_id", "v_los"], ["ClID", "vlos"])
    table.write(tmp_path / "a.csv")
    report = inspect_file(tmp_path / "a.csv", redshift=0.117)
    assert report.usable
    assert "note: taken by their names: ClID for cluster_id, vlos for v_los." in report.facts
    sky = Table({"ClID": [1, 2], "R.A.": [10.0, 11.0], "Dec.": [1.0, 2.0], "zspec": [0.1, 0.1]})
    sky.write(tmp_path / "b.csv")
    assert "a table of clusters" in inspect_file(tmp_path / "b.csv").facts


def test_what_infer_would_refuse_is_a_problem(tmp_path):
    table = frame_table()
    table["v_los"] *= 1000
    table.write(tmp_path / "a.csv")
    report = inspect_file(tmp_path / "a.csv", redshift=0.1)
    assert not report.usable
    assert "as those in m/s do" in report.problems[0]
    assert report.commands == []


def test_columns_without_names_and_strange_tables_are_explained(tmp_path):
    np.savetxt(tmp_path / "a.txt", np.random.default_rng(0).normal(size=(9, 5)))
    assert "its columns have no names" in inspect_file(tmp_path / "a.txt").problems[0]
    Table({"colour": [1.0, 2.0]}).write(tmp_path / "b.csv")
    assert "name them with --column" in inspect_file(tmp_path / "b.csv").problems[0]
    small = Table({"ra": np.linspace(0, 6, 20), "dec": np.linspace(-1, 1, 20), "z": np.full(20, 0.1)})
    small.write(tmp_path / "c.csv")
    assert "as in radians" in inspect_file(tmp_path / "c.csv").problems[0]


def test_galaxies_whose_redshift_is_named_as_that_of_clusters_are_no_clusters(tmp_path):
    table = Table({"cluster_id": np.repeat([1, 2], 10), "ra": np.linspace(10, 11, 20)})
    table["dec"], table["z"] = 0.5, 0.1
    table.write(tmp_path / "a.csv")
    report = inspect_file(tmp_path / "a.csv", column={"redshift": "z"})
    assert not report.usable
    assert "no columns of galaxies (cluster_id, x, y, v_los; or ra, dec, z)" in report.problems[0]


def test_masses_are_known_for_what_they_are(tmp_path):
    infer(toy_estimator(), toy_catalog(3)).write(tmp_path / "masses.ecsv")
    assert inspect_file(tmp_path / "masses.ecsv").title == "a table of masses, written by bayesflowmass infer"


def test_what_cannot_be_read_ends_with_code_2(tmp_path, capsys):
    (tmp_path / "a.p").write_bytes(b"\x80\x04junk")
    assert main([str(tmp_path / "a.p")]) == 2
    text = capsys.readouterr().out
    assert "this is a pickle" in text
    assert "It cannot be used as it is." in text
    assert main([str(tmp_path / "nothing.csv")]) == 2
    assert "no such file" in capsys.readouterr().err
    (tmp_path / "b.fits").write_bytes(b"SIMPLE  =" + b"x" * 100)
    assert main(["--file", str(tmp_path / "b.fits")]) == 2
    with pytest.raises(CatalogError, match="no such file"):
        inspect_file(tmp_path / "nothing")


def test_infer_takes_what_inspect_says_it_takes(tmp_path, capsys):
    model = toy_estimator().save(tmp_path / "run")
    one_cluster().write(tmp_path / "c.csv")
    ned().write(tmp_path / "ned.csv")
    skyserver().write(tmp_path / "sdss.csv")
    galaxies, clusters = sag(tmp_path)
    inputs = {
        "caustic": [caustic(tmp_path / "a.txt")],
        "mamposst": [mamposst(tmp_path / "coma.dat"), "--redshift", "0.1"],
        "halo_cnn": [halo_cnn(tmp_path / "h.npy")[0], "--redshift", "0.117"],
        "ned": [tmp_path / "ned.csv", "--clusters", tmp_path / "c.csv"],
        "skyserver": [tmp_path / "sdss.csv", "--clusters", tmp_path / "c.csv"],
        "sag": [galaxies, "--clusters", clusters],
    }
    for name, (path, *more) in inputs.items():
        out = tmp_path / f"{name}.ecsv"
        words = ["infer", "--model", model, "--galaxies", path, *more, "--out", out, "--no-progress"]
        assert command([str(word) for word in [*words, "--device", "cpu"]]) == 0
        assert np.isfinite(np.asarray(Table.read(out)["log10_mass"], dtype=float)).all()
    assert "note: 30 rows, 30 galaxies: 0 repeated measurements left out" in capsys.readouterr().err

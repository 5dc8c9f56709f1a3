"""`bayesflowmass infer` end to end: tables in, masses out, bad input in one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from astropy.table import Table
from numpy.testing import assert_allclose, assert_array_equal
from small_model import toy_catalog

from bayesflowmass.catalog import CatalogError
from bayesflowmass.cosmology import SPEED_OF_LIGHT, transverse_mpc_h_per_radian
from bayesflowmass.estimator import MassEstimator, TrainingInfo
from bayesflowmass.infer import infer, main, read_observations
from bayesflowmass.mocks import simulate_catalog


@pytest.fixture(scope="module")
def model(estimator, tmp_path_factory):
    return estimator.save(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def catalog():
    return toy_catalog(12, seed=2)


def flat_tables(catalog):
    """Galaxies (cluster_id, x, y, v_los) and clusters (cluster_id, redshift) as a user has them."""
    rows = np.repeat(np.arange(len(catalog)), catalog.n_galaxies)
    galaxies = Table({"cluster_id": np.asarray(catalog.column("cluster_id"))[rows]})
    for name in ("x", "y", "v_los"):
        galaxies[name] = np.array(catalog.galaxies(name))
    return galaxies, Table({n: np.array(catalog.column(n)) for n in ("cluster_id", "redshift")})


def sky_tables(catalog, ra=150.0, dec=20.0):
    """The same galaxies as ra, dec, z: small angles around one centre for all."""
    galaxies, clusters = flat_tables(catalog)
    z = float(clusters["redshift"][0])
    scale = np.degrees(1.0 / transverse_mpc_h_per_radian(z))
    galaxies["ra"] = ra + galaxies["x"] * scale / np.cos(np.radians(dec))
    galaxies["dec"] = dec + galaxies["y"] * scale
    galaxies["z"] = z + galaxies["v_los"] / SPEED_OF_LIGHT * (1.0 + z)
    galaxies.remove_columns(["x", "y", "v_los"])
    clusters["ra"], clusters["dec"] = np.full(len(clusters), ra), np.full(len(clusters), dec)
    return galaxies, clusters


def run(model, folder, galaxies, clusters=None, *more, ending="ecsv"):
    """Exit code and the path of the masses."""
    arguments = ["--model", str(model), "--no-progress", "--device", "cpu"]
    for name, table in (("galaxies", galaxies), ("clusters", clusters)):
        if isinstance(table, Table):
            table.write(folder / f"{name}.csv", overwrite=True)
            arguments += [f"--{name}", str(folder / f"{name}.csv")]
        elif table is not None:
            arguments += [f"--{name}", str(table)]
    out = folder / f"masses.{ending}"
    return main([*arguments, "--out", str(out), *more]), out


def test_a_catalogue_becomes_a_table(model, estimator, catalog, tmp_path, capsys):
    catalog.write(tmp_path / "clusters.parquet")
    code, out = run(model, tmp_path, tmp_path / "clusters.parquet")
    assert code == 0
    table, posterior = Table.read(out), estimator.posterior(catalog)
    assert list(table["cluster_id"]) == list(catalog.column("cluster_id"))
    assert_allclose(table["log10_mass"], posterior.median, atol=1e-6)
    assert_allclose(table["q16"], posterior.quantile(0.16), atol=1e-6)
    assert list(table["n_galaxies"]) == list(catalog.n_galaxies)
    assert table["sigma_epistemic"].mask.all()
    text = capsys.readouterr().out
    assert "12 clusters, prior flat: log10 M200c [Msun/h]" in text
    assert f"Written to {out}" in text


def test_flat_tables_and_sky_coordinates_give_the_same_masses(model, catalog, tmp_path):
    masses = []
    for tables in (flat_tables(catalog), sky_tables(catalog)):
        code, out = run(model, tmp_path, *tables)
        assert code == 0
        masses.append(np.asarray(Table.read(out)["log10_mass"]))
    # Small-angle coordinates differ from exact ones at the level of 1e-4 Mpc/h.
    assert_allclose(masses[0], masses[1], atol=2e-3)


def test_columns_are_renamed_and_options_reach_the_table(model, catalog, tmp_path):
    galaxies, clusters = flat_tables(catalog)
    for table in (galaxies, clusters):
        table.rename_column("cluster_id", "ClID")
    clusters.rename_column("redshift", "z")
    options = ["--column", "cluster_id=ClID", "--prior", "hmf", "--pdf", "--mdef", "500c", "--units", "Msun"]
    code, out = run(model, tmp_path, galaxies, clusters, *options, "--h", "0.7", ending="fits")
    assert code == 0
    table = Table.read(out)
    assert (table.meta["MDEF"], table.meta["UNITS"], table.meta["PRIOR"]) == ("500c", "Msun", "hmf")
    assert table.meta["H"] == 0.7
    assert table["pdf"].shape == (12, table.meta["PDF_N"])
    assert "r500c" in table.colnames


def test_kpc_are_converted_when_the_unit_is_given(model, catalog, tmp_path):
    galaxies, clusters = flat_tables(catalog)
    code, out = run(model, tmp_path, galaxies, clusters)
    expected = np.asarray(Table.read(out)["log10_mass"])
    z, h = float(clusters["redshift"][0]), 0.6777
    for name in ("x", "y"):
        galaxies[name] *= 1000.0 / h / (1.0 + z)
    units = ["--unit", "x=proper kpc", "y=proper kpc"]
    code, out = run(model, tmp_path, galaxies, clusters, *units)
    assert code == 0
    assert_allclose(Table.read(out)["log10_mass"], expected, atol=1e-3)


def test_one_cluster_needs_no_table_of_clusters(model, catalog, tmp_path, capsys):
    galaxies, _ = flat_tables(catalog[:1])
    galaxies.remove_column("cluster_id")
    code, out = run(model, tmp_path, galaxies, None, "--cluster-id", "Coma", "--redshift", "0.117")
    assert code == 0
    assert list(Table.read(out)["cluster_id"]) == ["Coma"]
    assert "1 cluster, prior flat" in capsys.readouterr().out


def test_declared_cleaning_and_mode_are_flagged(model, catalog, tmp_path, capsys):
    code, out = run(model, tmp_path, *flat_tables(catalog), "--cleaned", "--mode", "survey")
    assert code == 0
    assert all({"cleaned", "mode"} <= set(flags.split(",")) for flags in Table.read(out)["flags"])
    assert "flag cleaned: 12 (" in capsys.readouterr().out
    code, out = run(model, tmp_path, *flat_tables(catalog), "--mode", "paper")
    assert not any(
        "mode" in flags.split(",") for flags in np.ma.filled(Table.read(out)["flags"], "") if flags
    )


def test_columns_that_are_proposed_are_taken_in_one_go(model, catalog, tmp_path):
    galaxies, clusters = flat_tables(catalog)
    _, out = run(model, tmp_path, galaxies, clusters)
    expected = Table.read(out)["log10_mass"]
    galaxies.rename_columns(["cluster_id", "v_los"], ["grp", "v_pec"])
    clusters.rename_columns(["cluster_id", "redshift"], ["recno", "z_mean"])
    assert run(model, tmp_path, galaxies, clusters)[0] == 2
    code, out = run(model, tmp_path, galaxies, clusters, "--guess")
    assert code == 0
    assert_allclose(Table.read(out)["log10_mass"], expected, atol=1e-6)


def test_an_error_in_a_table_of_text_waits_for_no_library_that_reading_does_not_need(tmp_path):
    (tmp_path / "g.csv").write_text("cluster_id,ra,dec,z\nA,10,95,0.1\nB,,5,0.1\n", encoding="utf-8")
    (tmp_path / "c.csv").write_text("cluster_id,ra,dec,redshift\nA,10,5,0.1\nB,9,5,0.1\n", encoding="utf-8")
    words = ["--galaxies", str(tmp_path / "g.csv"), "--clusters", str(tmp_path / "c.csv")]
    script = (
        f"import sys; from bayesflowmass.infer import main; code = main({words})\n"
        "print(code, sorted({'pandas', 'torch', 'scipy', 'pyro'} & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert found.stdout.split() == ["2", "[]"]
    assert "dec in row 1 is 95" in found.stderr


def test_poor_clusters_get_a_masked_row_a_flag_and_a_warning(model, catalog, tmp_path, capsys):
    galaxies, clusters = flat_tables(catalog)
    owner = np.asarray(galaxies["cluster_id"])
    keep = (owner != 3) & ~((owner == 5) & (np.cumsum(owner == 5) > 2))
    galaxies = galaxies[keep]
    same_place = np.asarray(galaxies["cluster_id"]) == 7
    galaxies["x"][same_place], galaxies["y"][same_place] = 0.5, 0.0
    code, out = run(model, tmp_path, galaxies, clusters)
    assert code == 0
    table = Table.read(out)
    assert list(np.flatnonzero(table["log10_mass"].mask)) == [3, 5, 7]
    assert [table["flags"][row].split(",")[0] for row in (3, 5, 7)] == [
        "too_few_galaxies",
        "too_few_galaxies",
        "no_density",
    ]
    assert list(table["n_galaxies"][[3, 5]]) == [0, 2]
    streams = capsys.readouterr()
    assert "warning: cluster 3 has fewer than 3 galaxies" in streams.err
    assert "(2 such clusters)" in streams.err
    assert "warning: cluster 7 has galaxies without spread" in streams.err
    assert "3 without a mass (masked rows)" in streams.out


def test_galaxies_outside_the_grid_cost_only_their_cluster(estimator, catalog):
    velocity = np.array(catalog.galaxies("v_los"))
    velocity[: catalog.n_galaxies[0]] = 2300.0 + 10.0 * np.arange(catalog.n_galaxies[0]) % 150
    table = infer(estimator, catalog.with_galaxies(v_los=velocity))
    assert table["log10_mass"].mask[0]
    assert "no_density" in table["flags"][0]
    assert not table["log10_mass"].mask[1:].any()


@pytest.mark.parametrize("prior", ["flat", "hmf"])
def test_a_pdf_outside_the_masses_of_training_is_no_mass(estimator, catalog, prior):
    posterior = estimator.posterior(catalog)
    lowest = int(posterior.median.argmin())
    upper = posterior.quantile(0.975)[lowest]
    info = replace(estimator.training_info, log10_mass_range=(upper + 1e-6, 15.6))
    # All that lie whole below the new range, the lowest among them.
    outside = posterior.quantile(0.975) < upper + 1e-6
    narrower = MassEstimator(estimator.encoder, estimator.flow, info, "cpu")
    table = infer(narrower, catalog, prior=prior)
    assert outside[lowest]
    assert not outside.all()
    assert_array_equal(table["log10_mass"].mask, outside)
    assert_array_equal(["no_density" in flags.split(",") for flags in table["flags"]], outside)
    if prior == "flat":
        assert_allclose(table["log10_mass"][~outside], posterior.median[~outside], atol=1e-9)


def test_galaxies_beyond_the_cylinder_of_the_model_are_left_out(estimator, catalog):
    inside = infer(estimator, catalog)
    far = read_observations(estimator, *far_tables(catalog))
    assert np.array_equal(far.n_galaxies, catalog.n_galaxies)
    assert_allclose(infer(estimator, far)["log10_mass"], inside["log10_mass"], atol=1e-5)


def far_tables(catalog):
    """The tables with two more galaxies for each cluster, one far out and one too fast."""
    galaxies, clusters = flat_tables(catalog)
    for name in clusters["cluster_id"]:
        galaxies.add_row([name, 2.5, 0.0, 100.0])
        galaxies.add_row([name, 0.5, 0.0, 3000.0])
    return galaxies, clusters


def test_an_empty_catalogue_is_refused(estimator, catalog):
    with pytest.raises(CatalogError, match="no clusters"):
        infer(estimator, catalog[:0])


def spoiled(what):
    """Tables with one mistake, and the words the sentence must hold."""
    galaxies, clusters = flat_tables(toy_catalog(12, seed=2))
    if what == "missing column":
        galaxies.remove_column("v_los")
        return galaxies, clusters, ["galaxies.csv", "v_los"]
    if what == "text in a number":
        galaxies["v_los"] = galaxies["v_los"].astype(str)
        galaxies["v_los"][4] = "fast"
        return galaxies, clusters, ["v_los", "fast"]
    if what == "inf":
        galaxies["v_los"][7] = np.inf
        return galaxies, clusters, ["v_los", "inf"]
    if what == "duplicate ids":
        clusters["cluster_id"][3] = clusters["cluster_id"][2]
        return galaxies, clusters, ["cluster", "2"]
    if what == "unknown cluster":
        galaxies["cluster_id"][0] = 99
        return galaxies, clusters, ["99"]
    if what == "m/s":
        galaxies["v_los"] *= 1000.0
        return galaxies, clusters, ["m/s", "km/s"]
    if what == "cz":
        galaxies["v_los"] += 0.117 * SPEED_OF_LIGHT
        return galaxies, clusters, ["cz"]
    if what == "kpc":
        galaxies["x"] *= 1000.0
        galaxies["y"] *= 1000.0
        return galaxies, clusters, ["kpc", "Mpc/h"]
    if what == "negative redshift":
        clusters["redshift"][1] = -0.1
        return galaxies, clusters, ["redshift", "-0.1"]
    if what == "absurd redshift":
        clusters["redshift"] = 35000.0
        return galaxies, clusters, ["redshift", "cz"]
    if what == "mass not log":
        clusters["log10_mass"] = 3e14
        return galaxies, clusters, ["log10_mass", "log10"]
    assert what == "radians"
    galaxies, clusters = sky_tables(toy_catalog(12, seed=2))
    for table in (galaxies, clusters):
        table["ra"], table["dec"] = np.radians(table["ra"]), np.radians(table["dec"])
    return galaxies, clusters, ["radians"]


@pytest.mark.parametrize(
    "what",
    [
        *("missing column", "text in a number", "inf", "duplicate ids", "unknown cluster", "m/s"),
        *("cz", "kpc", "negative redshift", "absurd redshift", "mass not log", "radians"),
    ],
)
def test_bad_tables_end_with_code_2_and_one_sentence(what, model, tmp_path, capsys):
    galaxies, clusters, words = spoiled(what)
    code, out = run(model, tmp_path, galaxies, clusters)
    error = capsys.readouterr().err
    assert code == 2
    assert not out.exists()
    assert error.startswith("bayesflowmass infer: error: ")
    assert error.count("\n") == 1
    for word in words:
        assert word in error


def test_one_bad_row_stops_nothing(model, tmp_path, capsys):
    galaxies, clusters, _ = spoiled("duplicate ids")
    clusters["cluster_id"] = np.arange(len(clusters))
    _, out = run(model, tmp_path, galaxies, clusters)
    before = Table.read(out)
    ids = np.asarray(galaxies["cluster_id"])
    galaxies["v_los"][ids == 7] = 120.0
    clusters["redshift"][2] = np.nan
    galaxies["x"][np.flatnonzero(ids == 4)[0]] = np.nan
    code, out = run(model, tmp_path, galaxies, clusters)
    assert code == 0
    after = Table.read(out)
    error = capsys.readouterr().err
    assert "1 of 12 clusters have no redshift and get no mass; the first is row 3" in error
    assert f"galaxies without x is left out; the first is row {np.flatnonzero(ids == 4)[0] + 1}" in error
    assert np.flatnonzero(np.ma.getmaskarray(after["log10_mass"])).tolist() == [2, 7]
    assert "no_density" in after["flags"][7]
    assert after["flags"][2] == "no_redshift"
    assert "warning: cluster 2 has no redshift" in error
    assert after["n_galaxies"][4] == before["n_galaxies"][4] - 1
    others = [0, 1, 3, 5, 6, 8, 9, 10, 11]
    assert_allclose(after["log10_mass"][others], before["log10_mass"][others], atol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", "nowhere"], ["--model", "'nowhere' is not a model"]),
        (["--galaxies", "nowhere.csv"], ["nowhere.csv"]),
        (["--unit", "x=furlong"], ["furlong"]),
        (["--column", "cluster_id=nothing"], ["there is no column nothing"]),
        (["--out", "masses.doc"], ["must end in one of .ecsv"]),
        (["--out", "no/such/folder/masses.ecsv"], ["the folder 'no/such/folder' does not exist"]),
        (["--prior", "steep"], ["Unknown prior 'steep'", "sz:14.5"]),
        (["--device", "tpux"], ["unknown device 'tpux'"]),
        (["--redshift", "0.1"], ["redshift is given beside a table of clusters"]),
    ],
)
def test_bad_options_end_with_code_2_and_one_sentence(options, words, model, catalog, tmp_path, capsys):
    code, _ = run(model, tmp_path, *flat_tables(catalog), *options)
    error = capsys.readouterr().err
    assert code == 2
    assert error.count("\n") == 1
    for word in words:
        assert word in error


def test_only_hopeless_clusters_end_with_code_2(model, tmp_path, capsys):
    galaxies = Table({"cluster_id": ["A", "A"], "x": [0.1, 0.2], "y": [0.0, 0.0], "v_los": [10.0, 400.0]})
    clusters = Table({"cluster_id": ["A"], "redshift": [0.1]})
    code, _ = run(model, tmp_path, galaxies, clusters)
    assert code == 2
    assert "None of the 1 clusters can have a mass: cluster A has fewer than 3" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["truncated", "foreign", "newer"])
def test_unusable_models_end_with_code_2(kind, estimator, catalog, tmp_path, capsys):
    model = estimator.save(tmp_path / "model")
    if kind == "truncated":
        weights = (model / "model.safetensors").read_bytes()
        (model / "model.safetensors").write_bytes(weights[:1000])
    elif kind == "foreign":
        (model / "model.json").write_text('{"architecture": "resnet"}', encoding="utf-8")
    else:
        text = json.loads((model / "model.json").read_text(encoding="utf-8"))
        (model / "model.json").write_text(json.dumps(text | {"format_version": 7}), encoding="utf-8")
    code, _ = run(model, tmp_path, *flat_tables(catalog))
    error = capsys.readouterr().err
    assert code == 2
    assert {"truncated": "truncated", "foreign": "does not describe", "newer": "newer"}[kind] in error


def test_a_full_disk_and_ctrl_c_end_in_a_sentence(model, catalog, tmp_path, capsys, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bayesflowmass.posterior.write_table.write_table", full)
    code, _ = run(model, tmp_path, *flat_tables(catalog))
    assert (code, "the disk is full" in capsys.readouterr().err) == (2, True)

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("bayesflowmass.posterior.write_table.write_table", interrupted)
    code, _ = run(model, tmp_path, *flat_tables(catalog))
    assert (code, "interrupted" in capsys.readouterr().err) == (130, True)


@pytest.mark.shared_data
def test_real_clusters_go_through_the_command(shared_data, model, tmp_path):
    folder = shared_data / "sdss_galwcat"
    tables = folder / "galaxies_dev.csv", folder / "clusters_dev.csv"
    code, out = run(model, tmp_path, *tables, "--column", "cluster_id=ClID")
    assert code == 0
    table = Table.read(out)
    assert len(table) == 371
    assert np.sum(table["n_galaxies"] >= 20) > 100
    assert all("mode" in flags.split(",") for flags in table["flags"])


@pytest.mark.shared_data
def test_a_proper_radius_called_comoving_is_not_used_and_said(shared_data, model, tmp_path, capsys):
    folder = shared_data / "sdss_galwcat"
    names = ["--column", "cluster_id=ClID", "r_proj=R_proj_Mpch"]
    code, _ = run(model, tmp_path, folder / "galaxies_dev.csv", folder / "clusters_dev.csv", *names)
    assert code == 0
    assert "R_proj_Mpch is proper Mpc/h, as ra, dec and z tell, and not used" in capsys.readouterr().err


@pytest.mark.shared_data
def test_coma_of_desi_is_found_to_be_cleaned(shared_data, estimator):
    rows = np.loadtxt(shared_data / "coma_desi" / "data_DESI.dat")
    galaxies = Table({"r_proj": rows[:, 0], "v_los": rows[:, 1]})
    info = TrainingInfo.from_catalog(
        simulate_catalog(1000, mode="survey", redshift=(0.015, 0.05), seed=1), uses_richness=False
    )
    observer = MassEstimator(estimator.encoder, estimator.flow, info, "cpu")
    coma = read_observations(
        observer, galaxies, unit={"r_proj": "proper kpc"}, cluster_id="Coma", redshift=0.0231
    )
    assert 1300 < coma.n_galaxies[0] < 1400
    assert "cleaned" in infer(observer, coma)["flags"][0].split(",")

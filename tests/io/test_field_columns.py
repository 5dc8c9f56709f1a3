"""Names and units of columns as people in the field write them."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from flat_tables import EACH, frame_tables, notes, same, sky_tables

from bayesflowmass.catalog import CatalogError
from bayesflowmass.cosmology import MDPL2, SPEED_OF_LIGHT, Cosmology, transverse_mpc_h_per_radian
from bayesflowmass.io import load_catalog
from bayesflowmass.io.names import LIKELY, SURE, find_names
from bayesflowmass.io.plausibility import radius_reading


@pytest.mark.parametrize(
    "names",
    [
        ("RAdeg", "DEdeg", "zspec", "CName"),
        ("RA_deg", "DE_deg", "z_app", "ClID"),
        ("RAJ2000", "DEJ2000", "zsp", "Cluster"),
        ("_RAJ2000", "_DEJ2000", "z_helio", "cluster_id"),
        ("RA_ICRS", "DE_ICRS", "Z", "cluster_id"),
        ("RA (J2000)", "DEC (J2000)", "z (helio)", "cluster_id"),
        ("ra [degrees]", "dec [deg]", "REDSHIFT", "cluster_id"),
        ("TARGET_RA", "TARGET_DEC", "specz", "cluster id"),
        ("R.A.", "Dec.", "z_spec", "Cluster.ID"),
    ],
)
def test_names_that_all_know_need_no_columns_named(names):
    galaxies, clusters, _ = sky_tables()
    expected = load_catalog(galaxies, clusters)
    galaxies.rename_columns(["ra", "dec", "z", "cluster_id"], list(names))
    same(load_catalog(galaxies, clusters), expected)


def test_names_taken_for_ours_are_said_and_errors_are_found():
    galaxies, clusters, _ = sky_tables()
    galaxies["e_zspec"] = 1e-4
    galaxies.rename_columns(["ra", "dec", "z"], ["RAJ2000", "DEJ2000", "zspec"])
    catalog = load_catalog(galaxies, clusters)
    assert "RAJ2000 for ra, DEJ2000 for dec, zspec for z, e_zspec for z_err" in notes(catalog)
    z_cl = np.asarray(clusters["z"])[catalog.galaxy_rows]
    np.testing.assert_allclose(catalog.galaxies("gal_v_err"), SPEED_OF_LIGHT * 1e-4 / (1 + z_cl))


def test_names_of_errors_are_known_beside_those_of_what_they_belong_to():
    assert find_names(["zspec", "e_zspec"], SURE["clusters"]) == {
        "redshift": "zspec",
        "redshift_err": "e_zspec",
    }
    for velocity, error in (("V", "SigV"), ("RVel", "e_RVel"), ("Velocity", "e_Velocity")):
        assert find_names([velocity, error], LIKELY["galaxies"]) == {"cz": velocity, "v_err": error}


def test_columns_that_are_proposed_can_be_taken_in_one_go():
    galaxies, clusters, _ = sky_tables()
    expected = load_catalog(galaxies, clusters)
    galaxies.rename_columns(["ra", "dec", "z", "cluster_id"], ["alpha", "delta", "zbest", "group_id"])
    clusters.rename_columns(["ra", "dec", "z"], ["alpha", "decl", "z_mean"])
    # A magnitude, and no radius: positions are known without it.
    galaxies["r"] = 17.0
    with pytest.raises(CatalogError, match=r"use --column \w+=\w+, or --guess"):
        load_catalog(galaxies, clusters)
    catalog = load_catalog(galaxies, clusters, guess=True)
    same(catalog, expected)
    assert "r" in catalog.galaxy_columns
    assert "taken by their names: group_id for cluster_id, alpha for ra, delta for dec, zbest for z" in notes(
        catalog
    )


@pytest.mark.parametrize("names", [("v_pec", "r_p"), ("vz", "radius"), ("dv", "rcen")])
def test_radii_and_velocities_that_are_proposed_can_be_taken_in_one_go(names):
    galaxies, clusters = frame_tables()
    radius = np.hypot(galaxies["x"], galaxies["y"])
    galaxies.remove_columns(["x", "y"])
    galaxies["r_proj"] = radius
    expected = load_catalog(galaxies, clusters)
    galaxies.rename_columns(["v_los", "r_proj"], list(names))
    same(load_catalog(galaxies, clusters, guess=True), expected)


@pytest.mark.parametrize(("name", "taken"), [("SigV", True), ("g_err", False)])
def test_a_proposed_velocity_error_is_taken_and_that_of_a_magnitude_is_not(name, taken):
    galaxies, clusters, _ = sky_tables()
    galaxies[name] = 50.0
    assert load_catalog(galaxies, clusters, guess=True).has("gal_v_err") is taken


def test_what_is_there_is_never_guessed():
    galaxies, clusters = frame_tables()
    expected = load_catalog(galaxies, clusters)
    galaxies["alpha"], galaxies["velocity"], galaxies["r"] = 10.0, 5.0, 20.0
    catalog = load_catalog(galaxies, clusters, guess=True)
    same(catalog, expected)
    assert {"alpha", "velocity", "r"} <= set(catalog.galaxy_columns)


def test_ids_of_fits_that_are_latin_1_are_read_and_can_be_written(tmp_path):
    names = np.array(["Persée".encode("latin-1"), b"Coma"])
    table = Table({"cluster_id": np.repeat(names, 4), "v_los": np.arange(8.0) * 200.0 - 700.0})
    table["redshift"] = 0.05
    table["x"], table["y"] = np.arange(8.0) / 10.0, np.arange(8.0) ** 2 / 100.0
    columns = [
        fits.Column(name, "8A" if name == "cluster_id" else "D", array=table[name]) for name in table.colnames
    ]
    hdu = fits.BinTableHDU.from_columns(columns)
    hdu.writeto(tmp_path / "g.fits")
    catalog = load_catalog(tmp_path / "g.fits")
    assert catalog.column("cluster_id").tolist() == ["Persée", "Coma"]
    catalog.write(tmp_path / "c.parquet")
    assert load_catalog(tmp_path / "c.parquet").equals(catalog)


def test_names_of_clusters_that_are_not_those_of_the_table_do_not_stand_in_the_way():
    galaxies, clusters, _ = sky_tables()
    expected = load_catalog(galaxies, clusters)
    galaxies["CName"] = np.char.add("Abell ", galaxies["cluster_id"])
    galaxies.remove_column("cluster_id")
    catalog = load_catalog(galaxies, clusters)
    np.testing.assert_array_equal(catalog.n_galaxies, expected.n_galaxies)
    assert "assigned to clusters by their positions" in notes(catalog)


def test_all_columns_are_renamed_at_once():
    galaxies, clusters = frame_tables()
    expected = load_catalog(galaxies, clusters)
    galaxies["x"], galaxies["y"] = np.array(galaxies["y"]), np.array(galaxies["x"])
    same(load_catalog(galaxies, clusters, {"x": "y", "y": "x"}), expected)
    same(load_catalog(galaxies, clusters, {"y": "x", "x": "y"}), expected)
    sky, centres, _ = sky_tables()
    wanted = load_catalog(sky, centres)
    sky.rename_column("z", "z_of_galaxy")
    sky["z"] = np.asarray(centres["z"])[np.repeat(np.arange(3), EACH)]
    centres["z_of_galaxy"] = 0.5
    named = {"galaxies.z": "z_of_galaxy", "galaxies.redshift": "z", "clusters.redshift": "z"}
    for order in (1, -1):
        same(load_catalog(sky, centres, dict(list(named.items())[::order])), wanted)


@pytest.mark.parametrize(
    ("unit", "factor"),
    [
        *(
            ("km/s", 1.0),
            ("km s-1", 1.0),
            ("km s^-1", 1.0),
            ("km.s-1", 1.0),
            ("km.s**-1", 1.0),
            ("km/sec", 1.0),
        ),
        *(("kms", 1.0), ("kms-1", 1.0), ("KM/S", 1.0), ("km / s", 1.0), ("m/s", 1e3)),
    ],
)
def test_velocities_in_every_spelling(tmp_path, unit, factor):
    galaxies, clusters = frame_tables()
    expected = load_catalog(galaxies, clusters)
    galaxies["v_los"] *= factor
    galaxies.rename_column("v_los", f"v_los [{unit}]")
    galaxies.write(tmp_path / "g.csv")
    same(load_catalog(tmp_path / "g.csv", clusters), expected)


@pytest.mark.parametrize(
    ("unit", "factor"),
    [
        *(("Mpc/h", 1.0), ("h-1 Mpc", 1.0), ("cMpc/h", 1.0), ("Mpc h^-1", 1.0), ("h^-1 Mpc", 1.0)),
        *(
            ("comoving kpc/h", 1e3),
            ("comoving Mpc", 1 / MDPL2.h),
            ("pMpc", "proper"),
            ("proper kpc h^-1", "per h"),
        ),
        *(("arcmin", "angle"), ("proper kpc", "kpc")),
    ],
)
def test_lengths_in_every_spelling(tmp_path, unit, factor):
    galaxies, clusters = frame_tables()
    expected = load_catalog(galaxies, clusters)
    z = dict(zip(clusters["cluster_id"], clusters["redshift"], strict=True))
    z = np.array([z[one] for one in galaxies["cluster_id"]])
    scales = {"proper": 1 / MDPL2.h / (1 + z), "per h": 1e3 / (1 + z), "kpc": 1e3 / MDPL2.h / (1 + z)}
    scales["angle"] = np.degrees(60.0) / transverse_mpc_h_per_radian(z)
    for name in ("x", "y"):
        galaxies[name] = galaxies[name] * scales.get(factor, factor)
        galaxies.rename_column(name, f"{name} [{unit}]")
    galaxies.write(tmp_path / "g.csv")
    same(load_catalog(tmp_path / "g.csv", clusters), expected)


@pytest.mark.parametrize("unit", ["Mpc/h70", "Mpc", "kpc/h", "furlong"])
def test_lengths_that_are_not_known_are_refused(unit):
    galaxies, clusters = frame_tables()
    with pytest.raises(CatalogError, match=r"unknown unit|say which it is"):
        load_catalog(galaxies, clusters, units={"x": unit, "y": unit})


def test_lengths_of_another_cosmology_become_ours():
    galaxies, clusters = frame_tables()
    expected = load_catalog(galaxies, clusters)
    theirs = Cosmology(h=0.7, Om0=0.3)
    z = dict(zip(clusters["cluster_id"], clusters["redshift"], strict=True))
    z = np.array([z[one] for one in galaxies["cluster_id"]])
    angle = 1.0 / transverse_mpc_h_per_radian(z, MDPL2)
    for name in ("x", "y"):
        galaxies[name] *= angle * transverse_mpc_h_per_radian(z, theirs) / theirs.h / (1 + z) * 1e3
    unit = {"x": "proper kpc", "y": "proper kpc"}
    same(load_catalog(galaxies, clusters, units=unit, table_cosmology=theirs), expected)
    ours = load_catalog(galaxies, clusters, units=unit)
    ratio = np.median(ours.galaxies("x") / expected.galaxies("x"))
    assert ratio == pytest.approx(MDPL2.h / 0.7, abs=0.002)
    assert "--table-cosmology H0,Om (70,0.3 makes radii 3.3 % larger)" in notes(ours)


@pytest.mark.parametrize(
    ("reading", "scale"),
    [
        ("proper Mpc of H0 = 70, Om = 0.3", lambda z: 1 / 0.7 / (1 + z)),
        ("proper kpc", lambda z: 1e3 / MDPL2.h / (1 + z)),
        ("proper Mpc/h", lambda z: 1 / (1 + z)),
        ("comoving Mpc", lambda z: 1 / MDPL2.h + 0 * z),
    ],
)
def test_radii_beside_coordinates_tell_what_they_are(reading, scale):
    galaxies, clusters, truth = sky_tables()
    expected = load_catalog(galaxies, clusters)
    z = np.repeat(np.asarray(clusters["z"]), EACH)
    their = Cosmology(h=0.7, Om0=0.3) if "70" in reading else MDPL2
    theirs = transverse_mpc_h_per_radian(z, their) / transverse_mpc_h_per_radian(z, MDPL2)
    galaxies["r_proj"] = truth["r"] * scale(z) * theirs
    catalog = load_catalog(galaxies, clusters)
    same(catalog, expected)
    assert f"r_proj is {reading}" in notes(catalog)


@pytest.mark.parametrize("cosmology", ["", " of H0 = 70, Om = 0.3", " of H0 = 50, Om = 1"])
@pytest.mark.parametrize("frame", ["comoving", "proper"])
@pytest.mark.parametrize("unit", ["Mpc", "kpc", "Mpc/h", "kpc/h"])
def test_each_reading_of_radii_is_told_from_the_others(cosmology, frame, unit):
    z = np.linspace(0.2, 1.2, 50)
    computed = np.linspace(0.1, 2.0, 50)
    their = {"": MDPL2, " of H0 = 70, Om = 0.3": Cosmology(h=0.7, Om0=0.3)}.get(
        cosmology, Cosmology(h=0.5, Om0=1.0)
    )
    angle = computed / transverse_mpc_h_per_radian(z, MDPL2)
    given = angle * transverse_mpc_h_per_radian(z, their)
    given = given / (1 + z) if frame == "proper" else given
    given = given if unit.endswith("/h") else given / their.h
    given = 1e3 * given if unit.startswith("kpc") else given
    name = f"{frame} {unit}{cosmology}"
    # Within a per cent of ours they are ours.
    ours = name.startswith("comoving Mpc/h") and not cosmology.endswith("Om = 1")
    expected = None if ours else name
    assert radius_reading(given, computed, z, MDPL2, "t") == expected


@pytest.mark.parametrize(("unit", "per_degree"), [("degrees", 1.0), ("arcmin", 60.0), ("arcsec", 3600.0)])
def test_radii_that_are_angles_are_told(unit, per_degree):
    z = np.linspace(0.05, 0.6, 50)
    computed = np.linspace(0.1, 2.0, 50)
    given = per_degree * np.degrees(computed / transverse_mpc_h_per_radian(z, MDPL2))
    assert radius_reading(given, computed, z, MDPL2, "t") == unit


def test_radii_that_fit_nothing_are_refused():
    z, computed = np.full(9, 0.1), np.linspace(0.1, 2.0, 9)
    with pytest.raises(CatalogError, match=r"t, read as the distance from the centre, is 3\.300 times"):
        radius_reading(3.3 * computed, computed, z, MDPL2, "t")


def test_velocities_that_are_cz_beside_redshifts_are_not_used():
    galaxies, clusters, _ = sky_tables()
    expected = load_catalog(galaxies, clusters)
    galaxies["v_los"] = np.asarray(galaxies["z"]) * SPEED_OF_LIGHT
    catalog = load_catalog(galaxies, clusters)
    same(catalog, expected)
    assert "v_los is cz and not used" in notes(catalog)


def test_a_magnitude_called_z_is_no_redshift():
    galaxies, clusters, _ = sky_tables()
    expected = load_catalog(galaxies, clusters)
    galaxies.rename_column("z", "redshift")
    galaxies["z"] = 17.0
    catalog = load_catalog(galaxies, clusters)
    same(catalog, expected)
    assert "a magnitude; the redshift is taken from redshift" in notes(catalog)

"""Tables of galaxies alone: centres and redshifts of their clusters are found, said and flagged."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.table import Table

from bayesflowmass.catalog import CatalogError
from bayesflowmass.cosmology import SPEED_OF_LIGHT, transverse_mpc_h_per_radian
from bayesflowmass.io import read_flat
from bayesflowmass.io.sky import rest_frame_velocity, sky_offsets, sky_position
from tests.support.small_model import toy_estimator

CENTRES = {"far": (359.98, 60.0, 0.6), "near": (150.0, -30.0, 0.08), "sparse": (20.0, 5.0, 0.2)}
MEMBERS = {"far": 80, "near": 60, "sparse": 2}


def galaxies(seed=1, names=("CName", "RAdeg", "DEdeg", "zspec")):
    """Three clusters among twice as many galaxies of the field, beside the middle of it; one has no peak."""
    rng = np.random.default_rng(seed)
    rows = []
    for name, (ra, dec, z) in CENTRES.items():
        n, scale = MEMBERS[name], transverse_mpc_h_per_radian(z)
        east, north = rng.normal(0.0, 0.35, (2, n)) / scale
        v = rng.normal(0.0, 700.0, n)
        field = rng.uniform(-2.0, 3.0, (2, 2 * n)) / scale
        places = [np.append(east, field[0]), np.append(north, field[1])]
        z_all = np.append(z + v * (1.0 + z) / SPEED_OF_LIGHT, rng.uniform(0.02, 1.0, 2 * n))
        where = sky_position(np.full(3 * n, ra), np.full(3 * n, dec), *places)
        rows += zip([name] * (3 * n), *where, z_all, strict=True)
    return Table(rows=rows, names=names)


@pytest.fixture(scope="module")
def found():
    return read_flat(galaxies(), few_galaxies="keep")


def test_centre_and_redshift_are_found_within_the_errors_that_are_said(found):
    assert found.column("cluster_id").tolist() == list(CENTRES)
    for row, (ra, dec, z) in enumerate(list(CENTRES.values())[:2]):
        centre = [np.array([found.column(name)[row]]) for name in ("ra", "dec")]
        away = sky_offsets(*centre, np.array([ra]), np.array([dec])) * transverse_mpc_h_per_radian(z)
        # A centroid of 3 in 4 of the galaxies is up to twice as far off as the mean of all.
        assert np.abs(away).max() < 5.0 * found.column("centre_err")[row] < 0.6
        off = rest_frame_velocity(found.column("redshift")[row], z) / SPEED_OF_LIGHT * (1.0 + z)
        assert abs(off) < 4.0 * found.column("redshift_err")[row] < 4e-3


def test_a_cluster_without_a_peak_stays_without_a_mass_and_all_are_flagged(found):
    assert np.isnan(found.column("redshift")).tolist() == [False, False, True]
    flags = toy_estimator().flags(found)
    assert ["centre_found" in row.split(",") for row in flags] == [True] * 3
    assert "no_redshift" in flags[2]
    note = next(note for note in found.metadata.extra["notes"] if "no table of clusters" in note)
    assert "2 of 3" in note
    assert "without a mass: 1;" in note
    assert "km/s" in note


def test_errors_are_those_of_a_mean_over_the_galaxies_near_the_centre(found):
    table = galaxies()
    for row, name in enumerate(("far", "near")):
        mine = table[table["CName"] == name]
        ra, dec, z = (np.full(len(mine), found.column(column)[row]) for column in ("ra", "dec", "redshift"))
        places = sky_offsets(np.asarray(mine["RAdeg"]), np.asarray(mine["DEdeg"]), ra, dec)
        r = np.hypot(*places) * transverse_mpc_h_per_radian(z[0])
        v = rest_frame_velocity(np.asarray(mine["zspec"]), z)
        near = (r < 0.7) & (np.abs(v) < 1000.0)
        # The last step of a centre is not taken back: a galaxy or two may cross the edge.
        error = np.sqrt((r[near] ** 2).sum() / 2.0) / near.sum()
        assert found.column("centre_err")[row] == pytest.approx(error, rel=0.03)
        error = (1.0 + z[0]) / SPEED_OF_LIGHT * np.sqrt((v[near] ** 2).sum()) / near.sum()
        assert found.column("redshift_err")[row] == pytest.approx(error, rel=0.03)


def test_a_redshift_that_is_known_is_kept():
    table = galaxies()
    table = table[table["CName"] == "near"]
    catalog = read_flat(table, redshift=0.0805, few_galaxies="keep")
    assert catalog.column("redshift").tolist() == [0.0805]
    assert not catalog.has("redshift_err")
    # 40 km/s to the side moves no centre.
    assert abs(catalog.column("ra")[0] - 150.0) < 0.06


def test_all_galaxies_may_be_of_one_cluster():
    table = galaxies()
    table = table[table["CName"] == "near"]
    table.remove_column("CName")
    catalog = read_flat(table, cluster_id="A1", few_galaxies="keep")
    assert catalog.column("cluster_id").tolist() == ["A1"]
    assert abs(catalog.column("redshift")[0] - 0.08) < 0.002


@pytest.mark.parametrize(
    "names",
    [
        ("CName", "RAdeg", "DEdeg", "zspec"),
        ("cname", "RA_deg", "DEC_deg", "z_app"),
        ("CName", "RAJ2000", "DEJ2000", "REDSHIFT"),
    ],
)
def test_names_of_the_field_are_taken_in_one_go(names):
    table = galaxies(names=names)
    table["e_zspec"] = 1e-4
    catalog = read_flat(table, guess=True, few_galaxies="keep")
    assert np.isfinite(catalog.column("redshift")).sum() == 2
    assert catalog.galaxies("gal_v_err").max() > 0.0


def test_galaxies_of_nobody_are_refused_with_both_remedies():
    table = galaxies()
    table.remove_column("CName")
    with pytest.raises(
        CatalogError, match=r"need a table of clusters .*--clusters; .*--cluster-id NAME: its centre"
    ):
        read_flat(table)


def test_a_table_without_any_peak_is_refused():
    table = galaxies()
    with pytest.raises(CatalogError, match="nowhere do three galaxies"):
        read_flat(table[table["CName"] == "sparse"][:2], few_galaxies="keep")


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"col1": [1.0], "col2": [2.0]}, "column v_los is missing; its columns have no names"),
        ({"ClID": [1], "z": [0.1], "log10_m200c": [14.0]}, "column v_los is missing"),
        ({"ra": [10.0], "dec": [2.0], "mag": [17.0]}, "column z is missing"),
    ],
)
def test_a_table_without_galaxies_is_told_which_column_of_them_it_lacks(columns, said):
    with pytest.raises(CatalogError, match=said):
        read_flat(Table(columns), redshift=None)

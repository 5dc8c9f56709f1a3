"""Answers of archives that are rare: tables without a position, several at once, columns of objects, no errors."""

from __future__ import annotations

import numpy as np
import pytest
from astropy import units as u
from astropy.table import MaskedColumn, Table

from bayesflowmass.catalog import CatalogError
from bayesflowmass.cosmology import SPEED_OF_LIGHT
from bayesflowmass.io.archives import ArchiveError, Caller, cluster
from bayesflowmass.io.archives.cluster import ClusterPosition, _velocity_errors, fetch_cluster
from bayesflowmass.io.archives.services import _largest, _plain, galaxies_from
from bayesflowmass.io.archives.ucd import galaxies_by_ucd
from bayesflowmass.io.cylinders import Recentring
from bayesflowmass.io.formats.base import Reading


def test_archives_other_than_vizier_take_no_column_of_redshifts():
    with pytest.raises(ArchiveError, match="--redshift-column is for tables of VizieR"):
        galaxies_from("ned", 0.0, 0.0, 0.1, (0.0, 1.0), None, None, redshift_column="z")


def of_ucd(ucd="src.redshift", **columns):
    table = Table({"RAJ2000": [10.0, 10.1], "DEJ2000": [0.0, 0.1], "z": [0.1, 0.2], **columns})
    table["z"].meta["ucd"] = ucd
    return table


def test_a_table_by_ucd_needs_a_position_and_a_redshift():
    assert galaxies_by_ucd(of_ucd(), "t").galaxies["z"].tolist() == [0.1, 0.2]
    assert galaxies_by_ucd(of_ucd("x"), "t", "z").galaxies["z"].tolist() == [0.1, 0.2]
    with pytest.raises(CatalogError, match=r"t: there is no column w .there are RAJ2000, DEJ2000, z"):
        galaxies_by_ucd(of_ucd(), "t", "w")
    with pytest.raises(CatalogError, match="t: no column has the UCD of a spectroscopic redshift"):
        galaxies_by_ucd(of_ucd("x"), "t")
    bare = of_ucd()
    bare.remove_column("DEJ2000")
    with pytest.raises(CatalogError, match="t: no position in degrees among RAJ2000, z"):
        galaxies_by_ucd(bare, "t")


def test_of_several_tables_the_one_with_most_redshifts_is_taken_and_the_others_said():
    small, other = of_ucd()[:1], Table({"a": [1, 2, 3]})
    found = _largest({"s": small, "b": of_ucd(), "o": other}, None, "J/A")
    assert (len(found), found.meta) == (2, {"table": "b", "other_tables": "s"})
    assert _largest({"o": other, "s": small}, "a", "J/A").meta == {"table": "o", "other_tables": ""}
    assert len(_largest({}, None, "J/A")) == 0
    with pytest.raises(ArchiveError, match=r"no table there has a redshift; .*\(o: a\)"):
        _largest({"o": other}, None, "J/A")
    with pytest.raises(ArchiveError, match="no table there has a column z"):
        _largest({"o": other}, "z", "J/A")


def test_columns_of_answers_are_kept_as_text_files_hold_them():
    table = of_ucd(
        object=MaskedColumn(np.array(["a", None], dtype=object), mask=[False, False]),
        gap=MaskedColumn([1, 2], mask=[True, False], unit="km/s"),
        wide=[[1, 2], [3, 4]],
    )
    table["z"].unit = u.UnrecognizedUnit("odd")
    kept = _plain(table)
    assert "wide" not in kept.colnames
    assert kept["object"].tolist() == ["a", ""]
    assert (kept["gap"].tolist(), str(kept["gap"].unit)) == ([None, 2], "km / s")
    assert kept["z"].meta == {"ucd": "src.redshift", "unit": "odd"}


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        (None, None),
        ([np.nan, np.nan], None),
        ([1e-4, np.nan], [1e-4, 1e-4]),
        ([1e-4, 3e-4], [1e-4, 3e-4]),
    ],
)
def test_errors_of_velocities_are_known_of_all_galaxies_or_of_none(errors, expected):
    table = Table({"z": [0.1, 0.1]} if errors is None else {"z": [0.1, 0.1], "z_err": errors})
    found = _velocity_errors(table, 0.25)
    if expected is None:
        assert found is None
    else:
        np.testing.assert_allclose(found, SPEED_OF_LIGHT / 1.25 * np.array(expected))


def test_clusters_are_fetched_recentred_and_archives_asked_as_is_said():
    assert vars(Recentring()) == {
        "position": True,
        "velocity": True,
        "r_inner": 0.5,
        "v_inner": 1000.0,
        "max_shift_r": 0.8,
        "max_shift_v": 1500.0,
        "rounds": 5,
    }
    caller = Caller()
    assert (caller.interval, caller.timeout, caller.attempts, caller.pause) == (1.0, 60.0, 4, 2.0)


def test_a_cluster_is_fetched_within_2_mpc_and_4000_km_s(monkeypatch, capsys):
    far = Reading(Table({"ra": [50.0], "dec": [0.0], "z": [0.5]}), counts={})
    monkeypatch.setattr(cluster, "galaxies_from", lambda *_, **options: (far, str(options["progress"])))
    with pytest.raises(
        ArchiveError, match=r"ned: none of the 1 galaxies .* is within 2 Mpc/h and 4000 km/s of A"
    ):
        fetch_cluster("ned", ClusterPosition("A", 10.0, 0.0, 0.1))
    near = Table({"ra": [10.0, 10.0], "dec": [0.0, 0.01], "z": [0.1, 0.1]})
    near["z_err"], near["mag"], near["x"] = [1e-4, 1e-4], [17.0, 18.0], [5.0, 5.0]
    monkeypatch.setattr(
        cluster, "galaxies_from", lambda *_, **options: (Reading(near, counts={}), str(options["progress"]))
    )
    found = fetch_cluster("ned", ClusterPosition("A", 10.0, 0.0, 0.1))
    assert (found.counts, found.table.meta["date"]) == ({"outside_cylinder": 0, "galaxies": 2}, "False")
    assert found.notes == ("0 outside 2 Mpc/h and 4000 km/s.",)
    # What is ours is made, and the rest is carried; an error in redshift has become one in velocity.
    assert found.table["mag"].tolist() == [17.0, 18.0]
    assert np.abs(found.table["x"]).max() < 1e-6
    assert "z_err" not in found.table.colnames
    np.testing.assert_allclose(found.table["v_err"], SPEED_OF_LIGHT * 1e-4 / 1.1)

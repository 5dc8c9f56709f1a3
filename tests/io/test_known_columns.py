"""By which columns the tables of surveys are known: each of them is needed, and no other."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.table import Table

from bayesflowmass.io.formats import identify_columns
from bayesflowmass.io.table import FlatTable

KNOWN = {
    "erass1": ["RA DEC BEST_Z M500"],
    "redmapper-clusters": ["Z_LAMBDA RA DEC LAMBDA", "Z_LAMBDA RA DEC LAMBDA_CHISQ"],
    "redmapper-members": ["MEM_MATCH_ID RA DEC P"],
    "ned": [
        "Object Name,RA,DEC,Type,Redshift",
        "Object Name,RA,DEC,Phys Type,cz",
        "Object Name,RA,DEC,Type,Velocity",
    ],
    "desi": ["TARGETID TARGET_RA TARGET_DEC Z ZWARN", "TARGETID RA DEC Z ZWARN"],
    "skyserver": [
        "objid ra dec specz",
        "specObjID ra dec z",
        "bestObjID ra dec redshift zWarning",
        "objid ra dec z zErr",
    ],
}


def known_as(names):
    found = identify_columns(names)
    return None if found is None else found.name


@pytest.mark.parametrize(
    ("name", "columns"), [(name, one) for name, several in KNOWN.items() for one in several]
)
def test_a_table_is_known_by_these_columns_and_by_no_fewer(name, columns):
    names = columns.split("," if "," in columns else " ")
    assert known_as(names) == name
    assert known_as([*names, "other"]) == name
    for left_out in names:
        assert known_as([one for one in names if one != left_out]) != name


@pytest.mark.parametrize("name", ["desi", "skyserver"])
def test_galaxies_that_were_given_to_clusters_are_no_export_of_a_survey(name):
    for columns in KNOWN[name]:
        assert known_as([*columns.split(), "cluster_id"]) is None


def test_members_beside_their_clusters_redshift_are_clusters_or_nothing():
    assert known_as(["MEM_MATCH_ID", "RA", "DEC", "P", "Z_LAMBDA"]) is None
    assert known_as(["MEM_MATCH_ID", "RA", "DEC", "P", "Z_LAMBDA", "LAMBDA"]) == "redmapper-clusters"


@pytest.mark.parametrize(
    ("what", "theirs", "ours"),
    [
        *(("galaxies", name, "z") for name in ("z_app", "zhelio", "z_hel", "zspec", "zCMB", "z_cmb")),
        *(
            ("clusters", name, "redshift")
            for name in ("z_app", "zhelio", "z_hel", "z_helio", "zCMB", "z_cmb", "zcl")
        ),
    ],
)
def test_redshifts_are_known_by_the_names_of_their_frames(what, theirs, ours):
    table = FlatTable(Table({"ra": [10.0], "dec": [1.0], theirs: [0.1]}), what, name="t")
    assert table.theirs[ours] == theirs
    assert table.measured(ours).tolist() == [0.1]
    assert f"t: taken by their names: {theirs} for {ours}." in table.notes


@pytest.mark.parametrize("what", ["galaxies", "clusters"])
def test_a_heliocentric_redshift_beats_one_of_the_microwave_background_whose_frame_is_said(what):
    both = FlatTable(Table({"zCMB": [0.1], "zhel": [0.2]}), what, name="t")
    assert both.theirs["z" if what == "galaxies" else "redshift"] == "zhel"
    assert not any("microwave" in note for note in both.notes)
    alone = FlatTable(Table({"zCMB": [0.1]}), what, name="t")
    assert any(
        "zCMB is in the frame of the microwave background" in note and "up to 370 km/s" in note
        for note in alone.notes
    )


def test_a_table_made_of_what_a_guess_needs_and_nothing_else_is_guessed():
    columns = {"alpha": [10.0], "delta": [1.0], "redshift": [0.1]}
    assert set(FlatTable(Table(columns), "clusters", guess=True).columns) == {"ra", "dec", "redshift"}
    assert set(FlatTable(Table(columns), "clusters").columns) == set(columns)


@pytest.mark.parametrize("degrees", [-3.0, 0.0, 3.0])
def test_a_sign_that_stands_at_the_degrees_only_is_that_of_all_parts(degrees):
    parts = {"RAh": [1.0], "RAm": [0.0], "DEd": [degrees], "DEm": [30.0]}
    found = FlatTable(Table(parts), "galaxies").measured("dec")
    np.testing.assert_allclose(found, degrees + (-0.5 if degrees < 0 else 0.5))

"""What few tables have, or lack: columns that may be missing, types of cells, values that nobody expects."""

from __future__ import annotations

import datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.table import MaskedColumn, QTable, Table
from astropy.time import Time
from survey_tables import erass, halo_cnn, mamposst, ned, redmapper_clusters, redmapper_members

from bayesflowmass.catalog import CatalogError
from bayesflowmass.cosmology import MDPL2, SPEED_OF_LIGHT
from bayesflowmass.io import load_catalog
from bayesflowmass.io.any_table import read_any_table
from bayesflowmass.io.flat.clusters import clusters_from_table
from bayesflowmass.io.formats import identify, identify_columns
from bayesflowmass.io.formats.base import FileHead
from bayesflowmass.io.formats.columns import carry_others, find_column, plural, whole_ids
from bayesflowmass.io.frames import to_cmb
from bayesflowmass.io.npy import open_npy
from bayesflowmass.io.opening import at_rest
from bayesflowmass.io.table import FlatTable
from bayesflowmass.io.text.blocks import read_rows
from bayesflowmass.io.text.ecsv import typed


def converted(table):
    """What the format that knows its columns makes of a table."""
    return identify_columns(table.colnames).convert(table, "t")


def test_clusters_of_erass_have_their_names_or_their_numbers():
    table = erass()
    table["BEST_Z"][1] = 0.0
    assert list(converted(table).clusters["cluster_id"]) == ["em01", "em03"]
    table.remove_column("DETUID")
    assert list(converted(table).clusters["cluster_id"]) == [1, 3]


def test_clusters_of_redmapper_may_lack_spectra_and_errors():
    table = redmapper_clusters()
    table["Z_LAMBDA_E"] = [-1.0, 0.007, 0.01]
    found = converted(table).clusters
    # A spectrum has no error of a colour, and an error that is not positive is none.
    assert found["redshift_err"].tolist() == [0.0, 0.007]
    table.remove_column("CG_SPEC_Z")
    reading = converted(table)
    assert reading.clusters["redshift"].tolist() == [0.21, 0.31]
    assert reading.clusters["redshift_is_spectroscopic"].tolist() == [False, False]
    assert reading.clusters["redshift_err"].tolist() == [0.0, 0.007]
    assert reading.counts == {"photometric_redshifts": 2, "no_redshift": 1}
    assert "2 redshifts photometric" in reading.notes[1]
    table.remove_column("Z_LAMBDA_E")
    assert "redshift_err" not in converted(table).clusters.colnames


def test_members_of_redmapper_without_a_radius_or_ids_are_read():
    table = redmapper_members()
    table.remove_columns(["R", "ID"])
    found = converted(table)
    assert found.counts == {"no_redshift": 10}
    assert not {"r_redmapper", "galaxy_id"} & set(found.galaxies.colnames)
    assert found.notes[0].startswith("30 members, 20 with")


def test_tables_of_ned_may_lack_velocities_redshifts_and_flags():
    table = ned()
    known = ~np.ma.getmaskarray(table["Redshift"])
    assert converted(table).counts["no_redshift"] == 0
    by_velocity = table.copy()
    by_velocity.remove_columns(["Redshift", "Redshift Flag"])
    found = converted(by_velocity)
    np.testing.assert_allclose(found.galaxies["z"], table["Velocity"] / SPEED_OF_LIGHT)
    assert found.used["cz"] == "Velocity"
    table.remove_columns(["Velocity", "Redshift Flag"])
    assert converted(table).counts["no_redshift"] == int(np.sum(~known)) == 2


def test_mocks_of_halo_cnn_may_lack_members_and_radii(tmp_path):
    path, rows = halo_cnn(tmp_path / "a.npy")
    assert load_catalog(path, redshift=0.1, min_galaxies=0).metadata.kind == "contaminated"
    rows["gal_memb_halo"] = True
    np.save(path, rows)
    assert load_catalog(path, redshift=0.1, min_galaxies=0).metadata.kind == "pure"
    kept = [name for name in rows.dtype.names if name not in ("gal_memb_halo", "gal_Rproj")]
    np.save(path, np.array(rows[kept].tolist(), dtype=[(name, rows.dtype[name]) for name in kept]))
    catalog = load_catalog(path, redshift=0.1, min_galaxies=0)
    assert catalog.metadata.kind is None
    assert not catalog.has("gal_is_member")
    assert catalog.n_galaxies.tolist() == rows["Ngal"].tolist()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(3), "expected one structured row"),
        (np.zeros((2, 2), dtype=[("a", "f8")]), r"has shape \(2, 2\)"),
        (np.array([None], dtype=object), "holds Python objects"),
    ],
)
def test_an_npy_file_has_a_structured_row_for_each_object(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(CatalogError, match=message):
        open_npy(tmp_path / "a.npy")


@pytest.mark.parametrize(("lines", "known"), [(0, True), (1, False), (-1, False)])
def test_rows_of_mamposst_stand_below_two_lines_exactly(tmp_path, lines, known):
    path = mamposst(tmp_path / "a.dat")
    text = path.read_text(encoding="utf-8").split("\n")
    text = ["# more"] * lines + text[max(-lines, 0) :]
    path.write_text("\n".join(text), encoding="utf-8")
    found = identify(path)
    assert (found is not None and found.name == "mg-mamposst") == known


def test_types_of_parquet_that_are_rare(tmp_path):
    table = pa.table(
        {
            "half": pa.array(np.array([0.5, 2.0], dtype=np.float16)),
            "whole": pa.array([Decimal(2**62), None], pa.decimal128(20, 0)),
            "bytes": pa.array([b"a", b"b"]),
            "odd": pa.array([b"\xff", b"b"]),
            "time": pa.array([datetime.datetime(2024, 1, 1), None]),
            "list": pa.array([[1.0], [2.0]]),
            "large": pa.array(["a", None], pa.large_string()),
            "no": pa.array([None, False]),
            "n": pa.array([None, 7], pa.int16()),
            "full": pa.array([1.5, 2.5]),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=1)
    read = read_any_table(tmp_path / "t.parquet")
    assert read.meta["notes"] == ["columns that are no numbers or text are left out: odd, list."]
    assert read["half"].tolist() == [0.5, 2.0]
    assert read["whole"].tolist() == [str(2**62), ""]
    assert read["bytes"].tolist() == ["a", "b"]
    assert read["time"][0].startswith("2024-01-01")
    assert read["large"].tolist() == ["a", ""]
    assert (read["no"].tolist(), read["n"].tolist()) == ([None, False], [None, 7])
    assert not np.ma.isMaskedArray(read["full"])


def test_columns_of_astropy_of_any_sort_are_numbers_or_text():
    table = QTable(
        {
            "length": [1.0, 2.0] * u.Mpc,
            "time": Time(["2024-01-01", "2024-01-02"]),
            "bytes": np.array([b"a", b"\xc3\xa9"]),
            "latin": np.array([b"a", b"\xe9"]),
            "object": np.array([None, "b"], dtype=object),
            "big": np.array([1, 2], dtype=">i4"),
            "gap": MaskedColumn([1, 2], mask=[True, False]),
            "whole": MaskedColumn([1, 2]),
            "day": np.array(["2024-01-01", "NaT"], dtype="M8[D]"),
        }
    )
    columns = FlatTable(table, "galaxies").columns
    assert columns["length"].tolist() == [1.0, 2.0]
    assert columns["time"][0].startswith("2024-01-01")
    assert columns["bytes"].tolist() == columns["latin"].tolist() == ["a", "\xe9"]
    assert columns["object"].tolist() == [None, "b"]
    assert (columns["big"].tolist(), columns["big"].dtype.isnative) == ([1, 2], True)
    assert columns["gap"].tolist() == [None, 2]
    assert not np.ma.isMaskedArray(columns["whole"])
    assert columns["day"].tolist() == ["2024-01-01", None]


def test_a_frame_of_redshifts_is_one_of_two():
    z = np.array([0.1])
    with pytest.raises(
        CatalogError, match="the frame of redshifts is 'lsr'; expected one of heliocentric, cmb"
    ):
        to_cmb(z, z, z, "lsr")
    assert to_cmb(z, z, z, "cmb") is z
    # At the apex of the Sun's motion, and opposite to it.
    beta = 369.82 / SPEED_OF_LIGHT
    for ra, dec, sign in ((167.94191, -6.94426, 1.0), (347.94191, 6.94426, -1.0)):
        expected = 1.1 * np.sqrt((1.0 + sign * beta) / (1.0 - sign * beta)) - 1.0
        np.testing.assert_allclose(to_cmb(z, np.array([ra]), np.array([dec])), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("-", "for standard input it is /dev/stdin"),
        ("http://a/b.csv", "an address, and files are read from this computer only"),
        ("no/such.csv", r"no such file\.$"),
        ("a*.csv", "no such file; a pattern is not expanded"),
        ("x" * 5000, "cannot be opened: File name too long"),
        ("a\0b", "no name of a file"),
    ],
)
def test_a_name_that_opens_nothing_is_one_sentence(name, message):
    with pytest.raises(CatalogError, match=message):
        at_rest(name)


def test_an_empty_file_and_one_without_rows_have_no_table(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"")
    with pytest.raises(CatalogError, match="the file is empty"):
        read_any_table(path)
    for text in (b"", b"# 1 2\n\n"):
        path.write_bytes(text)
        with pytest.raises(CatalogError, match="the table has no rows"):
            read_rows(path, ("a", "b"), {"b": "number"})
    path.write_bytes(b"1 2\n3 4\n5 6\n")
    for size in (1, 100):
        found = read_rows(path, ("a", "b"), {"b": "number", "a": "id"}, skip_lines=1, block_bytes=size)
        assert (found["a"].tolist(), found["b"].tolist()) == ([3, 5], [4.0, 6.0])
        assert found["a"].dtype == np.int64


@pytest.mark.parametrize(
    ("kind", "cells", "expected"),
    [
        ("float64", ["1", "2"], [1.0, 2.0]),
        ("int64", ["1", "1.5"], "in row 2 is '1.5'; expected int64"),
        ("int64", ["", ""], [None, None]),
        ("float32", ["1", "x"], "in row 2 is 'x'; expected float32"),
        ("bool", ["True", "0"], [True, False]),
        ("bool", ["True", "maybe"], ["True", "maybe"]),
        ("string", ["1", "2"], ["1", "2"]),
    ],
)
def test_cells_of_ecsv_are_of_their_type_or_refused(kind, cells, expected):
    if isinstance(expected, str):
        with pytest.raises(CatalogError, match=expected):
            typed(pa.array(cells), kind, "t: c")
    else:
        assert typed(pa.array(cells), kind, "t: c").tolist() == expected
        assert typed(pa.chunked_array([cells[:1], cells[1:]]), kind, "t: c").tolist() == expected


def test_the_first_of_several_names_and_columns_is_taken():
    table = Table({"ID": [1], "id ": [2], "b": [3]})
    assert find_column(table, "b", "id") == "b"
    assert find_column(table, "id") == "ID"
    assert find_column(table, "c") is None
    carried = carry_others(table, ["b"], {"id": [9], "z": [0.1]}, np.array([0]))
    assert carried.colnames == ["id", "z", "ID_in_file", "id_in_file"]
    assert [plural(1, "row"), plural(2, "row"), plural(0, "galaxy", "galaxies")] == [
        *("1 row", "2 rows", "0 galaxies")
    ]


@pytest.mark.parametrize("kind", ["f8", "i8", "S4", "O", "U4"])
def test_ids_of_surveys_are_whole_or_text(kind):
    table = Table({"ID": np.array([1, 20], dtype=kind)})
    if kind == "f8":
        with pytest.raises(
            CatalogError, match="ID is stored as float64; ids of surveys have up to 19 digits"
        ):
            whole_ids(table, "ID", "t")
    else:
        found = whole_ids(table, "ID", "t")
        assert found.tolist() == ([1, 20] if kind == "i8" else ["1", "20"])


def test_a_column_is_the_id_of_clusters_where_it_differs_in_each_row_and_has_no_gap():
    def ids(**columns):
        table = FlatTable(Table({"z": [0.1, 0.2], **columns}), "clusters")
        return clusters_from_table(table, MDPL2)["cluster_id"].tolist()

    assert ids(name=["a", "b"]) == ["a", "b"]
    for bad in (["a", "a"], MaskedColumn(["a", "b"], mask=[False, True])):
        with pytest.raises(CatalogError, match="column cluster_id is missing"):
            ids(name=bad)
    with pytest.raises(CatalogError, match="none of the 2 clusters has a redshift"):
        clusters_from_table(
            FlatTable(Table({"cluster_id": [1, 2], "redshift": [np.nan, np.nan]}), "clusters"), MDPL2
        )


def test_what_is_wrong_in_a_map_of_columns_is_named():
    galaxies = Table({"x": [0.1] * 3, "y": [0.1] * 3, "v_los": [0.0, 300.0, -300.0], "z": [0.1] * 3})
    with pytest.raises(CatalogError, match=r"expected OURS=THEIRS, galaxies.OURS= or clusters.OURS="):
        load_catalog(galaxies, column_map={"stars.z": "z"}, cluster_id="A", redshift=0.1)
    with pytest.raises(CatalogError, match="there is no column w"):
        load_catalog(galaxies, column_map={"z": "w"}, cluster_id="A", redshift=0.1)
    with pytest.raises(CatalogError, match="a unit is given for q, which is no column"):
        load_catalog(galaxies, units={"q": "km/s"}, cluster_id="A", redshift=0.1)
    with pytest.raises(CatalogError, match="or give --cluster-id NAME if all galaxies are of one cluster"):
        load_catalog(galaxies, redshift=0.1)


@pytest.mark.parametrize("redshift", ["redshift", "z"])
@pytest.mark.parametrize(("mode", "name"), [("paper", "mode"), ("deep", "mode_in_file")])
def test_columns_of_clusters_that_mean_nothing_else_are_carried(redshift, mode, name):
    columns = {"cluster_id": [1, 2], redshift: [0.1, 0.2], "richness": [30.0, 40.0], "mode": [mode] * 2}
    table = FlatTable(Table(columns | {"x": [5.0, 6.0], "colour": ["red", "blue"]}), "clusters")
    found = clusters_from_table(table, MDPL2)
    assert set(found) == {"cluster_id", "redshift", "richness", name, "cluster_x", "colour"}
    assert found["redshift"].tolist() == [0.1, 0.2]
    assert found["richness"].tolist() == [30.0, 40.0]
    assert found["colour"].tolist() == ["red", "blue"]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"a b\n1 2\n", True),
        (b"a\0b", False),
        (b"\x80\x04 pickle", False),
        (b"PAR1 and more", False),
        (b"PAR 1", True),
    ],
)
def test_a_file_could_be_text_by_its_bytes(tmp_path, content, text):
    (tmp_path / "a").write_bytes(content)
    head = FileHead(tmp_path / "a")
    assert head.is_text == text
    assert bool(head.lines) == text

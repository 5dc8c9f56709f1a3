"""Text tables in the forms that they have in the field: every row is read, or the line at fault is named."""

from __future__ import annotations

import bz2
import gzip
import lzma

import numpy as np
import pytest
from box_files import cosmosim, rockstar
from flat_tables import frame_tables

from bayesflowmass.catalog import CatalogError
from bayesflowmass.io import load_catalog, read_box
from bayesflowmass.io.any_table import read_any_table
from bayesflowmass.io.text.rows import BYTES_AT_ONCE, RowFormat, iterate_parts, split_line

ROWS = [("A 1", "12.5", "-0.25", "007"), ("B", "13.0", "", "8"), ("C", "1e2", "3", "19")]
NAMES = ("name", "ra", "z", "number")


def written(folder, text, name="table.txt", encoding="utf-8"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def delimited(mark, header=True, quote=True):
    cell = (lambda c: f'"{c}"' if " " in c or c == "" else c) if quote else str
    lines = [mark.join(cell(c) for c in row) for row in ([NAMES] if header else []) + ROWS]
    return "\n".join(lines) + "\n"


def check(table):
    assert table.colnames == list(NAMES)
    assert table["name"].tolist() == ["A 1", "B", "C"]
    np.testing.assert_array_equal(np.asarray(table["ra"], dtype=float), [12.5, 13.0, 100.0])
    assert np.ma.getmaskarray(table["z"]).tolist() == [False, True, False]
    assert table["number"].tolist() == ["007", "8", "19"]


@pytest.mark.parametrize("mark", [",", "\t", ";", "|", " "])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_delimiters_and_line_ends_are_found(tmp_path, mark, end):
    check(read_any_table(written(tmp_path, delimited(mark).replace("\n", end))))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_text_is_read_in_any_encoding_and_locale(tmp_path, encoding):
    path = written(tmp_path, "näme,x\nAbéll,1\nB,2\n", "t.csv", encoding)
    table = read_any_table(path)
    assert table.colnames == ["näme", "x"]
    assert table["näme"].tolist() == ["Abéll", "B"]
    assert ("the text is not UTF-8; it was read as Latin-1." in table.meta["notes"]) == (
        encoding == "latin-1"
    )


@pytest.mark.parametrize(
    ("line", "mark", "cells"),
    [
        ('1,"a",', ",", ["1", "a", ""]),
        ('1,"a,"', ",", ["1", "a,"]),
        ('"a,b" , 2', ",", ["a,b", "2"]),
        ('"say ""so""",', ",", ['say "so"', ""]),
        (",,", ",", ["", "", ""]),
        ("", ",", [""]),
        (' 1  "a b" x ', " ", ["1", "a b", "x"]),
        ('1,"a', ",", None),
        ('"', " ", None),
    ],
)
def test_a_line_is_split_where_no_quote_holds_it_together(line, mark, cells):
    assert split_line(line, mark) == cells


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, bytes])
@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.fits", "t"])
def test_packed_or_not_is_told_by_content_and_not_by_name(tmp_path, pack, name):
    path = tmp_path / name
    path.write_bytes(pack(delimited(",").encode()))
    check(read_any_table(path))


@pytest.mark.parametrize(
    "head",
    [
        "# name,ra,z,number\n",
        "# Sample of May\n\n#name, ra, z, number\n",
        "# name,ra,z,number\n# four more little words\n#\n",
        "# Version of May\n# of a survey\nname,ra,z,number\n",
        "#1 name\n#2 ra\n#3 z\n#4 number\n",
        "#Table1\nname,ra,z,number\n",
        "name,ra [deg],z,number\n",
        "name,ra,z,number\n,deg,,\n",
        "name,ra,z,number\n,deg,,\n----,---,---,---\n",
    ],
)
def test_names_are_read_where_they_stand(tmp_path, head):
    text = head + delimited(",", header=False)
    table = read_any_table(written(tmp_path, text))
    if "ra [deg]" in head:
        table.rename_column("ra [deg]", "ra")
    elif ",deg," in head:
        assert str(table["ra"].unit) == "deg"
    check(table)


def test_names_in_a_comment_beat_what_numbers_look_like(tmp_path):
    rng = np.random.default_rng(0)
    rows = np.stack(
        [np.repeat([1, 2], 20), rng.normal(size=40), rng.normal(size=40), rng.normal(0, 500, 40)], -1
    )
    np.savetxt(tmp_path / "a.csv", rows, delimiter=",", header="cluster_id,x,y,v_los")
    np.savetxt(tmp_path / "b.txt", rows[:, [0, 3, 1, 2]], header="made in May\ncluster_id v_los x y")
    for name in ("a.csv", "b.txt"):
        catalog = load_catalog(tmp_path / name, redshift=0.1, r_max=None, v_max=None)
        assert catalog.column("cluster_id").tolist() == [1, 2]
        np.testing.assert_allclose(catalog.galaxies("v_los"), rows[:, 3])
        assert any("taken from a comment" in note for note in catalog.metadata.extra["notes"])


def test_values_in_a_comment_are_no_names(tmp_path):
    table = read_any_table(
        written(tmp_path, "# center RA=104.65, DEC=-55.95, z=0.297\n1 4583. 193. -1391.\n2 40. 1. 9.\n")
    )
    assert table.colnames == ["col1", "col2", "col3", "col4"]


def test_a_first_row_with_a_tab_too_many_is_no_header_below_names_in_a_comment(tmp_path):
    rows = [f"{k},0.{k},0.{k},{k}00.5" for k in range(1, 9)]
    text = "\n".join(["# cluster_id,x,y,v_los", "1,0.1,0.1,38\t4.9", *rows, ""])
    assert len(read_any_table(written(tmp_path, text))) == 9


def test_vizier_tables_with_units_and_dashes_are_read(tmp_path):
    text = (
        "#\n#   VizieR Astronomical Server\n#INFO\tnrows=2\n\n#RESOURCE=yCat\n#Column\tClID\t(I4)\tCluster\n"
        "ClID\tRAJ2000\tDEJ2000\tcz\n \tdeg\tdeg\tkm/s\n----\t-------\t-------\t----\n   1\t150.0\t+2.0\t 1500\n"
        "   1\t150.1\t-2.0\t 1600\n"
    )
    table = read_any_table(written(tmp_path, text, "v.tsv"))
    assert table.colnames == ["ClID", "RAJ2000", "DEJ2000", "cz"]
    assert [str(table[name].unit) for name in ("RAJ2000", "cz")] == ["deg", "km / s"]
    assert table["DEJ2000"].tolist() == [2.0, -2.0]
    assert len(table) == 2


def test_bar_separated_tables_of_ned_are_read(tmp_path):
    text = (
        "\nNED results for object Abell 1 >> LIST\n\n2 objects found in NED.\n\n"
        "No.|Object Name|RA|DEC|Type|Velocity|Redshift|Redshift Flag\n"
        "1|WISEA J1|10.0|1.0|G|30000|0.1|SLS\n2|A|10.1|1.1|G|||\n"
    )
    table = read_any_table(written(tmp_path, text))
    assert table["Object Name"].tolist() == ["WISEA J1", "A"]
    assert table["Redshift"].tolist() == [0.1, None]


def test_machine_readable_tables_are_cut_at_their_places(tmp_path):
    text = (
        "Title: Galaxies\n================================\nByte-by-byte Description of file: t.txt\n"
        "--------------------------------\n   Bytes Format Units Label Explanations\n"
        "--------------------------------\n   1-  2 I2     h     RAh   Hour\n   4-  5 I2     min   RAm   Minute\n"
        "   7- 10 F4.1   s     RAs   Second\n      12 A1     ---   DE-   Sign\n  13- 14 I2     deg   DEd   Degree\n"
        "  16- 17 I2     arcmin DEm  Minute\n  19- 23 I5     km/s  cz    ? Velocity\n"
        "--------------------------------\n10 00 01.5 -00 12 30000\n10 00 02.5 +01 12      \n"
    )
    table = read_any_table(written(tmp_path, text))
    assert np.ma.getmaskarray(table["cz"]).tolist() == [False, True]
    from bayesflowmass.io.table import FlatTable

    flat = FlatTable(tmp_path / "table.txt", "galaxies")
    np.testing.assert_allclose(flat.columns["ra"], [150.0 + 1.5 / 240, 150.0 + 2.5 / 240])
    np.testing.assert_allclose(flat.columns["dec"], [-0.2, 1.2])
    shifted = text.replace("10 00 02.5 +01", "10 00 02.55+01")
    with pytest.raises(CatalogError, match=r"line 16 has '5' in place 11, .*\(at DE-\)"):
        read_any_table(written(tmp_path, shifted))
    with pytest.raises(CatalogError, match=r"line 16 has '7' in place 24, .*\(at its end\)"):
        read_any_table(written(tmp_path, text.replace("+01 12      ", "+01 12 300007")))


@pytest.mark.parametrize(("mark", "place", "column"), [("-", 1, "ra"), ("7", 6, "v"), ("x", 11, "its end")])
def test_a_row_of_ipac_with_something_below_a_bar_is_refused(tmp_path, mark, place, column):
    head, row = "|ra  |v   |\n|real|int |\n|deg |km/s|\n", list(" 12.5 -30  ")
    assert read_any_table(written(tmp_path, head + "".join(row) + "\n"))["v"].tolist() == [-30]
    row[place - 1] = mark
    with pytest.raises(CatalogError, match=f"table.txt: line 5 has '{mark}' in place {place}, .*at {column}"):
        read_any_table(written(tmp_path, head + " 1    2    \n" + "".join(row) + "\n"))


def test_exponents_of_fortran_and_decimal_commas_are_numbers(tmp_path):
    fortran = read_any_table(written(tmp_path, "ra dec\n1.5D+02 -2.0d-1\n3. 1.D0\n"))
    assert fortran["ra"].tolist() == [150.0, 3.0]
    assert fortran["dec"].tolist() == [-0.2, 1.0]
    comma = read_any_table(written(tmp_path, "id;ra;dec\n1;149,98;-2\n2;150;0,5\n"))
    assert comma["ra"].tolist() == [149.98, 150.0]
    assert comma["dec"].tolist() == [-2.0, 0.5]
    # In a table parted by commas there is no such number.
    assert read_any_table(written(tmp_path, "a,b\n1,5\n2,6\n"))["a"].tolist() == [1, 2]


@pytest.mark.parametrize(
    "cells", [("007", "7"), ("12345678901234567890", "1"), ("12E4", "13E5"), ("0x1F", "1")]
)
def test_ids_keep_their_letters(tmp_path, cells):
    table = read_any_table(written(tmp_path, "id,x\n" + "".join(f"{cell},1\n" for cell in cells)))
    assert tuple(table["id"]) == cells


def test_ids_with_leading_zeros_are_kept_from_end_to_end(tmp_path):
    galaxies, clusters = frame_tables()
    for table, name in ((galaxies, "g.csv"), (clusters, "c.csv")):
        table["cluster_id"] = np.char.zfill(np.asarray(table["cluster_id"]).astype(str), 4)
        table.write(tmp_path / name)
    catalog = load_catalog(tmp_path / "g.csv", tmp_path / "c.csv")
    assert catalog.column("cluster_id").tolist() == ["0010", "0011", "0012"]


BROKEN = {
    "a stray quote": ('a,b\n1,"x\n2,y\n', "line 2 has a double quote that does not close"),
    "a stray quote, closed by another": ('a,b\n1,"x\n2,"y\n', "line 2 has a double quote"),
    "a quote that closes too early": ('a,b\n1,"x"y\n2,z\n', "line 2 has a double quote"),
    "a stray quote among blanks": ('a b\n1 "x\n2 y\n', "line 2 has a double quote"),
    "a row too short": ("a,b,c\n1,2,3\n4,5\n6,7,8\n", "line 3 has 2 values; expected 3 .a, b, c.: correct"),
    "a row too long": ("a b\n1 2\n3 4 5\n", "line 3 has 3 values; expected 2"),
    "a header too short": ("a,b\n1,2,3\n4,5,6\n", "line 2 has 3 values; expected 2"),
    "half a row at the end": (
        "a,b,c\n1,2,3\n4,5",
        "line 3 has 2 values.*the file ends in the middle of a row",
    ),
    "a row that is commented out": ("a b\n1 2\n#3 4\n5 6\n", "line 3 begins with # and has as many values"),
    "a first row that is commented out": (
        "# a,b\n#7,2\n3,4\n",
        "line 2 begins with # and has as many values",
    ),
    "a zero byte": ("a,b\n1,2\n3,\0\n", "line 3 holds a zero byte"),
    "a name twice": ("a,b,a\n1,2,3\n", "column a is there 2 times"),
    "no rows": ("a,b\n", "no rows"),
    "a web page": ("<!DOCTYPE html><html>", "this is a web page"),
    "json": ('{"a": 1}', "this is JSON"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_line_that_cannot_be_a_row_is_named(tmp_path, name):
    text, message = BROKEN[name]
    with pytest.raises(CatalogError, match=f"table.txt: {message}|{message}") as caught:
        read_any_table(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_names_that_begin_with_a_hash_are_rows(tmp_path):
    galaxies, _ = frame_tables()
    galaxies["name"] = [f"#{k}" if k % 3 == 0 else f"g{k}" for k in range(len(galaxies))]
    for name, mark in (("g.tsv", "\t"), ("g.csv", ",")):
        galaxies[["name", *galaxies.colnames[:-1]]].write(
            tmp_path / name, format="ascii.basic", delimiter=mark
        )
        catalog = load_catalog(tmp_path / name, redshift=0.1)
        assert catalog.n_galaxies_total == len(galaxies)
        assert set(catalog.galaxies("name")) == set(galaxies["name"])


def test_comments_among_rows_and_empty_rows_are_said(tmp_path):
    table = read_any_table(written(tmp_path, "a b\n1 2\n# a remark on what follows\n3 4\n\n5 6\n"))
    assert table["a"].tolist() == [1, 3, 5]
    assert table.meta["notes"] == ["lines among the rows that begin with # are passed over: 1."]
    empty = read_any_table(written(tmp_path, "a,b\n1,2\n,\n3,4\n,\n"))
    assert empty["a"].tolist() == [1, 3]
    assert empty.meta["notes"] == ["rows without any value are passed over: 2."]


@pytest.mark.parametrize("write", [cosmosim, rockstar])
def test_boxes_lose_no_row_to_a_quote(tmp_path, write):
    path = write(tmp_path / ("a.csv" if write is cosmosim else "hlist_1.0.list"))
    rows = len(read_box(path)["id"])
    lines = path.read_text(encoding="utf-8").split("\n")
    place = next(k for k in range(3, len(lines)) if not lines[k].startswith("#"))
    mark = "," if write is cosmosim else " "
    first, _, rest = lines[place].strip().partition(mark)
    lines[place] = f'{first}{mark}"{rest}'
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(CatalogError, match=f"line {place + 1} has a double quote"):
        read_box(path)
    assert rows > 1


@pytest.mark.parametrize("block_bytes", [1, 7, 64, BYTES_AT_ONCE])
def test_blocks_of_any_size_give_the_same_rows(tmp_path, block_bytes):
    text = "".join(f'{k} "a {k}" {k / 8}\n' + ("\n" if k % 5 == 0 else "") for k in range(40))
    path = written(tmp_path, text)
    with path.open("rb") as stream:
        form = RowFormat(("id", "name", "x"))
        parts = list(
            iterate_parts(
                stream, form, {"id": "id", "name": "text", "x": "number"}, "t", block_bytes=block_bytes
            )
        )
    assert [k for part in parts for k in part["id"].to_pylist()] == list(range(40))
    assert [k for part in parts for k in part["name"].to_pylist()] == [f"a {k}" for k in range(40)]


@pytest.mark.parametrize("first", ["sep=,", "SEP=,\r", '"sep=,"', "sep=,,,"])
@pytest.mark.parametrize("names", [True, False])
def test_the_line_that_excel_wants_above_a_table_is_not_a_row(tmp_path, first, names):
    """The delimiter is said there, and the rows say it too."""
    rows = [f"{k},{k / 8},{k / 16}\n" for k in range(20)]
    path = written(tmp_path, f"{first}\n" + "cluster_id,x,y\n" * names + "".join(rows))
    table = read_any_table(path)
    assert len(table) == 20
    assert table[table.colnames[1]].tolist() == [k / 8 for k in range(20)]
    assert "the line sep= above the table is passed over." in table.meta["notes"]
    other = written(tmp_path, path.read_text(encoding="utf-8").replace(",", ";"))
    assert len(read_any_table(other)) == 20


def test_a_cell_that_would_fill_the_memory_is_named(tmp_path):
    path = written(tmp_path, "a,b\n" + "x,1\n" * 2000 + "y" * 200_000 + ",2\n")
    with pytest.raises(CatalogError, match="a in row 2001 has 200000 characters"):
        read_any_table(path)


def test_a_byte_order_mark_hides_no_names_of_a_box(tmp_path):
    path = rockstar(tmp_path / "hlist_1.0.list")
    rows = read_box(path)["id"]
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    np.testing.assert_array_equal(read_box(path)["id"], rows)


@pytest.mark.parametrize(
    "text", ['a b\n1 2\n 3 "4"x \n', "|a\n 1\n 2\n", "|\n1 2\n", "", "\n\n", "# a\n# b\n"]
)
def test_odd_beginnings_end_in_one_sentence(tmp_path, text):
    with pytest.raises(CatalogError) as caught:
        load_catalog(written(tmp_path, text), redshift=0.1)
    assert "\n" not in str(caught.value)

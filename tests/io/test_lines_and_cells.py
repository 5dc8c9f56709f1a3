"""Lines of text and their cells at each limit: what ends a head, parts values, is a comment, or is complained of."""

from __future__ import annotations

import io

import pytest

from bayesflowmass.catalog import CatalogError
from bayesflowmass.io.any_table import read_any_table
from bayesflowmass.io.formats.base import FileHead
from bayesflowmass.io.opening import HEAD_BYTES
from bayesflowmass.io.text.layout import find_layout
from bayesflowmass.io.text.rows import RowFormat, iterate_parts, split_line


def seen(text):
    """Names, delimiter and lines above the rows."""
    found = find_layout(text.split("\n"))
    return found.form.names, found.form.delimiter, found.skip


def parts_of(text, wanted, delimiter=",", names=("id", "x"), **options):
    form = RowFormat(names, delimiter)
    return list(iterate_parts(io.BytesIO(text), form, wanted, "t", **options))


@pytest.mark.parametrize(
    ("line", "mark", "cells"),
    [
        ('"b"\t\tc', "\t", ["b", "", "c"]),
        (' \t"b"', "\t", ["", "b"]),
        ('\t"b" \t', "\t", ["", "b", ""]),
        ('a, "b,c" ,d', ",", ["a", "b,c", "d"]),
        ('""', ",", [""]),
        ('"', ",", None),
        ('"a"b"', ",", ['a"b']),
        ('a "b c" ""', " ", ["a", "b c", ""]),
    ],
)
def test_empty_cells_stand_beside_quoted_ones(line, mark, cells):
    assert split_line(line, mark) == cells


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # The usual width is that of the rows, the first and only one included.
        ("ra [deg] dec (deg)\n1 2", (("ra [deg]", "dec (deg)"), " ", 1)),
        ("a,b", (("a", "b"), ",", 1)),
        ("1 149,98 19,99", (("col1", "col2", "col3"), " ", 0)),
        ("149,98 A 19,99\n150,01 B 20,01", (("col1", "col2", "col3"), " ", 0)),
        # A line whose quotes do not close has as many values as it has delimiters, and one.
        ('a,b\n1,2\n3,"x\n4\n5', (("a", "b"), ",", 1)),
        ('a,b\n1,"x', (("a", "b"), ",", 1)),
        ("a,\n1,2\n", (("a", "col2"), ",", 1)),
        # Rows end with a delimiter only where all of them do.
        ("a,b\n1,2\n3,4,\n5,6,", (("a", "b"), ",", 1)),
        # What stands in two hundred lines says what the first of them is.
        ("name,7\n" + "1,1\n" * 160 + "x,1\n" * 40, (("name", "7"), ",", 1)),
        ("name,7\n" + "1,1\n" * 159 + "x,1\n" * 40, (("col1", "col2"), ",", 0)),
    ],
)
def test_delimiter_and_names_follow_from_the_rows(text, expected):
    assert seen(text) == expected


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("comments", [0, 3])
def test_a_file_is_known_by_whole_lines_below_its_comments(tmp_path, end, comments):
    path = tmp_path / "a.txt"
    text = ("# of a survey" + "." * 100_000 + "\n") * comments + "a b\n1 2\n3 4"
    assert (len(text) > HEAD_BYTES) == bool(comments)
    path.write_bytes(text.replace("\n", end).encode())
    assert FileHead(path).lines[comments:] == ["a b", "1 2", "3 4"]
    assert FileHead(path).columns == ["a", "b"]
    assert read_any_table(path)["b"].tolist() == [2, 4]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_first_cell_of_a_table_without_names_is_whole(tmp_path, encoding, end):
    path = tmp_path / "a.txt"
    path.write_bytes(f"12 3{end}45 6{end}78 9".encode(encoding))
    table = read_any_table(path)
    assert [table[name].tolist() for name in table.colnames] == [[12, 45, 78], [3, 6, 9]]


def test_comments_that_never_end_are_no_table(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes((b"# of a survey" + b"." * 100_000 + b"\n") * 3)
    with pytest.raises(CatalogError, match="the table has no rows"):
        read_any_table(path)


@pytest.mark.parametrize(
    "text",
    [
        b"1\t2\n3 4\n",
        b" 1 2\n3 4\n",
        b"1 2\n3 4 ",
        b"1  2\n3 4\n",
        b"1 2 \n3 4",
        b"\t1 2\n3 4",
        b"\n1 2\n3 4",
    ],
)
def test_blanks_of_any_sort_part_values(text):
    (part,) = parts_of(text, {"id": "id", "x": "number"}, " ")
    assert (part["id"].to_pylist(), part["x"].to_pylist()) == ([1, 3], [2.0, 4.0])


@pytest.mark.parametrize(
    ("text", "delimiter", "rows"),
    [
        (b"1,2\n\n3,4\n", ",", ["2", "4"]),
        (b"\n1,2\n3,4\n", ",", ["2", "4"]),
        (b"1,2\n \t \n3,4\n", ",", ["2", "4"]),
        (b"1\t2\n\t\n3\t4\n", "\t", ["2", "", "4"]),
        (b"1\t2\n  \n3\t4\n", "\t", ["2", "4"]),
        (b"1;2\n#1;2;3\n3;4\n", ";", ["2", "4"]),
        (b'1,"2"\n#a,"b"\n', ",", ["2", "b"]),
    ],
)
def test_empty_lines_and_comments_are_no_rows(text, delimiter, rows):
    (part,) = parts_of(text, {"x": "text"}, delimiter)
    assert [cell or "" for cell in part["x"].to_pylist()] == rows


def test_a_table_of_one_column_has_comments():
    (part,) = parts_of(b"1\n# 2\n3\n", {"id": "text"}, names=("id",))
    assert part["id"].to_pylist() == ["1", "3"]


def test_words_keep_the_letters_that_would_be_exponents_of_numbers():
    assert parts_of(b"12D4,1\n", {"id": "text"})[0]["id"].to_pylist() == ["12D4"]
    assert parts_of(b"1,1.5D+02\n2,2d-1\n", {"x": "number"})[0]["x"].to_pylist() == [150.0, 0.2]


@pytest.mark.parametrize(
    ("row", "kinds", "complaint"),
    [
        (
            b"-9223372036854775808,x",
            ("id", "number"),
            "x in line 1 is 'x'; expected a number: correct or remove the line",
        ),
        (b"9223372036854775807,x", ("id", "number"), "x in line 1 is 'x'; expected a number:"),
        (
            b"9223372036854775808,1",
            ("id", "number"),
            "id in line 1 is '9223372036854775808'; expected a whole number",
        ),
        (
            b"-9223372036854775809,1",
            ("id", "number"),
            "id in line 1 is '-9223372036854775809'; expected a whole",
        ),
        (b"1.5,1", ("id", "number"), "id in line 1 is '1.5'; expected a whole number of 64 bits"),
        (b"7,inf", ("id", "number"), "x in line 1 is 'inf'; expected a finite number:"),
        (b"7,nan", ("id", "number"), "x in line 1 is 'nan'; expected a finite number:"),
        (b"7,", ("id", "number"), "x in line 1 is ''; expected a number:"),
        (b"7,y", ("id", "maybe"), "x in line 1 is 'y'; expected a number:"),
        (b",y", ("maybe", "maybe"), "x in line 1 is 'y'; expected a number:"),
        (b"inf,y", ("maybe", "number"), "x in line 1 is 'y'; expected a number:"),
        (b"z,y", ("text", "number"), "x in line 1 is 'y'; expected a number:"),
    ],
)
def test_the_first_cell_that_cannot_be_is_complained_of(row, kinds, complaint):
    with pytest.raises(CatalogError, match=f"^t: {complaint}"):
        parts_of(row, dict(zip(("id", "x"), kinds, strict=True)))


@pytest.mark.parametrize("number", [7, 8, 9, 10])
def test_names_of_up_to_eight_columns_are_listed_whole(number):
    names = tuple(f"c{place}" for place in range(number))
    listed = ", ".join(names) if number <= 8 else f"c0, c1, c2, c3, c4, c5, ..., {names[-1]}"
    with pytest.raises(CatalogError, match=rf"expected {number} \({listed}\)"):
        parts_of(b"1,2\n", {"c0": "id"}, names=names)


def test_a_quote_that_does_not_close_is_in_the_line_that_is_named():
    for delimiter in (",", " "):
        text = f'# no row\n\n1{delimiter}"a"\n2{delimiter}"b\n'.encode()
        with pytest.raises(CatalogError, match="line 14 has a double quote that does not close"):
            parts_of(text, {"x": "text"}, delimiter, first_line=11)

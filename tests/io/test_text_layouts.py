"""What the first lines of a text say, line by line, and what cells of its columns can be, at each limit."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest

from bayesflowmass.catalog import CatalogError
from bayesflowmass.io.text import values
from bayesflowmass.io.text.layout import find_layout
from bayesflowmass.io.text.machine_readable import is_machine_readable, machine_readable_layout
from bayesflowmass.io.text.rows import RowFormat, iterate_parts
from bayesflowmass.io.text.values import column_values, is_number, numbers_of_words, text_array


def layout(text):
    return find_layout(text.split("\n"))


def seen(text):
    """Names, delimiter and lines above the rows."""
    found = layout(text)
    return found.form.names, found.form.delimiter, found.skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a,b\n1,2", (("a", "b"), ",", 1)),
        ("1,2\n3,4", (("col1", "col2"), ",", 0)),
        ("\n# note\na,b\n\n1,2", (("a", "b"), ",", 3)),
        # Half of the rows have as many values as most have.
        ("a,b,c\n1,2,3\n1,2,3\n1,2\n1,2,3,4", (("a", "b", "c"), ",", 1)),
        ("a,b,c\n1,2,3\n1,2,3\n1,2\n1,2,3,4\n1,2,3,4,5", (("a,b,c",), " ", 1)),
        ("a\n1", (("a",), " ", 1)),
        ("a,b\n1\n2\n3", (("a,b",), " ", 1)),
        ("a;b,c\n1;2,5\n3;4,5", (("a", "b,c"), ";", 1)),
        ("a|b\n1|2", (("a", "b"), "|", 1)),
        # Blanks part the values, and commas are points.
        ("1 149,98 19,99\n2 150,01 20,01", (("col1", "col2", "col3"), " ", 0)),
        ("A 1,149\nB 2,150", (("col1", "col2"), " ", 0)),
        ("A 1,x y\nB 2,y z", (("A 1", "x y"), ",", 1)),
        ("name,x\nA 1,2\nB 2,3", (("name", "x"), ",", 1)),
        # Names of another width than the rows are refused later, with their line.
        ("a,b\n1,2,3\n4,5,6", (("a", "b"), ",", 1)),
        ("a,b,\n1,2\n3,4", (("a", "b"), ",", 1)),
        ("a,b\n1,2,\n3,4,", (("a", "b", "col3"), ",", 1)),
        ("a,,c\n1,2,3", (("a", "col2", "c"), ",", 1)),
        ("ra [deg] dec (deg)\n1 2\n3 4", (("ra [deg]", "dec (deg)"), " ", 1)),
        ("a b c d\n1 2\n3 4", (("a", "b", "c", "d"), " ", 1)),
    ],
)
def test_delimiter_and_names_are_found(text, expected):
    assert seen(text) == expected


@pytest.mark.parametrize("text", ["", "\n\n", "# a\n# b", "#\n"])
def test_lines_without_a_row_have_no_layout(text):
    assert layout(text) is None


@pytest.mark.parametrize(
    ("cells", "header"),
    [
        ("1 2 3 4 5", True),
        ("1 2 3 4 x", False),
        ("1 2 3 4 5 x", True),
        ("- - 1", True),
        ("- -", False),
    ],
)
def test_a_word_is_a_name_where_more_than_four_in_five_cells_below_are_numbers(cells, header):
    text = "name,7\n" + "".join(f"{cell},1\n" for cell in cells.split())
    assert seen(text)[0] == (("name", "7") if header else ("col1", "col2"))


def test_rows_of_another_width_say_nothing_of_a_name():
    assert seen("name,7\n1,1\n2,1\nx\ny\nz,1,2\n3,1")[0] == ("name", "7")
    assert seen("-,-\n1,2\n3,4")[0] == ("col1", "col2")


@pytest.mark.parametrize(
    ("comment", "refused"),
    [
        ("#1,7", True),
        ("#x,7", True),
        ("#x,y", False),
        ("#1,2", False),
        ("# 1,7", False),
        ("#1,7,8", False),
        ("  #1,7", True),
    ],
)
def test_a_row_behind_a_hash_is_not_lost(comment, refused):
    text = f"# note\n{comment}\na,b\n1,2\n3,4"
    if refused:
        with pytest.raises(CatalogError, match=r"^line 2 begins with # and has as many values"):
            layout(text)
    else:
        assert layout(text).skip == 3


def test_a_hidden_row_of_one_value_or_with_few_numbers_is_a_comment():
    assert layout("#7\na\n1\n2").skip == 2
    assert layout("#x,y,7\na,b,c\n1,2,3\n").skip == 2
    with pytest.raises(CatalogError, match="line 1 begins"):
        layout("#x,6,y,7\na,b,c,d\n1,2,3,4\n")


@pytest.mark.parametrize(
    ("comments", "names"),
    [
        ("# a,b", ("a", "b")),
        ("#a b", ("a", "b")),
        ("# a,b\n# c,d", ("c", "d")),
        # Names that are known beat remarks that stand last.
        ("# ra,x\n# two words", ("ra", "x")),
        ("# ra,dec\n# ra,words", ("ra", "dec")),
        ("# one remark more", None),
        ("# a,7", None),
        ("#1 a\n#2 b", ("a", "b")),
        ("# col 1: a,\n# column 2) b", ("a", "b")),
        ("#1 a\n#3 b", ("col1", "col2")),
        ("#0 a\n#1 b", ("col1", "col2")),
    ],
)
def test_names_are_taken_from_the_comment_that_has_them(comments, names):
    found = layout(f"{comments}\n1,2\n3,4")
    if names is None or names == ("col1", "col2"):
        assert not found.named
    else:
        assert (found.form.names, found.named) == (names, True)
        assert found.notes == (f"names of columns taken from a comment: {', '.join(names)}.",)
    assert found.skip == comments.count("\n") + 1


def test_below_names_in_a_comment_a_line_with_a_number_is_a_row():
    assert layout("# name,x\nA,1\nB,2").skip == 1
    assert layout("# name,x\nA,B\n1,2").form.names == ("A", "B")


@pytest.mark.parametrize(
    ("below", "units", "skip"),
    [
        ("deg,km/s\n", ("deg", "km/s"), 2),
        ("[deg],(km/s)\n", ("deg", "km/s"), 2),
        (",km/s\n", (None, "km/s"), 2),
        ("---,km/s\n", (None, "km/s"), 2),
        ('"h:m:s",kms-1\n', ("h:m:s", "kms-1"), 2),
        ("---,===\n", (None, None), 2),
        ("deg,km/s\n---,---\n", ("deg", "km/s"), 3),
        ("odd,words\n---,---\n", ("odd", "words"), 3),
        ("odd,words\n", (None, None), 1),
        ("deg,words\n", (None, None), 1),
        ("deg\n---,---\n", (None, None), 1),
        ("-,--\n", (None, None), 2),
        ("deg,5\n", (None, None), 1),
        ("", (None, None), 1),
    ],
)
def test_units_stand_below_the_names(below, units, skip):
    found = layout(f"a,b\n{below}1,2\n3,4\n5,6")
    assert (found.units, found.skip) == (units, skip)


def test_prose_above_the_names_of_ned_is_passed_over_and_said():
    head = "NED results\n\n"
    found = layout(head + "No.|Object Name|z\n1|A|0.1\n2|B|0.2")
    assert found.notes == ("2 lines above the names are passed over.",)
    assert (found.form.names, found.skip) == (("No.", "Object Name", "z"), 3)
    assert layout("x\n" * 199 + "No.|Object Name|z\n1|A|0.1").skip == 200
    assert layout("x\n" * 200 + "No.|Object Name|z\n1|A|0.1").notes == ()


def test_ipac_has_names_kinds_and_units_between_bars():
    found = layout("\\ note\n| ra |v   |\n|real|int |\n|deg | -  |\n 1.5   3  \n")
    assert found.form == RowFormat(("ra", "v"), " ", ((1, 5), (6, 10)))
    assert (found.units, found.skip) == (("deg", None), 4)
    bare = layout("|ra  ||\n|real||\n 1.5   \n")
    assert (bare.form.names, bare.units, bare.skip) == (("ra", "col2"), (None, None), 2)
    assert layout("|\n 1\n") is None


MRT = (
    "Title: x\nByte-by-byte Description of file: t\n{rule}\n   Bytes Format Units Label\n{rule}\n"
    "   1-  3 I3     ---   n     number\n      5 A1     -     flag  letter\n   7- 10 F4.1   km/s  v     speed\n{rule}\n"
)


def test_a_description_byte_by_byte_says_where_columns_stand():
    for rule in ("----", "========"):
        lines = (MRT.format(rule=rule) + "Note (1): x\n" + rule + "\n  1 a 10.5\n").split("\n")
        found = machine_readable_layout(lines)
        assert found.form == RowFormat(("n", "flag", "v"), " ", ((0, 3), (4, 5), (6, 10)))
        assert (found.units, found.skip) == ((None, None, "km/s"), 11)
    text = MRT.format(rule="----")
    for ending in ("", "\n\n"):
        with pytest.raises(CatalogError, match="a table without its rows, a ReadMe"):
            machine_readable_layout((text + ending).rstrip("\n").split("\n") + [""] * len(ending))
    with pytest.raises(CatalogError, match="names no column"):
        machine_readable_layout(["Byte-by-byte Description", "----", "x", "----", "x", "----", "1"])


def test_a_description_begins_in_the_first_two_hundred_lines():
    assert is_machine_readable(["x"] * 199 + ["Byte-by-byte Description"])
    assert not is_machine_readable(["x"] * 200 + ["Byte-by-byte Description"])


def column(*cells, **options):
    return column_values(pa.array(list(cells)), "t: c", **options)


@pytest.mark.parametrize(
    ("cells", "kind", "expected"),
    [
        (("1", "-2", "+3"), "i", [1, -2, 3]),
        (("0", "10"), "i", [0, 10]),
        (("1.5", "2"), "f", [1.5, 2.0]),
        (("1.0e3", "2.5E-1"), "f", [1000.0, 0.25]),
        (("1.5D+02", "2.0d0"), "f", [150.0, 2.0]),
        (("nan", "", "1"), "i", [None, None, 1]),
        (("inf", "1.0"), "f", [np.inf, 1.0]),
        (("", "1", "-"), "i", [None, 1, None]),
        (("", "--"), "f", [None, None]),
        (("007", "7"), "U", ["007", "7"]),
        (("-07", "7"), "U", ["-07", "7"]),
        (("12E4", "13E5"), "U", ["12E4", "13E5"]),
        (("9223372036854775807", "1"), "i", [2**63 - 1, 1]),
        (("9223372036854775808", "1"), "U", ["9223372036854775808", "1"]),
        (("a", "1"), "U", ["a", "1"]),
        ((" 1 ", "2"), "i", [1, 2]),
        (("1,5", "2"), "U", ["1,5", "2"]),
    ],
)
def test_a_column_is_what_all_of_its_cells_are(cells, kind, expected):
    found = column(*cells)
    assert found.dtype.kind == kind
    assert found.tolist() == expected


def test_commas_are_points_where_they_can_be():
    assert column("1,5", "-2", decimal_comma=True).tolist() == [1.5, -2.0]
    assert column("1,5", "", decimal_comma=True).tolist() == [1.5, None]
    assert column("1,5,2", "1", decimal_comma=True).dtype.kind == "U"


def test_one_word_beyond_the_first_two_hundred_cells_makes_text():
    cells = ["1"] * 500
    assert column(*cells).dtype.kind == "i"
    assert column(*cells[:-1], "x").dtype.kind == "U"
    assert column(*cells[:-1], "").tolist()[-2:] == [1, None]


@pytest.mark.parametrize("word", ["1", "-1.", ".5", "1,5", "1e-3", "2D5", "nan", "-INF", "+infinity"])
def test_numbers_are_told_from_words(word):
    assert is_number(word)
    assert not is_number(word + "x")
    assert not is_number("x" + word)


def test_words_with_numbers_beside_gaps_and_other_words():
    words = np.array(["1.5", "", "x", "1_0", " 7 ", "5"])
    numbers, empty, odd = numbers_of_words(words, np.array([0, 0, 0, 0, 0, 1], dtype=bool))
    np.testing.assert_array_equal(numbers, [1.5, np.nan, np.nan, np.nan, 7.0, np.nan])
    assert empty.tolist() == [False, True, False, False, False, True]
    assert odd.tolist() == [False, False, True, True, False, False]


@pytest.mark.parametrize(
    ("longest", "rows", "refused"), [(200, 30, False), (201, 4, False), (201, 5, True), (9, 200, False)]
)
def test_text_takes_no_more_memory_than_a_table_has(monkeypatch, longest, rows, refused):
    monkeypatch.setattr(values, "_LONGEST", 201 * 4)
    cells = pa.array(["a"] * (rows - 1) + ["x" * longest])
    if refused:
        with pytest.raises(CatalogError, match=f"t: c in row {rows} has 201 characters, too many"):
            text_array(cells, "t: c")
    else:
        assert text_array(cells, "t: c")[-1] == "x" * longest
    empty = text_array(pa.array(["", None]), "t: c")
    assert (empty.tolist(), empty.dtype) == (["", ""], np.dtype("U1"))


def parts_of(text, wanted, **options):
    form = RowFormat(("id", "x"), options.pop("delimiter", ","), options.pop("spans", ()))
    return list(iterate_parts(io.BytesIO(text), form, wanted, "t", **options))


@pytest.mark.parametrize(
    ("cell", "fits"),
    [
        (b"9223372036854775807", True),
        (b"9223372036854775808", False),
        (b"-9223372036854775808", True),
        (b"-9223372036854775809", False),
        (b"1.0", False),
        (b"", False),
    ],
)
def test_ids_are_whole_numbers_of_64_bits(cell, fits):
    if fits:
        assert parts_of(cell + b",1\n", {"id": "id"})[0]["id"].to_pylist() == [int(cell)]
    else:
        with pytest.raises(CatalogError, match=r"t: id in line 1 is .*; expected a whole number of 64 bits"):
            parts_of(cell + b",1\n", {"id": "id"})


def test_lines_are_counted_through_blocks_comments_and_empty_lines():
    text = b"".join(b"%d,%d\n# no row\n\n" % (k, k) for k in range(20)) + b"20,x\n"
    for block_bytes in (1, 50, 10**6):
        with pytest.raises(CatalogError, match="x in line 65 is 'x'; expected a number"):
            parts_of(text, {"x": "number"}, block_bytes=block_bytes, first_line=5)
    notes = {}
    parts = parts_of(text[:-5], {"x": "number"}, notes=notes, block_bytes=50)
    assert sum(part.num_rows for part in parts) == 20
    assert notes == {"comment_lines": 20}


@pytest.mark.parametrize(
    ("text", "said"),
    [(b"1,1e5\n", "exponents"), (b"1,1E5\n", "exponents"), ("1,é\n".encode("latin-1"), "not_utf8")],
)
def test_what_a_block_holds_is_noted(text, said):
    notes = {}
    parts_of(text, {"x": "text"}, notes=notes)
    assert notes == {said: 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"1,2\n3", "line 2 has 1 values.*the file ends in the middle of a row"),
        (b"1,2\n3\n", "line 2 has 1 values; expected 2 .id, x.: correct or remove the line[.]$"),
        (b"1,2\n3\n4,5\n", "line 2 has 1 values; expected 2"),
        (b"1,2\n3,4,5", "line 2 has 3 values; expected 2 .id, x.: correct"),
    ],
)
def test_a_row_that_is_cut_at_the_end_of_a_file_is_half_written(text, message):
    with pytest.raises(CatalogError, match=message):
        parts_of(text, {"x": "number"})


@pytest.mark.parametrize(
    ("line", "comment"),
    [
        ("#1 2", None),
        ("# 1", True),
        ("#a b", True),
        ("#1 b", True),
        ("#a 2", None),
        ("#a -.5", None),
        ("#1 2 3", True),
    ],
)
def test_a_hash_before_as_many_values_as_columns_is_refused_among_blanks(line, comment):
    text = f"1 2\n{line}\n3 4\n".encode()
    if comment:
        assert parts_of(text, {"x": "text"}, delimiter=" ")[0]["x"].to_pylist() == ["2", "4"]
    else:
        with pytest.raises(CatalogError, match="line 2 begins with # and has as many values"):
            parts_of(text, {"x": "text"}, delimiter=" ")


def test_values_in_fixed_places_are_cut_there_and_nothing_stands_between():
    spans = ((0, 3), (5, 8))
    text = b"  1   2 \n\n# x\n 10  20\n   |  5\n"
    assert parts_of(text, {"x": "text"}, delimiter=" ", spans=spans)[0]["x"].to_pylist() == ["2", "20", "5"]
    quoted = parts_of(b'"a"  "b \n', {"id": "text", "x": "text"}, delimiter=" ", spans=spans)[0]
    assert (quoted["id"].to_pylist(), quoted["x"].to_pylist()) == (['"a"'], ['"b'])
    for line, place, where in (
        ("  1 7  2", 5, "at x"),
        ("  1\t   2", 4, "at x"),
        ("  1    2 9", 10, "at its end"),
    ):
        with pytest.raises(CatalogError, match=f"line 2 has .* in place {place}, .*{where}"):
            parts_of(f"  1    2\n{line}\n".encode(), {"x": "text"}, delimiter=" ", spans=spans)

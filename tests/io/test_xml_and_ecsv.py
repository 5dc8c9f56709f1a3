"""Headers that say what columns are: fields of VOTables, types of ECSV; what fits them and what does not."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from bayesflowmass.catalog import CatalogError
from bayesflowmass.io.any_table import read_any_table
from bayesflowmass.io.containers.votable import _rows_written, is_votable, votable_columns
from bayesflowmass.io.text.ecsv import ecsv_layout, typed

HEAD = (
    "# %ECSV 1.0\n# ---\n# delimiter: {mark}\n# datatype:\n# - {{name: a, datatype: int64, unit: deg}}\n"
    "# - {{name: b, datatype: string}}\n"
)


def test_an_ecsv_header_says_names_units_types_and_the_delimiter():
    for mark, given in ((" ", "' '"), (",", "','")):
        text = HEAD.format(mark=given) + "# schema: x\n\na" + mark + "b\n1" + mark + "x\n"
        found = ecsv_layout(text.split("\n"))
        assert (found.form.names, found.form.delimiter) == (("a", "b"), mark)
        assert (found.units, found.kinds, found.skip) == (("deg", None), {"a": "int64", "b": "string"}, 9)
    text = text.replace("string}", "string, subtype: 'float64[2]'}").replace("int64", "bool")
    assert ecsv_layout(text.split("\n")).kinds == {"a": "bool", "b": "string"}
    assert ecsv_layout(HEAD.format(mark="' '").split("\n")) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD.format(mark="';'") + "a;b\n", "the delimiter of this ECSV file is ';'"),
        (HEAD.format(mark="' '") + "a c\n1 x\n", "announces the columns a, b, and line 7 names others"),
        (HEAD.format(mark="' '") + "a\n1\n", "line 7 names others"),
        ("# %ECSV 1.0\n# ---\na b\n1 2\n", "has no list of columns"),
        ("# %ECSV 1.0\n# datatype: 5\na\n1\n", "has no list of columns"),
        ("# %ECSV 1.0\n# datatype:\n# - {unit: deg}\na\n1\n", "has no list of columns"),
        ("# %ECSV 1.0\n# datatype:\n# - {name: [a]}\na\n1\n", "has no list of columns"),
        ("# %ECSV 1.0\n# datatype:\n# - {name: a\na\n1\n", "is damaged"),
    ],
)
def test_an_ecsv_header_that_does_not_fit_is_one_sentence(text, message):
    with pytest.raises(CatalogError, match=message):
        ecsv_layout(text.split("\n"))


@pytest.mark.parametrize(
    ("kind", "cells", "expected"),
    [
        ("int64", ["1", "-2"], [1, -2]),
        ("int64", ["1", ""], [1, None]),
        ("uint8", ["1", "2"], [1, 2]),
        ("float64", ["1", "2"], [1.0, 2.0]),
        ("float32", ["1.5", "nan"], [1.5, np.nan]),
        ("float64", ["", ""], [None, None]),
        ("int64", ["", ""], [None, None]),
        ("int64", ["1.5", "2"], "t in row 1 is '1.5'; expected int64"),
        ("int64", ["1", "x"], "t in row 2 is 'x'; expected int64"),
        ("float64", ["1", "", "x"], "t in row 3 is 'x'; expected float64"),
        ("bool", ["True", "0", "False", "1"], [True, False, False, True]),
        ("bool", ["True", ""], ["True", ""]),
        ("string", ["007", "1"], ["007", "1"]),
    ],
)
def test_columns_of_ecsv_are_what_their_types_say(kind, cells, expected):
    cells = pa.array(cells)
    if isinstance(expected, str):
        with pytest.raises(CatalogError, match=expected):
            typed(cells, kind, "t")
        return
    found = typed(pa.chunked_array([cells]), kind, "t")
    np.testing.assert_array_equal(found.tolist(), expected)
    assert found.dtype.kind == "f" or not kind.startswith("float")


@pytest.mark.parametrize(
    ("start", "known"),
    [
        (b"<?xml version='1.0'?>", True),
        (b"\xef\xbb\xbf\r\n <?XML", True),
        (b"<!-- x --><votable>", True),
        (b"x" * 4088 + b"<VOTABLE", True),
        (b"x" * 4089 + b"<VOTABLE", False),
        (b"<table>", False),
    ],
)
def test_a_votable_is_known_by_its_first_bytes(start, known):
    assert is_votable(start) == known


def test_names_of_fields_are_read_from_the_first_table_only():
    text = (
        b"<TABLE><FIELD ID='i' name='a &amp; b'/><vot:FIELD name = \"c\" unit='>'/><FIELD ID='x'/><FIELDref name='y'/>"
        b"</TABLE><TABLE><FIELD name='z'/></TABLE>"
    )
    assert votable_columns(text) == ["a & b", "c"]


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        (b"<TABLEDATA><TR><TD>1</TD></TR><TR/></TABLEDATA>", 2),
        (b"<v:TABLEDATA><v:TR></v:TR></v:TABLEDATA ><TABLEDATA><TR/></TABLEDATA>", 1),
        (b"<TABLEDATA><TR><TD>1</TD>", 1),
        (b"<TABLEDATA><!-- <TR/> --><TR/></TABLEDATA>", None),
        (b"<TABLEDATA><TR><TD><![CDATA[<TR>]]></TD></TR></TABLEDATA>", None),
        (b"<BINARY/>", None),
    ],
)
def test_rows_are_counted_where_they_are_written_out(body, rows):
    assert _rows_written(body) == rows


def votable(fields, rows, tables=1):
    cells = "".join("<TR>" + "".join(f"<TD>{cell}</TD>" for cell in row) + "</TR>" for row in rows)
    table = f"<TABLE>{fields}<DATA><TABLEDATA>{cells}</TABLEDATA></DATA></TABLE>"
    return (
        '<?xml version="1.0"?><VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE>'
        f"{table * tables}</RESOURCE></VOTABLE>"
    )


def test_columns_of_votables_are_numbers_or_text_with_their_gaps(tmp_path):
    fields = (
        '<FIELD name="n" datatype="int" unit="deg"><VALUES null="-9"/></FIELD>'
        '<FIELD name="word" datatype="char" arraysize="*"/>'
        '<FIELD name="list" datatype="double" arraysize="*"/><FIELD name="x" datatype="double"/>'
    )
    path = tmp_path / "t.vot"
    path.write_text(votable(fields, [(1, "a", "1 2", 0.5), (-9, "", "", "")], tables=2), encoding="utf-8")
    table = read_any_table(path)
    assert table["n"].tolist() == [1, None]
    assert str(table["n"].unit) == "deg"
    assert table["word"].tolist() == ["a", ""]
    assert np.ma.filled(np.ma.asarray(table["x"], dtype=float), np.nan)[0] == 0.5
    assert table.meta["notes"] == [
        "columns that are no numbers or text are left out: list.",
        "the first of 2 tables in this VOTable is read.",
    ]
    path.write_text(votable(fields, [(1, "a", "1 2", 0.5)]), encoding="utf-8")
    assert read_any_table(path).meta["notes"] == ["columns that are no numbers or text are left out: list."]
    path.write_text(
        votable("", []).replace("<TABLE>", "<X>").split("<X>")[0] + "</RESOURCE></VOTABLE>", encoding="utf-8"
    )
    with pytest.raises(CatalogError, match="this VOTable holds no table"):
        read_any_table(path)

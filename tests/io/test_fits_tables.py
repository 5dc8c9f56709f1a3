"""FITS as other programmes write it: every kind of column, whatever is said of its scale, null and width."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from bayesflowmass.catalog import CatalogError
from bayesflowmass.io.any_table import read_any_table
from bayesflowmass.io.formats import identify

KINDS = {"B": "u1", "I": "i2", "J": "i4", "K": "i8", "E": "f4", "D": "f8"}


def written(path, columns, **cards):
    """A table of (name, form, values), and cards of its header changed after it was written."""
    made = [fits.Column(name, form, array=np.array(values)) for name, form, values in columns]
    fits.BinTableHDU.from_columns(made).writeto(path, overwrite=True)
    if cards:
        with fits.open(path, mode="update", do_not_scale_image_data=True) as hdus:
            hdus[1].header.update(cards)
    return path


@pytest.mark.parametrize("form", KINDS)
@pytest.mark.parametrize(("scale", "zero"), [(1, 0), (2.5, 0), (1, 10), (1, 0.5), (0.5, -3)])
def test_numbers_are_scaled_as_their_column_says(tmp_path, form, scale, zero):
    stored = np.array([1, 2, 100], dtype=KINDS[form])
    cards = {"TSCAL2": scale, "TZERO2": zero} if (scale, zero) != (1, 0) else {}
    columns = [("a", "J", [7, 8, 9]), ("b", form, stored)]
    table = read_any_table(written(tmp_path / "t.fits", columns, **cards))
    assert table["a"].tolist() == [7, 8, 9]
    assert table["b"].tolist() == (stored.astype(float) * scale + zero).tolist()
    whole = (scale, zero) in ((1, 0), (1, 10)) and form in "BIJK"
    assert table["b"].dtype.kind == (
        "u" if form == "B" and zero == 0 and scale == 1 else "i" if whole else "f"
    )


def test_unsigned_numbers_of_64_bits_are_whole(tmp_path):
    columns = [("u", "K", np.array([0, -1, -(2**63)], dtype="i8"))]
    table = read_any_table(written(tmp_path / "t.fits", columns, TZERO1=2**63, TSCAL1=1))
    assert table["u"].tolist() == [2**63, 2**63 - 1, 0]
    # Of 32 bits, and scaled, they are numbers as any other.
    columns = [("u", "J", np.array([0, -1], dtype="i4"))]
    assert read_any_table(written(tmp_path / "t.fits", columns, TZERO1=2**31))["u"].tolist() == [
        2**31,
        2**31 - 1,
    ]
    columns = [("u", "K", np.array([0, 2], dtype="i8"))]
    assert (
        read_any_table(written(tmp_path / "t.fits", columns, TZERO1=2**63, TSCAL1=2))["u"].dtype.kind == "f"
    )


@pytest.mark.parametrize(
    ("form", "masked"), [("B", True), ("I", True), ("J", True), ("K", True), ("E", False), ("D", False)]
)
def test_whole_numbers_have_a_null_and_floats_have_none(tmp_path, form, masked):
    columns = [
        ("a", form, np.array([1, 9, 3], dtype=KINDS[form])),
        ("b", form, np.array([9, 1, 1], dtype=KINDS[form])),
    ]
    table = read_any_table(written(tmp_path / "t.fits", columns, TNULL1=9))
    assert np.ma.getmaskarray(table["a"]).tolist() == [False, masked, False]
    assert not np.ma.getmaskarray(table["b"]).any()


@pytest.mark.parametrize(
    ("stored", "values"),
    [
        (b"TFT", [True, False, True]),
        (b"T\0F", [True, None, False]),
        (b"\0\0\0", [None] * 3),
        (b"TXF", "left out"),
    ],
)
def test_truth_values_may_be_missing(tmp_path, stored, values):
    path = written(tmp_path / "t.fits", [("yes", "L", [True, False, True]), ("n", "J", [1, 2, 3])])
    content = path.read_bytes()
    at = 2 * 2880 + np.arange(3) * 5 + content[2 * 2880 :].index(b"T")
    changed = bytearray(content)
    for place, byte in zip(at, stored, strict=True):
        changed[place] = byte
    path.write_bytes(bytes(changed))
    table = read_any_table(path)
    assert table["n"].tolist() == [1, 2, 3]
    if values == "left out":
        assert table.meta["notes"] == ["columns that are no numbers or text are left out: yes."]
    else:
        assert table["yes"].tolist() == values


def test_columns_of_every_width_stand_at_their_place(tmp_path):
    columns = [
        ("bits", "9X", np.ones((2, 9), dtype=bool)),
        ("byte", "8X", np.ones((2, 8), dtype=bool)),
        ("pair", "2D", [[1.0, 2.0], [3.0, 4.0]]),
        ("complex", "C", np.array([1j, 2], dtype="c8")),
        ("wide", "M", np.array([1j, 2], dtype="c16")),
        ("name", "3A", np.array(["ab", " c "])),
        ("last", "I", [5, 6]),
    ]
    table = read_any_table(written(tmp_path / "t.fits", columns))
    assert table.colnames == ["pair", "name", "last"]
    assert table["pair"].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert table["name"].tolist() == ["ab", "c"]
    assert table["last"].tolist() == [5, 6]


def test_units_and_names_are_those_of_each_column_and_the_first_table_is_read(tmp_path):
    path = written(tmp_path / "t.fits", [("a", "D", [1.0]), ("b", "D", [2.0])], TUNIT2="deg", TTYPE1=" ")
    with fits.open(path, mode="append") as hdus:
        hdus.append(fits.BinTableHDU(Table({"other": [1]})))
    table = read_any_table(path)
    assert table.colnames == ["col1", "b"]
    assert [str(table[name].unit) for name in table.colnames] == ["None", "deg"]
    assert table.meta["notes"] == ["the first of 2 tables in this FITS file is read."]
    assert read_any_table(written(tmp_path / "one.fits", [("a", "D", [1.0])])).meta["notes"] == []


@pytest.mark.parametrize(
    ("cards", "message"),
    [
        ({"NAXIS2": 900}, "announces 900 rows of 8 bytes and ends before them"),
        ({"NAXIS2": -1}, "not a whole FITS file"),
        ({"NAXIS1": 0}, "not a whole FITS file"),
        ({"TFORM1": "2D"}, "columns of 16 bytes in rows of 8"),
        ({"TFORM1": "W"}, "not a whole FITS file"),
        ({"TFIELDS": 1000}, "1000 columns"),
        ({"ZTABLE": True}, "compressed by fpack"),
        ({"ZIMAGE": True}, "compressed by fpack"),
    ],
)
def test_headers_that_do_not_fit_their_rows_are_one_sentence(tmp_path, cards, message):
    path = written(tmp_path / "t.fits", [("a", "D", np.arange(300.0))])
    content = path.read_bytes()
    for key, value in cards.items():
        text = f"'{value}'" if isinstance(value, str) else "T" if value is True else str(value)
        card = f"{key:8}= {text:>20}".ljust(80).encode()
        start = content.find(f"{key:8}=".encode(), 2880)
        start = content.index(b"END     ", 2880) if start < 0 else start
        more = b"END".ljust(80) if content[start : start + 3] == b"END" else b""
        content = content[:start] + card + more + content[start + 80 + len(more) :]
    path.write_bytes(content)
    with pytest.raises(CatalogError, match=message):
        read_any_table(path)


def test_rows_reach_to_the_very_end_of_a_file(tmp_path):
    path = written(tmp_path / "t.fits", [("a", "D", np.arange(360.0))])
    # 360 rows of 8 bytes fill a block.
    assert path.stat().st_size % 2880 == 0
    assert len(read_any_table(path)) == 360
    assert identify(path) is None


def test_text_tables_are_cut_where_their_columns_stand(tmp_path):
    columns = [
        fits.Column("n", "I4", array=np.array([1, -20, 300]), ascii=True),
        fits.Column("word", "A3", array=np.array(["a", "1", "xyz"]), ascii=True),
        fits.Column("x", "D10.2", array=np.array([1.5, -2.0, 1e9]), ascii=True),
    ]
    fits.TableHDU.from_columns(columns).writeto(tmp_path / "t.fits")
    table = read_any_table(tmp_path / "t.fits")
    assert table["n"].tolist() == [1, -20, 300]
    assert table["word"].tolist() == ["a", "1", "xyz"]
    assert table["x"].tolist() == [1.5, -2.0, 1e9]
    content = (tmp_path / "t.fits").read_bytes()
    width = fits.getheader(tmp_path / "t.fits", 1)["NAXIS1"]
    place = f"TBCOL3  = {width - 9:20d}".encode()
    start = content.index(b"TBCOL3  =")
    for shift, message in ((0, None), (1, "column x lies beyond the end of the rows")):
        moved = f"TBCOL3  = {width - 9 + shift:20d}".encode()
        (tmp_path / "t.fits").write_bytes(content[:start] + moved + content[start + len(place) :])
        if message is None:
            assert read_any_table(tmp_path / "t.fits")["x"].tolist() == [1.5, -2.0, 1e9]
        else:
            with pytest.raises(CatalogError, match=message):
                read_any_table(tmp_path / "t.fits")

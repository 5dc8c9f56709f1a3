"""N-body boxes: Rockstar from CosmoSim and as text, UniverseMachine as npy and as DR1 records."""

from __future__ import annotations

import bz2
import gzip

import numpy as np
import pytest
from box_files import FULL, HLIST, OUT, QUERY, UM, cosmosim, dr1, haloes, rockstar, universemachine

from bayesflowmass.catalog import CatalogError
from bayesflowmass.io import box_info, iterate_box, load_catalog, read_box
from bayesflowmass.io.formats.universemachine import DR1_RECORD
from bayesflowmass.io.text.blocks import iterate_rows


@pytest.mark.parametrize(("names", "index"), [(FULL, True), (FULL, False), (QUERY, True), (QUERY, False)])
def test_cosmosim_gives_ids_masses_and_comoving_mpc(tmp_path, names, index):
    box, table = read_box(cosmosim(tmp_path / "mdpl2.csv", names, index=index)), haloes()
    np.testing.assert_array_equal(box["id"], table["rockstarId"])
    np.testing.assert_array_equal(box["upid"], table["upId"])
    for name in ("x", "y", "z", "vx", "vy", "vz"):
        np.testing.assert_array_equal(box[name], table[name])
    np.testing.assert_allclose(box["log10_mass"], np.log10(table["M200c"]))
    np.testing.assert_allclose(box["r_vir"], table["Rvir"] / 1000.0)
    np.testing.assert_array_equal(box["v_acc"], table["Vacc"])
    assert box["id"].dtype == np.int64


def test_the_redshift_of_a_snapshot_is_known_from_the_scale_or_the_name(tmp_path):
    assert box_info(cosmosim(tmp_path / "any.csv")).redshift == pytest.approx(1 / 0.8951 - 1)
    assert box_info(cosmosim(tmp_path / "mdpl2_120.csv", QUERY)).redshift == 0.117
    assert box_info(cosmosim(tmp_path / "mdpl2.csv", QUERY)).redshift is None


@pytest.mark.parametrize("index", [True, False])
def test_rockstar_text_is_read_by_name(tmp_path, index):
    path, table = rockstar(tmp_path / "hlist_0.89510.list", indexed=index), haloes()
    box, info = read_box(path), box_info(path)
    np.testing.assert_array_equal(box["id"], table["id"])
    np.testing.assert_allclose(box["log10_mpeak"], np.log10(table["Mpeak"]))
    np.testing.assert_allclose(box["r_s"], table["rs"] / 1000.0)
    assert info.redshift == pytest.approx(1 / 0.8951 - 1)
    assert info.box_size == 1000.0
    assert info.cosmology == {"Om0": 0.307115, "h": 0.6777}


def test_an_out_list_takes_the_parent_for_the_host(tmp_path):
    box = read_box(rockstar(tmp_path / "out_120.list", OUT, indexed=False))
    np.testing.assert_array_equal(box["upid"], haloes()["PID"])


@pytest.mark.parametrize("width", ["f4", "f8", ">f4"])
def test_universemachine_npy_keeps_64_bit_ids_at_any_width(tmp_path, width):
    path, table = universemachine(tmp_path / "sfr_catalog_0.895100.npy", width=width), haloes()
    box = read_box(path)
    np.testing.assert_array_equal(box["id"], table["id"])
    np.testing.assert_allclose(box["x"], table["x"], rtol=1e-6)
    np.testing.assert_allclose(box["log10_stellar_mass"], np.log10(table["Mvir"] / 100), rtol=1e-6)
    assert box_info(path).redshift == pytest.approx(1 / 0.8951 - 1)


def test_universemachine_dr1_records_are_128_bytes_and_ignored_ones_are_left_out(tmp_path):
    assert DR1_RECORD.itemsize == 128
    assert DR1_RECORD.fields["vmp"][1] == 56
    box, table = read_box(dr1(tmp_path / "sfr_catalog_0.895100.bin")), haloes()
    np.testing.assert_array_equal(box["id"], table["id"][5:])
    np.testing.assert_allclose(box["z"], table["z"][5:], rtol=1e-6)
    np.testing.assert_allclose(box["log10_mpeak"], np.log10(table["Mpeak"][5:]), rtol=1e-6)
    other = tmp_path / "galaxies.bin"
    (tmp_path / "sfr_catalog_0.895100.bin").rename(other)
    assert len(read_box(other)["id"]) == 35


@pytest.mark.parametrize("write", [cosmosim, rockstar, universemachine, dr1])
def test_parts_of_a_box_are_the_whole(tmp_path, write):
    suffix = {
        cosmosim: "a.csv",
        rockstar: "hlist_1.0.list",
        universemachine: "a.npy",
        dr1: "sfr_catalog_1.0.bin",
    }
    path = write(tmp_path / suffix[write])
    whole, parts = read_box(path), list(iterate_box(path, rows=3))
    assert len(parts) > 3
    for name, values in whole.items():
        np.testing.assert_array_equal(values, np.concatenate([part[name] for part in parts]))
    assert list(read_box(path, ["x", "id"])) == ["x", "id"]


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress)])
def test_compressed_text_is_unpacked_and_a_half_of_it_refused(tmp_path, suffix, pack):
    plain = cosmosim(tmp_path / "a.csv")
    packed = tmp_path / f"b.csv{suffix}"
    packed.write_bytes(pack(plain.read_bytes()))
    np.testing.assert_array_equal(read_box(packed)["id"], read_box(plain)["id"])
    packed.write_bytes(packed.read_bytes()[: len(packed.read_bytes()) // 2])
    with pytest.raises(CatalogError, match=r"half-written|damaged"):
        read_box(packed)


def edited(path, line, function):
    """A text file with one line changed."""
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[line - 1] = function(lines[line - 1])
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def put(column, value, separator=","):
    def changed(line):
        fields = line.split(separator)
        fields[column] = value
        return separator.join(fields)

    return changed


def csv(tmp_path, line, function, names=QUERY):
    return edited(cosmosim(tmp_path / "a.csv", names, index=False), line, function)


def cut(path, share=0.6):
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    return path


BAD = {
    "a broken number": (
        lambda t: csv(t, 7, put(10, "12.a")),
        r"a.csv: x in line 7 is '12.a'; expected a number",
    ),
    "a number missing": (lambda t: csv(t, 5, put(12, "")), "z in line 5 is ''; expected a number"),
    "not a number": (lambda t: csv(t, 5, put(13, "nan")), "vx in line 5 is 'nan'; expected a finite"),
    "an id that was a float": (
        lambda t: csv(t, 3, put(0, "1.15e18")),
        "rockstarId in line 3 .* through floats",
    ),
    "an id too long": (lambda t: csv(t, 3, put(1, "9" * 20)), "upId in line 3 .*64 bits"),
    "a short row": (lambda t: csv(t, 9, lambda s: s[:40]), "line 9 has . values; expected 16"),
    "a long row": (lambda t: csv(t, 9, lambda s: s + ",1"), "line 9 has 17 values"),
    "half a file": (
        lambda t: cut(cosmosim(t / "a.csv", QUERY, index=False)),
        "line .*the file ends in the middle of a row, so it is half-written",
    ),
    "kpc": (lambda t: csv(t, 4, put(10, "250000.0")), "x in row 3 is 250000.0; expected comoving Mpc/h"),
    "a velocity in m/s": (lambda t: csv(t, 4, put(14, "-400000")), "vy in row 3 .*peculiar velocity in km/s"),
    "a position below 0": (lambda t: csv(t, 4, put(11, "-30")), "y in row 3 .*periodic box"),
    "no column of hosts": (
        lambda t: cosmosim(t / "a.csv", [n for n in QUERY if n != "upId"]),
        "column upid is missing .*ask the database for rockstarId, upId",
    ),
    "no rows": (lambda t: cosmosim(t / "a.csv", table=haloes(0)), "the table has no rows"),
    "no host in a list": (
        lambda t: rockstar(t / "out_1.list", [n for n in OUT if n != "PID"], indexed=False),
        "column upid is missing .*run find_parents",
    ),
    "a name twice": (
        lambda t: rockstar(t / "hlist_1.0.list", [*HLIST, "x"]),
        "column x is there 2 times",
    ),
    "a broken row of a list": (
        lambda t: edited(rockstar(t / "hlist_1.0.list"), 8, put(20, "*****", " ")),
        r"vx in line 8 is '\*\*\*\*\*'",
    ),
    "ids as floats": (
        lambda t: universemachine(t / "a.npy", ids="f8"),
        "id is stored as float64; expected 64-bit",
    ),
    "ids of 32 bits": (lambda t: universemachine(t / "a.npy", ids="u4"), "id is stored as uint32"),
    "half an npy": (lambda t: cut(universemachine(t / "a.npy")), "half-written or damaged"),
    "no velocity in an npy": (
        lambda t: universemachine(t / "a.npy", names=[n for n in UM if n != "vz"]),
        "column vz is missing",
    ),
    "half of the records": (
        lambda t: cut(dr1(t / "sfr_catalog_1.0.bin"), 0.501),
        "not a whole number of records",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_broken_box_is_refused_with_a_sentence(tmp_path, name):
    write, message = BAD[name]
    with pytest.raises(CatalogError, match=message) as caught:
        read_box(write(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_column_that_is_not_there_and_a_file_that_is_no_box_are_named(tmp_path):
    with pytest.raises(CatalogError, match="column sfr is missing; this file gives id, upid"):
        read_box(cosmosim(tmp_path / "a.csv"), ["sfr"])
    (tmp_path / "b.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(CatalogError, match=r"expected an N-body box .*of no format that is known"):
        read_box(tmp_path / "b.csv")
    with pytest.raises(CatalogError, match="an N-body box, not galaxies as they are observed"):
        load_catalog(tmp_path / "a.csv")


def test_one_broken_row_in_many_is_found_by_its_line(tmp_path):
    path = tmp_path / "many.txt"
    lines = ["1 2.5 3.5"] * 200_000
    lines[123_456] = "1 2.5 3.5 4"
    path.write_text("# a b c\n" + "\n".join(lines) + "\n", encoding="utf-8")
    rows = iterate_rows(path, "abc", {"a": "id", "b": "number"}, skip_lines=1, block_bytes=100_000)
    with pytest.raises(CatalogError, match=r"line 123458 has 4 values; expected 3 \(a, b, c\)"):
        sum(len(part["a"]) for part in rows)


def test_blanks_comments_and_missing_values_are_understood(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("  1\t 2.5   nan \n# no row\n\n-3 4.5e2 7\r\n", encoding="utf-8")
    part = next(iterate_rows(path, "abc", {"a": "id", "b": "number", "c": "maybe"}))
    np.testing.assert_array_equal(part["a"], [1, -3])
    np.testing.assert_array_equal(part["b"], [2.5, 450.0])
    np.testing.assert_array_equal(part["c"], [np.nan, 7.0])

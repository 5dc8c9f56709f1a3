"""Values at the very ends of what readers accept, and the counts that they report."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import MaskedColumn, Table
from box_files import cosmosim, haloes
from flat_tables import frame_tables
from survey_tables import mamposst

from bayesflowmass.catalog import CatalogError
from bayesflowmass.cosmology import MDPL2, SPEED_OF_LIGHT
from bayesflowmass.io import footprint, load_catalog, read_box
from bayesflowmass.io.any_table import read_any_table
from bayesflowmass.io.archives.cache import AnswerCache
from bayesflowmass.io.archives.ucd import galaxies_by_ucd
from bayesflowmass.io.formats import identify
from bayesflowmass.io.formats.base import FileHead
from bayesflowmass.io.npy import open_npy
from bayesflowmass.io.opening import HEAD_BYTES
from bayesflowmass.io.survey import Survey, concatenated
from bayesflowmass.io.table import FlatTable
from bayesflowmass.io.units import mass_to_log10_msun_h, radius_from_text


@pytest.mark.parametrize(
    ("column", "last", "beyond", "message"),
    [
        ("x", 20_000.0, 20_001.0, "comoving Mpc/h, and this looks like kpc/h"),
        ("z", -1.0, -1.5, "a position in the periodic box"),
        ("vy", 30_000.0, 30_001.0, "a peculiar velocity in km/s"),
        ("vz", -30_000.0, -30_001.0, "a peculiar velocity in km/s"),
        ("upId", -1, -2, "the id of a host halo, or -1"),
    ],
)
def test_a_box_takes_the_ends_of_its_ranges_and_nothing_beyond(tmp_path, column, last, beyond, message):
    table = haloes()
    table[column][3] = last
    assert read_box(cosmosim(tmp_path / "a.csv", table=table))["x"].size == 40
    table[column][3] = beyond
    with pytest.raises(CatalogError, match=f"in row 4 is {beyond}.*{message}"):
        read_box(cosmosim(tmp_path / "b.csv", table=table))


@pytest.mark.parametrize(
    ("first", "known"),
    [
        ("2 0 90 9000", True),
        ("2 360 -90 9000", True),
        ("1 360 0 9000", True),
        ("2 361 0 9000", False),
        ("2 0 91 9000", False),
        ("0 0 0 9000", False),
        ("2.5 0 0 9000", False),
        ("2 0 90 9000 1", False),
    ],
)
def test_a_caustic_file_is_known_by_its_first_row(tmp_path, first, known):
    path = tmp_path / "a.txt"
    path.write_text(f"{first}\n10 89 9100\n10.1 89 8900\n", encoding="utf-8")
    found = identify(path)
    assert (found is not None and found.name == "causticsnupy") == known


@pytest.mark.parametrize(
    ("row", "known"),
    [
        ("0.0 -900 0.0", True),
        ("-1.0 -900 50.0", False),
        ("100.0 -900 -1.0", False),
        ("100.0 20000 50.0", False),
        ("100.0 19999 50.0", True),
    ],
)
def test_a_mamposst_file_is_known_by_its_rows(tmp_path, row, known):
    path = mamposst(tmp_path / "a.dat")
    path.write_text(path.read_text(encoding="utf-8") + f"{row}\n", encoding="utf-8")
    found = identify(path)
    assert (found is not None and found.name == "mg-mamposst") == known


@pytest.mark.parametrize(
    ("ids", "known"),
    [
        ([1, 1, 2, 3], True),
        ([2, 2, 3, 4], False),
        ([1, 3, 4, 5], False),
        ([1, 2, 1, 2], False),
        ([5, 1, 2, 3], False),
    ],
)
def test_a_sag_file_is_known_by_ids_that_count_from_one(tmp_path, ids, known):
    path = tmp_path / "a.txt"
    rows = [f"{k} 0.1 -0.2 {200 * n - 300}" for n, k in enumerate(ids)]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    found = identify(path)
    assert (found is not None and found.name == "sag-galaxies") == known


def test_the_head_of_a_file_has_whole_lines_only(tmp_path):
    path = tmp_path / "a.txt"
    for text, lines in (("a\nb", ["a", "b"]), ("a\r\nb\r\n", ["a", "b"]), ("a", ["a"])):
        path.write_bytes(text.encode())
        assert FileHead(path).lines == lines
    path.write_bytes(b"first\n" + b"x" * HEAD_BYTES + b"\nlast\n")
    assert FileHead(path).lines == ["first", "x" * HEAD_BYTES]


def test_a_header_is_known_by_its_word_above_numbers_though_some_are_missing(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("x,7\n1,2\n-,3\n-,4\n-,5\n", encoding="utf-8")
    assert read_any_table(path).colnames == ["x", "7"]


def test_the_middle_of_a_long_list_of_columns_is_left_out(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(",".join(f"c{k}" for k in range(9)) + "\n" + "1,2\n" * 3, encoding="utf-8")
    with pytest.raises(CatalogError, match=r"expected 9 \(c0, c1, c2, c3, c4, c5, \.\.\., c8\)"):
        load_catalog(path)


def test_galaxies_that_are_left_out_of_a_table_of_offsets_are_counted():
    galaxies, clusters = frame_tables()
    galaxies["v_los"][[2, 7, 20]] = np.nan
    catalog = load_catalog(galaxies, clusters)
    assert catalog.metadata.extra["galaxies_left_out"] == 3
    assert catalog.metadata.extra["galaxies_read"] == len(galaxies)


@pytest.mark.parametrize(("r_max", "v_max"), [(0.4, None), (None, 300.0), (0.4, 300.0)])
def test_a_cylinder_may_have_one_limit_only(r_max, v_max):
    galaxies, clusters = frame_tables()
    catalog = load_catalog(galaxies, clusters, r_max=r_max, v_max=v_max, few_galaxies="keep")
    inside = np.hypot(galaxies["x"], galaxies["y"]) <= (r_max or np.inf)
    inside &= np.abs(galaxies["v_los"]) <= (v_max or np.inf)
    assert 0 < catalog.n_galaxies_total == inside.sum() < len(galaxies)
    assert catalog.metadata.extra["galaxies_outside_cylinder"] == (~inside).sum()
    assert catalog.metadata.selection["r_max"] == r_max
    assert catalog.metadata.selection["v_max"] == v_max


def test_columns_named_for_one_table_win_over_those_named_for_both():
    galaxies, clusters = frame_tables()
    galaxies["v_other"] = 2.0 * galaxies["v_los"]
    expected = load_catalog(galaxies, clusters).galaxies("v_los")
    for names in (["v_los", "galaxies.v_los"], ["galaxies.v_los", "v_los"]):
        given = {name: "v_los" if "." in name else "v_other" for name in names}
        np.testing.assert_array_equal(load_catalog(galaxies, clusters, given).galaxies("v_los"), expected)


def test_a_radius_is_above_zero():
    for value in (0.01, "0.5", "1"):
        assert radius_from_text(value, np.array([0.1]), MDPL2)[0] == float(value)
    for value in (0, "-1", "inf", "nan"):
        with pytest.raises(CatalogError, match="expected a radius above 0"):
            radius_from_text(value, np.array([0.1]), MDPL2)


def part(n, report):
    values = np.arange(float(n))
    return Survey(values, values, 0.1 + values, {"z_err": values}, values, values, (0.1, n - 0.9), report)


def test_parts_of_a_survey_add_up_their_counts_and_notes():
    first = part(3, {"galaxies_read": 3, "notes": ["a"], "format": "x"})
    second = part(5, {"galaxies_read": 5, "notes": ["b"], "format": "y", "stars": 2})
    both = concatenated(first, second)
    assert both.report == {"galaxies_read": 8, "notes": ["a", "b"], "format": "y", "stars": 2}
    assert (both.limits, both.ra.size, both.others["z_err"].size) == ((0.1, 4.1), 8, 8)
    with pytest.raises(CatalogError, match="z_err is in some only"):
        concatenated(first, Survey(*[np.ones(1)] * 3, {}, np.ones(1), np.ones(1), (0.1, 0.1), {}))


def test_the_cells_of_a_footprint_follow_from_a_sample_of_a_large_table(monkeypatch):
    rng = np.random.default_rng(0)
    ra, dec = rng.uniform(0, 20, 20_000), rng.uniform(-10, 10, 20_000)
    whole = footprint.GalaxyFootprint(ra, dec).cell
    monkeypatch.setattr(footprint, "_SAMPLE", 4_000)
    assert footprint.GalaxyFootprint(ra, dec).cell == pytest.approx(whole, rel=0.05)


def test_velocities_known_by_their_ucd_alone_are_divided_by_c():
    table = Table({"RAJ2000": [10.0, 10.1], "DEJ2000": [1.0, 1.1], "HRV": [30000.0, 31000.0]})
    table["HRV"].meta["ucd"] = "spect.dopplerVeloc.opt"
    reading = galaxies_by_ucd(table, "t")
    np.testing.assert_allclose(reading.galaxies["z"], np.array([30000.0, 31000.0]) / SPEED_OF_LIGHT)
    assert reading.counts["no_redshift"] == 0


@pytest.mark.parametrize(
    ("unit", "added"), [(None, 0.0), ("dex(solMass)", np.log10(0.7)), ("[Msun]", np.log10(0.7))]
)
def test_masses_are_logarithms(unit, added):
    values = np.array([14.0, 15.0])
    np.testing.assert_allclose(mass_to_log10_msun_h(values, unit, "t", 0.7), values + added, rtol=1e-15)
    with pytest.raises(CatalogError, match=r"reaches 100\.5, so it is a mass and not its log10"):
        mass_to_log10_msun_h(np.array([14.0, 100.5]), unit, "t", 0.7)


def test_a_column_that_could_have_gaps_and_has_none_is_a_plain_array():
    table = Table(
        {"x": MaskedColumn([1.0, 2.0], mask=[False, False]), "y": MaskedColumn([1, 2], mask=[0, 1])}
    )
    columns = FlatTable(table, "galaxies").columns
    assert not isinstance(columns["x"], np.ma.MaskedArray)
    assert np.ma.getmaskarray(columns["y"]).tolist() == [False, True]


def test_rows_may_end_with_a_delimiter_that_the_names_lack(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1,2,\n3,4,\n", encoding="utf-8")
    table = read_any_table(path)
    assert table.colnames == ["a", "b"]
    assert table["b"].tolist() == [2, 4]
    path.write_text("a\n1,\n3,\n", encoding="utf-8")
    assert read_any_table(path).colnames == ["a"]


def test_names_are_found_below_a_quarter_of_a_megabyte_of_comments(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("# a word of thanks\n" * 20_000 + "a b\n1 2\n3 4\n", encoding="utf-8")
    assert read_any_table(path)["a"].tolist() == [1, 3]


def test_columns_of_bits_in_fits_are_passed_over_at_their_width(tmp_path):
    bits = np.zeros((2, 11), dtype=bool)
    columns = [
        fits.Column("bits", "11X", array=bits),
        fits.Column("ra", "D", array=np.array([10.0, 11.0])),
    ]
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "a.fits")
    table = read_any_table(tmp_path / "a.fits")
    assert table.colnames == ["ra"]
    assert table["ra"].tolist() == [10.0, 11.0]


@pytest.mark.parametrize("array", [np.zeros(3), np.zeros((2, 2), dtype=[("a", float)])])
def test_an_array_that_is_no_list_of_rows_is_refused(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(CatalogError, match="expected one structured row for each object"):
        open_npy(tmp_path / "a.npy")


def test_answers_that_were_kept_are_counted(tmp_path):
    cache = AnswerCache(tmp_path)
    for _ in range(3):
        cache.get({"a": 1}, lambda: Table({"x": [1.0]}))
    assert cache.hits == 2

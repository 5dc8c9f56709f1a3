"""By what a file is known, and what its reader takes: one value at a time, on both sides of each limit."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.table import Table
from box_files import QUERY, cosmosim, haloes, rockstar, universemachine
from survey_tables import (
    caustic,
    erass,
    halo_cnn,
    mamposst,
    ned,
    redmapper_clusters,
    redmapper_members,
    sag,
    skyserver,
)

from bayesflowmass.catalog import CatalogError
from bayesflowmass.cosmology import MDPL2, SPEED_OF_LIGHT
from bayesflowmass.io import box_info, load_catalog, read_box
from bayesflowmass.io.archives.ucd import galaxies_by_ucd, redshift_columns
from bayesflowmass.io.formats import identify
from bayesflowmass.io.formats.universemachine import DR1_RECORD
from bayesflowmass.io.sources import read_known_table


def name_of(path):
    """The format that a file is known for."""
    found = identify(path)
    return None if found is None else found.name


def rows_in(path, rows):
    path.write_text("".join(" ".join(map(str, row)) + "\n" for row in rows), encoding="utf-8")
    return path


WIDE = [[k, 14.5, 350.0, 1, 2, 3, 1, 0, 0, 0.9] for k in (1, 2, 3)]
NARROW = [[k, 14.5, 0.1] for k in (1, 2, 3)]


@pytest.mark.parametrize(
    ("rows", "column", "value", "known"),
    [
        (WIDE, 1, 11.0, False),
        (WIDE, 1, 11.01, True),
        (WIDE, 1, 16.49, True),
        (WIDE, 1, 16.5, False),
        (WIDE, 9, 0.0, False),
        (WIDE, 9, 0.01, True),
        (WIDE, 9, 1.0, True),
        (WIDE, 9, 1.01, False),
        (WIDE, 0, 3, False),
        (NARROW, 1, 11.0, False),
        (NARROW, 1, 16.49, True),
        (NARROW, 2, -0.01, False),
        (NARROW, 2, 0.0, True),
        (NARROW, 2, 1.99, True),
        (NARROW, 2, 2.0, False),
        (NARROW, 0, 1, False),
    ],
)
def test_clusters_of_sag_are_known_by_ids_masses_and_what_stands_last(tmp_path, rows, column, value, known):
    rows = [list(row) for row in rows]
    rows[1][column] = value
    assert (name_of(rows_in(tmp_path / "c.txt", rows)) == "sag-clusters") == known
    assert name_of(rows_in(tmp_path / "c.txt", [[*row, 0] for row in rows])) is None
    assert name_of(rows_in(tmp_path / "c.txt", [*rows, rows[2][:2]])) is None


@pytest.mark.parametrize(
    ("rows", "known"),
    [
        ([[1, 19.9, -19.9, v] for v in (-30.0, 30.0, 30.0)], True),
        ([[1, 20.0, 0.0, v] for v in (-30.0, 30.0, 30.0)], False),
        ([[1, 0.0, -20.0, v] for v in (-30.0, 30.0, 30.0)], False),
        ([[1, 0.0, 0.0, v] for v in (-20.0, 20.0, 20.0, -20.0)], False),
        ([[1, 0.0, 0.0, v] for v in (-20.1, 20.1, 20.1, -20.1)], True),
        ([[1, 0.0, 0.0, v] for v in (-30.0, 30.0)], False),
        ([[1, 0.0, 0.0, v, 0] for v in (-30.0, 30.0, 30.0)], False),
    ],
)
def test_galaxies_of_sag_are_known_by_offsets_and_the_scatter_of_velocities(tmp_path, rows, known):
    assert (name_of(rows_in(tmp_path / "g.txt", rows)) == "sag-galaxies") == known


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (1, 10.0, None),
        (1, 17.0, None),
        (1, 9.9, "the mass in row 2 is 9.9"),
        (1, 17.1, "the mass in row 2 is 17.1"),
        (9, 1.0, None),
        (9, 0.0, "the scale factor in row 2 is 0"),
        (9, 1.001, "the scale factor in row 2 is 1.001"),
        (0, 0, "the cluster id in row 2 is 0"),
        (0, 1, "cluster 1 stands in two rows"),
    ],
)
def test_clusters_of_sag_have_their_ranges(tmp_path, column, value, message):
    rows = [list(row) for row in WIDE]
    rows[1][column] = value
    path = rows_in(tmp_path / "clusters_M200c_x", rows)
    if message is None:
        clusters = read_known_table(path)[1].clusters
        np.testing.assert_allclose(clusters["redshift"], 1.0 / np.array([row[9] for row in rows]) - 1.0)
        assert clusters["halo_id"].tolist() == [1, 1, 1]
    else:
        with pytest.raises(CatalogError, match=message):
            read_known_table(path)


def test_what_sag_says_of_itself_is_noted(tmp_path):
    galaxies, clusters = sag(tmp_path)
    within = galaxies.rename(tmp_path / "galaxies_XYvZ_4.5Mpc")
    assert read_known_table(within)[1].notes == ("48 galaxies of 4 clusters, within 4.5 Mpc/h.",)
    reading = read_known_table(clusters)[1]
    assert reading.notes == ("4 clusters, lines of sight to 2 haloes (by their positions).",)
    assert sorted(set(reading.clusters["halo_id"])) == [1, 2]


@pytest.mark.parametrize(
    ("field", "value", "known"),
    [
        ("pos", 0.0, True),
        ("pos", -0.1, False),
        ("pos", 19_999.0, True),
        ("pos", 20_000.0, False),
        ("id", 0, True),
        ("id", -1, False),
        ("upid", -1, True),
        ("upid", -2, False),
        ("mp", 1.01e5, True),
        ("mp", 1e5, False),
    ],
)
def test_records_of_dr1_are_known_by_what_makes_sense(tmp_path, field, value, known):
    rows = np.zeros(3, dtype=DR1_RECORD)
    rows["pos"], rows["mp"] = 5.0, 1e12
    rows[field][1] = value
    path = tmp_path / "galaxies.bin"
    rows.tofile(path)
    assert (name_of(path) == "universemachine-dr1") == known
    assert name_of(path.rename(tmp_path / "galaxies.dat")) is None


def test_less_than_a_record_is_no_file_of_dr1_but_by_its_name(tmp_path):
    data = np.zeros(1, dtype=DR1_RECORD).tobytes()[:-1]
    (tmp_path / "a.bin").write_bytes(data)
    assert name_of(tmp_path / "a.bin") is None
    named = (tmp_path / "a.bin").rename(tmp_path / "sfr_catalog_1.000000.bin")
    assert name_of(named) == "universemachine-dr1"
    # Text has no zero byte, and a file of that name is one of records all the same.
    named.write_bytes(b"a" * 128)
    assert name_of(named) == "universemachine-dr1"


def test_records_that_are_to_be_left_out_have_that_bit(tmp_path):
    rows = np.zeros(6, dtype=DR1_RECORD)
    rows["id"], rows["upid"], rows["mp"], rows["m"], rows["obs_sm"] = np.arange(6), -1, 1e12, 1e12, 1e10
    rows["flags"] = [0, 8, 16, 17, 24, 32]
    rows.tofile(tmp_path / "sfr_catalog_0.5000.bin")
    box = read_box(tmp_path / "sfr_catalog_0.5000.bin")
    assert box["id"].tolist() == [0, 1, 5]
    np.testing.assert_allclose(box["log10_mvir"], 12.0, rtol=1e-6)
    assert box_info(tmp_path / "sfr_catalog_0.5000.bin").redshift == 1.0


@pytest.mark.parametrize("kind", ["i8", "u8", "i4", "f8"])
def test_ids_of_galaxies_in_a_box_have_64_bits(tmp_path, kind):
    path = universemachine(tmp_path / "a.npy", ids=kind)
    if kind in ("i8", "u8"):
        assert len(read_box(path)["id"]) == 40
        assert box_info(path).redshift is None
    else:
        with pytest.raises(CatalogError, match="expected 64-bit integers"):
            read_box(path)


def test_a_snapshot_is_known_by_its_number_or_the_scale_of_its_first_row(tmp_path):
    for name, redshift in (
        ("mdpl2_113.csv", 0.304),
        ("mdpl2_125.csv", 0.0),
        ("a112.csv", None),
        ("a1201.csv", None),
    ):
        assert box_info(cosmosim(tmp_path / name, QUERY)).redshift == redshift
    table = haloes() | {"scale": np.linspace(0.5, 1.0, 40)}
    assert box_info(cosmosim(tmp_path / "b.csv", table=table)).redshift == pytest.approx(1.0)
    # A comment above the names, and a first row that is cut.
    path = cosmosim(tmp_path / "c_120.csv")
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(["# a comment", "", lines[0], lines[1][:30]]), encoding="utf-8")
    assert box_info(path).redshift == 0.117


def test_the_head_of_a_list_of_rockstar_says_what_it_says(tmp_path):
    path = rockstar(tmp_path / "hlist_0.50000.list")
    text = path.read_text(encoding="utf-8")
    for old, new, expected in (
        ("#a = 0.895100", "#a = 0.8.", 0.25),
        ("#a = 0.895100", "# nothing", 1.0),
    ):
        path.write_text(text.replace(old, new), encoding="utf-8")
        assert box_info(path).redshift == pytest.approx(expected)
    path.write_text(text.replace("h = 0.677700", "h0 = 0.7").replace("#Om", "#Omega_M"), encoding="utf-8")
    assert box_info(path).cosmology == {"Om0": 0.307115, "h": 0.7}
    path.write_text(text.split("\n")[0] + "\n", encoding="utf-8")
    assert box_info(path).cosmology == {}
    assert box_info(path).box_size is None


@pytest.mark.parametrize(
    ("errors", "scatter", "known"),
    [
        ([1.0, 1.0, 5.0], 101.0, True),
        ([0.9, 0.9, 5.0], 101.0, False),
        ([0.0, 0.0, 0.0], 101.0, True),
        ([0.0, 0.0, 5.0], 101.0, False),
        ([50.0, 50.0, 50.0], 100.0, False),
    ],
)
def test_a_mamposst_file_is_known_by_its_errors_and_the_scatter_of_velocities(
    tmp_path, errors, scatter, known
):
    v = scatter * np.sqrt(1.5) * np.array([-1.0, 0.0, 1.0])
    rows = [f"100.0 {one:.6f} {error}" for one, error in zip(v, errors, strict=True)]
    for more, columns in (("", True), (" 1.0", True), (" 1.0 2.0", False)):
        text = "\n".join(["# R v e", "#", *(row + more for row in rows)]) + "\n"
        (tmp_path / "a.dat").write_text(text, encoding="utf-8")
        assert (name_of(tmp_path / "a.dat") == "mg-mamposst") == (known and columns)
    (tmp_path / "a.dat").write_text("\n".join(["# z v e", "#", *rows]) + "\n", encoding="utf-8")
    assert name_of(tmp_path / "a.dat") != "mg-mamposst"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("-1.0 0.0 50.0", "R in row 251 is -1"),
        ("1.0 0.0 -50.0", "e_v in row 251 is -50"),
        ("0.0 9.0 0.0", None),
    ],
)
def test_radii_and_errors_of_mamposst_are_not_negative_anywhere(tmp_path, row, message):
    path = mamposst(tmp_path / "a.dat")
    head, rows = (
        path.read_text(encoding="utf-8").splitlines()[:2],
        path.read_text(encoding="utf-8").splitlines()[2:],
    )
    path.write_text("\n".join([*head, *(rows * 9)[:250], row]) + "\n", encoding="utf-8")
    if message is None:
        assert len(read_known_table(path)[1].galaxies) == 251
    else:
        with pytest.raises(CatalogError, match=message):
            read_known_table(path)


@pytest.mark.parametrize(("typical", "known"), [(20.0, True), (19.9, False)])
def test_radii_of_mamposst_are_kpc_from_20_on(tmp_path, typical, known):
    rows = [f"{r} {v} 50.0" for r, v in ((1.0, -500.0), (typical, 0.0), (900.0, 500.0))]
    (tmp_path / "a.dat").write_text("\n".join(["# R v e", "#", *rows]) + "\n", encoding="utf-8")
    if known:
        assert read_known_table(tmp_path / "a.dat")[1].one_cluster == "a"
    else:
        with pytest.raises(CatalogError, match=r"radii are 19\.9 typically, as in Mpc"):
            read_known_table(tmp_path / "a.dat")


@pytest.mark.parametrize(
    ("galaxy", "cluster", "known"),
    [(10.0, 10.0, True), (9.9, 9000.0, False), (9000.0, 9.9, False), (-10.0, -10.0, True)],
)
def test_velocities_of_caustic_files_are_no_redshifts(tmp_path, galaxy, cluster, known):
    path = caustic(tmp_path / "a.txt")
    rows = [f"2 10 20 {cluster}", f"10 20 {galaxy}", f"10 20 {galaxy}"]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    if known:
        assert read_known_table(path)[1].clusters["redshift"][0] == cluster / SPEED_OF_LIGHT
    else:
        with pytest.raises(CatalogError, match="look like redshifts; expected cz"):
            read_known_table(path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("Ngal", 20, None),
        ("Ngal", 0, None),
        ("Ngal", 21, "Ngal in row 4 is 21; expected a whole number up to 20"),
        ("Ngal", 11.5, r"Ngal in row 4 is 11\.5"),
        ("Ngal", -1, "Ngal in row 4 is -1"),
        ("M200c", 1.01e10, None),
        ("M200c", 1e10, r"M200c in row 4 is 1e\+10"),
        ("M200c", 9.9e16, None),
        ("M200c", 1e17, r"M200c in row 4 is 1e\+17"),
        ("gal_Rproj", 0.9999, None),
        ("gal_Rproj", 1.0001, "gal_Rproj in row 4 is not the distance"),
    ],
)
def test_a_halo_cnn_catalogue_has_its_ranges(tmp_path, name, value, message):
    def changed(rows):
        rows = rows.copy()
        # A distance may differ by 0.01 and a hundredth of it.
        rows[3] = value * (1.01 * rows[3] + 0.01) if name == "gal_Rproj" else value
        return rows

    path, _ = halo_cnn(tmp_path / "a.npy", **{name: changed})
    if message is None:
        assert len(list(identify(path).iterate(path, 2, 0.1, MDPL2))) == 3
    else:
        with pytest.raises(CatalogError, match=message):
            list(identify(path).iterate(path, 2, 0.1, MDPL2))


def test_hosts_of_a_halo_cnn_catalogue_keep_their_columns_under_names_of_their_own(tmp_path):
    catalog = load_catalog(halo_cnn(tmp_path / "a.npy")[0], redshift=0.1)
    assert {"host_x", "host_y", "host_z", "rotation"} <= set(catalog.cluster_columns)
    assert catalog.metadata.kind == "contaminated"
    pure = load_catalog(halo_cnn(tmp_path / "b.npy", gal_memb_halo=lambda m: m | True)[0], redshift=0.1)
    assert pure.metadata.kind == "pure"
    for first, exact in ((2.0**53 - 1, True), (2.0**53, False)):
        path, _ = halo_cnn(tmp_path / "c.npy", rockstarId=lambda ids, first=first: ids * 0 + first)
        assert load_catalog(path, redshift=0.1).has("halo_id") == exact
    cut = load_catalog(halo_cnn(tmp_path / "a.npy")[0], redshift=0.1, r_max=0.5)
    assert cut.r_proj.max() < 0.5
    assert load_catalog(halo_cnn(tmp_path / "a.npy")[0], redshift=0.1, v_max=500.0).n_galaxies_total > 0


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("M500", [0.06] * 3, None),
        ("M500", [0.05] * 3, r"M500 is 0\.05 typically"),
        ("M500", [999.0] * 3, None),
        ("M500", [1000.0] * 3, r"M500 is 1e\+03 typically"),
        ("M500", [30.0, 0.00101, 50.0], None),
        ("M500", [30.0, 0.001, 50.0], r"M500 is 0\.001 and BEST_Z 0\.2 in row 2"),
        ("M500", [30.0, 9999.0, 50.0], None),
        ("M500", [30.0, 10000.0, 50.0], "in row 2; expected 0.001 to 10000"),
        ("BEST_Z", [0.1, 2.99, 0.3], None),
        ("BEST_Z", [0.1, 3.0, 0.3], "BEST_Z 3 in row 2"),
    ],
)
def test_masses_of_erass_have_their_ranges(column, value, message):
    table = erass()
    table[column] = value
    if message is None:
        assert len(read_known_table(table)[1].clusters) == 3
    else:
        with pytest.raises(CatalogError, match=message):
            read_known_table(table)


def test_what_is_zero_was_not_measured():
    clusters = erass()
    clusters["BEST_Z"][0], clusters["M500"][1] = 0.0, 0.0
    assert read_known_table(clusters)[1].counts == {"no_redshift": 1, "no_mass": 1}
    clusters = redmapper_clusters()
    clusters["Z_LAMBDA"][2], clusters["CG_SPEC_Z"][0], clusters["Z_LAMBDA_E"][1] = 0.0, 0.0, 0.0
    reading = read_known_table(clusters)[1]
    assert reading.counts == {"photometric_redshifts": 2, "no_redshift": 1}
    np.testing.assert_allclose(reading.clusters["redshift"], [0.21, 0.31])
    np.testing.assert_allclose(reading.clusters["redshift_err"], [0.006, 0.0])
    members = redmapper_members()
    members["ZSPEC"][12] = 0.0
    assert read_known_table(members)[1].counts == {"no_redshift": 11}


@pytest.mark.parametrize(
    ("z", "kept"),
    [(0.0, False), (1e-4, True), (-0.09, True), (-0.1, False), (8.9, True), (9.0, False), (np.nan, False)],
)
def test_redshifts_of_spectra_are_those_of_galaxies(z, kept):
    table = skyserver(5)
    table["specz"][2] = z
    reading = read_known_table(table)[1]
    assert len(reading.galaxies) == 4 + kept
    assert reading.counts["no_redshift"] == 1 - kept
    assert len(reading.notes) == 2
    archive = Table(
        {
            "RAJ2000": table["ra"],
            "DEJ2000": table["dec"],
            "zz": table["specz"],
            "e_zz": [1e-4, 0.0, -1, 2e-4, 1],
        }
    )
    archive["zz"].meta["ucd"] = "src.redshift"
    found = galaxies_by_ucd(archive, "t")
    assert len(found.galaxies) == 4 + (kept or z == 9.0)
    # An error of zero, or less, is none.
    assert np.isnan(found.galaxies["z_err"]).tolist()[:2] == [False, True]


@pytest.mark.parametrize(
    ("ucd", "taken"),
    [
        ("src.redshift", True),
        ("SRC.REDSHIFT;meta.main", True),
        ("src.redshift.phot", False),
        ("src.redshiftless", False),
        ("spect.dopplerVeloc.opt", True),
        ("phys.veloc;phys.veloc.dispersion", False),
        ("src.redshift;stat.error", False),
        ("stat.error;src.redshift", False),
        ("", False),
    ],
)
def test_columns_with_redshifts_are_known_by_their_ucd(ucd, taken):
    table = Table({"a": [0.1]})
    table["a"].meta["ucd"] = ucd
    assert redshift_columns(table) == ["a"] * taken


def test_redshifts_beat_velocities_and_repeats_that_differ_are_said():
    table = Table(
        {
            "RA_ICRS": [10.0, 10.0, 11.0],
            "DE_ICRS": [1.0, 1.0, 2.0],
            "v": [3e4, 3.1e4, 4e4],
            "z": [0.1, 0.11, 0.2],
        }
    )
    for name, ucd in (("v", "spect.dopplerVeloc"), ("z", "src.redshift")):
        table[name].meta["ucd"] = ucd
    assert redshift_columns(table) == ["z", "v"]
    reading = galaxies_by_ucd(table, "t")
    assert reading.galaxies["z"].tolist() == [0.1, 0.2]
    assert reading.counts == {"no_redshift": 0, "no_position": 0, "repeated": 1}
    assert reading.notes[1] == "1 galaxy with redshifts more than 300 km/s apart."
    assert "(also there: v)" in reading.notes[0]
    table["RA_ICRS"][2] = np.nan
    assert galaxies_by_ucd(table, "t", "v").counts["no_position"] == 1


def test_objects_of_ned_without_a_position_and_with_words_of_doubt_are_left_out():
    table = ned()
    table["DEC"][3] = np.nan
    table["Redshift Flag"][10:14] = ["spec,phot", "1?", "?", "SPEC|MOD"]
    counts = read_known_table(table)[1].counts
    assert (counts["no_position"], counts["bad_redshift_flag"]) == (1, 3)

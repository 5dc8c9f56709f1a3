"""Tables as the field has them: other names, units, values that stand for none, columns that nobody needs."""

from __future__ import annotations

import datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import MaskedColumn, Table
from astropy.time import Time
from flat_tables import EACH, frame_tables, notes, same, sky_tables

from bayesflowmass.catalog import CatalogError
from bayesflowmass.cosmology import transverse_mpc_h_per_radian
from bayesflowmass.inspect import inspect_file
from bayesflowmass.io import load_catalog
from bayesflowmass.io.any_table import read_any_table
from bayesflowmass.io.containers import parquet
from bayesflowmass.io.units import radius_from_text


@pytest.mark.parametrize("form", ["10 {m:02d} {s:07.4f}", "10:{m:02d}:{s:07.4f}", "10h{m:02d}m{s:07.4f}s"])
def test_coordinates_in_hours_and_minutes_are_read(tmp_path, form):
    galaxies, clusters, _ = sky_tables(n=1)
    clusters["ra"], clusters["dec"] = 150.0, -0.2
    rng = np.random.default_rng(0)
    minute, second = rng.integers(0, 2, len(galaxies)), rng.uniform(0, 59, len(galaxies))
    galaxies["ra"] = [form.format(m=m, s=s) for m, s in zip(minute, second, strict=True)]
    galaxies["dec"] = [f"-00:12:{s:05.2f}" for s in second]
    galaxies.write(tmp_path / "g.csv")
    catalog = load_catalog(tmp_path / "g.csv", clusters, few_galaxies="keep", r_max=None, v_max=None)
    np.testing.assert_allclose(catalog.galaxies("gal_ra"), 150.0 + minute / 4 + second / 240, atol=1e-6)
    np.testing.assert_allclose(catalog.galaxies("gal_dec"), -0.2 - second / 3600, atol=1e-5)


def test_galaxies_without_what_they_need_are_left_out_and_said():
    galaxies, clusters, _ = sky_tables()
    whole = load_catalog(galaxies, clusters)
    galaxies["z"][[0, 5]] = [4.0, -9.99]
    galaxies["ra"][7] = np.nan
    galaxies["dec"][9] = -99.0
    catalog = load_catalog(galaxies, clusters)
    assert catalog.n_galaxies_total == whole.n_galaxies_total - 4
    assert catalog.metadata.extra["galaxies_left_out"] == 4
    text = notes(catalog)
    assert "1 of 36 galaxies without z is left out; the first is row 6" in text
    assert "1 of 36 galaxies with z outside -0.02 to 3 (as redshifts) is left out; the first is row 1" in text
    assert "2 of 36 galaxies without a position are left out; the first is row 8" in text


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("dec", 95.0, r"dec in row 4 is 95; expected degrees, within \[-90, 90\]"),
        ("ra", 1000.0, r"ra in row 4 is 1000; expected degrees, within \[-360, 360\]"),
    ],
)
def test_coordinates_that_cannot_be_are_refused(column, value, message):
    for table in (0, 1):
        tables = sky_tables(n=5)
        tables[table][column][3] = value
        with pytest.raises(CatalogError, match=message):
            load_catalog(*tables[:2])


def test_a_cluster_without_a_redshift_costs_only_its_own_mass():
    galaxies, clusters, _ = sky_tables()
    expected = load_catalog(galaxies, clusters)
    for unknown in (np.nan, -1.0, -99.0):
        changed = clusters.copy()
        changed["z"][1] = unknown
        catalog = load_catalog(galaxies, changed, few_galaxies="keep")
        assert catalog.n_galaxies.tolist() == [expected.n_galaxies[0], 0, expected.n_galaxies[2]]
        assert np.isnan(catalog.column("redshift")).tolist() == [False, True, False]
        np.testing.assert_array_equal(catalog[2].galaxies("x"), expected[2].galaxies("x"))
        assert "1 of 3 clusters have no redshift and get no mass; the first is row 2" in notes(catalog)
    with pytest.raises(CatalogError, match="cluster A1 has no redshift"):
        load_catalog(galaxies, changed)
    assert len(load_catalog(galaxies, changed, few_galaxies="drop")) == 2


@pytest.mark.parametrize("name", ["completeness", "redshift_err", "sigma_v_err", "abs_mag_limit", "aperture"])
def test_what_was_not_measured_of_a_cluster_is_unknown(name):
    galaxies, clusters = frame_tables()
    values = {"completeness": 0.5, "redshift_err": 1e-4, "sigma_v_err": 30.0, "abs_mag_limit": -20.0}
    values["aperture"] = 1.0
    clusters[name] = [values[name], np.nan, -999.0 if name == "abs_mag_limit" else -99.0]
    catalog = load_catalog(galaxies, clusters)
    np.testing.assert_array_equal(catalog.column(name), [values[name], np.nan, np.nan])
    assert "is taken for not measured, in 1 of 3 rows; the first is row 3" in notes(catalog)
    clusters[name][2] = 4e4
    with pytest.raises(CatalogError, match=f"{name} in row 3 is 40000; expected"):
        load_catalog(galaxies, clusters)


def test_an_error_in_km_s_beside_cz_is_brought_to_the_rest_frame():
    galaxies, clusters = sky_tables()[:2]
    galaxies["v_err"] = 40.0
    catalog = load_catalog(galaxies, clusters)
    expected = 40.0 / (1.0 + catalog.column("redshift")[catalog.galaxy_rows])
    np.testing.assert_allclose(catalog.galaxies("gal_v_err"), expected, rtol=1e-6)


def test_an_aperture_on_the_sky_is_a_length_at_each_redshift():
    galaxies, clusters = frame_tables()
    clusters["aperture"] = 5.0
    catalog = load_catalog(galaxies, clusters, units={"aperture": "arcmin"})
    expected = transverse_mpc_h_per_radian(catalog.column("redshift")) * np.radians(5.0 / 60.0)
    np.testing.assert_allclose(catalog.column("aperture"), expected, rtol=1e-12)
    text = radius_from_text("5 arcmin", catalog.column("redshift"), catalog.metadata.cosmology)
    np.testing.assert_allclose(text, expected, rtol=1e-12)
    with pytest.raises(CatalogError, match="the aperture is 'wide'; expected a radius above 0"):
        radius_from_text("wide", catalog.column("redshift"), catalog.metadata.cosmology)


def test_errors_that_were_not_measured_are_unknown_and_absurd_ones_are_refused():
    galaxies, clusters = frame_tables()
    galaxies["v_err"] = 30.0
    galaxies["v_err"][[2, 4]] = [99999.0, -1.0]
    catalog = load_catalog(galaxies, clusters)
    assert np.isnan(catalog.galaxies("gal_v_err")).sum() == 2
    assert "-1, 99999 is taken for not measured, in 2 of 36 rows; the first is row 3" in notes(catalog)
    galaxies["v_err"][2] = 40000.0
    with pytest.raises(CatalogError, match="v_err in row 3 is 40000; expected an error in km/s"):
        load_catalog(galaxies, clusters)


def unneeded():
    """Columns that masses do not need, of every sort."""
    n = 3 * EACH
    gap = np.arange(n) == 4
    return {
        "date": np.array([datetime.date(2024, 1, 1)] * n),
        "stamp": np.full(n, np.datetime64("2024-01-01T12:00")),
        "maybe": MaskedColumn(np.ones(n, bool), mask=gap),
        "galaxy_id": np.arange(n) + 0.0,
        "halo_id": np.where(gap, np.nan, np.arange(n)),
        "weight": np.where(gap, "low", "high"),
        "is_member": np.where(gap, "no", "yes"),
        "component": np.where(gap, "bulge", "disc"),
        "flux": np.ones((n, 3)),
        "completeness": np.where(gap, np.nan, 0.5),
        "mode": np.where(gap, "slit", "fibre"),
        "time": Time(np.full(n, 2460000.5), format="jd"),
        "coord": SkyCoord(np.full(n, 10.0) * u.deg, np.full(n, -3.0) * u.deg),
    }


@pytest.mark.parametrize("name", unneeded())
def test_columns_that_nobody_needs_stop_nothing(tmp_path, name):
    galaxies, clusters = frame_tables()
    expected = load_catalog(galaxies, clusters)
    galaxies[name] = unneeded()[name]
    catalog = load_catalog(galaxies, clusters)
    same(catalog, expected)
    catalog.write(tmp_path / "c.parquet")
    same(load_catalog(tmp_path / "c.parquet"), expected)
    if name not in ("date", "flux"):
        galaxies.write(tmp_path / "g.ecsv")
        same(load_catalog(tmp_path / "g.ecsv", clusters), expected)


@pytest.mark.parametrize(
    "name", ["x", "v_los", "mode", "kind", "flags", "n_galaxies", "z", "date", "halo_id"]
)
def test_columns_of_clusters_that_nobody_needs_stop_nothing(name):
    galaxies, clusters = frame_tables()
    expected = load_catalog(galaxies, clusters)
    values = {
        "z": clusters["redshift"],
        "date": np.array([datetime.date(2024, 1, 1)] * 3),
        "halo_id": [1.0, 2.0, np.nan],
    }
    clusters[name] = values.get(
        name, ["a", "b", "c"] if name in ("mode", "kind", "flags") else [1200.0, 7.0, 0.0]
    )
    same(load_catalog(galaxies, clusters), expected)


def test_a_gap_in_the_truth_makes_it_no_truth():
    galaxies, clusters = frame_tables()
    clusters["log10_mass"][1] = np.nan
    catalog = load_catalog(galaxies, clusters)
    assert not catalog.has("log10_mass")
    assert np.isnan(catalog.column("log10_mass_published")).tolist() == [False, True, False]
    assert "1 of 3 masses are missing (the first in row 2)" in notes(catalog)


def test_whole_numbers_stored_as_floats_are_ids_and_others_are_not(tmp_path):
    galaxies, clusters = frame_tables()
    expected = load_catalog(galaxies, clusters)
    galaxies["cluster_id"] = galaxies["cluster_id"].astype(float)
    np.savetxt(
        tmp_path / "g.txt",
        np.stack([galaxies[n] for n in ("cluster_id", "x", "y", "v_los")], -1),
        header="cluster_id x y v_los",
    )
    for table in (galaxies, tmp_path / "g.txt"):
        catalog = load_catalog(table, clusters)
        assert catalog.column("cluster_id").tolist() == expected.column("cluster_id").tolist()
        same(catalog, expected)
    galaxies["cluster_id"] = galaxies["cluster_id"] * 1e15
    with pytest.raises(CatalogError, match="does not survive as a float"):
        load_catalog(galaxies, clusters)


def test_coordinates_of_astropy_are_two_columns():
    galaxies, clusters, _ = sky_tables()
    expected = load_catalog(galaxies, clusters)
    galaxies["where"] = SkyCoord(galaxies["ra"] * u.deg, galaxies["dec"] * u.deg)
    galaxies.remove_columns(["ra", "dec"])
    same(load_catalog(galaxies, clusters), expected)


def test_coordinates_and_times_in_files_are_read(tmp_path):
    galaxies, clusters, _ = sky_tables()
    expected = load_catalog(galaxies, clusters)
    galaxies["where"] = SkyCoord(galaxies["ra"] * u.deg, galaxies["dec"] * u.deg)
    galaxies["when"] = Time(np.full(len(galaxies), 2460000.5), format="jd")
    galaxies.remove_columns(["ra", "dec"])
    for name in ("g.ecsv", "g.fits"):
        galaxies.write(tmp_path / name)
        same(load_catalog(tmp_path / name, clusters), expected)


def test_repeats_are_counted_and_said():
    galaxies, clusters, _ = sky_tables()
    twice = Table(np.concatenate([galaxies, galaxies[:5]]))
    assert "5 rows are at the very position of another in the same cluster" in notes(
        load_catalog(twice, clusters)
    )


def desi(n=30):
    galaxies, _, _ = sky_tables(n=1)
    rows = np.arange(n) % len(galaxies)
    table = Table({"TARGETID": np.arange(n) % 12 + 39627785483846000})
    for ours, theirs in (("ra", "TARGET_RA"), ("dec", "TARGET_DEC"), ("z", "Z")):
        table[theirs] = np.asarray(galaxies[ours])[rows]
    table["ZERR"] = np.where(np.arange(n) < 12, 2e-5, 4e-5)
    table["ZWARN"] = np.where(np.arange(n) % 10 == 9, 4, 0)
    table["SPECTYPE"] = np.where(np.arange(n) == 3, "QSO", "GALAXY")
    return table


def test_desi_rows_with_warnings_and_repeats_are_left_out_and_counted(tmp_path):
    _, clusters, _ = sky_tables(n=1)
    path = tmp_path / "zcatalog.fits"
    desi().write(path)
    expected = load_catalog(path, clusters, r_max=3.0)
    assert expected.n_galaxies_total == len(
        set(desi()["TARGETID"][(desi()["ZWARN"] == 0) & (desi()["SPECTYPE"] != "QSO")])
    )
    assert len(np.unique(expected.galaxies("gal_galaxy_id"))) == expected.n_galaxies_total
    assert expected.metadata.extra["redshift_warning"] == 3
    assert "repeated measurements left out" in notes(expected)
    named = load_catalog(path, clusters, {"ra": "TARGET_RA", "dec": "TARGET_DEC", "galaxies.z": "Z"})
    assert named.metadata.extra["redshift_warning"] == 3
    assert inspect_file(path).title == "DESI redshift catalogue"


def test_spectra_of_sdss_that_are_there_twice_are_one_galaxy():
    galaxies, clusters, _ = sky_tables(n=1)
    galaxies.remove_column("cluster_id")
    galaxies["objid"] = np.arange(len(galaxies)) + 2**60
    galaxies["specobjid"] = np.arange(len(galaxies)) + 2**61
    once = load_catalog(galaxies, clusters)
    again = galaxies[:4].copy()
    again["specobjid"] += 1000
    assert (
        load_catalog(Table(np.concatenate([galaxies, again])), clusters).n_galaxies.tolist()
        == once.n_galaxies.tolist()
    )
    for band in "ugri":
        galaxies[band] = 18.0
    galaxies.rename_column("z", "redshift")
    galaxies["z"] = 17.0
    catalog = load_catalog(galaxies, clusters)
    same(catalog, once)
    assert "z, beside u, g, r and i, is a magnitude" in notes(catalog)


def test_clusters_given_as_galaxies_are_known_for_what_they_are(tmp_path):
    _, clusters, _ = sky_tables()
    with pytest.raises(
        CatalogError, match="this one looks like that table, with another cluster in each row"
    ):
        load_catalog(clusters)
    clusters.rename_columns(["cluster_id", "z"], ["name", "zcl"])
    clusters.write(tmp_path / "c.csv")
    report = inspect_file(tmp_path / "c.csv")
    assert "a table of clusters" in report.facts
    assert "--clusters" in report.commands[0]


def test_tables_of_text_in_fits_have_gaps_too(tmp_path):
    columns = [
        fits.Column("ra", "F10.6", array=np.array([150.0, 151.0, 152.0]), ascii=True),
        fits.Column("z", "F8.5", array=np.array([0.1, 0.2, 0.3]), null="NaN", ascii=True),
        fits.Column("name", "A4", array=np.array(["a", "b b", "c"]), ascii=True),
    ]
    hdu = fits.TableHDU.from_columns(columns)
    path = tmp_path / "t.fits"
    hdu.writeto(path)
    path.write_bytes(path.read_bytes().replace(b" 0.20000", b"     NaN"))
    table = read_any_table(path)
    assert table["z"].tolist() == [0.1, None, 0.3]
    assert table["name"].tolist() == ["a", "b b", "c"]


def test_columns_of_fits_are_what_they_are(tmp_path):
    columns = [
        fits.Column("i", "J", array=np.array([1, -9, 3]), null=-9),
        fits.Column("u", "K", bzero=2**63, array=np.array([1, 2**63, 2**64 - 1], dtype=np.uint64)),
        fits.Column("s", "I", array=np.array([1, 2, 4])),
        fits.Column("yes", "L", array=np.array([True, False, True])),
        fits.Column("name", "6A", array=np.array(["Abell", "x y", ""])),
        fits.Column("many", "PE()", array=np.array([[1.0], [1.0, 2.0], []], dtype=object)),
        fits.Column("flux", "3E", array=np.ones((3, 3))),
    ]
    hdu = fits.BinTableHDU.from_columns(columns)
    hdu.writeto(tmp_path / "t.fits")
    with fits.open(tmp_path / "t.fits", mode="update", do_not_scale_image_data=True) as hdus:
        hdus[1].header["TSCAL3"], hdus[1].header["TZERO3"] = 0.5, 10.0
    table = read_any_table(tmp_path / "t.fits")
    assert table["i"].tolist() == [1, None, 3]
    assert table["u"].tolist() == [1, 2**63, 2**64 - 1]
    assert table["s"].tolist() == [10.5, 11.0, 12.0]
    assert table["yes"].tolist() == [True, False, True]
    assert table["name"].tolist() == ["Abell", "x y", ""]
    assert table["flux"].shape == (3, 3)
    assert table.meta["notes"] == ["columns that are no numbers or text are left out: many."]


def test_text_of_fits_ends_at_a_zero_byte_as_its_standard_has_it(tmp_path):
    column = fits.Column("name", "6A", array=np.array(["NGC 1", "NGC 2", "NGC 3"]))
    fits.BinTableHDU.from_columns([column]).writeto(tmp_path / "t.fits")
    content = (tmp_path / "t.fits").read_bytes()
    # Section 7.3.3.1 of the standard 4.0: what follows is not defined, and a text that begins with one is empty.
    for new in (b"NG\0 2", b"\0GC 2"):
        (tmp_path / "t.fits").write_bytes(content.replace(b"NGC 2", new))
        first = new.partition(b"\0")[0].decode()
        assert read_any_table(tmp_path / "t.fits")["name"].tolist() == ["NGC 1", first, "NGC 3"]


def test_text_of_parquet_that_is_no_text_is_one_sentence(tmp_path):
    pq.write_table(pa.table({"name": ["NGC 10", "NGC 11"] * 20}), tmp_path / "n.parquet", compression="none")
    content = (tmp_path / "n.parquet").read_bytes()
    (tmp_path / "n.parquet").write_bytes(content.replace(b"NGC 10", b"NGC\xff10"))
    with pytest.raises(CatalogError, match="not a whole parquet file"):
        read_any_table(tmp_path / "n.parquet")


def test_columns_of_parquet_are_what_they_are(tmp_path):
    table = pa.table(
        {
            "flag": pa.array([True, None, False]),
            "id": pa.array([2**60, None, 3]),
            "kind": pa.array(["a", None, "b"]).dictionary_encode(),
            "day": pa.array([datetime.date(2024, 1, 1)] * 3),
            "price": pa.array([Decimal("1.25"), Decimal("2.5"), None], pa.decimal128(6, 2)),
            "nested": pa.array([{"a": 1}] * 3),
            "nothing": pa.nulls(3),
        }
    )
    pq.write_table(table, tmp_path / "t.pq")
    read = read_any_table(tmp_path / "t.pq")
    assert read["flag"].tolist() == [True, None, False]
    assert read["id"].tolist() == [2**60, None, 3]
    assert read["kind"].tolist() == ["a", "", "b"]
    assert read["day"].tolist() == ["2024-01-01"] * 3
    assert read["price"].tolist() == [1.25, 2.5, None]
    assert "nested" in read.meta["notes"][0]
    assert np.ma.getmaskarray(read["nothing"]).all()


@pytest.mark.parametrize(("limit", "fits"), [(8 * 5000 * 3, True), (8 * 5000 * 3 - 1, False)])
def test_parquet_announces_rows_times_columns_within_the_limit(tmp_path, monkeypatch, limit, fits):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({name: np.zeros(5000) for name in "abc"}), path)
    monkeypatch.setattr(parquet, "UNPACKED_LIMIT", limit)
    monkeypatch.setattr(parquet, "UNPACKED_RATIO", 1)
    if fits:
        assert len(read_any_table(path)) == 5000
        monkeypatch.setattr(parquet, "UNPACKED_LIMIT", 0)
        monkeypatch.setattr(parquet, "UNPACKED_RATIO", 8 * 5000 * 3 / path.stat().st_size)
        assert len(read_any_table(path)) == 5000
    else:
        with pytest.raises(CatalogError, match="announce 5000 rows of 3 columns, as no table does"):
            read_any_table(path)


@pytest.mark.parametrize("kind", ["fits", "votable"])
def test_columns_that_are_there_twice_are_refused(tmp_path, kind):
    path = tmp_path / "t"
    table = Table({"cluster_id": [1, 2], "zz": [0.1, 0.2], "z2": [0.1, 0.3]})
    table.write(path, format=kind)
    path.write_bytes(path.read_bytes().replace(b"z2", b"zz"))
    with pytest.raises(CatalogError, match=r"column zz is there (2 times|more than once)"):
        load_catalog(path)

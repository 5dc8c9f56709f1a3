"""Flat tables into catalogues: forms, formats, units, sky geometry."""

from __future__ import annotations

import gzip

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table
from flat_tables import EACH, frame_tables, sky_tables
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.cosmology import MDPL2, SPEED_OF_LIGHT, transverse_mpc_h_per_radian
from bayesflowmass.io import load_catalog, read_flat
from bayesflowmass.io.sky import galaxies_around, sky_offsets


def test_frame_coordinates_are_grouped_by_cluster_and_extra_columns_travel():
    galaxies, clusters = frame_tables()
    catalog = read_flat(galaxies, clusters)
    assert len(catalog) == 3
    for row in range(3):
        mine = galaxies[galaxies["cluster_id"] == row + 10]
        for name in ("x", "y", "v_los", "colour"):
            np.testing.assert_array_equal(catalog[row].galaxies(name), mine[name])
    np.testing.assert_array_equal(catalog.column("log10_mass"), clusters["log10_mass"])
    assert catalog.metadata.selection == {"r_max": 1.6, "v_max": 2500.0}
    assert catalog.metadata.extra["galaxies_outside_cylinder"] == 0


def test_the_cylinder_is_cut_and_counted_unless_told_otherwise():
    galaxies, clusters = frame_tables()
    galaxies["x"][:4] = 3.0
    assert read_flat(galaxies, clusters).metadata.extra["galaxies_outside_cylinder"] == 4
    whole = read_flat(galaxies, clusters, r_max=None, v_max=None)
    assert whole.n_galaxies_total == 3 * EACH
    assert whole.metadata.selection == {}


def test_a_radius_alone_lies_along_x():
    galaxies, clusters = frame_tables()
    galaxies["r_proj"] = np.hypot(galaxies["x"], galaxies["y"])
    galaxies.remove_columns(["x", "y"])
    catalog = read_flat(galaxies, clusters)
    assert not catalog.galaxies("y").any()
    np.testing.assert_allclose(np.sort(catalog.r_proj), np.sort(galaxies["r_proj"]))


def test_sky_coordinates_become_comoving_offsets_and_rest_frame_velocities():
    galaxies, clusters, truth = sky_tables()
    catalog = read_flat(galaxies, clusters)
    np.testing.assert_allclose(catalog.r_proj, truth["r"], rtol=1e-9)
    np.testing.assert_allclose(catalog.galaxies("x"), truth["east"], atol=1e-9)
    np.testing.assert_allclose(catalog.galaxies("y"), truth["north"], atol=1e-9)
    np.testing.assert_allclose(catalog.galaxies("v_los"), truth["v"], atol=1e-8)
    np.testing.assert_array_equal(catalog.galaxies("gal_ra"), galaxies["ra"])
    np.testing.assert_array_equal(catalog.galaxies("gal_z"), galaxies["z"])
    assert not catalog.column("n_shared").any()


def test_velocities_as_cz_and_other_units_of_angle_are_converted():
    galaxies, clusters, truth = sky_tables()
    galaxies["cz"] = galaxies["z"] * SPEED_OF_LIGHT * 1000 * u.m / u.s
    galaxies.remove_column("z")
    for name in ("ra", "dec"):
        galaxies[name] = np.radians(galaxies[name]) * u.rad
    clusters["ra"] = clusters["ra"] / 15 * u.hourangle
    catalog = read_flat(galaxies, clusters)
    np.testing.assert_allclose(catalog.r_proj, truth["r"], rtol=1e-9)
    np.testing.assert_allclose(catalog.galaxies("v_los"), truth["v"], atol=1e-6)


def test_galaxies_without_ids_are_cut_around_clusters_like_those_with():
    galaxies, clusters, _ = sky_tables()
    with_ids = read_flat(galaxies, clusters)
    galaxies.remove_column("cluster_id")
    order = np.random.default_rng(1).permutation(len(galaxies))
    cut = read_flat(galaxies[order], clusters)
    for row in range(3):
        np.testing.assert_allclose(np.sort(cut[row].r_proj), np.sort(with_ids[row].r_proj))


def test_a_name_is_taken_for_the_id_of_clusters_and_said_where_there_is_no_other():
    galaxies, clusters, _ = sky_tables()
    expected = read_flat(galaxies, clusters).column("cluster_id").tolist()
    clusters["Name"] = [f"N{i}" for i in range(len(clusters))]
    kept = read_flat(galaxies, clusters)
    assert kept.column("cluster_id").tolist() == expected
    assert not any("taken for cluster_id" in note for note in kept.metadata.extra.get("notes", []))
    galaxies.remove_column("cluster_id")
    clusters.remove_column("cluster_id")
    named = read_flat(galaxies, clusters)
    assert named.column("cluster_id").tolist() == ["N0", "N1", "N2"]
    assert any("Name is taken for cluster_id" in note for note in named.metadata.extra["notes"])


def test_a_galaxy_may_belong_to_two_clusters_and_is_counted():
    galaxies, clusters, _ = sky_tables(n=1)
    twin = clusters.copy()
    twin["cluster_id"] = ["B0"]
    twin["dec"] += 0.01
    both = Table({name: np.concatenate([clusters[name], twin[name]]) for name in clusters.colnames})
    galaxies.remove_column("cluster_id")
    catalog = read_flat(galaxies, both, r_max=2.0)
    np.testing.assert_array_equal(catalog.n_galaxies, [EACH, EACH])
    np.testing.assert_array_equal(catalog.column("n_shared"), [EACH, EACH])
    assert read_flat(galaxies, clusters).metadata.extra["repeated_positions"] == 0


@given(st.integers(0, 1000))
@settings(deadline=None, max_examples=10)
def test_the_cut_around_clusters_agrees_with_all_pairs(seed):
    rng = np.random.default_rng(seed)
    ra, dec, z = rng.uniform(0, 4, 300), rng.uniform(86, 90, 300), rng.uniform(0.09, 0.11, 300)
    ra = ra * 90
    centres = rng.uniform(0, 360, 4), rng.uniform(87, 90, 4), rng.uniform(0.09, 0.11, 4)
    found, counts = galaxies_around(ra, dec, z, *centres, 3.0, 2000.0, MDPL2)
    parts = np.split(found, np.cumsum(counts)[:-1])
    sky = SkyCoord(ra * u.deg, dec * u.deg)
    for row, part in enumerate(parts):
        separation = sky.separation(SkyCoord(centres[0][row] * u.deg, centres[1][row] * u.deg)).rad
        v = SPEED_OF_LIGHT * (z - centres[2][row]) / (1 + centres[2][row])
        inside = (separation * transverse_mpc_h_per_radian(centres[2][row]) < 3.0) & (np.abs(v) < 2000)
        np.testing.assert_array_equal(part, np.flatnonzero(inside))


def test_offsets_agree_with_astropy_across_the_whole_sky():
    rng = np.random.default_rng(0)
    ra, dec = rng.uniform(0, 360, (2, 50)), rng.uniform(-90, 90, (2, 50))
    east, north = sky_offsets(ra[0], dec[0], ra[1], dec[1])
    centre = SkyCoord(ra[1] * u.deg, dec[1] * u.deg)
    other = SkyCoord(ra[0] * u.deg, dec[0] * u.deg)
    np.testing.assert_allclose(np.hypot(east, north), centre.separation(other).rad, rtol=1e-10)
    np.testing.assert_allclose(
        np.arctan2(east, north) % (2 * np.pi), centre.position_angle(other).rad, atol=1e-9
    )


@pytest.mark.parametrize("suffix", ["csv", "ecsv", "fits", "vot", "parquet", "txt", "csv.gz"])
def test_every_format_gives_the_same_catalogue(tmp_path, suffix):
    galaxies, clusters = frame_tables()
    expected = read_flat(galaxies, clusters)
    paths = []
    for name, table in (("galaxies", galaxies), ("clusters", clusters)):
        path = tmp_path / f"{name}.{suffix}"
        if suffix == "parquet":
            pq.write_table(pa.table({column: np.asarray(table[column]) for column in table.colnames}), path)
        elif suffix == "csv.gz":
            table.write(tmp_path / "plain.csv", overwrite=True)
            path.write_bytes(gzip.compress((tmp_path / "plain.csv").read_bytes()))
        else:
            table.write(path, format={"txt": "ascii", "vot": "votable", "csv": "ascii.csv"}.get(suffix))
        paths.append(path)
    catalog = load_catalog(*paths)
    assert catalog.column_names == expected.column_names
    np.testing.assert_array_equal(catalog.column("cluster_id"), expected.column("cluster_id"))
    for column in ("x", "y", "v_los", "colour"):
        np.testing.assert_array_equal(catalog.galaxies(column), expected.galaxies(column))


def test_tables_of_a_catalogue_are_flat_tables():
    galaxies, clusters = frame_tables()
    catalog = read_flat(galaxies, clusters)
    rows, flat = catalog.to_tables()
    again = read_flat(flat, rows)
    np.testing.assert_array_equal(again.galaxies("x"), catalog.galaxies("x"))


def test_names_are_mapped_for_both_or_for_one_and_case_does_not_matter(tmp_path):
    galaxies, clusters, _ = sky_tables()
    galaxies.rename_columns(["cluster_id", "ra", "dec", "z"], ["ClID", "RA", "DEC", "zspec"])
    clusters.rename_columns(["cluster_id", "z"], ["ClID", "zc"])
    mapping = {"cluster_id": "ClID", "galaxies.z": "zspec", "clusters.redshift": "zc"}
    catalog = read_flat(galaxies, clusters, mapping)
    assert catalog.cluster_columns == ["cluster_id", "redshift", "ra", "dec", "n_shared"]
    path = tmp_path / "galaxies.csv"
    galaxies.write(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"RA,", b" RA ,"))
    assert read_flat(path, clusters, mapping).equals(catalog)


def test_ids_above_two_to_the_53_are_exact(tmp_path):
    galaxies, clusters = frame_tables()
    galaxies["cluster_id"] += 2**60
    clusters["cluster_id"] += 2**60
    galaxies["galaxy_id"] = np.arange(len(galaxies)) + 2**61
    galaxies.write(tmp_path / "g.csv")
    clusters.write(tmp_path / "c.csv")
    catalog = read_flat(tmp_path / "g.csv", tmp_path / "c.csv")
    np.testing.assert_array_equal(catalog.column("cluster_id"), clusters["cluster_id"])
    assert set(catalog.galaxies("gal_galaxy_id")) == set(galaxies["galaxy_id"])


def test_lengths_are_converted_when_the_unit_says_what_they_are():
    galaxies, clusters = frame_tables()
    expected = read_flat(galaxies, clusters)
    z = dict(zip(clusters["cluster_id"], clusters["redshift"], strict=True))
    scale = np.array([1000 / MDPL2.h / (1 + z[i]) for i in galaxies["cluster_id"]])
    for name in ("x", "y"):
        galaxies[name] = galaxies[name] * scale
    catalog = read_flat(galaxies, clusters, units={"x": "proper kpc", "y": "proper kpc"})
    np.testing.assert_allclose(catalog.galaxies("x"), expected.galaxies("x"))


def test_clusters_may_be_left_out_when_the_redshift_is_known():
    galaxies, _ = frame_tables()
    one = read_flat(galaxies, redshift=0.1)
    np.testing.assert_array_equal(one.column("redshift"), [0.1] * 3)
    galaxies["redshift"] = 0.1
    assert set(read_flat(galaxies).column("cluster_id")) == {10, 11, 12}
    galaxies.remove_column("cluster_id")
    whole = read_flat(galaxies, cluster_id="Coma")
    assert whole.column("cluster_id").tolist() == ["Coma"]
    assert whole.n_galaxies.tolist() == [3 * EACH]


def test_poor_clusters_are_refused_dropped_or_kept():
    galaxies, clusters = frame_tables()
    few = galaxies[(galaxies["cluster_id"] != 11) | (np.cumsum(galaxies["cluster_id"] == 11) <= 2)]
    with pytest.raises(
        CatalogError, match=r"cluster 11 has 2 galaxies in the cylinder; expected at least 3 \(1 of 3"
    ):
        read_flat(few, clusters)
    dropped = read_flat(few, clusters, few_galaxies="drop")
    assert dropped.column("cluster_id").tolist() == [10, 12]
    assert dropped.metadata.extra["dropped_clusters"] == [11]
    assert read_flat(few, clusters, few_galaxies="keep").n_galaxies.tolist() == [EACH, 2, EACH]


def test_catalogue_files_are_loaded_by_the_same_function(tmp_path):
    galaxies, clusters = frame_tables()
    catalog = read_flat(galaxies, clusters)
    catalog.write(tmp_path / "cat.parquet")
    assert load_catalog(tmp_path / "cat.parquet").equals(catalog)
    assert load_catalog(tmp_path).equals(catalog)
    renamed = load_catalog(tmp_path / "cat.parquet", column_map={"gal_colour": "colour"})
    assert renamed.has("gal_colour")
    other = catalog.with_columns(cluster_id=[1, 2, 3])
    other.write(tmp_path / "other.parquet")
    assert len(load_catalog([tmp_path / "cat.parquet", tmp_path / "other.parquet"])) == 6
    for call, message in (
        (
            lambda: load_catalog(tmp_path / "cat.parquet", clusters),
            "one row per cluster, and clusters goes with flat",
        ),
        (lambda: load_catalog([]), "no catalogue to load"),
        (lambda: load_catalog(tmp_path / "cat.parquet", column_map={"a": "b"}), "no column b"),
        (lambda: load_catalog(tmp_path / "cat.parquet", column_map={"x": "y"}), "has a column x already"),
        (
            lambda: load_catalog(tmp_path / "cat.parquet", min_galaxies=50),
            "cat.parquet: cluster 10 has 12 galaxies",
        ),
    ):
        with pytest.raises(CatalogError, match=message):
            call()


@pytest.mark.shared_data
def test_sdss_clusters(shared_data):
    folder = shared_data / "sdss_galwcat"
    paths = folder / "galaxies_dev.csv", folder / "clusters_dev.csv"
    mapping = {"cluster_id": "ClID", "log10_mass": "logM200_Msunh"}
    catalog = load_catalog(*paths, mapping, few_galaxies="drop")
    assert isinstance(catalog, ClusterCatalog)
    rich = (catalog.n_galaxies >= 20) & (catalog.column("log10_mass") > 14)
    assert 70 <= rich.sum() <= 95
    # The file's own radius is proper, and its velocities are ours.
    z = np.repeat(catalog.column("redshift"), catalog.n_galaxies)
    far = catalog.r_proj > 0.1
    ratio = (catalog.galaxies("R_proj_Mpch") * (1 + z) / catalog.r_proj)[far]
    np.testing.assert_allclose(np.median(ratio), 1.0, atol=0.01)
    np.testing.assert_allclose(catalog.galaxies("v_los_kms"), catalog.galaxies("v_los"), atol=0.1)
    shared = catalog.column("n_shared") > 0.1 * catalog.n_galaxies
    assert shared.any()
    told = load_catalog(*paths, {**mapping, "r_proj": "R_proj_Mpch"}, few_galaxies="drop")
    np.testing.assert_array_equal(told.r_proj, catalog.r_proj)
    assert any("R_proj_Mpch is proper Mpc/h" in note for note in told.metadata.extra["notes"])
    by_name = load_catalog(*paths, few_galaxies="drop")
    assert by_name.n_galaxies.tolist() == catalog.n_galaxies.tolist()


@pytest.mark.shared_data
def test_other_real_tables(shared_data):
    names = {"r_proj": "R", "v_los": "v_z", "v_err": "err_vz"}
    coma = load_catalog(
        shared_data / "coma_desi" / "data_DESI.dat",
        column_map=names,
        units={"r_proj": "proper kpc"},
        redshift=0.0231,
        cluster_id="Coma",
        cleaned=True,
    )
    assert 1300 < coma.n_galaxies[0] < 1400
    assert coma.metadata.selection["cleaned"] is True
    assert set(coma.galaxies("gal_v_err")) <= set(range(1, 500))
    abell = Table({"cluster_id": ["A3558"], "ra": [201.99], "dec": [-31.49], "z": [0.048]})
    names = {"ra": "R.A.", "dec": "Dec.", "cz": "V"}
    shapley = load_catalog(shared_data / "shapley" / "Shapley_galaxy_data.csv", abell, names)
    assert 350 < shapley.n_galaxies[0] < 420
    assert 900 < np.std(shapley.galaxies("v_los")) < 1020
    coma = Table({"cluster_id": ["Coma"], "ra": [194.95], "dec": [27.98], "z": [0.0231]})
    # Its x and y are degrees.
    with pytest.raises(CatalogError, match="it fits no unit we know"):
        load_catalog(shared_data / "coma_gmp_dirty" / "coma_clusters.csv", coma, {"cz": "Velocity"})

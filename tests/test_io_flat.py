"""Flat tables into catalogues: forms, formats, units, sky geometry, and every complaint."""

from __future__ import annotations

import gzip

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.cosmology import MDPL2, SPEED_OF_LIGHT, transverse_mpc_h_per_radian
from bayesflowmass.io import load_catalog, read_flat
from bayesflowmass.io.sky import galaxies_around, sky_offsets

EACH = 12


def frame_tables(n=3, seed=0):
    """Galaxies with x, y, v_los, shuffled, and their clusters."""
    rng = np.random.default_rng(seed)
    total = n * EACH
    galaxies = Table(
        {
            "cluster_id": np.repeat(np.arange(n) + 10, EACH),
            "x": rng.uniform(-1, 1, total),
            "y": rng.uniform(-1, 1, total),
            "v_los": rng.normal(0, 700, total),
            "colour": rng.random(total),
        }
    )[rng.permutation(total)]
    clusters = Table(
        {
            "cluster_id": np.arange(n) + 10,
            "redshift": rng.uniform(0.05, 0.2, n),
            "log10_mass": rng.uniform(14, 15, n),
        }
    )
    return galaxies, clusters


def sky_tables(n=3, seed=0):
    """Galaxies with ra, dec, z around clusters far from each other."""
    rng = np.random.default_rng(seed)
    clusters = Table(
        {
            "cluster_id": [f"A{i}" for i in range(n)],
            "ra": np.linspace(100, 250, n),
            "dec": np.linspace(-50, 60, n),
            "z": rng.uniform(0.05, 0.2, n),
        }
    )
    row = np.repeat(np.arange(n), EACH)
    centre = SkyCoord(clusters["ra"][row] * u.deg, clusters["dec"][row] * u.deg)
    radius = rng.uniform(0.05, 1.5, row.size)
    angle = rng.uniform(0, 360, row.size) * u.deg
    separation = radius / transverse_mpc_h_per_radian(clusters["z"][row]) * u.rad
    position = centre.directional_offset_by(angle, separation)
    v = rng.normal(0, 700, row.size)
    z_cl = np.asarray(clusters["z"][row])
    galaxies = Table(
        {
            "cluster_id": clusters["cluster_id"][row],
            "ra": position.ra.deg,
            "dec": position.dec.deg,
            "z": z_cl + v / SPEED_OF_LIGHT * (1 + z_cl),
        }
    )
    truth = {"r": radius, "east": radius * np.sin(angle), "north": radius * np.cos(angle), "v": v}
    return galaxies, clusters, {name: np.asarray(value) for name, value in truth.items()}


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


def change(tables, what, **columns):
    """Tables with columns replaced by functions of themselves (or dropped, for None)."""
    table = tables[0 if what == "galaxies" else 1]
    for name, function in columns.items():
        if function is None:
            table.remove_column(name)
        else:
            table[name] = function(np.array(table[name]) if name in table.colnames else None)
    return tables[0], tables[1]


def put(row, value):
    def changed(values):
        values = values.astype(object) if isinstance(value, str) else values
        values[row] = value
        return values.astype(str) if isinstance(value, str) else values

    return changed


def frame(what="galaxies", **columns):
    return lambda: read_flat(*change(frame_tables(), what, **columns))


def sky(what="galaxies", **columns):
    return lambda: read_flat(*change(sky_tables(), what, **columns))


def radians(tables):
    for table in tables[:2]:
        for name in ("ra", "dec"):
            table[name] = np.radians(table[name])
    return read_flat(*tables[:2])


def cut_around_radians():
    galaxies, clusters, _ = sky_tables()
    galaxies.remove_column("cluster_id")
    return radians((galaxies, clusters))


def declared(unit, **options):
    galaxies, clusters = frame_tables()
    for name, value in unit.items():
        galaxies[name].unit = value
    return read_flat(galaxies, clusters, **options)


def given_radius(factor):
    galaxies, clusters, truth = sky_tables()
    z = np.repeat(np.asarray(clusters["z"]), EACH)
    galaxies["r_proj"] = truth["r"] * factor(z)
    return read_flat(galaxies, clusters)


BAD = {
    "missing column": (
        frame(clID=lambda _: np.repeat([10, 11, 12], EACH), cluster_id=None),
        r"column cluster_id is missing; the nearest is clID: if that is it, use --column cluster_id=clID",
    ),
    "missing column without a near one": (frame(v_los=None), "column v_los is missing; .*--column v_los="),
    "missing y": (frame(y=None), "column y is missing"),
    "missing redshift": (frame("clusters", redshift=None), "column redshift is missing"),
    "mapped column missing": (
        lambda: read_flat(*frame_tables(), column_map={"x": "xpos"}),
        "--column x=xpos: there is no column xpos",
    ),
    "unknown unit": (
        lambda: declared({"v_los": "furlong/fortnight"}),
        "v_los has the unit .*unknown or unfit",
    ),
    "unit of another kind": (lambda: declared({"v_los": "kpc"}), "expected a velocity such as km/s"),
    "unknown length": (
        lambda: declared({}, units={"x": "cubits", "y": "cubits"}),
        "x has the unknown unit 'cubits'; expected",
    ),
    "kpc declared without saying which": (lambda: declared({"x": "kpc"}), "say which it is .*'proper kpc'"),
    "unit for no column": (lambda: declared({}, units={"r": "kpc"}), "a unit is given for r"),
    "nan": (frame(x=put(4, np.nan)), r"the table of galaxies: x in row 5 is nan; expected a finite number"),
    "infinity": (frame("clusters", redshift=put(1, np.inf)), "redshift in row 2 is inf"),
    "text in a number": (frame(v_los=put(2, "fast")), "v_los in row 3 is 'fast'; expected a number"),
    "empty cell": (
        frame(v_los=lambda v: np.ma.array(v, mask=np.arange(v.size) == 1)),
        "v_los in row 2 is empty",
    ),
    "empty id": (sky(cluster_id=put(3, " ")), "cluster_id in row 4 is empty"),
    "ids as floats": (frame(cluster_id=lambda v: v * 1.0), "does not survive as a float"),
    "ids of two sorts": (frame(cluster_id=lambda v: v.astype(str)), "make both integers or both text"),
    "duplicate ids": (frame("clusters", cluster_id=put(1, 10)), "cluster_id 10 stands in rows 1 and 2"),
    "unknown cluster": (frame(cluster_id=put(0, 99)), "galaxy in row 1 belongs to cluster 99"),
    "empty cluster": (frame(cluster_id=lambda v: np.where(v == 12, 11, v)), "cluster 12 has no galaxies"),
    "two galaxies": (
        frame(cluster_id=lambda v: np.where((v == 12) & (np.cumsum(v == 12) > 2), 11, v)),
        "cluster 12 has 2 galaxies",
    ),
    "one galaxy": (
        frame(cluster_id=lambda v: np.where((v == 12) & (np.cumsum(v == 12) > 1), 11, v)),
        "cluster 12 has one galaxy",
    ),
    "all velocities equal": (
        frame(v_los=lambda v: v * 0 + 100.0),
        "v_los is 100.0 for all of its 12 galaxies",
    ),
    "velocities in m/s": (frame(v_los=lambda v: v * 1000), "scatter by .*as those in m/s do"),
    "velocities as cz": (frame(v_los=lambda v: v + 30000), "the median velocity of cluster 10 is .*as cz is"),
    "velocities as redshifts": (frame(v_los=lambda v: v / SPEED_OF_LIGHT), "which no cluster does"),
    "galaxy redshifts as cz": (
        sky(z=lambda z: z * SPEED_OF_LIGHT),
        "looks like cz in km/s.*name such a column",
    ),
    "kpc for Mpc/h": (
        frame(x=lambda x: x * 1000, y=lambda y: y * 1000),
        "typical distance from the centre is .*as in kpc; expected comoving Mpc/h",
    ),
    "negative radius": (
        frame(r_proj=lambda _: np.full(36, -1.0), x=None, y=None),
        "r_proj in row .* is negative",
    ),
    "degrees given as radians": (lambda: radians(sky_tables()), "radians taken for degrees"),
    "radians without ids": (cut_around_radians, "every ra is within 2 pi .*as in radians"),
    "radians for clusters only": (
        sky("clusters", ra=np.radians, dec=np.radians),
        r"galaxies lie .* Mpc/h from the centres .*in degrees",
    ),
    "radians declared, degrees given": (
        lambda: read_flat(*sky_tables()[:2], units={"ra": "rad"}),
        "declared in rad but reaches .*as degrees do",
    ),
    "mass in Msun": (
        frame("clusters", log10_mass=lambda m: 10**m),
        r"a mass and not its log10; expected log10 of M200c in Msun/h \(here 14",
    ),
    "mass with a linear unit": (
        lambda: read_flat(*frame_tables(), units={"log10_mass": "solMass"}),
        "log10_mass has the unit 'solMass'; expected log10",
    ),
    "negative redshift": (
        frame("clusters", redshift=put(0, -0.1)),
        r"redshift in row 1 is -0.1; expected a redshift",
    ),
    "absurd redshift": (frame("clusters", redshift=put(2, 11.7)), "redshift in row 3 is 11.7"),
    "zero redshift on the sky": (sky("clusters", z=put(1, 0.0)), "redshift in row 2 is 0; angles need"),
    "proper radius": (
        lambda: given_radius(lambda z: 1 / (1 + z)),
        "it looks proper Mpc/h.*leave the column out",
    ),
    "radius in Mpc": (lambda: given_radius(lambda z: 1 / MDPL2.h + 0 * z), "it looks comoving Mpc,"),
    "radius in kpc": (lambda: given_radius(lambda z: 1000 / MDPL2.h / (1 + z)), "it looks proper kpc,"),
    "nonsense radius": (lambda: given_radius(lambda z: 0.3 + 0 * z), "it fits no unit we know"),
    "velocities that are not the redshifts'": (
        sky(v_los=lambda _: np.full(36, 900.0)),
        "v_los differs from c",
    ),
    "no redshift at all": (
        lambda: read_flat(frame_tables()[0]),
        "the redshifts of the clusters are missing; give",
    ),
    "redshift that varies in a cluster": (
        lambda: read_flat(
            change(frame_tables(), "galaxies", redshift=lambda _: np.linspace(0.1, 0.2, 36))[0]
        ),
        "expected the redshift of the cluster, one value",
    ),
    "sky without clusters": (lambda: read_flat(sky_tables()[0]), "need a table of clusters"),
    "redshift twice": (lambda: read_flat(*frame_tables(), redshift=0.1), "which has its own; leave one out"),
    "clusters without positions": (sky("clusters", dec=None), "column dec is missing"),
    "no cylinder to cut": (
        lambda: read_flat(*change(sky_tables(), "galaxies", cluster_id=None), r_max=None),
        "which needs r_max and v_max",
    ),
    "unknown policy": (
        lambda: read_flat(*frame_tables(), few_galaxies="skip"),
        "expected one of error, drop, keep",
    ),
    "nothing left": (
        lambda: read_flat(*frame_tables(), min_galaxies=99, few_galaxies="drop"),
        "none of the 3",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_with_a_sentence(name):
    call, message = BAD[name]
    with pytest.raises(CatalogError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("", "the file is empty"),
        ("a,b\n", "no rows"),
        ("a,b\n1,2,3\n", "cannot be read as csv"),
    ],
)
def test_a_file_that_is_no_table_is_one_sentence(tmp_path, content, message):
    path = tmp_path / "galaxies.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CatalogError, match=f"galaxies.csv: .*{message}"):
        load_catalog(path)


def test_a_correct_comoving_radius_beside_the_sky_is_accepted():
    assert given_radius(lambda z: 1.003 + 0 * z).n_galaxies_total == 3 * EACH


def test_ra_in_a_small_field_near_the_origin_is_not_taken_for_radians():
    galaxies, clusters, truth = sky_tables(n=1)
    for table in (galaxies, clusters):
        table["ra"] -= 98.0
    shift = float(clusters["dec"][0])
    clusters["dec"] -= shift
    galaxies["dec"] = np.asarray(galaxies["dec"]) - shift
    assert len(read_flat(galaxies, clusters, r_max=9.0)) == 1
    assert truth["r"].size == EACH


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
    with pytest.raises(CatalogError, match="it looks proper Mpc/h"):
        load_catalog(*paths, {**mapping, "r_proj": "R_proj_Mpch"})
    with pytest.raises(CatalogError, match="--column cluster_id=ClID"):
        load_catalog(*paths)


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
    with pytest.raises(CatalogError, match="is empty; expected a value"):
        load_catalog(shared_data / "coma_gmp_dirty" / "coma_clusters.csv", abell, {"cz": "Velocity"})

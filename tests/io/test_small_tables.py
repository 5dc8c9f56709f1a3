"""Tables of one row, of one column, without a gap: what readers say of them, and what they do not."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import MaskedColumn, Table
from flat_tables import frame_tables, sky_tables

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.cosmology import MDPL2, SPEED_OF_LIGHT, Cosmology, transverse_mpc_h_per_radian
from bayesflowmass.io import load_catalog, plausibility, read_flat
from bayesflowmass.io.any_table import read_any_table
from bayesflowmass.io.cylinders import Recentring, _centre_error, cut_cylinders
from bayesflowmass.io.duplicates import find_duplicates
from bayesflowmass.io.formats import identify
from bayesflowmass.io.formats.cosmosim import MDPL2_REDSHIFTS
from bayesflowmass.io.plain_table import plain_table
from bayesflowmass.io.sky import galaxies_around, rest_frame_velocity, sky_offsets, sky_position


def test_a_fits_table_may_be_one_byte_wide_and_has_a_row(tmp_path):
    path = tmp_path / "t.fits"
    fits.BinTableHDU.from_columns([fits.Column("n", "B", array=np.array([7, 8], dtype="u1"))]).writeto(path)
    assert read_any_table(path)["n"].tolist() == [7, 8]
    fits.BinTableHDU.from_columns([fits.Column("n", "D", array=np.zeros(0))]).writeto(path, overwrite=True)
    with pytest.raises(CatalogError, match="the table has no rows"):
        read_any_table(path)


def test_digits_in_a_column_of_letters_of_fits_are_text(tmp_path):
    columns = [
        fits.Column("word", "A2", array=np.array(["1", "20"]), ascii=True),
        fits.Column("n", "I2", array=np.array([1, 20]), ascii=True),
    ]
    fits.TableHDU.from_columns(columns).writeto(tmp_path / "t.fits")
    table = read_any_table(tmp_path / "t.fits")
    assert table["word"].tolist() == ["1", "20"]
    assert table["n"].tolist() == [1, 20]


def test_the_columns_of_a_file_are_not_copied():
    values = np.arange(5.0)
    assert np.shares_memory(np.asarray(plain_table([("a", values, None)], [], "t")["a"]), values)


def test_the_redshift_of_a_cluster_is_the_first_that_is_known():
    galaxies, _ = frame_tables(n=2)
    near = np.where(galaxies["cluster_id"] == 10, 0.1, 0.2) + 4e-7 * (np.arange(len(galaxies)) > 15)
    galaxies["redshift"] = MaskedColumn(near, mask=np.arange(len(galaxies)) < 2)
    catalog = load_catalog(galaxies)
    assert sorted(catalog.column("redshift").tolist()) == [0.1, 0.2]
    galaxies["redshift"] = near + 2e-6 * (np.arange(len(galaxies)) == 20)
    with pytest.raises(CatalogError, match=r"in row 21 and .* elsewhere in cluster"):
        load_catalog(galaxies)


def test_three_of_the_values_that_are_not_measured_are_written():
    galaxies, clusters = frame_tables(n=4)
    clusters["completeness"] = [-99.0, -9.0, -1.0, -999.0]
    notes = load_catalog(galaxies, clusters).metadata.extra["notes"]
    assert any(
        "completeness: -999, -99, -9 is taken for not measured, in 4 of 4 rows" in note for note in notes
    )


@pytest.mark.parametrize(
    ("n", "message"), [(1, "nowhere do three galaxies"), (2, "this one looks like that table")]
)
def test_a_table_with_another_cluster_in_each_row_is_one_of_clusters(n, message):
    table = Table(
        {"cluster_id": np.arange(n), "ra": 10.0 + np.arange(n), "dec": np.ones(n), "z": np.full(n, 0.1)}
    )
    with pytest.raises(CatalogError, match=message):
        load_catalog(table)


def test_nothing_is_said_of_galaxies_where_none_is_left_out():
    for tables in (frame_tables(), sky_tables()[:2]):
        assert "galaxies_left_out" not in load_catalog(*tables).metadata.extra


def test_three_galaxies_make_a_cluster_and_two_do_not():
    for number in (3, 2):
        table = Table(
            {"x": np.arange(number) / 8, "y": np.zeros(number), "v_los": np.linspace(-500.0, 500.0, number)}
        )
        if number == 3:
            assert read_flat(table, cluster_id=1, redshift=0.1).n_galaxies.tolist() == [3]
        else:
            with pytest.raises(
                CatalogError, match="cluster 1 has 2 galaxies in the cylinder; expected at least 3"
            ):
                read_flat(table, cluster_id=1, redshift=0.1)


def test_galaxies_without_ids_are_of_the_only_cluster_there_is():
    galaxies, clusters = frame_tables(n=1)
    del galaxies["cluster_id"]
    assert load_catalog(galaxies, clusters).n_galaxies.tolist() == [len(galaxies)]
    with pytest.raises(CatalogError, match="column cluster_id is missing"):
        load_catalog(galaxies, frame_tables(n=2)[1])


@pytest.mark.parametrize("declared", [(), ("galaxies",), ("clusters",)])
@pytest.mark.parametrize(
    ("spread", "ids", "words"),
    [(0.05, False, "every ra is within 2 pi"), (0.005, True, "too near by the factor of 57")],
)
def test_coordinates_like_radians_are_refused_where_no_table_says_what_they_are(declared, spread, ids, words):
    # Near (1, 1) degrees, as a field may be.
    rng = np.random.default_rng(0)
    galaxies = Table(
        {"ra": rng.normal(1, spread, 30), "dec": rng.normal(1, spread, 30), "z": rng.normal(0.1, 1e-3, 30)}
    )
    clusters = Table({"cluster_id": [1], "ra": [1.0], "dec": [1.0], "redshift": [0.1]})
    for name, table in (("galaxies", galaxies), ("clusters", clusters)):
        if name in declared:
            table["ra"].unit = table["dec"].unit = "deg"
    if ids:
        galaxies["cluster_id"] = 1
    if declared:
        assert load_catalog(galaxies, clusters).n_galaxies.tolist() == [30]
    else:
        with pytest.raises(CatalogError, match=words):
            load_catalog(galaxies, clusters)


def test_a_cylinder_ends_before_its_edges():
    """A galaxy at the very edge is outside, and one nearer by the last digit is inside."""
    centre = [np.array([value]) for value in (50.0, 20.0, 0.1)]
    scale = transverse_mpc_h_per_radian(centre[2], MDPL2)
    ra, dec = sky_position(centre[0], centre[1], 0.7 / scale, 0.9 / scale)
    z = np.array([0.105])
    v_max = float(rest_frame_velocity(z, centre[2])[0])
    away = np.hypot(*sky_offsets(ra, dec, *centre[:2]))[0]
    r_max = float(away * scale[0])
    while r_max / scale[0] > away:
        r_max = float(np.nextafter(r_max, 0.0))
    while r_max / scale[0] < away:
        r_max = float(np.nextafter(r_max, np.inf))
    for limits, inside in (
        ((2.0, 2.0 * v_max), 1),
        ((2.0, v_max), 0),
        ((2.0, np.nextafter(v_max, np.inf)), 1),
        ((r_max, 2.0 * v_max), int(r_max / scale[0] > away)),
        ((r_max * (1 + 1e-15), 2.0 * v_max), 1),
        ((r_max * (1 - 1e-15), 2.0 * v_max), 0),
    ):
        found, counts = galaxies_around(ra, dec, z, *centre, *limits, MDPL2)
        assert (found.size, counts.tolist()) == (inside, [inside])


def test_galaxies_of_a_cylinder_come_in_the_order_of_their_table():
    rng = np.random.default_rng(0)
    ra, dec, z = rng.normal(50, 0.1, 200), rng.normal(0, 0.1, 200), np.full(200, 0.1)
    centres = np.array([50.0, 50.05]), np.array([0.0, 0.05]), np.array([0.1, 0.1])
    found, counts = galaxies_around(ra, dec, z, *centres, 3.0, 1e3, MDPL2)
    for part in np.split(found, np.cumsum(counts)[:-1]):
        assert np.all(np.diff(part) > 0)
    assert counts.min() > 50


@pytest.mark.parametrize("h0_om", [(70.0, 0.3), (67.4, 0.315), (73.0, 0.27), (50.0, 1.0), (75.0, 0.3)])
@pytest.mark.parametrize("frame", ["proper", "comoving"])
def test_radii_of_the_usual_cosmologies_are_told(h0_om, frame):
    h0, om = h0_om
    z, angle = np.full(9, 0.9), np.linspace(1e-4, 1e-3, 9)
    theirs, ours = Cosmology(h=h0 / 100, Om0=om), MDPL2
    given = angle * transverse_mpc_h_per_radian(z, theirs) / theirs.h / (1.9 if frame == "proper" else 1.0)
    computed = angle * transverse_mpc_h_per_radian(z, ours)
    found = plausibility.radius_reading(given, computed, z, ours, "t")
    assert found == f"{frame} Mpc of H0 = {h0:g}, Om = {om:g}"


def test_of_equal_measurements_the_first_is_kept():
    at = np.array([10.0, 20.0, 10.0, 20.0, 30.0])
    found = find_duplicates(at, np.zeros(5), np.zeros(5))
    assert found.kept.tolist() == [True, True, False, False, True]
    better = find_duplicates(at, np.zeros(5), np.zeros(5), np.array([2.0, 0.0, 1.0, 3.0, np.nan]))
    assert better.kept.tolist() == [False, False, True, True, True]


def test_of_targets_with_redshifts_the_share_is_one_at_most_and_one_where_none_is_wanted():
    galaxies, clusters = sky_tables()[:2]
    near = [np.flatnonzero(galaxies["cluster_id"] == name) for name in clusters["cluster_id"]]
    wanted = np.concatenate([near[0], near[0], near[1][:1], near[1][:0]])
    targets = Table({"ra": galaxies["ra"][wanted], "dec": galaxies["dec"][wanted]})
    found = cut_cylinders(
        galaxies["ra", "dec", "z"], clusters, targets=targets, footprint=[(0, 360, -90, 90)]
    )
    assert found.column("spectroscopic_completeness").tolist() == [0.5, 1.0, 1.0]
    assert found.column("completeness").tolist() == [0.5, 1.0, 1.0]


def test_errors_of_velocities_are_those_of_the_rest_frame():
    galaxies, clusters = sky_tables()[:2]
    redshift = dict(zip(clusters["cluster_id"], clusters["z"], strict=True))
    z_cluster = np.array([redshift[name] for name in galaxies["cluster_id"]])
    order = np.argsort(galaxies["cluster_id"], kind="stable")
    galaxies["z_err"] = np.linspace(1e-4, 2e-4, len(galaxies))
    expected = (SPEED_OF_LIGHT * galaxies["z_err"] / (1.0 + z_cluster))[order]
    np.testing.assert_allclose(load_catalog(galaxies, clusters).galaxies("gal_v_err"), expected, rtol=1e-6)
    galaxies["v_err"] = np.linspace(30.0, 60.0, len(galaxies))
    expected = (galaxies["v_err"] / (1.0 + z_cluster))[order]
    np.testing.assert_allclose(load_catalog(galaxies, clusters).galaxies("gal_v_err"), expected, rtol=1e-6)


def test_a_redshift_of_clusters_beside_galaxies_is_carried_where_it_says_more():
    galaxies, clusters = sky_tables()[:2]
    galaxies["redshift"] = 0.5
    assert set(load_catalog(galaxies, clusters).galaxies("gal_redshift")) == {0.5}
    galaxies, _ = frame_tables()
    galaxies["redshift"] = 0.1
    catalog = load_catalog(galaxies)
    assert not catalog.has("gal_redshift")
    assert catalog.column("redshift").tolist() == [0.1] * 3


def test_poor_clusters_of_several_files_are_kept_where_they_are_to_be():
    whole, _ = frame_tables()
    other = whole.copy()
    other["cluster_id"] += 100
    poor = np.flatnonzero(other["cluster_id"] == 111)[1:]
    other.remove_rows(poor)
    kept = load_catalog([whole, other], redshift=0.1, few_galaxies="keep")
    assert sorted(kept.n_galaxies.tolist()) == [1, 12, 12, 12, 12, 12]
    with pytest.raises(CatalogError, match="cluster 111 has one galaxy in the cylinder"):
        load_catalog([whole, other], redshift=0.1)


@pytest.mark.parametrize(
    ("name", "pattern"), [("a.csv", False), ("a*.csv", True), ("a?", True), ("[ab].csv", True)]
)
def test_of_a_file_that_is_not_there_a_pattern_is_said_where_it_is_one(tmp_path, name, pattern):
    with pytest.raises(CatalogError, match="no such file") as caught:
        load_catalog(tmp_path / name)
    assert ("a pattern is not expanded" in str(caught.value)) == pattern


@pytest.mark.parametrize(
    ("head", "row", "known"),
    [("", "1 0.1 0.2 {}", "sag-galaxies"), ("# R v\n# kpc km/s\n", "300 {} 50", "mg-mamposst")],
)
def test_two_hundred_lines_say_what_a_file_of_numbers_is(tmp_path, head, row, known):
    path = tmp_path / "a.txt"
    for lines, found in ((200, known), (199, None)):
        rows = [row.format(500 * (-1) ** number) for number in range(lines - head.count("\n"))]
        path.write_text(head + "\n".join([*rows, "1 2", ""]), encoding="utf-8")
        assert getattr(identify(path), "name", None) == found


def test_the_error_of_a_velocity_centre_is_of_five_slow_galaxies_at_least():
    v_los = np.array([*[-100.0, 100.0] * 2, 100.0, 2000.0, *[-100.0, 100.0] * 2, -2000.0])
    catalog = ClusterCatalog.from_arrays(
        {"cluster_id": np.arange(2), "redshift": np.full(2, 0.1)},
        {"x": np.zeros(11), "y": np.zeros(11), "v_los": v_los},
        np.array([6, 5]),
    )
    np.testing.assert_allclose(_centre_error(catalog), [100.0 / np.sqrt(5.0), np.nan])


def test_errors_of_redshifts_that_nobody_knows_are_zero_and_those_of_some_the_median():
    galaxies, clusters = sky_tables()[:2]
    survey = galaxies["ra", "dec", "z"]
    survey["z_err"] = np.nan
    assert set(cut_cylinders(survey, clusters).galaxies("gal_v_err")) == {0.0}
    survey["z_err"][:3] = [1e-4, 2e-4, 4e-4]
    found = cut_cylinders(survey, clusters)
    z_err = (
        found.galaxies("gal_v_err")
        * (1.0 + np.repeat(found.column("redshift"), found.n_galaxies))
        / SPEED_OF_LIGHT
    )
    np.testing.assert_allclose(np.unique(z_err.round(9)), [1e-4, 2e-4, 4e-4])


@pytest.mark.parametrize(("east", "north"), [(0.3, 0.0), (0.0, -0.3), (-0.2, 0.2)])
def test_a_centre_that_is_off_comes_back_the_way_it_went(east, north):
    rng = np.random.default_rng(0)
    ra, dec, z = 50.0, 20.0, 0.1
    scale = float(transverse_mpc_h_per_radian(z, MDPL2))
    at = np.full(200, ra), np.full(200, dec)
    sky = sky_position(*at, *(rng.normal(0, 0.15, (2, 200)) / scale))
    galaxies = Table({"ra": sky[0], "dec": sky[1], "z": z + 1.1 * rng.normal(0, 400, 200) / SPEED_OF_LIGHT})
    off = sky_position(*(one[:1] for one in at), np.array([east]) / scale, np.array([north]) / scale)
    clusters = Table({"cluster_id": [1], "ra": off[0], "dec": off[1], "redshift": [z]})
    found = cut_cylinders(galaxies, clusters, recentring=Recentring())
    # 0.15 Mpc/h over the root of 200.
    left = sky_offsets(found.column("ra"), found.column("dec"), at[0][:1], at[1][:1]) * scale
    assert np.abs(left).max() < 0.05
    assert found.column("offset_x")[0] == pytest.approx(-east, abs=0.05)
    assert found.column("offset_y")[0] == pytest.approx(-north, abs=0.05)
    assert found.column("recentred").tolist() == [True]


def test_snapshots_of_mdpl2_are_equally_far_apart_in_the_scale_factor():
    """As the simulation wrote them, from redshift 0 on; the numbers are rounded to 0.001."""
    snapshots = sorted(MDPL2_REDSHIFTS, reverse=True)
    redshifts = np.array([MDPL2_REDSHIFTS[snapshot] for snapshot in snapshots])
    assert (snapshots[0], redshifts[0], MDPL2_REDSHIFTS[120]) == (125, 0.0, 0.117)
    np.testing.assert_allclose(np.diff(np.log1p(redshifts)), 0.0221, atol=1e-3)


@pytest.mark.parametrize("unit", [None, "deg"])
def test_a_survey_like_radians_is_refused_where_it_does_not_say_what_it_is(unit):
    rng = np.random.default_rng(0)
    survey = Table(
        {"ra": rng.normal(1, 0.1, 30), "dec": rng.normal(1, 0.1, 30), "z": rng.normal(0.1, 1e-3, 30)}
    )
    clusters = Table({"cluster_id": [1], "ra": [1.0], "dec": [1.0], "redshift": [0.1]})
    survey["ra"].unit = survey["dec"].unit = unit
    if unit is None:
        with pytest.raises(CatalogError, match="every ra is within 2 pi"):
            cut_cylinders(survey, clusters)
    else:
        assert cut_cylinders(survey, clusters).n_galaxies[0] > 20

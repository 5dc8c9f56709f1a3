"""Cluster centres and a redshift survey into cylinders: against all pairs, frames, centres, edges, shared galaxies."""

from __future__ import annotations

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table

from bayesflowmass.catalog import CatalogError
from bayesflowmass.cosmology import MDPL2, SPEED_OF_LIGHT, transverse_mpc_h_per_radian
from bayesflowmass.io import Recentring, cut_cylinders
from bayesflowmass.io.footprint import GalaxyFootprint, RectangleFootprint
from bayesflowmass.io.frames import to_cmb
from bayesflowmass.io.sky import sky_offsets, sky_position
from bayesflowmass.selection import recentre


def survey(n=40_000, seed=0):
    """Galaxies spread evenly over 20 x 20 degrees, z 0.03-0.2."""
    rng = np.random.default_rng(seed)
    dec = np.degrees(np.arcsin(rng.uniform(np.sin(np.radians(20)), np.sin(np.radians(40)), n)))
    table = Table({"ra": rng.uniform(150, 170, n), "dec": dec, "z": rng.uniform(0.03, 0.2, n)})
    table["z_err"], table["galaxy_id"] = np.full(n, 1e-4), np.arange(n) + 2**60
    return table


def centres(n=12, seed=1):
    rng = np.random.default_rng(seed)
    table = Table({"cluster_id": np.arange(n), "ra": rng.uniform(152, 168, n), "dec": rng.uniform(22, 38, n)})
    table["redshift"] = rng.uniform(0.06, 0.15, n)
    return table


def with_cluster(table, ra=160.0, dec=30.0, z=0.08, n=150, seed=2, spread=0.4):
    """The survey with a cluster in it: Gaussian in the plane and in velocity."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(0, spread, (2, n)) / transverse_mpc_h_per_radian(z)
    at_ra, at_dec = sky_position(np.full(n, ra), np.full(n, dec), x, y)
    new = Table({"ra": at_ra, "dec": at_dec, "z": z + (1 + z) * rng.normal(0, 600, n) / SPEED_OF_LIGHT})
    new["z_err"], new["galaxy_id"] = np.full(n, 1e-4), np.arange(n) + 2**61
    return Table(np.concatenate([np.asarray(table), np.asarray(new)]))


def one(ra=160.0, dec=30.0, z=0.08, **more):
    return Table({"cluster_id": ["A"], "ra": [ra], "dec": [dec], "redshift": [z]} | more)


def test_cylinders_agree_with_all_pairs():
    galaxies, clusters = survey(), centres()
    catalog = cut_cylinders(galaxies, clusters, r_max=2.5, v_max=3000.0)
    sky = SkyCoord(galaxies["ra"] * u.deg, galaxies["dec"] * u.deg)
    for row, cluster in enumerate(clusters):
        centre = SkyCoord(cluster["ra"] * u.deg, cluster["dec"] * u.deg)
        r = sky.separation(centre).rad * transverse_mpc_h_per_radian(cluster["redshift"])
        v = SPEED_OF_LIGHT * (galaxies["z"] - cluster["redshift"]) / (1 + cluster["redshift"])
        inside = (r < 2.5) & (np.abs(v) < 3000.0)
        mine = catalog[row]
        np.testing.assert_array_equal(
            np.sort(mine.galaxies("gal_galaxy_id")), np.sort(galaxies["galaxy_id"][inside])
        )
        np.testing.assert_allclose(np.sort(mine.r_proj), np.sort(r[inside]), rtol=1e-8)
    error = SPEED_OF_LIGHT * 1e-4 / (1 + np.repeat(clusters["redshift"], catalog.n_galaxies))
    np.testing.assert_allclose(catalog.galaxies("gal_v_err"), error)
    assert catalog.metadata.selection["r_max"] == 2.5
    assert catalog.metadata.mode == "survey"


def test_a_survey_in_parts_gives_the_same_and_keeps_only_what_is_near():
    galaxies, clusters = survey(), centres()
    whole = cut_cylinders(galaxies, clusters)
    parts = cut_cylinders((galaxies[i::4] for i in range(4)), clusters)
    np.testing.assert_array_equal(whole.n_galaxies, parts.n_galaxies)
    for row in range(len(clusters)):
        np.testing.assert_array_equal(
            np.sort(whole[row].galaxies("gal_galaxy_id")), np.sort(parts[row].galaxies("gal_galaxy_id"))
        )
    assert parts.metadata.extra["galaxies_read"] == 40_000


def test_errors_of_cz_and_known_columns_travel():
    galaxies = survey()
    galaxies["cz"] = galaxies["z"] * SPEED_OF_LIGHT
    galaxies["sigv"], galaxies["abs_mag"], galaxies["colour"] = 60.0, -20.0, 0.7
    galaxies["sigv"][0] = np.nan
    galaxies.remove_columns(["z", "z_err"])
    catalog = cut_cylinders(galaxies, one(), {"galaxies.v_err": "sigv"})
    np.testing.assert_allclose(catalog.galaxies("gal_v_err"), 60.0 / 1.08)
    assert {"gal_abs_mag", "colour", "gal_galaxy_id"} <= set(catalog.galaxy_columns)


def test_galaxies_in_two_clusters_are_flagged_with_the_neighbour():
    galaxies = with_cluster(survey())
    clusters = Table({"cluster_id": ["A", "B", "C"], "ra": [160.0, 160.1, 155.0], "dec": [30.0, 30.0, 25.0]})
    clusters["redshift"] = [0.08, 0.081, 0.1]
    catalog = cut_cylinders(galaxies, clusters)
    assert catalog.column("shares_with").tolist() == ["B", "A", ""]
    several = catalog.galaxies("gal_n_clusters") > 1
    np.testing.assert_array_equal(
        catalog.column("n_shared"), np.bincount(catalog.galaxy_rows[several], minlength=3)
    )
    both = set(catalog[0].galaxies("gal_galaxy_id")) & set(catalog[1].galaxies("gal_galaxy_id"))
    assert catalog.column("n_shared").tolist() == [len(both), len(both), 0]


def test_centre_and_redshift_are_found_again():
    galaxies = with_cluster(survey())
    off = transverse_mpc_h_per_radian(0.08)
    ra, dec = sky_position(*np.array([[160.0], [30.0], [0.3 / off], [-0.2 / off]]))
    z = 0.08 + 1.08 * 500.0 / SPEED_OF_LIGHT
    wrong = one(ra[0], dec[0], z, redshift_err=[0.002])
    found = cut_cylinders(galaxies, wrong, recentring=Recentring())
    true = cut_cylinders(galaxies, one())
    x, y = sky_offsets(found.column("ra"), found.column("dec"), np.array([160.0]), np.array([30.0])) * off
    assert np.hypot(x, y)[0] < 0.12
    assert abs(found.column("redshift")[0] - 0.08) * SPEED_OF_LIGHT / 1.08 < 150.0
    np.testing.assert_allclose(found.column("offset_x"), -0.3, atol=0.12)
    np.testing.assert_allclose(found.column("offset_v"), -500.0, atol=150.0)
    assert found.column("redshift_given")[0] == z
    assert abs(found.n_galaxies[0] - true.n_galaxies[0]) < 12
    # The error is that of a mean of about a hundred velocities.
    assert 30.0 < found.column("redshift_err")[0] * SPEED_OF_LIGHT / 1.08 < 120.0
    assert found.metadata.selection["recentred"]["kept_given"] == 0


def test_a_centre_that_would_run_to_a_neighbour_stays():
    galaxies = with_cluster(survey(), n=300, spread=0.15)
    far = 0.7 / transverse_mpc_h_per_radian(0.08)
    ra, dec = sky_position(*np.array([[160.0], [30.0], [far], [0.0]]))
    how = Recentring(r_inner=1.0, max_shift_r=0.3)
    catalog = cut_cylinders(galaxies, one(ra[0], dec[0]), recentring=how)
    assert not catalog.column("recentred")[0]
    assert catalog.column("ra")[0] == ra[0]
    assert catalog.column("offset_x")[0] == 0.0
    assert catalog.metadata.selection["recentred"]["kept_given"] == 1


def test_mocks_are_recentred_by_the_same_function():
    wide = cut_cylinders(with_cluster(survey()), one(), r_max=3.0, v_max=5000.0)
    moved = wide.with_galaxies(x=wide.galaxies("x") - 0.3, v_los=wide.galaxies("v_los") - 400.0)
    found = recentre(moved, r_max=1.6, v_max=2500.0)
    np.testing.assert_allclose(found.column("offset_x"), -0.3, atol=0.12)
    np.testing.assert_allclose(found.column("offset_v"), -400.0, atol=150.0)
    assert found.r_proj.max() < 1.6
    kept = recentre(moved, position=False, velocity=False)
    assert kept.column("offset_x")[0] == 0.0


def test_the_cmb_frame_is_that_of_the_sun_s_motion():
    apex = SkyCoord(l=264.021 * u.deg, b=48.253 * u.deg, frame="galactic").icrs
    ra, dec = np.array([apex.ra.deg, (apex.ra.deg + 180) % 360]), np.array([apex.dec.deg, -apex.dec.deg])
    z = to_cmb(np.array([0.02, 0.02]), ra, dec)
    np.testing.assert_allclose((z - 0.02) * SPEED_OF_LIGHT / 1.02, [369.82 * 1.00123, -369.82], atol=0.6)
    np.testing.assert_array_equal(to_cmb(z, ra, dec, "cmb"), z)


def test_the_frame_changes_distances_and_hardly_velocities():
    galaxies, clusters = with_cluster(survey(), z=0.05), one(z=0.05)
    sun = cut_cylinders(galaxies, clusters)
    cmb = cut_cylinders(galaxies, clusters, frame="cmb")
    shift = to_cmb(np.array([0.05]), np.array([160.0]), np.array([30.0])) - 0.05
    np.testing.assert_allclose(cmb.column("redshift") - 0.05, shift)
    ids, a, b = np.intersect1d(
        sun.galaxies("gal_galaxy_id"), cmb.galaxies("gal_galaxy_id"), return_indices=True
    )
    assert len(ids) > 100
    assert np.abs(sun.galaxies("v_los")[a] - cmb.galaxies("v_los")[b]).max() < 10.0
    scale = transverse_mpc_h_per_radian(0.05 + shift[0]) / transverse_mpc_h_per_radian(0.05)
    np.testing.assert_allclose(cmb.r_proj[b] / sun.r_proj[a], scale, rtol=1e-6)
    # Clusters given in the other frame come out alike.
    given = one(z=0.05 + float(shift[0]))
    np.testing.assert_allclose(
        cut_cylinders(galaxies, given, frame="cmb", cluster_frame="cmb").r_proj, cmb.r_proj
    )


def test_the_edge_of_a_survey_is_seen_in_its_galaxies():
    galaxies, z = survey(120_000), 0.05
    clusters = Table(
        {"cluster_id": ["inside", "edge", "outside"], "ra": [160.0, 150.0, 140.0], "dec": [30.0] * 3}
    )
    clusters["redshift"] = z
    catalog = cut_cylinders(galaxies, clusters)
    share = catalog.column("footprint_fraction")
    assert share[0] > 0.97
    assert 0.4 < share[1] < 0.7
    assert share[2] == 0.0
    np.testing.assert_allclose(catalog.column("completeness"), [1.0, share[1], 0.0])
    assert catalog.metadata.selection["edges"] == {"method": "galaxies", "clusters_cut": 2, "unknown": 0}
    boxes = cut_cylinders(galaxies, clusters, footprint=[(150, 170, 20, 40)])
    np.testing.assert_allclose(boxes.column("footprint_fraction"), [1.0, 0.5, 0.0], atol=0.02)


def test_a_footprint_that_is_too_coarse_says_nothing():
    few = survey(300)
    footprint = GalaxyFootprint(np.asarray(few["ra"]), np.asarray(few["dec"]))
    assert np.isnan(footprint.fraction(np.array([160.0]), np.array([30.0]), np.array([0.005])))[0]
    catalog = cut_cylinders(few, one())
    assert catalog.metadata.selection["edges"]["unknown"] == 1
    assert catalog.column("completeness")[0] == 1.0


def test_rectangles_may_cross_the_meridian():
    footprint = RectangleFootprint([(350, 10, -5, 5)])
    share = footprint.fraction(np.array([0.0, 10.0, 20.0]), np.zeros(3), np.full(3, 0.03))
    np.testing.assert_allclose(share, [1.0, 0.5, 0.0], atol=0.02)


def test_spectroscopic_completeness_comes_from_the_targets():
    targets = survey(120_000)["ra", "dec"]
    observed = survey(120_000)
    west = observed["ra"] < 160.0
    observed = observed[~west | (np.random.default_rng(3).random(len(west)) < 0.4)]
    clusters = Table(
        {"cluster_id": [1, 2], "ra": [155.0, 165.0], "dec": [30.0, 30.0], "redshift": [0.05, 0.05]}
    )
    catalog = cut_cylinders(observed, clusters, targets=targets)
    np.testing.assert_allclose(catalog.column("spectroscopic_completeness"), [0.4, 1.0], atol=0.06)
    np.testing.assert_allclose(catalog.column("completeness"), [0.4, 1.0], atol=0.06)


def test_clusters_near_the_depth_of_the_survey_are_flagged():
    clusters = centres(3)
    clusters["redshift"] = [0.035, 0.1, 0.195]
    assert cut_cylinders(survey(), clusters).column("redshift_edge").tolist() == [True, False, True]


BAD = {
    "frame": (
        lambda: cut_cylinders(survey(100), one(), frame="galactic"),
        "expected one of heliocentric, cmb",
    ),
    "mixed frames": (
        lambda: cut_cylinders(survey(100), one(), galaxy_frame="cmb"),
        "bring all to it with frame",
    ),
    "no clusters": (lambda: cut_cylinders(survey(100), None), "cylinders are cut around clusters"),
    "no galaxies": (lambda: cut_cylinders([], one()), "no table of galaxies"),
    "redshift 0": (lambda: cut_cylinders(survey(100), one(z=0.0)), "redshift in row 1 is 0; angles"),
    "dec": (
        lambda: cut_cylinders(Table({"ra": [1.0], "dec": [91.0], "z": [0.1]}), one()),
        "dec in row 1 is 91; expected degrees",
    ),
    "other columns": (
        lambda: cut_cylinders([survey(100), survey(100)["ra", "dec", "z", "z_err"]], one()),
        "galaxy_id is in some only",
    ),
    "no dec": (lambda: cut_cylinders(survey(100)["ra", "z"], one()), "column dec is missing"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_survey_that_does_not_fit_is_refused(name):
    call, message = BAD[name]
    with pytest.raises(CatalogError, match=message):
        call()


@pytest.mark.shared_data
def test_the_shapley_field_shares_galaxies(shared_data):
    names = Table({"cluster_id": ["A3558", "A3562", "A3556"], "ra": [201.99, 203.39, 201.03]})
    names["dec"], names["redshift"] = [-31.49, -31.67, -31.67], [0.048, 0.0483, 0.0479]
    path = shared_data / "shapley" / "Shapley_galaxy_data.csv"
    catalog = cut_cylinders(path, names, {"ra": "R.A.", "dec": "Dec.", "cz": "V"}, cosmology=MDPL2)
    assert 350 < catalog.n_galaxies[0] < 420
    assert set(catalog.column("shares_with")) == {"A3556", "A3558"}
    assert catalog.column("n_shared").tolist() == [56, 17, 39]


@pytest.mark.shared_data
def test_the_edges_of_a_gama_field_are_found(shared_data):
    ra = np.linspace(129.0, 141.0, 9)
    clusters = Table(
        {"cluster_id": np.arange(9), "ra": ra, "dec": np.full(9, 0.5), "redshift": np.full(9, 0.1)}
    )
    catalog = cut_cylinders(shared_data / "gama_g09" / "g09_galaxies.dat", clusters)
    share = catalog.column("footprint_fraction")
    assert share[1:-1].min() > 0.97
    assert np.all((share[[0, -1]] > 0.45) & (share[[0, -1]] < 0.7))
    assert catalog.metadata.selection["edges"]["clusters_cut"] == 2

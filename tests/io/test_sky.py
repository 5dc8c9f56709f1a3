"""Places on the sky, cells of a footprint and galaxies around clusters, at the very edges of each."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.table import Table

from bayesflowmass.catalog import CatalogMetadata, ClusterCatalog
from bayesflowmass.cosmology import MDPL2, SPEED_OF_LIGHT, transverse_mpc_h_per_radian
from bayesflowmass.io import Recentring, cut_cylinders
from bayesflowmass.io.archives.services import _cones, _sdss_query
from bayesflowmass.io.cylinders import _centre_error, _reach
from bayesflowmass.io.duplicates import find_duplicates
from bayesflowmass.io.footprint import GalaxyFootprint, RectangleFootprint, disc_points
from bayesflowmass.io.sky import galaxies_around, rest_frame_velocity, sky_offsets, sky_position, unit_vectors


def arrays(*values):
    return tuple(np.array(one, dtype=np.float64) for one in values)


def test_places_come_back_from_their_offsets_at_all_distances():
    rng = np.random.default_rng(0)
    ra, dec = arrays(rng.uniform(0, 360, 200), rng.uniform(-90, 90, 200))
    centre = arrays(rng.uniform(0, 360, 200), rng.uniform(-89, 89, 200))
    again = sky_position(*centre, *sky_offsets(ra, dec, *centre))
    np.testing.assert_allclose(unit_vectors(*again), unit_vectors(ra, dec), atol=1e-7)
    assert np.all((again[0] >= 0.0) & (again[0] < 360.0))
    assert sky_offsets(*arrays([10.0], [20.0], [10.0], [20.0])).tolist() == [[0.0], [0.0]]


def test_a_galaxy_at_the_very_edge_of_a_cylinder_is_outside():
    ra, dec, z = arrays([10.0, 10.01], [20.0, 20.02], [0.1, 0.103])
    centre = arrays([10.0], [20.0], [0.1])
    r = float(np.hypot(*sky_offsets(ra[1:], dec[1:], *centre[:2]))[0] * transverse_mpc_h_per_radian(0.1))
    v = float(rest_frame_velocity(z[1:], centre[2])[0])
    for reach, depth, expected in (
        (r * (1 + 1e-12), np.nextafter(v, 1e9), 2),
        (r * (1 + 1e-12), v, 1),
        (r * (1 - 1e-12), 2 * v, 1),
    ):
        found, counts = galaxies_around(ra, dec, z, *centre, reach, depth, MDPL2)
        assert found.tolist() == list(range(expected))
        assert counts.tolist() == [expected]


def test_discs_are_filled_evenly():
    ra, dec = disc_points(*arrays([30.0, 100.0], [0.0, 60.0], [0.02, 0.1]))
    assert ra.shape == dec.shape == (2, 256)
    for k, angle in enumerate((0.02, 0.1)):
        centre = np.full(256, [30.0, 100.0][k]), np.full(256, [0.0, 60.0][k])
        east, north = sky_offsets(ra[k], dec[k], *centre)
        # The k-th of n points has (k + 1/2) / n of the area within it.
        np.testing.assert_allclose(
            np.hypot(east, north), angle * np.sqrt((np.arange(256) + 0.5) / 256), rtol=1e-6
        )
        turn = np.arctan2(east, north)
        golden = np.pi * (3.0 - np.sqrt(5.0))
        np.testing.assert_allclose(np.exp(1j * turn), np.exp(1j * golden * (np.arange(256) + 0.5)), atol=1e-5)


def even_sky(step=0.125, half=6.0):
    """Galaxies on a grid about (100, 0)."""
    at = np.arange(-half, half, step) + step / 2
    ra, dec = np.meshgrid(100.0 + at, at)
    return ra.ravel(), dec.ravel()


def test_cells_hold_six_galaxies_and_small_discs_are_not_known():
    ra, dec = even_sky()
    footprint = GalaxyFootprint(ra, dec)
    cell = np.degrees(footprint.cell)
    # 64 galaxies in a square degree.
    assert cell == pytest.approx(np.sqrt(6.0 / 64.0), rel=0.1)
    centre, radius = arrays([100.0, 100.0], [0.0, 0.0]), footprint.cell * np.array([1.99, 2.01])
    assert np.isnan(footprint.fraction(*centre, radius)).tolist() == [True, False]
    np.testing.assert_allclose(footprint.fraction(*arrays([100.0], [0.0], [0.03])), 1.0)
    np.testing.assert_allclose(
        footprint.fraction(*arrays([106.0, 100.0], [0.0, 6.0], [0.05, 0.05])), 0.5, atol=0.1
    )


@pytest.mark.parametrize(("n", "known"), [(999, False), (1000, True)])
def test_fewer_than_a_thousand_galaxies_are_no_survey(n, known):
    rng = np.random.default_rng(0)
    footprint = GalaxyFootprint(rng.uniform(0, 5, n), rng.uniform(0, 5, n))
    share = footprint.fraction(*arrays([2.5], [2.5], [0.03]))
    assert np.isfinite(share[0]) == known


def test_cells_are_two_degrees_at_most():
    rng = np.random.default_rng(0)
    footprint = GalaxyFootprint(rng.uniform(0, 360, 1200), np.degrees(np.arcsin(rng.uniform(-1, 1, 1200))))
    assert np.degrees(footprint.cell) == pytest.approx(2.0)


@pytest.mark.parametrize("middle", [103.0, 0.0])
@pytest.mark.parametrize(("dec", "holes"), [(0.0, 1), (60.0, 1), (-75.0, 1)])
def test_an_empty_cell_among_five_that_are_not_is_inside(dec, holes, middle):
    at = (np.arange(60) + 0.5) * 0.1
    # In bands of dec, as cells lie; one galaxy near the middle of each cell of a tenth of a degree.
    ra = np.concatenate([middle + (at - 3.0) / np.cos(np.radians(dec))] * 60) % 360.0
    place = np.repeat(dec + at - 3.0, 60)
    footprint = GalaxyFootprint(ra, place)
    centre = arrays([middle], [dec])
    away = np.hypot(*sky_offsets(ra, place, np.full(ra.size, centre[0]), np.full(ra.size, centre[1])))
    radius = np.array([0.02])
    whole = footprint.fraction(*centre, radius)[0]
    assert whole > 0.97
    gap = 0.6 * footprint.cell * holes
    assert GalaxyFootprint(ra[away > gap], place[away > gap]).fraction(*centre, radius)[0] > 0.97
    wide = away > 0.012
    assert GalaxyFootprint(ra[wide], place[wide]).fraction(*centre, radius)[0] < 0.9


def test_rectangles_hold_their_edges_and_may_go_all_around():
    point = arrays([50.0], [10.0], [0.0])
    for box, inside in (
        ((50, 60, 10, 20), 1.0),
        ((40, 50, 0, 10), 1.0),
        ((50.001, 60, 0, 20), 0.0),
        ((40, 49.999, 0, 20), 0.0),
        ((0, 360, -90, 90), 1.0),
        ((300, 40, -90, 90), 0.0),
        ((300, 60, -90, 90), 1.0),
    ):
        assert RectangleFootprint([box]).fraction(*point).tolist() == [inside]
    assert RectangleFootprint([(0, 1, 0, 1), (40, 60, 0, 20)]).fraction(*point).tolist() == [1.0]


@pytest.mark.parametrize(("apart", "repeated"), [(0.9999, 1), (1.0001, 0)])
def test_rows_within_an_arcsecond_are_one_object(apart, repeated):
    ra, dec = arrays([10.0, 10.0], [0.0, apart / 3600.0])
    assert find_duplicates(ra, dec, np.array([0.1, 0.1])).repeated == repeated


@pytest.mark.parametrize(("v", "discordant"), [(299.0, 0), (301.0, 1), (-301.0, 1)])
def test_measurements_300_km_s_apart_are_not_both_right(v, discordant):
    place = np.full(3, 10.0)
    z = 0.5 + np.array([v, 0.0, v]) / SPEED_OF_LIGHT * 1.5
    found = find_duplicates(place, place, z, np.array([2e-4, 1e-4, 0.0]))
    # The smallest error is kept; 0 is none.
    assert found.kept.tolist() == [False, True, False]
    assert (found.repeated, found.discordant) == (2, discordant)
    assert find_duplicates(place, place, z, np.array([-1.0, np.nan, 0.0])).kept.tolist() == [
        True,
        False,
        False,
    ]


HALF, WIDE = (
    float(np.degrees(np.arcsin(np.sin(np.radians(0.5)) / np.cos(np.radians(edge))))) for edge in (0.5, 60.5)
)


@pytest.mark.parametrize(
    ("ra", "dec", "where"),
    [
        (
            120.0,
            0.0,
            f"s.ra BETWEEN {120 - HALF:.6f} AND {120 + HALF:.6f} AND s.dec BETWEEN -0.500000 AND 0.500000",
        ),
        (
            120.0,
            60.0,
            f"s.ra BETWEEN {120 - WIDE:.6f} AND {120 + WIDE:.6f} AND s.dec BETWEEN 59.500000 AND 60.500000",
        ),
        (
            120.0,
            -60.0,
            f"s.ra BETWEEN {120 - WIDE:.6f} AND {120 + WIDE:.6f} AND s.dec BETWEEN -60.500000 AND -59.500000",
        ),
        (
            0.2,
            0.0,
            f"(s.ra > {360.2 - HALF:.6f} OR s.ra < {0.2 + HALF:.6f}) AND s.dec BETWEEN -0.500000 AND 0.500000",
        ),
        (
            359.8,
            0.0,
            f"(s.ra > {359.8 - HALF:.6f} OR s.ra < {HALF - 0.2:.6f}) AND s.dec BETWEEN -0.500000 AND 0.500000",
        ),
        (HALF, 0.0, f"s.ra BETWEEN 0.000000 AND {2 * HALF:.6f} AND s.dec BETWEEN -0.500000 AND 0.500000"),
        (120.0, 89.6, "1 = 1 AND s.dec BETWEEN 89.100000 AND 90.000000"),
        (120.0, -89.6, "1 = 1 AND s.dec BETWEEN -90.000000 AND -89.100000"),
    ],
)
def test_sdss_is_asked_for_the_rectangle_that_holds_the_disc(ra, dec, where):
    columns = ", ".join(f"s.{name}" for name in ("specObjID", "ra", "dec", "z", "zErr", "zWarning", "class"))
    expected = f"SELECT {columns} FROM SpecObj AS s WHERE {where} AND s.z BETWEEN 0.010000 AND 0.020000"
    assert _sdss_query(ra, dec, 0.5, (0.01, 0.02)) == expected


def test_ned_is_asked_for_half_a_degree_at_once_and_no_cone_in_vain():
    assert _cones(10.00000049, 20.0, 0.5) == [(10.0, 20.0, 0.5)]
    assert _cones(10.0, 20.0, 0.1234567) == [(10.0, 20.0, 0.123457)]
    for angle in (0.51, 1.0, 2.0):
        cones = np.array(_cones(10.0, 20.0, angle))
        assert set(cones[:, 2]) == {0.5}
        away = np.degrees(
            np.hypot(
                *sky_offsets(cones[:, 0], cones[:, 1], np.full(len(cones), 10.0), np.full(len(cones), 20.0))
            )
        )
        # All of them touch the disc; their hexagons, of 0.6 square degrees, cover what they reach.
        assert away.max() < angle + 0.5
        assert len(cones) < 1.1 * np.pi * (angle + 0.5) ** 2 / (1.5 * np.sqrt(3.0) * (0.97 * 0.5) ** 2) + 3


def test_the_error_of_a_centre_is_that_of_a_mean():
    v = np.array([100.0, -200.0, 300.0, 1999.0, -50.0, 2001.0, *[10.0] * 4, 1e4])
    catalog = ClusterCatalog.from_arrays(
        {"cluster_id": [1, 2], "redshift": [0.1, 0.1]},
        {"x": 0 * v, "y": 0 * v, "v_los": v},
        [6, 5],
        CatalogMetadata(),
    )
    found = _centre_error(catalog)
    # Of the first five velocities; the second cluster has four, too few.
    np.testing.assert_allclose(found, [np.sqrt((v[:5] ** 2).sum()) / 5.0, np.nan])


@pytest.mark.parametrize("recentring", [None, Recentring(max_shift_r=0.4, max_shift_v=600.0)])
def test_galaxies_matter_that_a_moved_cylinder_reaches(recentring):
    rows = {"ra": np.array([10.0]), "dec": np.array([0.0]), "redshift": np.array([0.05])}
    ra, dec, z, angle, velocity = _reach(rows, 1.6, 2500.0, recentring, MDPL2)
    more_r, more_v = (0.0, 0.0) if recentring is None else (0.4, 600.0)
    nearest = 0.05 - more_v / SPEED_OF_LIGHT * 1.05
    assert angle[0] == pytest.approx((1.6 + more_r) / transverse_mpc_h_per_radian(nearest), rel=1e-12)
    assert velocity[0] == pytest.approx(1.01 * (2500.0 + more_v))
    assert (ra[0], dec[0], z[0]) == (10.0, 0.0, 0.05)
    # At redshift zero the whole sky is near.
    rows["redshift"] = np.array([1e-7])
    assert _reach(rows, 1.6, 2500.0, recentring, MDPL2)[3][0] == np.pi


def test_depth_and_completeness_of_a_survey_are_known_at_its_ends():
    rng = np.random.default_rng(0)
    n = 3000
    galaxies = Table(
        {"ra": rng.uniform(150, 160, n), "dec": rng.uniform(-5, 5, n), "z": rng.uniform(0.05, 0.15, n)}
    )
    galaxies["z"][:2] = 0.05, 0.15
    depth = 2500.0 / SPEED_OF_LIGHT
    ends = np.array([(0.05 + depth) / (1 - depth), (0.15 - depth) / (1 + depth)])
    clusters = Table({"cluster_id": np.arange(4), "ra": np.full(4, 155.0), "dec": np.zeros(4)})
    clusters["redshift"] = [ends[0] + 1e-9, ends[0] - 1e-9, ends[1] - 1e-9, ends[1] + 1e-9]
    catalog = cut_cylinders(galaxies, clusters)
    assert catalog.column("redshift_edge").tolist() == [False, True, False, True]
    assert catalog.metadata.selection["redshift_limits"] == [0.05, 0.15]
    # A disc with 95 % of it inside counts as whole.
    edge = 155.0 + np.degrees(1.6 / transverse_mpc_h_per_radian(ends[0])) * np.array([0.9, 0.7])
    boxes = [(100, end, -50, 50) for end in edge]
    shares = [cut_cylinders(galaxies, clusters[:1], footprint=[box]) for box in boxes]
    fraction = [catalog.column("footprint_fraction")[0] for catalog in shares]
    assert 0.95 < fraction[0] < 1.0
    assert 0.8 < fraction[1] < 0.95
    assert [catalog.column("completeness")[0] for catalog in shares] == [1.0, fraction[1]]
    assert [catalog.metadata.selection["edges"]["clusters_cut"] for catalog in shares] == [0, 1]
    # Fewer targets than redshifts, and no target at all, are no loss.
    targets = Table({"ra": [155.0], "dec": [0.0]})
    told = cut_cylinders(galaxies, clusters[:1], targets=targets)
    assert told.column("spectroscopic_completeness").tolist() == [1.0]
    assert told.metadata.selection["spectroscopic_completeness"] == 1.0
    targets["ra"] = [20.0]
    assert cut_cylinders(galaxies, clusters[:1], targets=targets).column(
        "spectroscopic_completeness"
    ).tolist() == [1.0]

"""Footprints from files: regions of DS9 hold what the sphere says they hold, maps what their samples say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bayesflowmass.catalog import CatalogError
from bayesflowmass.io.footprint_file import CompletenessMap, SkyRegions, read_footprint
from bayesflowmass.io.sky import sky_position

pytest.importorskip("regions")
HEAD = "# Region file format: DS9 version 4.1\nicrs\n"
CENTRES = st.tuples(st.floats(0.0, 359.9), st.floats(-85.0, 85.0))


def written(folder, text, name="field.reg"):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def around(centre, radius, n=300):
    """Places within a radius [deg] of a centre: ra, dec [deg], offsets east and north [rad]."""
    rng = np.random.default_rng(0)
    separation, angle = np.radians(radius) * np.sqrt(rng.uniform(size=n)), rng.uniform(0, 2 * np.pi, n)
    east, north = separation * np.sin(angle), separation * np.cos(angle)
    return *sky_position(np.full(n, centre[0]), np.full(n, centre[1]), east, north), east, north


def agrees(share, margin):
    """A share is one where the margin is positive, and nobody asks at the edge, given to 1e-5 of the size."""
    clear = np.abs(margin) > 1e-5
    np.testing.assert_array_equal(share[clear], (margin > 0.0)[clear])


@settings(deadline=None, max_examples=25)
@given(centre=CENTRES, radius=st.floats(0.001, 50.0))
def test_a_circle_holds_what_is_nearer_than_its_radius_anywhere_on_the_sky(centre, radius):
    sky = SkyRegions.parse(f"{HEAD}circle({centre[0]!r},{centre[1]!r},{radius!r}d)", "f")
    ra, dec, east, north = around(centre, min(2 * radius, 170.0))
    agrees(sky.share(ra, dec), 1.0 - np.hypot(east, north) / np.radians(radius))


@settings(deadline=None, max_examples=25)
@given(
    centre=CENTRES, width=st.floats(60.0, 3600.0), height=st.floats(60.0, 3600.0), turn=st.floats(0.0, 359.0)
)
@example(centre=(0.0, 0.0), width=1914.5, height=2497.0, turn=343.421875)
def test_a_box_is_turned_from_west_to_north_and_its_negative_is_its_complement(centre, width, height, turn):
    box = f'box({centre[0]!r},{centre[1]!r},{width!r}",{height!r}",{turn!r})\n'
    ra, dec, east, north = around(centre, max(width, height) / 3600.0)
    # In the tangent plane at its centre; DS9 counts angles from the first axis, which points west.
    plane = np.degrees(np.tan(np.hypot(east, north)) / np.hypot(east, north)) * 3600.0
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    west, up = -east * plane, north * plane
    margin = np.minimum(
        1.0 - np.abs(west * c + up * s) / (width / 2), 1.0 - np.abs(up * c - west * s) / (height / 2)
    )
    agrees(SkyRegions.parse(HEAD + box, "f").share(ra, dec), margin)
    whole = f"circle({centre[0]!r},{centre[1]!r},2d)\n"
    agrees(SkyRegions.parse(f"{HEAD}{whole}-{box}", "f").share(ra, dec), -margin)


@pytest.mark.parametrize(("ra", "dec"), [(0.0, 0.0), (359.99, 60.0), (123.0, 89.95)])
def test_sides_of_polygons_are_great_circles_across_zero_and_at_the_pole(ra, dec):
    corners = [(1.0, 0.2), (-0.3, 0.9), (-0.8, -0.6), (0.5, -0.9)]
    at = sky_position(np.full(4, ra), np.full(4, dec), *(np.radians([c[i] for c in corners]) for i in (0, 1)))
    text = ",".join(f"{a!r},{d!r}" for a, d in zip(*map(np.ndarray.tolist, at), strict=True))
    sky = SkyRegions.parse(f"{HEAD}polygon({text})", "f")
    east, north, *_ = around((ra, dec), 1.5)
    unit = lambda a, d: np.stack(  # noqa: E731
        [np.cos(np.radians(d)) * np.cos(np.radians(a)), np.cos(np.radians(d)) * np.sin(np.radians(a)),
         np.sin(np.radians(d))], axis=-1)  # fmt: skip
    ends, places = unit(*at), unit(east, north)
    sides = np.stack([places @ np.cross(ends[k], ends[(k + 1) % 4]) for k in range(4)])
    margin = np.min(sides * np.sign(np.sum(sides, axis=0)), axis=0) / np.radians(1.0) ** 2
    agrees(sky.share(east, north), margin)


def test_regions_of_other_frames_and_many_fields_stand_in_one_file(tmp_path):
    text = f'{HEAD}circle(10,0,60")\ncircle(13:20:00,+30:00:00,60")\ngalactic\nbox(0,0,1d,1d,0)\n'
    sky = read_footprint(written(tmp_path, text))
    ra, dec = np.array([10.0, 10.1, 266.405, 266.405]), np.array([0.0, 0.0, -28.936, -28.0])
    np.testing.assert_array_equal(sky.share(ra, dec), [1.0, 0.0, 1.0, 0.0])
    assert not sky.says_completeness


def test_labels_and_points_have_no_area_which_is_said():
    sky = SkyRegions.parse(f'{HEAD}circle(10,0,60")\npoint(10,0)\ntext(10,0) # text={{A1}}', "f.reg")
    assert sky.notes == ["f.reg: 2 of 3 regions have no area (Point, Text)."]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image\ncircle(100,100,20)", "region 1 is in pixels of an image; save the regions in fk5 or icrs"),
        ("fk5\npoint(10,10)", "no region with an area is included"),
        ("fk5\n-circle(10,10,1d)", "no region with an area is included"),
        ("fk5\ncircle(10,10,70d)", "region 1 reaches 70 degrees from its middle, and at most 60 can be"),
        ('fk5\nbox(10,10,60",60",0)\nvector(10,10,60",0)', "these regions of DS9 cannot be read"),
        ("fk5\npolygon(10,10,11,11)", "region 1 is a polygon of 2 corners; expected three or more"),
    ],
)
def test_what_cannot_be_a_footprint_is_one_sentence(tmp_path, text, said):
    path = written(tmp_path, "# Region file format: DS9\n" + text)
    with pytest.raises(CatalogError) as caught:
        read_footprint(path)
    assert said in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_a_map_on_a_grid_has_no_gaps_and_ends_half_a_step_or_so_beyond_its_samples(tmp_path):
    step = 0.02
    x, y = np.meshgrid(np.arange(21) * step + 150.0, np.arange(21) * step)
    share = np.where(x < 150.2, 0.25, 0.75)
    rows = "\n".join(
        f"{a!r},{d!r},{c!r}" for a, d, c in zip(*(v.ravel().tolist() for v in (x, y, share)), strict=True)
    )
    sky = read_footprint(written(tmp_path, f"RA,DEC,completeness\n{rows}\n", "map.csv"))
    assert sky.says_completeness
    rng = np.random.default_rng(0)
    ra, dec = 150.0 + 0.4 * rng.uniform(size=1000), 0.4 * rng.uniform(size=1000)
    np.testing.assert_array_equal(sky.share(ra, dec), np.where(ra < 150.19, 0.25, 0.75))
    np.testing.assert_array_equal(sky.share(np.array([149.986, 150.414]), np.array([0.2, 0.2])), [0.25, 0.75])
    np.testing.assert_array_equal(sky.share(np.array([149.98, 150.2]), np.array([0.2, 0.42])), [0.0, 0.0])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("10,0,0.5\n10.1,0,1.5", "row 2: completeness is 1.5; expected a fraction"),
        ("10,0,0.5\n10.1,,0.5", "row 2 has no position"),
        ("10,0,0.5", "1 place samples the completeness"),
        ("10,0,0.5\n10,0,0.5\n10,0,0.4", "most places are there twice"),
    ],
)
def test_a_map_that_cannot_be_one_is_one_sentence(tmp_path, rows, said):
    with pytest.raises(CatalogError, match=said):
        read_footprint(written(tmp_path, f"ra,dec,completeness\n{rows}\n", "map.csv"))


def test_a_table_without_completeness_is_told_what_is_missing(tmp_path):
    with pytest.raises(CatalogError, match="column completeness is missing"):
        CompletenessMap.read(written(tmp_path, "ra,dec\n10,0\n11,0\n", "map.csv"))


@pytest.mark.parametrize(("radius", "fits"), [(59.99, True), (60.01, False)])
def test_a_region_reaches_60_degrees_from_its_middle(radius, fits):
    text = f"{HEAD}circle(10,0,{radius}d)"
    if fits:
        inside, outside = np.array([10.0 + radius - 0.01]), np.array([10.0 + radius + 0.01])
        assert SkyRegions.parse(text, "f").share(inside, np.zeros(1)).tolist() == [1.0]
        assert SkyRegions.parse(text, "f").share(outside, np.zeros(1)).tolist() == [0.0]
    else:
        with pytest.raises(CatalogError, match="reaches 60 degrees from its middle"):
            SkyRegions.parse(text, "f")


def test_a_place_has_the_share_of_a_sample_within_three_quarters_of_their_distance():
    sky = CompletenessMap(np.array([10.0, 11.0, 12.0]), np.zeros(3), np.array([0.2, 0.4, 0.6]))
    ra = np.array([[10.0, 10.49, 10.51], [12.0, 12.74, 12.76]])
    np.testing.assert_allclose(sky.share(ra, np.zeros((2, 3))), [[0.2, 0.2, 0.4], [0.6, 0.6, 0.0]])
    assert sky.notes == []

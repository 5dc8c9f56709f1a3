"""Where finite numbers stop being what their column says: each limit from both of its sides, and units beside it."""

from __future__ import annotations

import numpy as np
import pytest

from bayesflowmass.catalog import CatalogError
from bayesflowmass.cosmology import MDPL2, SPEED_OF_LIGHT, Cosmology
from bayesflowmass.io import plausibility as check
from bayesflowmass.io.sexagesimal import degrees_of_parts, degrees_of_text, is_sexagesimal
from bayesflowmass.io.units import (
    angle_to_degrees,
    cosmology_from_text,
    length_per_h,
    length_to_comoving,
    mass_to_log10_msun_h,
    redshift_from,
)


def refused(message, function, *arguments):
    """Whether a call is refused for this reason."""
    try:
        function(*arguments)
    except CatalogError as error:
        return message in str(error)
    return False


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0.0, 3.0, np.nan], None),
        ([0.1, 0.1, 3.1], "in row 3 is 3.1; expected a redshift in [0, 3]."),
        ([0.1, -0.1], "in row 2 is -0.1; expected a redshift in [0, 3]."),
        ([3.0, 3.0, 3.1], "in row 3 is 3.1; expected a redshift in [0, 3]."),
        ([3.5, 4.5, np.nan], "in row 1 is 3.5, which looks like a magnitude"),
        ([100.0, 100.0], "in row 1 is 100, which looks like a magnitude"),
        ([0.1, 100.5, 100.5], "in row 2 is 100.5, which looks like cz in km/s"),
    ],
)
def test_redshifts_are_refused_for_what_a_typical_one_is(values, words):
    values = np.array(values)
    if words is None:
        check.check_redshifts(values, "redshift", "t")
    else:
        with pytest.raises(CatalogError) as caught:
            check.check_redshifts(values, "redshift", "t")
        assert words in str(caught.value)


def spread_of(sigma, n=5):
    """Velocities of a cluster, whose 1.4826 median absolute deviations are sigma."""
    return np.array([-2.0, -1.0, 0.0, 1.0, 2.0][:n]) * sigma / 1.4826


@pytest.mark.parametrize(
    ("sigma", "words"),
    [
        (19.9, "scatter by 20 km/s, which no cluster does"),
        (20.1, None),
        (4999.5, None),
        (5000.5, "scatter by 5000, as those in m/s do"),
        (0.0, None),
    ],
)
def test_a_typical_cluster_scatters_by_20_to_5000_km_s(sigma, words):
    found = refused(words, check.check_velocities, spread_of(sigma), np.array([7]), np.array([5]), "t")
    assert found == (words is not None)


def test_clusters_of_two_galaxies_say_nothing_of_velocities():
    # Their scatter is that of cz in m/s; they come first, so that rows are told apart.
    pair, usual = np.array([0.0, 9e6]), spread_of(700.0)
    check.check_velocities(np.concatenate([pair, usual]), np.array([1, 2]), np.array([2, 5]), "t")
    check.check_velocities(pair, np.array([1]), np.array([2]), "t")
    with pytest.raises(CatalogError, match="median velocity of cluster 2 is 30000 km/s"):
        check.check_velocities(np.append(pair, usual + 30000.0), np.array([1, 2]), np.array([2, 5]), "t")
    three = np.array([-9e6, 0.0, 9e6])
    assert refused("as those in m/s do", check.check_velocities, three, np.array([1]), np.array([3]), "t")


@pytest.mark.parametrize(
    ("sigma", "centre", "bad"),
    [
        (100.0, 1999.5, False),
        (100.0, -2000.5, True),
        (1000.0, 2999.0, False),
        (1000.0, 3001.0, True),
        (1000.0, -3001.0, True),
    ],
)
def test_a_centre_is_off_by_2000_km_s_or_three_times_the_scatter(sigma, centre, bad):
    v, one = spread_of(sigma) + centre, np.array([5])
    assert refused("far from 0, as cz is", check.check_velocities, v, one, one, "t") == bad


@pytest.mark.parametrize(("typical", "bad"), [(20.0, False), (20.5, True)])
def test_typical_radii_are_20_at_most(typical, bad):
    radius = np.array([0.1, typical, 900.0])
    assert refused("as in kpc", check.check_radius, radius, "t") == bad
    check.check_radius(radius[:0], "t")


@pytest.mark.parametrize(
    ("n", "ra", "dec", "bad"),
    [
        (10, 2 * np.pi, 0.5 * np.pi, True),
        (9, 2 * np.pi, 0.5 * np.pi, False),
        (10, -6.3, 0.0, False),
        (10, 0.0, -1.6, False),
    ],
)
def test_ten_positions_within_two_pi_may_be_radians(n, ra, dec, bad):
    places = np.linspace(0.0, 1.0, n)
    assert refused("as in radians", check.check_not_radians, ra * places, dec * places, "t") == bad


@pytest.mark.parametrize(
    ("typical", "ra", "words"),
    [
        (50.0, 1.0, None),
        (50.5, 1.0, "from the centres in c, typically; expected"),
        (0.059, 1.0, "too near"),
        (0.06, 1.0, None),
        (0.059, 7.0, None),
    ],
)
def test_galaxies_lie_between_0_06_and_50_from_their_centres(typical, ra, words):
    radius = np.array([0.0, typical, 1e3])
    found = refused(words, check.check_positions_meet, radius, np.full(3, ra), np.zeros(3), "t", "c", False)
    assert found == (words is not None)
    check.check_positions_meet(radius[:0], radius[:0], radius[:0], "t", "c", False)
    if words is None or "too near" in words:
        check.check_positions_meet(radius, np.full(3, ra), np.zeros(3), "t", "c", True)


@pytest.mark.parametrize(
    ("factor", "found"),
    [
        (1.009, None),
        (1.02, "comoving Mpc/h"),
        (1.09, None),
        (0.92, None),
        (1.12, "refused"),
        (1020.0, "comoving kpc/h"),
    ],
)
def test_radii_are_ours_within_a_per_cent_and_left_alone_within_ten(factor, found):
    # Near enough that comoving and proper, and all cosmologies, are the same; at h = 0.5 Mpc are none of them.
    z, computed = np.full(9, 1e-4), np.linspace(0.06, 2.0, 9)
    arguments = factor * computed, computed, z, Cosmology(h=0.5), "t"
    if found == "refused":
        assert refused("is 1.120 times the comoving one", check.radius_reading, *arguments)
    else:
        # So near, the usual cosmologies are all the same.
        reading = check.radius_reading(*arguments)
        assert (reading and reading.partition(" of H0")[0]) == found
    assert check.radius_reading(computed, np.full(9, 0.05), z, MDPL2, "t") is None
    assert check.radius_reading(np.zeros(9), computed, z, MDPL2, "t") is None


@pytest.mark.parametrize(
    ("off", "found"), [(100.0, None), (-100.0, None), (101.0, "refused"), ("cz", "cz"), ("cz far", "refused")]
)
def test_velocities_are_ours_or_cz_within_100_km_s(off, found):
    z, computed = np.full(3, 0.1), np.array([0.0, 250.0, 500.0])
    cz = SPEED_OF_LIGHT * z
    given = cz + 100.0 if off == "cz" else cz + 101.0 if off == "cz far" else computed + off
    given = np.append(given, np.nan)
    z, computed = np.append(z, 0.1), np.append(computed, 0.0)
    if found == "refused":
        assert refused("km/s typically", check.velocity_reading, given, computed, z, "t")
    else:
        assert check.velocity_reading(given, computed, z, "t") == found
    assert check.velocity_reading(given * np.nan, computed, z, "t") is None


@pytest.mark.parametrize(
    ("unit", "last", "beyond", "degrees"),
    [
        ("rad", 2 * np.pi, 6.2835, 360.0),
        ("hourangle", 24.0, None, 360.0),
        ("deg", 360.0, None, 360.0),
        (None, 7.0, None, 7.0),
    ],
)
def test_angles_in_radians_reach_two_pi(unit, last, beyond, degrees):
    np.testing.assert_allclose(
        angle_to_degrees(np.array([0.0, last, np.nan]), unit, "t"), [0.0, degrees, np.nan]
    )
    if beyond is not None:
        # The angle that a turn may reach by rounding, and the next.
        most = 2.0 * np.pi + 1e-6
        assert angle_to_degrees(np.array([most, -most]), unit, "t").max() == np.degrees(most)
        with pytest.raises(CatalogError, match="declared in rad but reaches"):
            angle_to_degrees(np.array([np.nextafter(most, 7.0)]), unit, "t")
        with pytest.raises(CatalogError, match=r"declared in rad but reaches -6\.2835, as degrees do"):
            angle_to_degrees(np.array([0.0, -beyond, np.nan, 6.0]), unit, "t")


@pytest.mark.parametrize("unit", ["", "-", " none ", "1", "Redshift", None])
def test_a_redshift_may_be_said_to_have_no_unit(unit):
    assert redshift_from(np.array([0.1]), unit, "t").tolist() == [0.1]
    assert redshift_from(np.array([SPEED_OF_LIGHT]), "km/s", "t").tolist() == [1.0]


@pytest.mark.parametrize(
    ("unit", "per_h"),
    [("Mpc/h", True), ("h-1 Mpc", True), ("kpc h^-1", True), ("proper kpc", False), ("Mpc/h70", False)],
)
def test_lengths_over_h_are_told_from_others(unit, per_h):
    assert length_per_h(unit) == per_h


def test_a_length_is_that_of_the_cosmology_it_was_made_with():
    theirs, z = Cosmology(h=0.7, Om0=0.3), np.array([0.2])
    for unit, factor in (
        ("proper kpc", 1.2e-3 * 0.7),
        ("comoving Mpc", 0.7),
        ("Mpc/h", 1.0),
        ("kpc proper", 1.2e-3 * 0.7),
    ):
        found = length_to_comoving(np.ones(1), unit, "t", theirs, lambda: z)
        np.testing.assert_allclose(found, factor, rtol=1e-12)


def test_the_cosmology_of_a_table_is_two_numbers():
    assert cosmology_from_text("70, 0.3") == Cosmology(h=0.7, Om0=0.3, name="H0=70,Om=0.3")
    for text in ("70", "70,0.3,1", "a,b"):
        with pytest.raises(CatalogError, match="expected H0,Om of a flat universe"):
            cosmology_from_text(text)


def test_log10_masses_are_100_at_most():
    assert mass_to_log10_msun_h(np.array([100.0]), None, "t", 0.7).tolist() == [100.0]
    with pytest.raises(CatalogError, match=r"reaches 1e\+14, .*here 14\.000 if it is in Msun/h, 13\.845 if"):
        mass_to_log10_msun_h(np.array([14.0, 1e14]), None, "t", 0.7)


@pytest.mark.parametrize(
    ("cell", "hours", "degrees"),
    [
        ("10 30 36", True, 15 * 10.51),
        ("-0:12:36.0", False, -0.21),
        ("+10d30m36s", False, 10.51),
        ("5 59 60.0", False, 6.0),
        ("  ", True, np.nan),
        ("5 60 0", False, None),
        ("5 59 60.01", False, None),
        ("5 59", False, None),
    ],
)
def test_a_coordinate_in_three_parts_has_minutes_below_60_and_seconds_up_to_it(cell, hours, degrees):
    words = np.array(["1 0 0", cell])
    if degrees is None:
        with pytest.raises(CatalogError, match=f"row 1 is {cell!r}; expected degrees:minutes:seconds"):
            degrees_of_text(words, hours, lambda row: f"row {row}")
    else:
        found = degrees_of_text(words, hours, lambda row: f"row {row}")
        np.testing.assert_allclose(found, [15.0 if hours else 1.0, degrees], rtol=1e-12)


def test_the_first_twenty_cells_say_whether_coordinates_have_three_parts():
    cells = np.array([""] + ["10 0 1.5"] * 20)
    assert is_sexagesimal(cells)
    assert is_sexagesimal(np.append(cells, "x")[:21])
    assert is_sexagesimal(np.append(cells[:20], "x"))
    assert not is_sexagesimal(np.append(cells[:19], "x"))
    assert not is_sexagesimal(cells[:1])
    assert not is_sexagesimal(np.arange(3.0))


@pytest.mark.parametrize("sign", [True, False])
def test_coordinates_in_columns_of_parts_have_their_sign_where_it_stands(sign):
    columns = {"RAh": np.array([1.0, 2.0]), "RAm": np.array([30.0, 0.0]), "DEm": np.array([30.0, 15.0])}
    columns |= (
        {"DEd": np.array([0.0, 10.0]), "DE-": np.array(["- ", "+"])}
        if sign
        else {"DEd": np.array([-1.0, 10.0])}
    )
    found = degrees_of_parts(columns, columns.__getitem__)
    np.testing.assert_allclose(found["ra"], [22.5, 30.0])
    np.testing.assert_allclose(found["dec"], [-0.5 if sign else -1.5, 10.25])
    seconds = columns | {"RAs": np.array([36.0, 0.0]), "DEs": np.array([36.0, 36.0])}
    found = degrees_of_parts(seconds, seconds.__getitem__)
    np.testing.assert_allclose(found["ra"], [22.65, 30.0])
    np.testing.assert_allclose(found["dec"], [-0.51 if sign else -1.51, 10.26])
    assert (
        degrees_of_parts({name: columns[name] for name in columns if name != "DEm"}, columns.__getitem__)
        == {}
    )

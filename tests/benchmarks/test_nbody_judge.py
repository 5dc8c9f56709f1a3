"""The N-body judge: its haloes, spheres and comparison statistics on sets of points whose answer is known."""

import numpy as np
import pytest

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.cosmology import (
    MDPL2,
    critical_density,
    mass_function,
)
from benchmarks.nbody_judge.comparison import count_scatter, far_share, infall, measure, outsiders
from benchmarks.nbody_judge.haloes import find_haloes, friends_of_friends, matched_masses, sphere
from benchmarks.nbody_judge.masses import like_masses, swapped
from benchmarks.nbody_judge.page import disagreements, tables
from benchmarks.nbody_judge.samples import LINES, Sample, radial_velocities

SIZE = 100.0


def ball(centre, radius, n, rng):
    """Points of a uniform sphere."""
    direction = rng.normal(size=(n, 3))
    direction /= np.sqrt((direction**2).sum(axis=1))[:, None]
    return np.mod(centre + radius * np.cbrt(rng.random(n))[:, None] * direction, SIZE)


def sample(count=(), v_r=lambda halo, r: 0.0 * r, n=400, mass=None):
    """Clusters with galaxies at 1-5 Mpc/h in space, and the counts (n, LINES) at |v| = 100, 1.5 R200c away."""
    rng = np.random.default_rng(0)
    halo = np.repeat(np.arange(n), 50)
    r = rng.uniform(1.0, 5.0, halo.size)
    count = (
        np.asarray(count, dtype=np.int64).reshape(n, LINES) if len(count) else np.ones((n, LINES), dtype=int)
    )
    line = np.repeat(np.arange(n * LINES), count.ravel())
    ones = np.ones(line.size)
    log10_mass = np.full(n, 14.0) if mass is None else mass
    return Sample(
        "made",
        2500.0,
        log10_mass,
        np.full(n, 0.8),
        halo,
        r,
        v_r(halo, r),
        halo < 0,
        line,
        0.3 * ones,
        100.0 * ones,
        1.5 * ones,
    )


def test_friends_are_those_of_brute_force_across_slabs_and_faces():
    rng = np.random.default_rng(1)
    position = rng.uniform(0.0, SIZE, (800, 3))
    length = 6.2
    apart = np.abs(position[:, None] - position[None])
    apart = np.minimum(apart, SIZE - apart)
    friends = (apart**2).sum(axis=-1) < length**2
    group = np.arange(position.shape[0])
    while True:
        lowest = np.where(friends, group[None], position.shape[0]).min(axis=1)
        if np.array_equal(lowest, group):
            break
        group = lowest
    found = friends_of_friends(position, SIZE, length)
    # Two partitions are the same if each pair of labels is one of as many.
    pairs = np.unique(np.stack([group, found]), axis=1).shape[1]
    assert pairs == np.unique(group).size == np.unique(found).size
    assert 30 < pairs < 600


def test_a_sphere_ends_where_the_mean_density_falls_to_the_value():
    rng = np.random.default_rng(2)
    # Density ~ 1/r^2 has a mean of three times that at its edge: M(< r) = M r / R.
    distance = 2.0 * rng.random(20000)
    mass = 1e10
    density = 20000 * mass / (4.0 / 3.0 * np.pi * 2.0**3)
    number, radius = sphere(distance, mass, 4.0 * density)
    # M r / R over r^3 is four times the mean where r = R / 2: 10000 points, +- 100 x 2 by Poisson.
    assert radius == pytest.approx(1.0, abs=0.03)
    assert number == pytest.approx(10000, abs=400)
    assert np.isnan(sphere(distance, mass, 0.5 * density)[1])
    assert sphere(distance, mass, 1e9 * density) == (0, 0.0)


def test_matched_masses_are_as_many_as_the_mass_function_has():
    volume, z = 1e7, 0.117
    grid = np.linspace(14.0, 16.0, 4001)
    above = np.trapezoid(mass_function(grid, z), grid) * volume
    masses = matched_masses(np.arange(1000), volume, z)
    assert np.all(np.diff(masses) < 0.0)
    assert (masses > 14.0).sum() == pytest.approx(above, abs=1.5)


@pytest.fixture(scope="module")
def box():
    """Two uniform spheres, one over a corner of the box with a small dense one inside its R200m, in a field."""
    rng = np.random.default_rng(3)
    n_side, z = 64, 0.117
    n = n_side**3
    mass = MDPL2.Om0 * float(critical_density(0.0)) * SIZE**3 / n
    comoving = 200.0 * float(critical_density(z)) / (1.0 + z) ** 3
    parts, velocity = [], []
    large = np.cbrt(1500 * mass / (4.0 / 3.0 * np.pi * comoving * 2.0))
    for centre, number, density, speed in (
        ((0.1, 99.9, 50.0), 1500, 2.0, 300.0),
        ((40.0, 40.0, 40.0), 600, 2.0, -200.0),
        ((0.1, 99.9, 50.0 + 1.6 * large), 150, 20.0, 300.0),
    ):
        radius = np.cbrt(number * mass / (4.0 / 3.0 * np.pi * comoving * density))
        parts.append(ball(np.array(centre), radius, number, rng))
        velocity.append(np.full((number, 3), speed))
    parts.append(rng.uniform(0.0, SIZE, (2000, 3)))
    velocity.append(np.zeros((2000, 3)))
    # The mean distance of particles is that of a full box: the rest lies far apart on a lattice.
    rest = n - 4250
    lattice = (np.stack(np.unravel_index(np.arange(rest), (64, 64, 64)), axis=1) + 0.5) * SIZE / n_side
    parts.append(lattice)
    velocity.append(np.zeros((rest, 3)))
    position = np.concatenate(parts)
    return position, np.concatenate(velocity), mass, z


def test_haloes_have_the_centre_mass_and_velocity_of_the_spheres(box):
    position, velocity, mass, z = box
    haloes, owner = find_haloes(position, velocity, SIZE, z, 100)
    assert haloes.n_friends.size == 2
    apart = haloes.centre - np.array([[0.1, 99.9, 50.0], [40.0, 40.0, 40.0]])
    apart -= SIZE * np.round(apart / SIZE)
    # 60 and 150 particles are left in half the radius, 0.4 and 0.55 Mpc/h: +- 0.03 for each of some ten steps.
    assert np.abs(apart).max() < 0.2
    # A sphere twice as dense as 200 critical ends at its particles, plus the few of the field.
    np.testing.assert_allclose(10.0**haloes.log10_found / mass, [1500, 600], rtol=0.03)
    np.testing.assert_allclose(haloes.velocity, [[300.0] * 3, [-200.0] * 3], rtol=0.03)
    assert np.mean(owner[:1500] == 0) > 0.98
    assert np.mean(owner[1500:2100] == 1) > 0.98
    assert np.mean(owner[2100:2250] == 0) > 0.98


def test_radial_velocities_are_along_the_line_from_the_centre_through_faces():
    position = np.array([[99.5, 50.0, 50.0], [50.0, 50.0, 50.0]])
    velocity = np.array([[100.0, 7.0, 0.0], [1.0, 1.0, 1.0]])
    halo, galaxy, r, v_r = radial_velocities(
        position, velocity, np.array([[0.5, 50.0, 50.0]]), np.array([[40.0, 0.0, 0.0]]), SIZE
    )
    assert halo.tolist() == galaxy.tolist() == [0]
    assert r[0] == pytest.approx(1.0)
    assert v_r[0] == pytest.approx(-60.0)


def test_infall_is_the_mean_and_scatter_in_each_shell_with_errors_over_clusters():
    rng = np.random.default_rng(4)
    offset = rng.normal(0.0, 90.0, 400)
    mean, dispersion = infall(sample(v_r=lambda halo, r: -100.0 * r + offset[halo]))
    # Shell 3-4 Mpc/h: the mean radius of uniform radii is 3.5.
    assert mean.value[4] == pytest.approx(-350.0, abs=15.0)
    assert mean.error[4] == pytest.approx(90.0 / 20.0, rel=0.25)
    assert dispersion.value[4] == pytest.approx(np.hypot(90.0, 100.0 / np.sqrt(12.0)), rel=0.05)


def test_outsiders_are_counted_by_true_distance():
    made = sample()
    assert far_share(made, 1.0).value[0] == 1.0
    assert far_share(made, 2.0).value[0] == 0.0
    assert outsiders(made, "R").value[0] == 1.0
    assert np.isnan(outsiders(made, "R").value[1])
    assert outsiders(made, "v", per="outsider").value.tolist() == [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]


def test_scatter_of_counts_is_without_poisson_and_without_the_trend_with_mass():
    rng = np.random.default_rng(5)
    n = 4000
    poisson = count_scatter(sample(rng.poisson(20.0, (n, LINES)), n=n), (0.0, 2500.0), None)
    # Variance over mean of 12 000 counts: +- sqrt(2 / 12000) = 0.013.
    assert poisson.value[1] == pytest.approx(1.0, abs=0.06)
    assert abs(poisson.value[2]) < 0.06
    mass = rng.uniform(13.9, 14.4, n)
    mean = 20.0 * (1.0 + (mass - 14.15))
    common = np.repeat(rng.gamma(1.0 / 0.09, 0.09, n)[:, None], LINES, axis=1)
    own = rng.gamma(1.0 / 0.04, 0.04, (n, LINES))
    count = rng.poisson(mean[:, None] * common * own)
    both = count_scatter(sample(count, n=n, mass=mass), (0.0, 2500.0), None)
    # (1 + 0.09)(1 + 0.04) - 1 = 0.134 beyond Poisson, of which 0.04 x 1.09 between lines of sight;
    # the scatter of the mean, 0.02, adds to neither but through products: 1 %.
    assert both.value[2] == pytest.approx(np.sqrt(0.134), abs=0.02)
    assert both.value[3] == pytest.approx(np.sqrt(0.0436), abs=0.02)
    assert count_scatter(sample(count, n=n), (0.0, 2500.0), None).value[2] > both.value[2]


def test_the_page_says_first_where_a_mock_differs_from_its_box():
    same, moved = (measure(sample(v_r=lambda halo, r, at=at: at + 0.0 * r)) for at in (-200.0, -300.0))
    assert disagreements([("box", same), ("mock", same)]) == []
    said = disagreements([("box", same), ("mock", moved)])
    assert len(said) == 1
    assert said[0].startswith("mock, mean radial velocity [km/s], r [Mpc/h]: 1-1.5: -300 (box -200); ")
    assert tables([("box", same), ("mock", moved)]).count("**-300 +- 0**") == 5


def cylinders(n_galaxies, inside, mass):
    """Clusters whose galaxies stand at R = their mass, those inside R_vir first."""
    row = np.repeat(np.arange(len(mass)), n_galaxies)
    rank = np.concatenate([np.arange(n) for n in n_galaxies])
    x = np.asarray(mass)[row]
    galaxies = {"x": x, "y": 0.0 * x, "v_los": 0.0 * x, "gal_is_member": rank < np.asarray(inside)[row]}
    clusters = {
        "cluster_id": np.arange(len(mass)),
        "redshift": np.full(len(mass), 0.1),
        "log10_mass": np.asarray(mass),
    }
    return ClusterCatalog.from_arrays(clusters, galaxies, n_galaxies)


def test_a_swap_holds_the_members_of_one_and_the_surroundings_of_the_other_row_by_row():
    one, two = cylinders([4, 2], [3, 0], [14.0, 14.1]), cylinders([2, 5], [1, 2], [15.0, 15.1])
    both = swapped(one, two)
    assert both.n_galaxies.tolist() == [3 + 1, 0 + 3]
    assert both.galaxies("x").tolist() == pytest.approx([14.0, 14.0, 14.0, 15.0, 15.1, 15.1, 15.1])
    assert both.galaxies("gal_is_member").tolist() == [True] * 3 + [False] * 4
    assert both.column("log10_mass").tolist() == [14.0, 14.1]


@pytest.mark.parametrize("mass", [13.9, 14.0, 14.4])
def test_lines_of_sight_of_a_cluster_get_mocks_of_their_own_of_nearly_its_mass(mass):
    masses = np.random.default_rng(6).permutation(np.linspace(13.9, 14.4, 501))
    rows = np.concatenate(like_masses(np.full(LINES, mass), np.arange(LINES), masses))
    assert np.unique(rows).size == 2 * LINES
    # Six neighbours 0.001 apart, all on one side at an end.
    assert np.abs(masses[rows] - mass).max() < 0.0061

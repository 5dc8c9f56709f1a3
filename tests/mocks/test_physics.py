"""The ingredients of a mock cluster against closed forms, quadrature and their own definitions."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import quad

from bayesflowmass.cosmology import (
    MDPL2,
    SPEED_OF_LIGHT,
    comoving_distance,
    halo_bias,
    linear_correlation,
    mass_function,
    redshift_at_distance,
    velocity_dispersion_evrard,
)
from bayesflowmass.mocks import Component, MockParameters, simulate_catalog
from bayesflowmass.mocks.background import Background
from bayesflowmass.mocks.far import draw_superclusters, far_neighbours
from bayesflowmass.mocks.grids import Axis, Table1D, Table2D
from bayesflowmass.mocks.halos import draw_halos
from bayesflowmass.mocks.infall import infall_speed, radius_200m
from bayesflowmass.mocks.kinematics import equilibrium_velocities
from bayesflowmass.mocks.luminosity import LuminosityTable, magnitude_of_density, schechter_density
from bayesflowmass.mocks.near import draw_filaments, near_neighbours
from bayesflowmass.mocks.neighbours import Sightlines, virial_radius
from bayesflowmass.mocks.nfw import enclosed_mass, escape_speed
from bayesflowmass.mocks.profile import RadialTables, galaxy_density, jeans_dispersion
from bayesflowmass.mocks.projection import hubble_velocity
from bayesflowmass.mocks.shapes import lines_of_sight, random_rotations, sky_axes

Z = 0.117
P = MockParameters()


@pytest.fixture(scope="module")
def tables():
    return RadialTables.build(P)


@pytest.fixture(scope="module")
def background():
    return Background(P, MDPL2, (Z, Z), (13.2, 15.6))


def halos_of(log10_mass, background, rng, parameters=P):
    return draw_halos(log10_mass, np.full(log10_mass.size, Z), parameters, background, MDPL2, rng)


def views(n, n_projections, rng):
    z = lines_of_sight(n, n_projections, rng)
    return Sightlines(*sky_axes(z, rng), z)


@pytest.mark.parametrize("c", [2.0, 6.0, 15.0])
@pytest.mark.parametrize("b", [0.0, 0.5])
def test_jeans_dispersion_solves_the_jeans_equation(c, b):
    s = np.geomspace(1e-3, 3.0, 300)
    c_gal = 0.7 * c
    a = 1.0 / c

    def integrand(log_t):
        t = np.exp(log_t)
        nu = 1.0 / (t * (1.0 + c_gal * t) ** 2)
        return nu * (t + a) ** (2 * b) * enclosed_mass(t, np.array(c)) / t

    found = jeans_dispersion(s, c, c_gal, b)
    for k in (0, 150, 299):
        nu = 1.0 / (s[k] * (1.0 + c_gal * s[k]) ** 2)
        integral = quad(integrand, np.log(s[k]), np.log(3e3), limit=200)[0]
        assert found[k] == pytest.approx(np.sqrt(integral / (nu * (s[k] + a) ** (2 * b))), rel=2e-3)


def test_escape_speed_is_the_potential_difference_to_infinity():
    c, s = np.array(7.0), 0.3
    # v^2 / 2 = integral of the force G M(<t) / t^2, in units of V200c^2.
    work = quad(lambda t: float(enclosed_mass(np.array(t), c)) / t**2, s, np.inf)[0]
    assert escape_speed(np.array(s), c) == pytest.approx(np.sqrt(2 * work), rel=1e-6)


@pytest.mark.parametrize("c", [3.0, 9.0])
def test_drawn_radii_follow_the_density(tables, c):
    quantile = np.array([0.01, 0.2, 0.5, 0.9, 0.999])
    s = tables.draw_radius(quantile, np.full(5, np.log(c)))

    def shell(t):
        return t * t * galaxy_density(t, P.galaxy_concentration_ratio * c, P.outskirts_truncation)

    total = quad(shell, 0, P.outskirts_radius)[0]
    inside = [quad(shell, 0, edge)[0] / total for edge in s]
    np.testing.assert_allclose(inside, quantile, rtol=6e-3)
    np.testing.assert_allclose(tables.share_inside(s, np.full(5, np.log(c))), quantile, rtol=6e-3)


def test_velocities_have_the_anisotropy_and_stay_below_the_escape_speed(tables):
    rng = np.random.default_rng(1)
    n = 60000
    s, log_c = np.full(n, 0.4), np.full(n, np.log(5.0))
    radial = np.zeros((3, n))
    radial[0] = 1.0
    v = equilibrium_velocities(s, log_c, radial, tables, P, rng)
    speed = np.sqrt((v**2).sum(axis=0))
    assert speed.max() <= P.escape_fraction * escape_speed(s[:1], np.exp(log_c[:1]))[0]
    # Without the cut, which removes fast radial orbits first, the dispersions are those of Jeans.
    v = equilibrium_velocities(s, log_c, radial, tables, P.replace(escape_fraction=1.5), rng)
    beta = 1.0 - v[1:].var() / v[0].var()
    assert beta == pytest.approx(0.5 * 0.4 / (0.4 + 0.2), abs=0.02)
    assert v[0].std() == pytest.approx(tables.sigma_r(s[:1], log_c[:1])[0], rel=0.012)


@pytest.mark.parametrize("z", [0.01, 0.117, 0.5])
def test_hubble_velocity_equals_the_redshift_of_the_distance(z):
    depth = np.array([-45.0, -20.0, 3.0, 45.0])
    exact = redshift_at_distance(comoving_distance(z) + depth)
    expected = SPEED_OF_LIGHT * (exact - z) / (1.0 + z)
    np.testing.assert_allclose(hubble_velocity(depth, np.full(4, z), MDPL2), expected, atol=0.3)


def test_infall_has_the_published_speeds_in_units_of_v200c(background):
    rng = np.random.default_rng(2)
    halos = halos_of(np.array([14.5]), background, rng)
    r200m = radius_200m(halos, MDPL2)
    r = np.array([1.2, 2.0, 3.0]) * r200m
    speed = infall_speed(r, np.zeros(3, dtype=int), halos, r200m, P, background) / halos.v200c
    np.testing.assert_allclose(speed, [0.71, 0.55, 0.44], atol=0.03)
    # Turn-around: Hubble flow and infall cancel near 3 R200m.
    radii = np.linspace(1.5, 6.0, 200) * r200m
    net = background.hubble(np.array([Z])) * radii - infall_speed(
        radii, np.zeros(200, dtype=int), halos, r200m, P, background
    )
    assert 2.2 < radii[np.argmax(net > 0)] / r200m[0] < 4.5


def test_rotations_and_lines_of_sight_are_orthonormal():
    rng = np.random.default_rng(3)
    turn = random_rotations(50, rng)
    np.testing.assert_allclose(
        turn @ turn.transpose(0, 2, 1), np.broadcast_to(np.eye(3), turn.shape), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(turn), 1.0)
    lines = views(20, 3, rng)
    gram = lines.z @ lines.z.transpose(0, 2, 1)
    np.testing.assert_allclose(gram, np.broadcast_to(np.eye(3), gram.shape), atol=1e-12)
    frame = np.stack([lines.x, lines.y, lines.z], axis=-2)
    product = frame @ frame.swapaxes(-1, -2)
    np.testing.assert_allclose(product, np.broadcast_to(np.eye(3), product.shape), atol=1e-12)
    many = lines_of_sight(1, 100, rng)[0]
    angles = np.abs(many @ many.T) - 2 * np.eye(100)
    assert angles.max() < np.cos(0.1)


def test_projections_show_one_halo_from_three_sides():
    catalog = simulate_catalog(90, kind="pure", n_projections=3, log10_mass_range=(14.5, 15.0), seed=4)
    row = np.repeat(np.arange(90), catalog.n_galaxies)
    v = catalog.galaxies("v_los").astype(float)
    mean = np.bincount(row, v) / catalog.n_galaxies
    variance = np.bincount(row, (v - mean[row]) ** 2) / (catalog.n_galaxies - 1)
    halo = catalog.column("halo_id").reshape(-1, 3)
    assert (halo == halo[:, :1]).all()
    # Orthogonal lines of sight share the trace of one velocity tensor.
    np.testing.assert_allclose(
        np.sqrt(variance.reshape(-1, 3).mean(axis=1)), catalog.column("sigma_v_true")[::3], rtol=1e-5
    )
    square = np.bincount(row, catalog.r_proj.astype(float) ** 2).reshape(-1, 3)
    depth = square.sum(axis=1, keepdims=True) / 2 - square
    assert (depth > 0).all()
    np.testing.assert_allclose((catalog.column("los_angle_cos").reshape(-1, 3) ** 2).sum(axis=1), 1.0)


def test_far_haloes_have_the_mean_density_and_the_correlation(background):
    rng = np.random.default_rng(5)
    n = 3000
    halos = halos_of(np.full(n, 14.3), background, rng)
    lines, radius = views(n, 1, rng), 3.0
    population = background.hosts
    superclusters = draw_superclusters(halos, lines, radius, population, P, background, rng)
    r200m = radius_200m(halos, MDPL2)
    found = far_neighbours(halos, r200m, superclusters, lines, radius, population, P, background, rng)
    r = np.sqrt((found.position**2).sum(axis=0))
    assert r.min() >= P.near_radius
    assert lines.offset(found.halo, found.position, 0).max() <= radius * (1 + 1e-9)
    masses = np.linspace(np.log10(P.neighbour_min_mass), np.log10(P.neighbour_max_mass), 400)
    density = np.trapezoid(mass_function(masses, Z), masses)
    biased = np.trapezoid(mass_function(masses, Z) * halo_bias(masses, Z), masses)
    depth = np.linspace(P.near_radius, P.line_of_sight_depth, 400)
    xi = linear_correlation(depth, Z) * halo_bias(14.3, Z)
    expected = 2 * np.pi * radius**2 * np.trapezoid(density + biased * xi, depth)
    # Superclusters make counts vary by much more than Poisson: 3 % is about two standard errors.
    assert len(found) / n == pytest.approx(expected, rel=0.06)
    counts = np.bincount(found.halo, minlength=n)
    assert counts.var() > 1.3 * counts.mean()


def test_cylinders_that_overlap_hold_the_density_once(background):
    rng = np.random.default_rng(6)
    totals = []
    for n_projections, n in ((1, 2000), (25, 80)):
        halos = halos_of(np.full(n, 14.0), background, rng)
        lines, radius = views(n, n_projections, rng), 3.0
        superclusters = draw_superclusters(halos, lines, radius, background.hosts, P, background, rng)
        r200m = radius_200m(halos, MDPL2)
        found = far_neighbours(
            halos, r200m, superclusters, lines, radius, background.hosts, P, background, rng
        )
        inside = sum(
            (lines.offset(found.halo, found.position, j) < radius).sum() for j in range(n_projections)
        )
        totals.append(inside / (n * n_projections))
    assert totals[0] == pytest.approx(totals[1], rel=0.06)


def test_near_haloes_keep_their_distance_and_their_mean_number(background):
    rng = np.random.default_rng(7)
    n = 1500
    halos = halos_of(np.full(n, 14.3), background, rng)
    r200m = radius_200m(halos, MDPL2)
    filaments = draw_filaments(n, P, rng)
    found = near_neighbours(
        halos,
        r200m,
        np.ones(n),
        filaments,
        views(n, 1, rng),
        20.0,
        background.hosts,
        P,
        background,
        rng,
        with_satellites=True,
    )
    r = np.sqrt((found.position**2).sum(axis=0))
    assert np.all(r > P.exclusion * halos.r_vir[found.halo])
    assert np.all(r > P.exclusion * virial_radius(found.log10_mass, found.halo, halos, MDPL2))
    assert r.max() <= P.near_radius
    masses = np.linspace(np.log10(P.neighbour_min_mass), np.log10(P.neighbour_max_mass), 400)
    weight, bias = mass_function(masses, Z), halo_bias(masses, Z)
    radii = np.linspace(4.0, P.near_radius, 300)
    steep = P.infall_region_amplitude * (radii / (5 * r200m[0])) ** -P.infall_region_slope
    steep *= np.exp(-((radii / P.infall_region_cutoff) ** 2))
    xi = linear_correlation(radii, Z) * halo_bias(14.3, Z)
    density = np.trapezoid(weight, masses) + np.trapezoid(weight * bias, masses) * xi
    density += np.trapezoid(weight * bias**P.infall_region_bias_power, masses) * steep
    expected = np.trapezoid(4 * np.pi * radii**2 * density, radii)
    assert (r > 4.0).sum() / n == pytest.approx(expected, rel=0.03)
    # Filaments prefer the major axis: the first coordinate is longer.
    unit = found.position / r
    assert (unit[0] ** 2).mean() > 1 / 3 + 0.03


def test_richness_and_concentration_have_their_scatter_and_correlation(background):
    halos = halos_of(np.full(40000, 14.0), background, np.random.default_rng(8))
    log_n = np.log(halos.richness)
    assert halos.richness.mean() == pytest.approx(
        P.richness_at_1e14 * np.exp(-P.satellite_cutoff_mass / 1e14), rel=5e-3
    )
    assert log_n.std() == pytest.approx(P.richness_scatter, rel=0.02)
    assert halos.log_c.std() / np.log(10) == pytest.approx(P.concentration_scatter, rel=0.02)
    correlation = np.corrcoef(log_n, halos.log_c)[0, 1]
    assert correlation == pytest.approx(P.richness_concentration_correlation, abs=0.02)


def test_redshift_changes_dispersions_as_e_of_z():
    ratio = []
    for z in (0.05, 0.45, 1.2):
        pure = simulate_catalog(400, kind="pure", redshift=z, log10_mass_range=(14.4, 15.0), seed=9)
        evrard = velocity_dispersion_evrard(pure.column("log10_mass"), z)
        ratio.append(np.mean(pure.column("sigma_v_true") / evrard))
    assert ratio[1:] == pytest.approx([ratio[0]] * 2, rel=0.03)


def test_mass_function_sample_follows_the_mass_function():
    catalog = simulate_catalog(4000, masses="hmf", log10_mass_range=(14.0, 15.0), kind="pure", seed=10)
    edges = np.array([14.0, 14.1, 14.25, 14.5, 15.0])
    counts = np.histogram(catalog.column("log10_mass"), edges)[0]
    expected = [quad(lambda m: mass_function(m, Z), *pair)[0] for pair in pairwise(edges)]
    expected = np.array(expected) / sum(expected) * 4000
    assert np.sum((counts - expected) ** 2 / expected) < 16.0


def test_magnitudes_match_abundances_and_central_galaxies_are_brightest():
    x = np.array([-21.5, -20.0, -18.0])
    numeric = [
        quad(lambda t: 1.49e-2 * t**-1.05 * np.exp(-t), 10 ** (-0.4 * (m + 20.44)), np.inf)[0] for m in x
    ]
    np.testing.assert_allclose(schechter_density(x), numeric, rtol=1e-6)
    table = LuminosityTable(P.replace(luminosity_scatter=0.0), MDPL2, (Z, Z))
    median = table.draw(np.linspace(11.0, 15.0, 50), np.full(50, Z), np.random.default_rng(0))
    assert np.all(np.diff(median) < 0)
    np.testing.assert_allclose(magnitude_of_density(numeric), x, atol=1e-3)
    far = LuminosityTable(P.replace(luminosity_scatter=0.0), MDPL2, (Z, 1.2))
    again, distant = (far.draw(np.full(3, 12.5), np.full(3, z), np.random.default_rng(0)) for z in (Z, 1.2))
    # At z = 1.2 fewer haloes outweigh 10^12.5, so that as many galaxies are brighter: it is a brighter one.
    assert np.all(distant < again - 0.1)
    catalog = simulate_catalog(150, mode="survey", magnitudes=True, seed=11)
    magnitude = catalog.galaxies("gal_abs_mag")
    central = catalog.galaxies("gal_component") == Component.CENTRAL
    assert np.median(magnitude[central]) < np.percentile(magnitude[~central], 5)


def test_velocity_bias_scales_velocities_and_faint_galaxies_can_be_faster():
    base = simulate_catalog(150, kind="pure", seed=12)
    faster = simulate_catalog(150, kind="pure", seed=12, parameters=MockParameters(velocity_bias=1.05))
    np.testing.assert_allclose(faster.galaxies("v_los"), 1.05 * base.galaxies("v_los"), rtol=1e-5, atol=1e-2)
    segregated = simulate_catalog(
        300,
        kind="pure",
        magnitudes=True,
        seed=12,
        parameters=MockParameters(velocity_bias_slope=-0.2),
        log10_mass_range=(14.8, 15.0),
    )
    faint = segregated.galaxies("gal_abs_mag") > np.median(segregated.galaxies("gal_abs_mag"))
    v = segregated.galaxies("v_los")
    assert v[faint].std() > 1.05 * v[~faint].std()


def test_tables_interpolate_linearly_and_refuse_to_extrapolate():
    axis = Axis(0.0, 2.0, 5)
    table = Table2D(axis, axis, axis.points[:, None] * 2.0 + axis.points[None, :])
    x, y = np.array([0.1, 1.9]), np.array([1.3, 0.0])
    np.testing.assert_allclose(table(x, y), 2 * x + y)
    with pytest.raises(ValueError, match="leave the grid"):
        Table1D(axis, axis.points)(np.array([2.5]))
    with pytest.raises(ValueError, match="for a grid of 5 x 5"):
        Table2D(axis, axis, np.zeros(7))

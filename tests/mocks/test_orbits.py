"""Galaxies on orbits: the halo that they move in, what is drawn from the tables, and the classes in a catalogue."""

import numpy as np
import pytest

from bayesflowmass.cosmology import MDPL2, circular_velocity_delta, radius_delta, velocity_dispersion_evrard
from bayesflowmass.mocks import MockParameters, Orbit, simulate_catalog
from bayesflowmass.mocks.nfw import enclosed_mass
from bayesflowmass.mocks.orbits import _LOG_C, _REDSHIFT, OrbitTables, _Halo

SKY = MockParameters.preset("sky")


@pytest.fixture(scope="module")
def tables():
    return OrbitTables(SKY)


@pytest.fixture(scope="module")
def catalog():
    return simulate_catalog(60, mode="survey", log10_mass_range=(14.5, 15.2), parameters=SKY, seed=2)


def test_the_halo_grows_in_mass_and_radius_as_its_cosmology_says():
    halo, z = _Halo(0.9), np.array([_REDSHIFT, 0.5, 1.0])
    mass = np.exp(-0.9 * (z - _REDSHIFT))
    physical = radius_delta(15.0 + np.log10(mass), z, cosmology=MDPL2) / (1.0 + z)
    # Times: sinh^2(3/2 sqrt(Lambda) H0 t) is Lambda over matter.
    ratio = (1.0 / MDPL2.Om0 - 1.0) / (1.0 + z) ** 3
    times = halo.now * np.arcsinh(np.sqrt(ratio)) / np.arcsinh(np.sqrt(ratio[0]))
    for t, m, r in zip(times, mass, physical / physical[0], strict=True):
        np.testing.assert_allclose(halo.mass_and_radius(t), (m, r), rtol=1e-9)


def test_inside_the_halo_an_orbit_feels_the_enclosed_mass():
    halo = _Halo(0.9)
    r = np.array([0.2, 0.5, 0.9])
    position = np.broadcast_to(np.stack([r, 0.0 * r])[:, None], (2, _LOG_C.n, 3))
    pull = halo.pull(position, np.ones(()), np.ones(()))[0]
    expected = 0.01 * (1.0 - halo.omega) * r - enclosed_mass(r, np.exp(_LOG_C.points)[:, None]) / r**2
    np.testing.assert_allclose(pull, expected, rtol=0.02)  # the softening of 1e-3 over 0.2, cubed


def test_drawn_galaxies_have_the_share_inside_and_the_dispersion_of_the_halo(tables):
    n, rng = 200_000, np.random.default_rng(0)
    log_c, rate = np.full(n, np.log(4.0)), np.full(n, np.log10(0.3))
    placed = tables.place(tables.draw(log_c, rate, rng), rng)
    inside = placed.s < 1.0
    share = tables.share_inside(np.ones(1), log_c[:1], rate[:1])[0]
    assert inside.mean() == pytest.approx(share, abs=5.0 * np.sqrt(share * (1.0 - share) / n) + 1.0 / 400)
    sigma = np.sqrt((placed.velocity[:, inside] ** 2).mean())
    expected = velocity_dispersion_evrard(15.0, _REDSHIFT) / circular_velocity_delta(15.0, _REDSHIFT)
    assert sigma == pytest.approx(float(expected), rel=0.01)
    assert tables.particles[tables.draw(log_c, rate, rng, edge=np.full(n, 0.5)), 0].max() < 0.51


def test_galaxies_that_are_lost_sooner_leave_a_more_extended_profile(tables):
    n, rng = 20_000, np.random.default_rng(1)
    log_c, edge = np.full(n, np.log(4.0)), np.ones(n)
    median = [
        np.median(tables.particles[tables.draw(log_c, np.full(n, rate), rng, edge), 0])
        for rate in (-2.0, -0.7, 0.0)
    ]
    assert median[0] + 0.05 < median[1] < median[2] - 0.05


def test_orbits_in_a_catalogue_agree_with_where_its_galaxies_are(catalog):
    orbit, member = catalog.galaxies("gal_orbit"), catalog.galaxies("gal_is_member")
    assert set(np.unique(orbit)) == {int(one) for one in Orbit}
    # R_vir is 1.3 r200c: whoever is inside r200c is a member, and few who recede are.
    assert member[orbit == Orbit.RECENT].all()
    assert member[orbit == Orbit.INTERLOPER].mean() < 0.1
    rows = np.repeat(np.arange(len(catalog)), catalog.n_galaxies)
    fast = np.abs(catalog.galaxies("v_los")) > 3.0 * catalog.column("sigma_v_true")[rows]
    assert (orbit[fast] == Orbit.INTERLOPER).mean() > 2.0 * (orbit == Orbit.INTERLOPER).mean()


def test_the_dispersion_of_members_falls_with_radius_as_in_simulations(catalog):
    r200c = radius_delta(catalog.column("log10_mass"), 0.117)
    rows = np.repeat(np.arange(len(catalog)), catalog.n_galaxies)
    scaled = np.abs(catalog.galaxies("v_los")) / catalog.column("sigma_v_true")[rows]
    s, inside = catalog.r_proj / r200c[rows], catalog.galaxies("gal_orbit") <= Orbit.RECENT
    core, edge = (np.sqrt((scaled[inside & near] ** 2).mean()) for near in (s < 0.25, (s > 0.75) & (s < 1.0)))
    assert core / edge == pytest.approx(1.27 / 0.78, rel=0.15)


def test_presets_are_named_and_can_be_changed():
    assert MockParameters.preset("paper") == MockParameters()
    assert MockParameters.preset("sky", {"orbit_loss": 0.2}).orbit_loss == 0.2
    with pytest.raises(ValueError, match="one of paper, sky"):
        MockParameters.preset("ocean")

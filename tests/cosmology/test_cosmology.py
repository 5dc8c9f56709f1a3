"""Cosmology: closed forms, quadrature and colossus' own functions as references."""

from __future__ import annotations

import astropy.cosmology
import numpy as np
import pytest
from colossus.cosmology import cosmology as colossus_cosmology
from colossus.halo import mass_defs, mass_so
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import kstest

from bayesflowmass import cosmology as cosmo
from bayesflowmass.cosmology import MDPL2, Cosmology
from bayesflowmass.mocks.masses import sample_mass_function

Z = 0.117
logs = st.floats(13.0, 15.7)
redshifts = st.floats(0.005, 0.6)


@pytest.fixture
def colossus_mdpl2():
    before = colossus_cosmology.current_cosmo
    colossus_cosmology.setCurrent(
        colossus_cosmology.Cosmology(
            name="reference",
            flat=True,
            Om0=MDPL2.Om0,
            Ob0=MDPL2.Ob0,
            H0=100 * MDPL2.h,
            sigma8=MDPL2.sigma8,
            ns=MDPL2.ns,
            relspecies=False,
            persistence="",
        )
    )
    yield
    colossus_cosmology.current_cosmo = before


def test_expansion_rate_of_the_reference_snapshot():
    assert cosmo.efunc(Z) == pytest.approx(1.0587, abs=5e-5)
    assert cosmo.efunc(0.0) == 1.0


@given(redshifts)
@settings(deadline=None, max_examples=15)
def test_comoving_distance_is_the_integral_of_the_hubble_distance(z):
    integral = quad(lambda x: cosmo.SPEED_OF_LIGHT / 100.0 / float(cosmo.efunc(x)), 0.0, z)[0]
    assert cosmo.comoving_distance(z) == pytest.approx(integral, rel=1e-8)


def test_distance_in_front_of_a_host_at_redshift_zero_is_negative():
    assert cosmo.comoving_distance(-0.01) == pytest.approx(-29.979 * (1 + 0.5 * 1.5 * 0.307 * 0.01), rel=1e-3)


@given(st.floats(-0.05, 2.0))
@settings(deadline=None, max_examples=25)
def test_redshift_at_distance_inverts_the_distance(z):
    assert cosmo.redshift_at_distance(cosmo.comoving_distance(z)) == pytest.approx(z, abs=1e-12)


def test_transverse_scale_is_the_angular_diameter_distance_made_comoving():
    astropy_mdpl2 = astropy.cosmology.FlatLambdaCDM(H0=100 * MDPL2.h, Om0=MDPL2.Om0)
    per_radian = astropy_mdpl2.angular_diameter_distance(0.18).value * 1.18 * MDPL2.h
    assert cosmo.transverse_mpc_h_per_radian(0.18) == pytest.approx(per_radian, rel=1e-4)


@given(logs, redshifts, st.sampled_from(["200c", "500c", "200m", "vir"]))
@settings(deadline=None, max_examples=25)
def test_mass_inside_radius_has_the_density_of_its_definition(log_mass, z, mdef):
    radius = cosmo.radius_delta(log_mass, z, mdef, comoving=False)
    density = 10**log_mass / (4 / 3 * np.pi * radius**3)
    assert density / cosmo.critical_density(z) == pytest.approx(float(cosmo.overdensity(mdef, z)), rel=1e-10)
    assert cosmo.radius_delta(log_mass, z, mdef) == pytest.approx(radius * (1 + z))


@pytest.mark.parametrize("mdef", ["200c", "500c", "200m", "vir"])
def test_radius_agrees_with_colossus(mdef, colossus_mdpl2):
    expected = mass_so.M_to_R(1e15, Z, mdef) / 1000.0
    assert cosmo.radius_delta(15.0, Z, mdef, comoving=False) == pytest.approx(expected, rel=2e-4)


@pytest.mark.parametrize("mdef", ["200c", "500c", "200m", "vir"])
@pytest.mark.parametrize("comoving", [True, False])
def test_radius_at_a_circular_velocity_is_that_of_the_mass(mdef, comoving):
    mass, z = np.array([13.2, 14.5, 15.6]), np.array([0.0, 0.117, 0.6])
    velocity = cosmo.circular_velocity_delta(mass, z, mdef)
    found = cosmo.radius_at_circular_velocity(velocity, z, mdef, comoving=comoving)
    # Both go through rho_crit = 3 H^2 / (8 pi G): a few roundings.
    np.testing.assert_allclose(found, cosmo.radius_delta(mass, z, mdef, comoving=comoving), rtol=1e-13)


def test_circular_velocity_is_ten_hubble_times_radius_for_200c():
    # M = 100 H^2 R^3 / G, so V = sqrt(G M / R) = 10 H R.
    radius = cosmo.radius_delta(14.7, Z, comoving=False)
    expected = 1000.0 * cosmo.efunc(Z) * radius
    assert cosmo.circular_velocity_delta(14.7, Z) == pytest.approx(expected, rel=1e-9)


def test_evrard_dispersion_of_the_reference_halo():
    assert cosmo.velocity_dispersion_evrard(15.0, Z) == pytest.approx(1103.9, abs=0.1)


def test_concentration_table_agrees_with_direct_evaluation():
    rng = np.random.default_rng(1)
    mass, z = rng.uniform(13.2, 15.6, 200), rng.uniform(0.01, 0.5, 200)
    table = cosmo.concentration_median(mass, z)
    direct = [float(cosmo.concentration_median(mass[i], z[i])) for i in range(10)]
    np.testing.assert_allclose(table[:10], direct, rtol=2e-3)
    assert np.all(np.diff(cosmo.concentration_median(np.linspace(13, 15, 9), Z)) < 0)


def test_mass_function_counts_the_published_density():
    density = quad(lambda x: float(cosmo.mass_function(x, Z)), 13.5, 16.0, epsabs=1e-10)[0]
    assert density == pytest.approx(9.1e-5, rel=0.02)


def test_mass_function_table_agrees_with_direct_evaluation():
    rng = np.random.default_rng(2)
    mass, z = rng.uniform(13.2, 15.6, 100), rng.uniform(0.01, 0.5, 100)
    table = cosmo.mass_function(mass, z)
    direct = [float(cosmo.mass_function(mass[i], z[i])) for i in range(10)]
    np.testing.assert_allclose(table[:10], direct, rtol=6e-3)


@pytest.mark.parametrize("z", [Z, "many"])
def test_samples_follow_the_mass_function(z):
    n = 4000
    redshift = np.full(n, Z) if z == Z else Z + np.linspace(-1e-4, 1e-4, n)
    draws = sample_mass_function(n, 14.0, 15.5, redshift, np.random.default_rng(3))
    grid = np.linspace(14.0, 15.5, 3001)
    density = cosmo.mass_function(grid, Z)
    cdf = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]))])
    assert kstest(draws, lambda x: np.interp(x, grid, cdf / cdf[-1])).pvalue > 0.01
    again = sample_mass_function(n, 14.0, 15.5, redshift, np.random.default_rng(3))
    np.testing.assert_array_equal(draws, again)


@given(logs, redshifts, st.floats(1.5, 15.0), st.sampled_from(["500c", "vir", "200m"]))
@settings(deadline=None, max_examples=25)
def test_mass_conversion_with_given_concentration_comes_back(log_mass, z, c, mdef):
    there = cosmo.convert_mass(log_mass, z, "200c", mdef, concentration=c)
    assert cosmo.convert_mass(there, z, mdef, "200c", concentration=c) == pytest.approx(log_mass, abs=1e-11)


@pytest.mark.parametrize("mdef", ["500c", "200m", "vir"])
def test_mass_conversion_agrees_with_colossus(mdef, colossus_mdpl2):
    mass = np.array([14.0, 15.0])
    c = cosmo.concentration_median(mass, Z)
    expected = np.log10(mass_defs.changeMassDefinition(10**mass, c, Z, "200c", mdef)[0])
    np.testing.assert_allclose(cosmo.convert_mass(mass, Z, "200c", mdef), expected, atol=2e-4)
    np.testing.assert_allclose(cosmo.convert_mass(expected, Z, mdef, "200c"), mass, atol=2e-4)


def test_the_users_colossus_cosmology_is_left_alone(colossus_mdpl2):
    before = colossus_cosmology.getCurrent()
    cosmo.mass_function(14.0, Z, Cosmology(Om0=0.25, name="other"))
    assert colossus_cosmology.getCurrent() is before


def test_cosmology_survives_a_dictionary():
    other = Cosmology(Om0=0.3, h=0.7, name="other")
    assert Cosmology.from_dict(other.to_dict()) == other


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Cosmology(Om0=-0.3), "Om0 is -0.3"),
        (lambda: Cosmology(Om0=0.04), "Ob0 = 0.048206 must be smaller"),
        (lambda: Cosmology.from_dict({"omega_m": 0.3}), "unknown parameter 'omega_m'"),
        (lambda: cosmo.overdensity("virial", Z), "'virial' is unknown; expected 'vir', or a number"),
        (lambda: cosmo.efunc([0.1, np.nan]), "redshifts must be finite"),
        (lambda: cosmo.efunc(-2.0), "above -1"),
        (lambda: cosmo.mass_function(np.nan, Z), "masses must be finite"),
        (
            lambda: cosmo.convert_mass(14.0, Z, "200c", "500c", concentration=-1.0),
            "must be finite and positive",
        ),
        (
            lambda: sample_mass_function(3, 15.0, 14.0, Z, np.random.default_rng(0)),
            "must be below log10_max",
        ),
        (
            lambda: sample_mass_function(3, 14.0, 15.0, [0.1, 0.2], np.random.default_rng(0)),
            "expected 1 or n",
        ),
        (lambda: cosmo.redshift_at_distance(np.inf), "must be finite"),
    ],
)
def test_bad_input_is_refused_with_a_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()

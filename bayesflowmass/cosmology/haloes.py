"""Radii, velocities and masses of haloes in any definition."""

from __future__ import annotations

import math
import re

import numpy as np
from numpy.typing import ArrayLike

from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.cosmology.structure import concentration_median
from bayesflowmass.cosmology.universe import (
    GRAVITATIONAL_CONSTANT,
    MDPL2,
    Cosmology,
    critical_density,
    efunc,
    valid_redshifts,
)


def overdensity(mdef: str, z: ArrayLike, cosmology: Cosmology = MDPL2) -> FloatArray:
    """Mean density inside R_delta in units of the critical density at z.

    ``"vir"``: 18 pi^2 + 82 x - 39 x^2 with x = Om(z) - 1 (Bryan & Norman 1998, arXiv:astro-ph/9710107).

    Raises:
        ValueError: for an unknown mass definition.
    """
    omega_m = cosmology.Om0 * (1.0 + valid_redshifts(z)) ** 3 / efunc(z, cosmology) ** 2
    if mdef == "vir":
        x = omega_m - 1.0
        return np.asarray(18.0 * math.pi**2 + 82.0 * x - 39.0 * x**2)
    match = re.fullmatch(r"([1-9]\d*)([cm])", mdef) if isinstance(mdef, str) else None
    if match is None:
        raise ValueError(
            f"mass definition {mdef!r} is unknown; expected 'vir', or a number and c or m as in '200c'."
        )
    delta = float(match.group(1))
    return np.full_like(omega_m, delta) if match.group(2) == "c" else delta * omega_m


def radius_delta(
    log10_mass: ArrayLike,
    z: ArrayLike,
    mdef: str = "200c",
    *,
    comoving: bool = True,
    cosmology: Cosmology = MDPL2,
) -> FloatArray:
    """R_delta [Mpc/h, comoving or physical], from M_delta = (4/3) pi R^3 delta rho_crit(z)."""
    mass = 10.0 ** np.asarray(log10_mass, dtype=np.float64)
    density = overdensity(mdef, z, cosmology) * critical_density(z, cosmology)
    radius = np.cbrt(3.0 * mass / (4.0 * math.pi * density))
    return np.asarray(radius * (1.0 + valid_redshifts(z)) if comoving else radius)


def circular_velocity_delta(
    log10_mass: ArrayLike, z: ArrayLike, mdef: str = "200c", cosmology: Cosmology = MDPL2
) -> FloatArray:
    """V_delta = sqrt(G M / R_delta) [km/s], with R_delta physical."""
    mass = 10.0 ** np.asarray(log10_mass, dtype=np.float64)
    radius = radius_delta(log10_mass, z, mdef, comoving=False, cosmology=cosmology)
    return np.sqrt(GRAVITATIONAL_CONSTANT * mass / radius)


def radius_at_circular_velocity(
    velocity: ArrayLike,
    z: ArrayLike,
    mdef: str = "200c",
    *,
    comoving: bool = True,
    cosmology: Cosmology = MDPL2,
) -> FloatArray:
    """R_delta [Mpc/h, comoving or physical] of a halo of circular velocity V_delta [km/s], the inverse of
    `circular_velocity_delta`.

    V^2 = G M / R and M = (4/3) pi R^3 delta rho_crit give R = V / (H sqrt(delta / 2)), V / (10 H) for 200c.
    """
    hubble = 100.0 * efunc(z, cosmology)
    radius = np.asarray(velocity, dtype=np.float64) / (
        hubble * np.sqrt(0.5 * overdensity(mdef, z, cosmology))
    )
    return np.asarray(radius * (1.0 + valid_redshifts(z)) if comoving else radius)


def velocity_dispersion_evrard(
    log10_mass: ArrayLike, z: ArrayLike, cosmology: Cosmology = MDPL2
) -> FloatArray:
    """One-dimensional dispersion of dark matter [km/s] of a halo of mass M200c.

    sigma = 1082.9 (E(z) M / 10^15 Msun/h)^0.3361 (Evrard et al. 2008, arXiv:astro-ph/0702241). The paper
    writes h(z) = H(z) / (100 km/s/Mpc) with M in Msun, which is E(z) with M in Msun/h; reading h(z) with
    Msun/h costs 0.17 dex.
    """
    return (
        1082.9 * (efunc(z, cosmology) * 10.0 ** (np.asarray(log10_mass, dtype=np.float64) - 15.0)) ** 0.3361
    )


def convert_mass(
    log10_mass: ArrayLike,
    z: ArrayLike,
    mdef_from: str,
    mdef_to: str,
    *,
    concentration: ArrayLike | None = None,
    cosmology: Cosmology = MDPL2,
) -> FloatArray:
    """log10 mass in another definition [Msun/h], for an NFW profile.

    With m(y) = ln(1+y) - y/(1+y) and y = R/r_s, M_delta is proportional to m(y_delta), where
    m(y_delta)/y_delta^3 is proportional to the overdensity (Hu & Kravtsov 2003, arXiv:astro-ph/0203169).

    Args:
        log10_mass: mass in the definition ``mdef_from``.
        concentration: c_200c = R_200c / r_s, **whatever the two definitions are**; None takes the median of
            Diemer & Joyce (2019) at the implied M200c.

    Raises:
        ValueError: for an unknown mass definition or a concentration that is not positive.
    """
    mass = np.asarray(log10_mass, dtype=np.float64)
    if concentration is not None:
        c = np.asarray(concentration, dtype=np.float64)
        if not np.all((c > 0.0) & np.isfinite(c)):
            raise ValueError("convert_mass: concentrations must be finite and positive.")
        return mass + _mass_ratio(c, z, mdef_from, mdef_to, cosmology)
    log10_m200c = mass
    # The median depends on M200c so weakly that each step gains more than one digit.
    for _ in range(12 if mdef_from != "200c" else 0):
        c = concentration_median(log10_m200c, z, cosmology)
        log10_m200c = mass + _mass_ratio(c, z, mdef_from, "200c", cosmology)
    c = concentration_median(log10_m200c, z, cosmology)
    return mass + _mass_ratio(c, z, mdef_from, mdef_to, cosmology)


def _mass_ratio(
    c200c: FloatArray, z: ArrayLike, mdef_from: str, mdef_to: str, cosmology: Cosmology
) -> FloatArray:
    enclosed_from = _nfw_enclosed(_scaled_radius(c200c, z, mdef_from, cosmology))
    enclosed_to = _nfw_enclosed(_scaled_radius(c200c, z, mdef_to, cosmology))
    return np.log10(enclosed_to / enclosed_from)


def _scaled_radius(c200c: FloatArray, z: ArrayLike, mdef: str, cosmology: Cosmology) -> FloatArray:
    """y = R_delta / r_s from c_200c, by Newton steps in ln y on ln[m(y)/y^3]."""
    ratio = overdensity(mdef, z, cosmology) / 200.0
    target = np.log(_nfw_enclosed(c200c) / c200c**3 * ratio)
    log_y = np.log(c200c) - np.log(ratio) / 2.5 + 0.0 * target
    for _ in range(50):
        y = np.exp(log_y)
        enclosed = _nfw_enclosed(y)
        slope = (y / (1.0 + y)) ** 2 / enclosed - 3.0
        step = (np.log(enclosed) - 3.0 * log_y - target) / slope
        log_y = log_y - step
        if np.all(np.abs(step) < 1e-13):
            break
    return np.exp(log_y)


def _nfw_enclosed(y: FloatArray) -> FloatArray:
    return np.log1p(y) - y / (1.0 + y)

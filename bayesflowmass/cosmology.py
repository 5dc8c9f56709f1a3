"""Mass definitions, radii, velocities and the halo mass function of a flat LCDM universe.

Units, everywhere: masses are ``log10`` of Msun/h, lengths Mpc/h (comoving unless a name or a keyword says
otherwise), velocities km/s. A mass definition ``mdef`` is a spherical overdensity: ``"200c"`` and ``"500c"``
(times the critical density), ``"200m"`` (times the mean matter density) or ``"vir"`` (Bryan & Norman 1998,
arXiv:astro-ph/9710107). With M in Msun/h and R in Mpc/h the Hubble constant drops out of every relation here
except the shape of the power spectrum: ``h`` matters only to the concentration and to the mass function.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bayesflowmass.common.arrays import FloatArray

__all__ = [
    "MDPL2",
    "SPEED_OF_LIGHT",
    "Cosmology",
    "circular_velocity_delta",
    "comoving_distance",
    "concentration_median",
    "convert_mass",
    "critical_density",
    "efunc",
    "halo_bias",
    "linear_correlation",
    "mass_function",
    "overdensity",
    "radius_at_circular_velocity",
    "radius_delta",
    "redshift_at_distance",
    "redshift_nodes",
    "transverse_mpc_h_per_radian",
    "velocity_dispersion_evrard",
]


SPEED_OF_LIGHT = 299792.458
"""km/s."""
GRAVITATIONAL_CONSTANT = 4.300917270e-9
"""Mpc (km/s)^2 / Msun."""
CRITICAL_DENSITY_TODAY = 3.0 * 100.0**2 / (8.0 * math.pi * GRAVITATIONAL_CONSTANT)
"""Msun h^2 / Mpc^3."""

# Above this many distinct redshifts a table over redshift replaces one colossus call for each.
_MAX_DIRECT_REDSHIFTS = 4
_LOG10_MASS_STEP = 0.05
_REDSHIFT_STEP = 0.01


@dataclass(frozen=True)
class Cosmology:
    """A flat LCDM universe; the defaults are those of MDPL2 (Klypin et al. 2016, arXiv:1411.4001).

    Raises:
        ValueError: if a parameter is not a finite number in its physical range.
    """

    Om0: float = 0.307115
    h: float = 0.6777
    sigma8: float = 0.8228
    ns: float = 0.96
    Ob0: float = 0.048206
    name: str = "mdpl2"

    def __post_init__(self) -> None:
        unit, double = (0.0, 1.0), (0.0, 2.0)
        limits = {"Om0": unit, "h": (0.1, 2.0), "sigma8": (0.0, 3.0), "ns": double, "Ob0": unit}
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not isinstance(value, int | float) or not low < value <= high:
                raise ValueError(f"cosmology: {name} is {value!r}; expected a number in ({low}, {high}].")
        if self.Ob0 >= self.Om0:
            raise ValueError(f"cosmology: Ob0 = {self.Ob0} must be smaller than Om0 = {self.Om0}.")

    def to_dict(self) -> dict[str, Any]:
        """Parameters as a JSON-able dictionary."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Cosmology:
        """Inverse of `to_dict`; an unknown key is an error."""
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown:
            known = ", ".join(cls.__dataclass_fields__)
            raise ValueError(f"cosmology: unknown parameter {unknown[0]!r}; the parameters are {known}.")
        return cls(**values)


MDPL2 = Cosmology()


def efunc(z: ArrayLike, cosmology: Cosmology = MDPL2) -> FloatArray:
    """E(z) = H(z)/H0 = sqrt(Om0 (1+z)^3 + 1 - Om0), without radiation."""
    redshift = _redshift(z)
    return np.sqrt(cosmology.Om0 * (1.0 + redshift) ** 3 + 1.0 - cosmology.Om0)


def comoving_distance(z: ArrayLike, cosmology: Cosmology = MDPL2) -> FloatArray:
    """Line-of-sight comoving distance [Mpc/h]; negative for z < 0 (a galaxy in front of a host at z = 0)."""
    distance = _astropy(cosmology).comoving_distance(_redshift(z)).value
    return np.asarray(distance, dtype=np.float64)


def redshift_at_distance(distance: ArrayLike, cosmology: Cosmology = MDPL2) -> FloatArray:
    """Redshift at a comoving distance [Mpc/h]: the inverse of `comoving_distance`, to 1e-12 in z.

    Raises:
        ValueError: outside -2000 < distance < 8000 Mpc/h.
    """
    target = np.asarray(distance, dtype=np.float64)
    if not np.all((target > -2000.0) & (target < 8000.0)):
        raise ValueError("redshift_at_distance: distances must be finite and within (-2000, 8000) Mpc/h.")
    grid_z, grid_distance = _distance_table(cosmology)
    z = np.interp(target, grid_distance, grid_z)
    for _ in range(2):
        # Newton: dD/dz = c / H(z), with H0 = 100 h km/s/Mpc.
        z = z - (comoving_distance(z, cosmology) - target) * 100.0 * efunc(z, cosmology) / SPEED_OF_LIGHT
    return z


def transverse_mpc_h_per_radian(z: ArrayLike, cosmology: Cosmology = MDPL2) -> FloatArray:
    """Comoving Mpc/h per radian on the sky, d_A(z) (1+z) h; in a flat universe the comoving distance."""
    return comoving_distance(z, cosmology)


def critical_density(z: ArrayLike, cosmology: Cosmology = MDPL2) -> FloatArray:
    """Critical density 3 H(z)^2 / (8 pi G) [Msun h^2 / Mpc^3, or (Msun/h) per **physical** (Mpc/h)^3]."""
    return CRITICAL_DENSITY_TODAY * efunc(z, cosmology) ** 2


def overdensity(mdef: str, z: ArrayLike, cosmology: Cosmology = MDPL2) -> FloatArray:
    """Mean density inside R_delta in units of the critical density at z.

    ``"vir"``: 18 pi^2 + 82 x - 39 x^2 with x = Om(z) - 1 (Bryan & Norman 1998, arXiv:astro-ph/9710107).

    Raises:
        ValueError: for an unknown mass definition.
    """
    omega_m = cosmology.Om0 * (1.0 + _redshift(z)) ** 3 / efunc(z, cosmology) ** 2
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
    return np.asarray(radius * (1.0 + _redshift(z)) if comoving else radius)


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
    return np.asarray(radius * (1.0 + _redshift(z)) if comoving else radius)


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


def concentration_median(log10_mass: ArrayLike, z: ArrayLike, cosmology: Cosmology = MDPL2) -> FloatArray:
    """Median c_200c of a halo of mass M200c (Diemer & Joyce 2019, arXiv:1809.07326, by colossus).

    More than four distinct redshifts are interpolated on a table, accurate to 1e-3.
    """
    return _over_redshift(_concentration_at, log10_mass, z, cosmology)


def mass_function(log10_mass: ArrayLike, z: ArrayLike, cosmology: Cosmology = MDPL2) -> FloatArray:
    """dn/dlog10 M200c [(Mpc/h)^-3 per dex], comoving (Tinker et al. 2008, arXiv:0803.2706, by colossus).

    More than four distinct redshifts are interpolated on a table, accurate to 0.5 %.
    """
    return np.exp(_over_redshift(_log_mass_function_at, log10_mass, z, cosmology))


def halo_bias(log10_mass: ArrayLike, z: float, cosmology: Cosmology = MDPL2) -> FloatArray:
    """Linear bias of haloes of mass M200c at one redshift (Tinker et al. 2010, arXiv:1001.3162, by colossus)."""
    mass = np.atleast_1d(10.0 ** np.asarray(log10_mass, dtype=np.float64))
    with _colossus(cosmology) as colossus:
        bias = colossus.lss.bias.haloBias(mass, float(_redshift(z)), "200c", model="tinker10")
    return np.asarray(bias, dtype=np.float64)


def linear_correlation(r: ArrayLike, z: float, cosmology: Cosmology = MDPL2) -> FloatArray:
    """Linear matter correlation function at comoving separations r [Mpc/h] and one redshift (colossus)."""
    separation = np.atleast_1d(np.asarray(r, dtype=np.float64))
    with _colossus(cosmology) as colossus:
        correlation = colossus.cosmology.cosmology.getCurrent().correlationFunction(
            separation, float(_redshift(z))
        )
    return np.asarray(correlation, dtype=np.float64)


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


def _redshift(z: ArrayLike) -> FloatArray:
    redshift = np.asarray(z, dtype=np.float64)
    if not np.all(redshift > -1.0) or not np.all(np.isfinite(redshift)):
        raise ValueError("redshifts must be finite and above -1.")
    return redshift


@lru_cache(maxsize=16)
def _astropy(cosmology: Cosmology) -> Any:
    from astropy.cosmology import FlatLambdaCDM

    # H0 = 100: distances in Mpc/h; Tcmb0 = 0: no radiation, as in the N-body runs. Imported late for readers' sake.
    return FlatLambdaCDM(H0=100.0, Om0=cosmology.Om0, Tcmb0=0.0)


@lru_cache(maxsize=16)
def _distance_table(cosmology: Cosmology) -> tuple[FloatArray, FloatArray]:
    z = np.linspace(-0.6, 8.0, 4001)
    return z, comoving_distance(z, cosmology)


@contextmanager
def _colossus(cosmology: Cosmology) -> Iterator[Any]:
    """The package colossus, its global cosmology set; afterwards the one that was there is put back."""
    import colossus.cosmology.cosmology
    import colossus.halo.concentration
    import colossus.lss.bias
    import colossus.lss.mass_function

    state = colossus.cosmology.cosmology
    before = state.current_cosmo
    state.setCurrent(_colossus_cosmology(cosmology))
    try:
        yield colossus
    finally:
        state.current_cosmo = before


@lru_cache(maxsize=16)
def _colossus_cosmology(cosmology: Cosmology) -> Any:
    from colossus.cosmology import cosmology as colossus_cosmology

    return colossus_cosmology.Cosmology(
        name=f"bayesflowmass-{cosmology.name}",
        flat=True,
        Om0=cosmology.Om0,
        Ob0=cosmology.Ob0,
        H0=100.0 * cosmology.h,
        sigma8=cosmology.sigma8,
        ns=cosmology.ns,
        relspecies=False,
        persistence="",
    )


def _concentration_at(log10_mass: FloatArray, z: float, cosmology: Cosmology) -> FloatArray:
    with _colossus(cosmology) as colossus:
        masses = np.atleast_1d(10.0**log10_mass)
        median = colossus.halo.concentration.concentration(masses, "200c", z, model="diemer19")
    return np.asarray(median, dtype=np.float64)


def _log_mass_function_at(log10_mass: FloatArray, z: float, cosmology: Cosmology) -> FloatArray:
    with _colossus(cosmology) as colossus:
        mass = np.atleast_1d(10.0**log10_mass)
        density = colossus.lss.mass_function.massFunction(
            mass, z, mdef="200c", model="tinker08", q_in="M", q_out="dndlnM"
        )
    return np.log(np.asarray(density, dtype=np.float64) * math.log(10.0))


def redshift_nodes(redshifts: FloatArray) -> FloatArray:
    """Redshifts at which to compute what is smooth in redshift: the distinct ones where they are few, else a grid."""
    values = np.unique(redshifts)
    if values.size <= _MAX_DIRECT_REDSHIFTS:
        return values
    low, high = float(values.min()), float(values.max())
    return np.linspace(low, high, max(4, math.ceil((high - low) / _REDSHIFT_STEP) + 1))


def _over_redshift(function: Any, log10_mass: ArrayLike, z: ArrayLike, cosmology: Cosmology) -> FloatArray:
    """Evaluate function(masses, redshift, cosmology) over arrays of both; by a table for many redshifts."""
    from scipy.interpolate import RegularGridInterpolator

    mass, redshift = np.broadcast_arrays(np.asarray(log10_mass, dtype=np.float64), _redshift(z))
    result = np.empty(mass.shape)
    if mass.size == 0:
        return result
    if not np.all(np.isfinite(mass)):
        raise ValueError("masses must be finite log10 Msun/h.")
    nodes = redshift_nodes(redshift)
    if nodes.size <= _MAX_DIRECT_REDSHIFTS and np.isin(redshift, nodes).all():
        for value in nodes:
            chosen = redshift == value
            result[chosen] = function(mass[chosen], float(value), cosmology)
        return result
    low, high = float(mass.min()), float(mass.max())
    grid = np.linspace(low - 0.01, high + 0.01, max(4, math.ceil((high - low) / _LOG10_MASS_STEP) + 1))
    table = np.stack([function(grid, float(node), cosmology) for node in nodes])
    interpolate = RegularGridInterpolator((nodes, grid), table, method="cubic")
    return np.asarray(interpolate(np.stack([redshift.ravel(), mass.ravel()], axis=-1)).reshape(mass.shape))

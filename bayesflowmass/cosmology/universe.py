"""A flat LCDM universe: its parameters, E(z), distances and the critical density."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bayesflowmass.common.arrays import FloatArray

SPEED_OF_LIGHT = 299792.458
"""km/s."""
GRAVITATIONAL_CONSTANT = 4.300917270e-9
"""Mpc (km/s)^2 / Msun."""
CRITICAL_DENSITY_TODAY = 3.0 * 100.0**2 / (8.0 * math.pi * GRAVITATIONAL_CONSTANT)
"""Msun h^2 / Mpc^3."""


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
    redshift = valid_redshifts(z)
    return np.sqrt(cosmology.Om0 * (1.0 + redshift) ** 3 + 1.0 - cosmology.Om0)


def comoving_distance(z: ArrayLike, cosmology: Cosmology = MDPL2) -> FloatArray:
    """Line-of-sight comoving distance [Mpc/h]; negative for z < 0 (a galaxy in front of a host at z = 0)."""
    distance = _astropy(cosmology).comoving_distance(valid_redshifts(z)).value
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


def valid_redshifts(z: ArrayLike) -> FloatArray:
    """Redshifts as an array; ValueError where one is not finite or not above -1."""
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

"""Declared units, brought to ours: degrees, km/s, comoving Mpc/h, log10 of Msun/h."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
from astropy import units
from numpy.typing import ArrayLike

from bayesflowmass.catalog import CatalogError
from bayesflowmass.common.arrays import FloatArray

__all__ = [
    "angle_to_degrees",
    "length_to_comoving",
    "mass_to_log10_msun_h",
    "redshift_from",
    "velocity_to_km_s",
]

_OUR_LENGTHS = {"Mpc/h", "Mpch-1", "Mpc.h-1", "h-1Mpc", "cMpc/h", "Mpc/hcomoving", "comovingMpc/h", "Mpch^-1"}
_LENGTH = re.compile(r"(?:(comoving|proper|physical)\s*)?(kpc|Mpc)\s*(/\s*h)?$")
_OUR_MASSES = {"log10M200c[Msun/h]", "log10(Msun/h)", "dex(Msun/h)", "[Msun/h]", "Msun/h", "log10Msun/h"}
_SPEED_OF_LIGHT = 299792.458


def angle_to_degrees(values: FloatArray, unit: str | None, where: str) -> FloatArray:
    """Degrees from any unit of angle; None means degrees.

    Raises:
        CatalogError: for an unknown unit, or radians with values that only degrees have.
    """
    factor = _factor(unit, "deg", where, "an angle such as deg, rad or hourangle")
    if unit is not None and factor > 50.0 and np.any(np.abs(values) > 2.0 * np.pi + 1e-6):
        worst = values[np.argmax(np.abs(values))]
        raise CatalogError(
            f"{where} is declared in {unit} but reaches {worst:g}, as degrees do; correct its unit."
        )
    return values * factor


def velocity_to_km_s(values: FloatArray, unit: str | None, where: str) -> FloatArray:
    """km/s from any unit of velocity; None means km/s.

    Raises:
        CatalogError: for an unknown unit.
    """
    return values * _factor(unit, "km/s", where, "a velocity such as km/s")


def redshift_from(values: FloatArray, unit: str | None, where: str) -> FloatArray:
    """A redshift from a dimensionless number, or from cz in a declared unit of velocity.

    Raises:
        CatalogError: for an unknown unit.
    """
    if unit in (None, "", "---", "dimensionless"):
        return values
    return velocity_to_km_s(values, unit, where) / _SPEED_OF_LIGHT


def length_to_comoving(
    values: FloatArray, unit: str | None, where: str, h: float, redshift: Callable[[], ArrayLike]
) -> FloatArray:
    """Comoving Mpc/h from ``[comoving|proper] kpc|Mpc[/h]``; None means comoving Mpc/h.

    Args:
        redshift: called where a proper length needs it.

    Raises:
        CatalogError: for an unknown unit, or kpc and Mpc without the word that says which they are.
    """
    if unit is None or unit.replace(" ", "") in _OUR_LENGTHS:
        return values
    match = _LENGTH.match(unit.strip())
    if match is None:
        raise CatalogError(
            f"{where} has the unknown unit {unit!r}; expected '[comoving|proper] kpc|Mpc[/h]', as in "
            f"'proper kpc'."
        )
    frame, length, per_h = match.groups()
    if frame is None:
        raise CatalogError(
            f"{where} is in {unit}, and the catalogue needs comoving Mpc/h; say which it is and it is "
            f"converted: unit 'proper {unit}' or 'comoving {unit}'."
        )
    result: FloatArray = values * (1e-3 if length == "kpc" else 1.0) * (1.0 if per_h else h)
    return result if frame == "comoving" else result * (1.0 + np.asarray(redshift()))


def mass_to_log10_msun_h(values: FloatArray, unit: str | None, where: str, h: float) -> FloatArray:
    """log10 of M200c in Msun/h; None means that already, and ``dex(solMass)`` that without h.

    Raises:
        CatalogError: for a unit of mass that is not logarithmic, or a value that cannot be a logarithm.
    """
    compact = None if unit is None else unit.replace(" ", "")
    if np.any(values > 100.0):
        value = values[np.argmax(values)]
        raise CatalogError(
            f"{where} reaches {value:g}, so it is a mass and not its log10; expected log10 of M200c in "
            f"Msun/h (here {np.log10(value):.3f} if it is in Msun/h, {np.log10(value * h):.3f} if it is in "
            "Msun)."
        )
    if compact is None or compact in _OUR_MASSES:
        return values
    if compact in ("dex(solMass)", "dex(Msun)", "log10(Msun)", "[solMass]", "[Msun]"):
        return values + float(np.log10(h))
    raise CatalogError(f"{where} has the unit {unit!r}; expected log10 of M200c in Msun/h.")


def _factor(unit: str | None, ours: str, where: str, expected: str) -> float:
    if unit is None:
        return 1.0
    try:
        return float(units.Unit(unit).to(units.Unit(ours)))
    except (ValueError, TypeError, units.UnitConversionError):
        raise CatalogError(
            f"{where} has the unit {unit!r}, which is unknown or unfit; expected {expected}."
        ) from None

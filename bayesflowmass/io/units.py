"""Declared units, brought to ours: degrees, km/s, comoving Mpc/h, log10 of Msun/h."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
from astropy import units

from bayesflowmass.catalog import CatalogError
from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.cosmology import SPEED_OF_LIGHT, Cosmology, transverse_mpc_h_per_radian

_PER_H = re.compile(r"/h(?![0-9a-z])|h\^?\(?-1\)?|h\*\*\(?-1\)?", re.I)
_LENGTH = re.compile(r"(comoving|proper|physical|c|p|)(kpc|Mpc)(comoving|proper|physical|)$")
_SPELLINGS = {
    "km/s": (
        *("kms", "kms-1", "kms^-1", "kms**-1", "km.s-1", "km*s^-1", "km.s**-1"),
        *("km/sec", "kmsec-1", "km/second"),
    ),
    "deg": ("degree", "degrees", "degs", "decimaldegrees", "decimaldeg", "ddeg", "\u00b0"),
    "hourangle": ("h", "hr", "hrs", "hour", "hours"),
}
_NO_UNIT = ("", "-", "--", "---", "none", "dimensionless", "redshift", "unitless", "1")
_OUR_MASSES = {"log10M200c[Msun/h]", "log10(Msun/h)", "dex(Msun/h)", "[Msun/h]", "Msun/h", "log10Msun/h"}


def angle_to_degrees(values: FloatArray, unit: str | None, where: str) -> FloatArray:
    """Degrees from any unit of angle; None means degrees."""
    factor = _factor(unit, "deg", where, "an angle such as deg, rad or hourangle")
    if unit is not None and factor > 50.0 and np.any(np.abs(values) > 2.0 * np.pi + 1e-6):
        worst = values[np.nanargmax(np.abs(values))]
        raise CatalogError(
            f"{where} is declared in {unit} but reaches {worst:g}, as degrees do; correct its unit."
        )
    return values * factor


def velocity_to_km_s(values: FloatArray, unit: str | None, where: str) -> FloatArray:
    """km/s from any unit of velocity; None means km/s."""
    return values * _factor(unit, "km/s", where, "a velocity such as km/s")


def redshift_from(values: FloatArray, unit: str | None, where: str) -> FloatArray:
    """A redshift from a dimensionless number, or from cz in a declared unit of velocity."""
    if unit is None or unit.strip().lower() in _NO_UNIT:
        return values
    return velocity_to_km_s(values, unit, where) / SPEED_OF_LIGHT


def length_to_comoving(
    values: FloatArray,
    unit: str | None,
    where: str,
    cosmology: Cosmology,
    redshift: Callable[[], FloatArray],
    made_with: Cosmology | None = None,
) -> FloatArray:
    """Comoving Mpc/h from ``[comoving|proper] kpc|Mpc[/h]``, or from an angle; None means comoving Mpc/h.

    A length of another cosmology becomes the angle that it stands for, and that a length of ours.

    Args:
        cosmology: ours.
        redshift: of each galaxy's cluster; called where it is needed.
        made_with: cosmology of the table; None takes ours.
    """
    angle = None if unit is None else _angle(unit)
    if angle is not None:
        return values * angle * transverse_mpc_h_per_radian(redshift(), cosmology)
    theirs = cosmology if made_with is None else made_with
    result = values * _mpc_h(unit, where, theirs.h, redshift)
    if theirs is cosmology:
        return result
    z = redshift()
    return result * transverse_mpc_h_per_radian(z, cosmology) / transverse_mpc_h_per_radian(z, theirs)


def cosmology_from_text(text: str) -> Cosmology:
    """A flat cosmology from ``"H0,Om"``, such as ``"70,0.3"``."""
    try:
        h0, om = (float(word) for word in text.replace(",", " ").split())
        return Cosmology(h=h0 / 100.0, Om0=om, name=f"H0={h0:g},Om={om:g}")
    except ValueError as error:
        raise CatalogError(
            f"the cosmology of the table is {text!r}; expected H0,Om of a flat universe, such as 70,0.3."
        ) from error


def radius_from_text(text: str | float, redshift: FloatArray, cosmology: Cosmology) -> FloatArray:
    """Comoving Mpc/h (n,) of one radius at redshifts (n,): ``1.2``, ``"5 arcmin"``, ``"1 proper Mpc"``."""
    number, _, unit = str(text).strip().partition(" ")
    try:
        value = float(number)
    except ValueError:
        value = np.nan
    if not 0.0 < value < np.inf:
        raise CatalogError(f"the aperture is {text!r}; expected a radius above 0, such as 1.2 or '5 arcmin'.")
    values = np.full(redshift.size, value)
    return length_to_comoving(values, unit or None, "the aperture", cosmology, lambda: redshift)


def length_per_h(unit: str) -> bool:
    """Whether a unit of length is divided by h, so that the Hubble constant of the table does not matter."""
    return _PER_H.search(re.sub(r"\s+", "", unit)) is not None


def _mpc_h(unit: str | None, where: str, h: float, redshift: Callable[[], FloatArray]) -> FloatArray | float:
    """What a length in a unit is multiplied with to be comoving Mpc/h."""
    if unit is None:
        return 1.0
    compact = re.sub(r"\s+", "", unit)
    per_h = _PER_H.search(compact) is not None
    match = _LENGTH.match(re.sub(r"[.*]", "", _PER_H.sub("", compact)))
    if match is None:
        other = " (h70 is another Hubble constant: declare 'proper Mpc' or 'comoving Mpc', and the table's cosmology)"
        raise CatalogError(
            f"{where} has the unknown unit {unit!r}; expected '[comoving|proper] kpc|Mpc[/h]', as in 'proper kpc'"
            f"{other if 'h70' in compact.replace('_', '') else ''}."
        )
    frame, length = match.group(1) or match.group(3), match.group(2)
    if not frame and not (length == "Mpc" and per_h):
        raise CatalogError(
            f"{where} is in {unit}, and the catalogue needs comoving Mpc/h; say which it is and it is "
            f"converted: unit 'proper {unit}' or 'comoving {unit}'."
        )
    factor = (1e-3 if length == "kpc" else 1.0) * (1.0 if per_h else h)
    return factor if frame in ("", "comoving", "c") else factor * (1.0 + redshift())


def _angle(unit: str) -> float | None:
    """Radians in a unit of angle; None for another unit."""
    try:
        return float(units.Unit(_spelt(unit)).to(units.rad))
    except (ValueError, TypeError, units.UnitConversionError):
        return None


def mass_to_log10_msun_h(values: FloatArray, unit: str | None, where: str, h: float) -> FloatArray:
    """log10 of M200c in Msun/h; None means that already, and ``dex(solMass)`` that without h."""
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
        return float(units.Unit(_spelt(unit)).to(units.Unit(ours)))
    except (ValueError, TypeError, units.UnitConversionError):
        raise CatalogError(
            f"{where} has the unit {unit!r}, which is unknown or unfit; expected {expected}."
        ) from None


def _spelt(unit: str) -> str:
    """A unit as astropy spells it, for the spellings of the field that it does not know."""
    compact = re.sub(r"\s+", "", unit).lower()
    return next((name for name, others in _SPELLINGS.items() if compact == name or compact in others), unit)

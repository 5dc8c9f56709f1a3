"""Galaxies from a table of VizieR: columns found by their UCDs, whatever they are called."""

from __future__ import annotations

from typing import Any

import numpy as np
from astropy.table import Table

from bayesflowmass.catalog import CatalogError
from bayesflowmass.cosmology import SPEED_OF_LIGHT
from bayesflowmass.io import units as convert
from bayesflowmass.io.duplicates import DISCORDANT
from bayesflowmass.io.formats import Reading
from bayesflowmass.io.formats.columns import carry_others, numbers, plural, text
from bayesflowmass.io.formats.spectra import best_measurements

_REDSHIFT = ("src.redshift",)
_VELOCITY = ("spect.dopplerveloc", "phys.veloc")
_PHOTOMETRIC = ("src.redshift.phot",)
_POSITION = (("_RAJ2000", "_DEJ2000"), ("RAJ2000", "DEJ2000"), ("RA_ICRS", "DE_ICRS"))
_OF_OTHERS = ("stat.error", "meta.ref", "meta.code", "meta.note", "stat.stdev", "meta.number")


def ucd_of(column: Any) -> str:
    """UCD of a column in lower case, empty where it has none."""
    return str(column.meta.get("ucd") or "").lower()


def redshift_columns(table: Table) -> list[str]:
    """Columns with a spectroscopic redshift or a velocity, the most direct first: `src.redshift`, then velocities."""
    found = []
    for sort in (_REDSHIFT, _VELOCITY):
        for name in table.colnames:
            words = ucd_of(table[name]).split(";")
            first = words[0].strip()
            matches = any(first == word or first.startswith(f"{word}.") for word in sort)
            if matches and not first.startswith(_PHOTOMETRIC) and not _is_dispersion(words):
                found.append(name)
    return found


def galaxies_by_ucd(table: Table, where: str, redshift: str | None = None) -> Reading:
    """Galaxies with ``ra, dec, z`` and, where there is one, ``z_err``.

    Rows without a redshift, or with one of exactly 0 or below -0.1, are left out and counted; of rows within one
    arcsecond the one with the smallest error is kept.

    Args:
        table: with UCDs in ``column.meta["ucd"]``.
        where: names it in messages.
        redshift: the column to take; by default the first of `redshift_columns`.
    """
    place = next((pair for pair in _POSITION if set(pair).issubset(table.colnames)), None)
    if place is None:
        raise CatalogError(f"{where}: no position in degrees among {', '.join(table.colnames)}.")
    candidates = redshift_columns(table)
    if redshift is not None and redshift not in table.colnames:
        raise CatalogError(f"{where}: there is no column {redshift} (there are {', '.join(table.colnames)}).")
    if redshift is None and not candidates:
        raise CatalogError(
            f"{where}: no column has the UCD of a spectroscopic redshift; name it with --redshift-column (there are "
            f"{', '.join(table.colnames)})."
        )
    chosen = redshift or candidates[0]
    z = _redshift(table, chosen, where)
    ra, dec = (numbers(table, name, where) for name in place)
    error = _error_of(table, chosen)
    used = [one for one in (*place, chosen, error) if one is not None]
    z_err = None if error is None else _redshift(table, error, where)
    bad = {
        "no_redshift": ~(np.isfinite(z) & (z != 0.0) & (z > -0.1)),
        "no_position": ~(np.isfinite(ra) & np.isfinite(dec)),
    }
    kept, counts = best_measurements(where, "rows", bad, ra, dec, z, z_err)
    discordant = counts.pop("discordant")
    made: dict[str, Any] = {"ra": ra[kept], "dec": dec[kept], "z": z[kept]}
    if z_err is not None:
        made["z_err"] = np.where(z_err[kept] > 0.0, z_err[kept], np.nan)
    name = next((n for n in table.colnames if ucd_of(table[n]).startswith("meta.id")), None)
    if name is not None:
        made["galaxy_id"] = text(table, name)[kept]
        used.append(name)
    others = [c for c in candidates if c != chosen]
    notes = [
        f"{plural(len(table), 'row')}, {plural(len(kept), 'galaxy', 'galaxies')} kept: {counts['no_redshift']} "
        f"without a redshift, {counts['repeated']} within 1 arcsec of another; redshifts from {chosen}"
        f"{' (also there: ' + ', '.join(others) + ')' if others else ''}."
    ]
    if discordant:
        notes.append(
            f"{plural(discordant, 'galaxy', 'galaxies')} with redshifts more than {DISCORDANT:.0f} km/s apart."
        )
    return Reading(galaxies=carry_others(table, used, made, kept), notes=tuple(notes), counts=counts)


def _redshift(table: Table, name: str, where: str) -> Any:
    """A column as redshift: velocities by their UCD or unit, divided by c (cz, the optical convention)."""
    values = numbers(table, name, where)
    unit = None if table[name].unit is None else str(table[name].unit)
    place = f"{where}: {name}"
    if unit not in (None, "", "---"):
        return convert.redshift_from(values, unit, place)
    velocity = any(ucd_of(table[name]).replace("stat.error;", "").startswith(word) for word in _VELOCITY)
    return values / SPEED_OF_LIGHT if velocity else values


def _error_of(table: Table, name: str) -> str | None:
    """The error of a column: named e_NAME as VizieR does, or with the UCD of an error of it."""
    if f"e_{name}" in table.colnames:
        return f"e_{name}"
    wanted = f"stat.error;{ucd_of(table[name]).split(';')[0]}"
    return next((n for n in table.colnames if ucd_of(table[n]).startswith(wanted)), None)


def _is_dispersion(words: list[str]) -> bool:
    return any(word.strip().startswith(_OF_OTHERS) or "dispersion" in word for word in words)

"""What tables of spectroscopic surveys share: bad rows left out, one measurement of each object kept, both counted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesflowmass.catalog import CatalogError
from bayesflowmass.common.arrays import BoolArray, FloatArray, IntArray
from bayesflowmass.io.duplicates import DISCORDANT, find_duplicates
from bayesflowmass.io.formats.base import Reading
from bayesflowmass.io.formats.columns import carry_others, numbers, plural, text, whole_ids


def best_measurements(
    where: str,
    what: str,
    bad: Mapping[str, BoolArray],
    ra: FloatArray,
    dec: FloatArray,
    z: FloatArray,
    z_err: FloatArray | None = None,
    ids: NDArray[Any] | None = None,
) -> tuple[IntArray, dict[str, int]]:
    """Rows of the best measurement of each object among those that are not bad (`find_duplicates`), and counts.

    Args:
        where, what: the table and its rows, for messages.
        bad: ``{reason: rows (n,)}`` that are left out.
        ra, dec, z, z_err, ids: see `find_duplicates` (n,).
    """
    rows = np.flatnonzero(~np.any(list(bad.values()), axis=0))
    counts = {name: int(mask.sum()) for name, mask in bad.items()}
    if rows.size == 0:
        found = ", ".join(f"{name.replace('_', ' ')} {number}" for name, number in counts.items())
        raise CatalogError(f"{where}: none of the {ra.size} {what} is a galaxy with a redshift ({found}).")
    others = [None if one is None else one[rows] for one in (z_err, ids)]
    twice = find_duplicates(ra[rows], dec[rows], z[rows], *others)
    return rows[twice.kept], counts | {"repeated": twice.repeated, "discordant": twice.discordant}


def galaxies_of_spectra(table: Any, where: str, used: Mapping[str, str]) -> Reading:
    """Galaxies with ``galaxy_id, ra, dec, z`` and, where there is one, ``z_err``.

    Rows without a redshift or a position, with a warning that is not 0, or of another class than GALAXY are left out
    and counted; of rows with one id, or within one arcsecond, the one with the smallest error is kept.

    Args:
        table: astropy table.
        where: names it in messages.
        used: names in the table of ``galaxy_id, ra, dec, z`` and perhaps ``z_err, warning, class``.
    """
    z, ra, dec = (numbers(table, used[name], where) for name in ("z", "ra", "dec"))
    bad: dict[str, BoolArray] = {"no_redshift": ~(np.isfinite(z) & (z != 0.0) & (z > -0.1) & (z < 9.0))}
    if "warning" in used:
        bad["redshift_warning"] = ~(numbers(table, used["warning"], where) == 0.0)
    if "class" in used:
        bad["no_galaxy"] = np.char.upper(text(table, used["class"])) != "GALAXY"
    bad["no_position"] = ~(np.isfinite(ra) & np.isfinite(dec))
    error = numbers(table, used["z_err"], where) if "z_err" in used else None
    ids = whole_ids(table, used["galaxy_id"], where)
    kept, counts = best_measurements(where, "rows", bad, ra, dec, z, error, ids)
    made = {"galaxy_id": ids[kept], "ra": ra[kept], "dec": dec[kept], "z": z[kept]}
    if error is not None:
        made["z_err"] = np.where(error[kept] > 0.0, error[kept], np.nan)
    left_out = ", ".join(f"{counts[name]} {name.replace('_', ' ')}" for name in bad if counts[name])
    notes = [
        f"{plural(len(table), 'row')}, {plural(len(kept), 'galaxy', 'galaxies')}: "
        f"{plural(counts['repeated'], 'repeated measurement')} left out, the one with the smallest error kept"
        f"{'; left out: ' + left_out if left_out else ''}."
    ]
    if counts["discordant"]:
        notes.append(
            f"{plural(counts['discordant'], 'galaxy', 'galaxies')} with measurements that differ by more than "
            f"{DISCORDANT:.0f} km/s; look at the spectra."
        )
    notes.append("redshifts are heliocentric.")
    galaxies = carry_others(table, used.values(), made, kept)
    return Reading(galaxies=galaxies, notes=tuple(notes), counts=counts, used=dict(used))

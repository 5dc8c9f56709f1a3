"""Exports of the SDSS SkyServer and CasJobs: one row per spectrum, so a galaxy may be there twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bayesflowmass.catalog import CatalogError
from bayesflowmass.cosmology import MDPL2, Cosmology
from bayesflowmass.io.duplicates import DISCORDANT, find_duplicates
from bayesflowmass.io.formats.base import Reading, TableFormat, normal_name
from bayesflowmass.io.formats.columns import carry_others, find_column, numbers, plural, require_column, text

__all__ = ["SkyServer"]

_IDS = ("objid", "bestobjid", "specobjid")
_REDSHIFTS = ("specz", "z", "redshift")
_ERRORS = ("speczerr", "zerr", "redshift_err")


class SkyServer(TableFormat):
    """``objid, ra, dec, specz, speczerr`` or ``specObjID, ra, dec, z, zErr, zWarning, class``.

    Stars and quasars (``class``), spectra with a ``zWarning`` and rows without a redshift are left out and
    counted; of an object with several spectra the one with the smallest error is kept.
    """

    name = "skyserver"
    title = "SDSS SkyServer export"
    place = 100
    gives = ("galaxies",)

    def matches(self, columns: Sequence[str]) -> bool:
        """By an SDSS object id beside a redshift and its error or warning."""
        names = {normal_name(name) for name in columns}
        redshift = "specz" in names or ("z" in names and bool({"zerr", "zwarning"} & names))
        return {"ra", "dec"} <= names and bool(set(_IDS) & names) and redshift

    def convert(self, table: Any, where: str, cosmology: Cosmology = MDPL2) -> Reading:
        """See `TableFormat.convert`."""
        used = {"ra": require_column(table, where, "ra"), "dec": require_column(table, where, "dec")}
        used["galaxy_id"] = require_column(table, where, *_IDS)
        used["z"] = require_column(table, where, *_REDSHIFTS)
        for ours, theirs in (("z_err", _ERRORS), ("warning", ("zwarning",)), ("class", ("class",))):
            if (found := find_column(table, *theirs)) is not None:
                used[ours] = found
        z = numbers(table, used["z"], where)
        bad = {"no_redshift": ~(np.isfinite(z) & (z != 0.0) & (z > -0.1))}
        if "warning" in used:
            bad["redshift_warning"] = ~(numbers(table, used["warning"], where) == 0.0)
        if "class" in used:
            bad["no_galaxy"] = np.char.upper(text(table, used["class"])) != "GALAXY"
        ra, dec = (numbers(table, used[name], where) for name in ("ra", "dec"))
        bad["no_position"] = ~(np.isfinite(ra) & np.isfinite(dec))
        rows = np.flatnonzero(~np.any(list(bad.values()), axis=0))
        if rows.size == 0:
            found = ", ".join(f"{name.replace('_', ' ')} {int(mask.sum())}" for name, mask in bad.items())
            raise CatalogError(
                f"{where}: none of the {len(table)} rows is a galaxy with a redshift ({found})."
            )
        error = numbers(table, used["z_err"], where) if "z_err" in used else None
        ids = np.ma.getdata(np.ma.asarray(table[used["galaxy_id"]]))
        if ids.dtype.kind == "f":
            raise CatalogError(
                f"{where}: {used['galaxy_id']} is stored as {ids.dtype}; SDSS ids have 19 digits and floats keep 16: "
                "export it as text or as whole numbers."
            )
        twice = find_duplicates(
            ra[rows], dec[rows], z[rows], None if error is None else error[rows], ids[rows]
        )
        kept = rows[twice.kept]
        made = {"galaxy_id": ids[kept], "ra": ra[kept], "dec": dec[kept], "z": z[kept]}
        if error is not None:
            made["z_err"] = np.where(error[kept] > 0.0, error[kept], np.nan)
        counts = {name: int(mask.sum()) for name, mask in bad.items()}
        counts |= {"repeated": twice.repeated, "discordant": twice.discordant}
        left_out = ", ".join(
            f"{number} {name.replace('_', ' ')}" for name, number in counts.items() if number and name in bad
        )
        notes = [
            f"{plural(len(table), 'row')}, {plural(len(kept), 'galaxy', ['galaxies'])}: "
            f"{plural(twice.repeated, 'repeated measurement')} left out, the one with the smallest error kept"
            f"{'; left out: ' + left_out if left_out else ''}."
        ]
        if twice.discordant:
            notes.append(
                f"{plural(twice.discordant, 'galaxy', ['galaxies'])} with measurements that differ by more than "
                f"{DISCORDANT:.0f} km/s; look at the spectra."
            )
        notes.append("redshifts are heliocentric.")
        galaxies = carry_others(table, used.values(), made, kept)
        return Reading(galaxies=galaxies, notes=tuple(notes), counts=counts)

"""Tables of the NASA/IPAC Extragalactic Database, with column names old and new."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from bayesflowmass.catalog import CatalogError
from bayesflowmass.cosmology import MDPL2, SPEED_OF_LIGHT, Cosmology
from bayesflowmass.io.duplicates import find_duplicates
from bayesflowmass.io.formats.base import Reading, TableFormat, normal_name
from bayesflowmass.io.formats.columns import carry_others, find_column, numbers, plural, require_column, text

__all__ = ["BAD_FLAGS", "BAD_TYPES", "NED"]

_FLAGS = ("CONT", "EST", "FOF", "LUM", "MFA", "MOD", "PHOT", "PEAK", "PRED", "SED", "TENT", "TOMO")
BAD_FLAGS = frozenset({*_FLAGS, "::", "?"})
"""Redshift flags (upper case) of what was not measured in the spectrum of the object itself."""

BAD_TYPES = frozenset(["QGroup", "GClstr", "GGroup", "GPair", "GTrpl", "Other", "PofG"])
"""Object types that are no single galaxies."""


class NED(TableFormat):
    """``Object Name, RA, DEC`` (older ``RA(deg), DEC(deg)``), ``Type, Velocity, Redshift, Redshift Flag, ...``, or the
    names of NED's services since 2026: ``Phys Type, cz, Redshift (z), z flag``.

    In the new tables ``Redshift`` is a count, that of the measurements; ``Redshift (z)`` stands before it and is taken.

    Objects without a redshift, with one of `BAD_FLAGS` or of `BAD_TYPES` are left out and counted. Redshifts are
    heliocentric.
    """

    name = "ned"
    title = "NED table"
    place = 90
    gives = ("galaxies",)

    def matches(self, columns: Sequence[str]) -> bool:
        """By the object name and the redshift flag."""
        names = {normal_name(name) for name in columns}
        known = {"object_name", "ra", "dec"} <= names and bool({"type", "phys_type"} & names)
        return known and bool({"redshift", "velocity", "cz"} & names)

    def convert(self, table: Any, where: str, cosmology: Cosmology = MDPL2) -> Reading:
        """See `TableFormat.convert`."""
        used = {name: require_column(table, where, name) for name in ("object_name", "ra", "dec")}
        used["type"] = require_column(table, where, "type", "phys_type")
        for name, new in (("redshift", "redshift"), ("velocity", "cz"), ("redshift_flag", "z_flag")):
            if (found := find_column(table, name, new)) is not None:
                used[name] = found
        z = numbers(table, used["redshift"], where) if "redshift" in used else np.full(len(table), np.nan)
        if "velocity" in used:
            z = np.where(np.isfinite(z), z, numbers(table, used["velocity"], where) / SPEED_OF_LIGHT)
        flags = text(table, used["redshift_flag"]) if "redshift_flag" in used else np.full(len(table), "")
        types = text(table, used["type"])
        ra, dec = (numbers(table, used[name], where) for name in ("ra", "dec"))
        bad = {
            "no_redshift": ~np.isfinite(z),
            "no_position": ~(np.isfinite(ra) & np.isfinite(dec)),
            "bad_redshift_flag": np.array([bool(_words(flag) & BAD_FLAGS) for flag in flags], dtype=bool),
            "no_single_galaxy": np.isin(types, list(BAD_TYPES)),
        }
        keep = ~np.any(list(bad.values()), axis=0)
        if not keep.any():
            found = ", ".join(f"{name.replace('_', ' ')} {int(mask.sum())}" for name, mask in bad.items())
            raise CatalogError(
                f"{where}: none of the {len(table)} objects is a galaxy with a redshift ({found})."
            )
        rows = np.flatnonzero(keep)
        ra, dec = ra[rows], dec[rows]
        twice = find_duplicates(ra, dec, z[rows])
        rows, ra, dec = rows[twice.kept], ra[twice.kept], dec[twice.kept]
        made = {"galaxy_id": text(table, used["object_name"])[rows], "ra": ra, "dec": dec, "z": z[rows]}
        made |= {"ned_type": types[rows], "redshift_flag": flags[rows]}
        counts = {name: int(mask.sum()) for name, mask in bad.items()} | {"repeated": twice.repeated}
        notes = (
            f"{plural(len(table), 'object')}, {plural(len(rows), 'galaxy', ['galaxies'])} kept: "
            f"{counts['no_redshift']} without a redshift, {counts['no_position']} without a position, "
            f"{counts['bad_redshift_flag']} with a redshift flag that says it is not spectroscopic, "
            f"{counts['no_single_galaxy']} groups, clusters or parts of galaxies, {counts['repeated']} within 1 arcsec "
            "of another.",
            "redshifts are heliocentric.",
        )
        ours = {"galaxy_id": used["object_name"], "ra": used["ra"], "dec": used["dec"]}
        ours |= {"z": used["redshift"]} if "redshift" in used else {"cz": used["velocity"]}
        galaxies = carry_others(table, used.values(), made, rows)
        return Reading(galaxies=galaxies, notes=notes, counts=counts, used=ours)


def _words(flag: str) -> set[str]:
    return set(re.split(r"[\s,;|]+", flag.strip().upper()))

"""Tables of the NASA/IPAC Extragalactic Database, with column names old and new."""

from __future__ import annotations

import re
from collections.abc import Set
from typing import Any

import numpy as np

from bayesflowmass.cosmology import MDPL2, SPEED_OF_LIGHT, Cosmology
from bayesflowmass.io.formats.base import Reading, TableFormat
from bayesflowmass.io.formats.columns import carry_others, name_columns, numbers, plural, text
from bayesflowmass.io.formats.spectra import best_measurements

_FLAGS = ("CONT", "EST", "FOF", "LUM", "MFA", "MOD", "PHOT", "PEAK", "PRED", "SED", "TENT", "TOMO")
BAD_FLAGS = frozenset({*_FLAGS, "::", "?"})
"""Redshift flags (upper case) of what was not measured in the spectrum of the object itself."""

BAD_TYPES = frozenset(["QGroup", "GClstr", "GGroup", "GPair", "GTrpl", "Other", "PofG"])
"""Object types that are no single galaxies."""

_NEEDED = {"galaxy_id": ("object_name",), "ra": ("ra",), "dec": ("dec",), "type": ("type", "phys_type")}
_OTHERS = {
    "redshift": ("redshift",),
    "velocity": ("velocity", "cz"),
    "redshift_flag": ("redshift_flag", "z_flag"),
}


class NED(TableFormat):
    """``Object Name, RA, DEC`` (older ``RA(deg), DEC(deg)``), ``Type, Velocity, Redshift, Redshift Flag, ...``, or the
    names of NED's services since 2026: ``Phys Type, cz, Redshift (z), z flag``.

    In the new tables ``Redshift`` is a count, that of the measurements; ``Redshift (z)`` stands before it and is taken.

    Objects without a redshift, with one of `BAD_FLAGS` or of `BAD_TYPES` are left out and counted. Redshifts are
    heliocentric.
    """

    name = "ned"
    title = "NED table"
    gives = ("galaxies",)

    def matches(self, names: Set[str]) -> bool:
        """By the object name, its type and a redshift."""
        known = {"object_name", "ra", "dec"} <= names and bool({"type", "phys_type"} & names)
        return known and bool({"redshift", "velocity", "cz"} & names)

    def convert(self, table: Any, where: str, cosmology: Cosmology = MDPL2) -> Reading:
        """See `TableFormat.convert`."""
        used = name_columns(table, where, _NEEDED, _OTHERS)
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
        rows, counts = best_measurements(where, "objects", bad, ra, dec, z)
        # Redshifts of one object are those of one measurement.
        del counts["discordant"]
        made = {
            "galaxy_id": text(table, used["galaxy_id"])[rows],
            "ra": ra[rows],
            "dec": dec[rows],
            "z": z[rows],
        }
        made |= {"ned_type": types[rows], "redshift_flag": flags[rows]}
        notes = (
            f"{plural(len(table), 'object')}, {plural(len(rows), 'galaxy', 'galaxies')} kept: "
            f"{counts['no_redshift']} without a redshift, {counts['no_position']} without a position, "
            f"{counts['bad_redshift_flag']} with a redshift flag that says it is not spectroscopic, "
            f"{counts['no_single_galaxy']} groups, clusters or parts of galaxies, {counts['repeated']} within 1 arcsec "
            "of another.",
            "redshifts are heliocentric.",
        )
        ours = {name: used[name] for name in ("galaxy_id", "ra", "dec")}
        ours |= {"z": used["redshift"]} if "redshift" in used else {"cz": used["velocity"]}
        galaxies = carry_others(table, used.values(), made, rows)
        return Reading(galaxies=galaxies, notes=notes, counts=counts, used=ours)


def _words(flag: str) -> set[str]:
    return set(re.split(r"[\s,;|]+", flag.strip().upper()))

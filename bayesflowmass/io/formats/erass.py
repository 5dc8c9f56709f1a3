"""eRASS1 clusters: X-ray positions, redshifts and M500, which becomes M200c."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import numpy as np

from bayesflowmass.catalog import CatalogError
from bayesflowmass.catalog.ranges import RANGES
from bayesflowmass.cosmology import MDPL2, Cosmology, convert_mass
from bayesflowmass.io.formats.base import Reading, TableFormat
from bayesflowmass.io.formats.columns import carry_others, name_columns, numbers, plural, text

_NEEDED = {name: (name,) for name in ("ra", "dec", "best_z", "m500")}


class Erass1(TableFormat):
    """``RA, DEC, BEST_Z, M500 [1e13 Msun], R500 [kpc]``.

    log10 M200c [Msun/h] follows from M500c with an NFW profile of median concentration. Where some clusters
    have no M500, all are kept and the column is called ``log10_mass_published``, with gaps.
    """

    name = "erass1"
    title = "eRASS1 clusters"
    gives = ("clusters",)

    def matches(self, names: Set[str]) -> bool:
        """By ``BEST_Z`` and ``M500``."""
        return set(_NEEDED) <= names

    def convert(self, table: Any, where: str, cosmology: Cosmology = MDPL2) -> Reading:
        """See `TableFormat.convert`."""
        used = name_columns(table, where, _NEEDED, {"name": ("detuid", "name")})
        redshift = numbers(table, used["best_z"], where)
        rows = np.flatnonzero(np.isfinite(redshift) & (redshift > 0.0))
        if rows.size == 0:
            raise CatalogError(f"{where}: none of the {len(table)} clusters has a redshift BEST_Z.")
        m500 = numbers(table, used["m500"], where)[rows]
        known = np.isfinite(m500) & (m500 > 0.0)
        if known.any() and not 0.05 < np.median(m500[known]) < 1000.0:
            raise CatalogError(
                f"{where}: M500 is {np.median(m500[known]):.3g} typically; expected units of 1e13 Msun, as in the "
                "eRASS1 catalogue."
            )
        odd = known & ~((m500 > 1e-3) & (m500 < 1e4) & (redshift[rows] < RANGES["redshift"].high))
        if odd.any():
            row = int(np.argmax(odd))
            raise CatalogError(
                f"{where}: M500 is {m500[row]:.3g} and BEST_Z {redshift[rows][row]:.3g} in row {rows[row] + 1}; "
                f"expected 0.001 to 10000 (1e13 Msun) and less than {RANGES['redshift'].high:g}; correct the row."
            )
        mass = np.full(rows.size, np.nan)
        log10_m500 = np.log10(m500[known] * 1e13 * cosmology.h)
        mass[known] = convert_mass(log10_m500, redshift[rows][known], "500c", "200c", cosmology=cosmology)
        ids = text(table, used["name"]) if "name" in used else np.arange(1, len(table) + 1)
        made: dict[str, Any] = {
            "cluster_id": ids[rows],
            "ra": numbers(table, used["ra"], where)[rows],
            "dec": numbers(table, used["dec"], where)[rows],
            "redshift": redshift[rows],
            "log10_mass" if known.all() else "log10_mass_published": mass,
        }
        counts = {"no_redshift": len(table) - rows.size, "no_mass": int(np.sum(~known))}
        notes = [
            f"{plural(rows.size, 'cluster')}, {counts['no_redshift']} without a redshift left out; M500c became "
            f"M200c with an NFW profile and h = {cosmology.h:g}."
        ]
        if not known.all():
            notes.append(
                f"{counts['no_mass']} without M500: the masses are in log10_mass_published, with gaps."
            )
        clusters = carry_others(table, used.values(), made, rows)
        return Reading(clusters=clusters, notes=tuple(notes), counts=counts, used=used)

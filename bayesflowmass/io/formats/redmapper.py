"""redMaPPer: clusters found by their red galaxies, and the members of each."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import numpy as np
from astropy.table import Table

from bayesflowmass.catalog import CatalogError
from bayesflowmass.cosmology import MDPL2, Cosmology
from bayesflowmass.io.formats.base import Reading, TableFormat
from bayesflowmass.io.formats.columns import carry_others, name_columns, numbers, plural, whole_ids

_CLUSTER = {
    "cluster_id": ("mem_match_id", "id"),
    "ra": ("ra",),
    "dec": ("dec",),
    "z_lambda": ("z_lambda",),
    "richness": ("lambda", "lambda_chisq"),
}
_MEASURED = {"spectroscopic": ("cg_spec_z", "z_spec", "bcg_spec_z"), "error": ("z_lambda_e", "z_lambda_err")}
_MEMBER = {
    "cluster_id": ("mem_match_id",),
    "ra": ("ra",),
    "dec": ("dec",),
    "p": ("p",),
    "z": ("zspec", "z_spec"),
}


class RedmapperClusters(TableFormat):
    """``MEM_MATCH_ID, RA, DEC, Z_LAMBDA, LAMBDA, CG_SPEC_Z, ...``.

    The redshift is that of the central galaxy where it has a spectrum, else the photometric one, with its error.
    """

    name = "redmapper-clusters"
    title = "redMaPPer clusters"
    gives = ("clusters",)

    def matches(self, names: Set[str]) -> bool:
        """By the photometric redshift and the richness."""
        return {"z_lambda", "ra", "dec"} <= names and bool({"lambda", "lambda_chisq"} & names)

    def convert(self, table: Any, where: str, cosmology: Cosmology = MDPL2) -> Reading:
        """See `TableFormat.convert`."""
        used = name_columns(table, where, _CLUSTER, _MEASURED)
        photometric = numbers(table, used["z_lambda"], where)
        measured = numbers(table, used.get("spectroscopic", used["z_lambda"]), where)
        # Without a spectrum the column holds -1 or 0.
        known = np.isfinite(measured) & (measured > 0.0) & ("spectroscopic" in used)
        redshift = np.where(known, measured, photometric)
        rows = np.flatnonzero(np.isfinite(redshift) & (redshift > 0.0))
        if rows.size == 0:
            raise CatalogError(f"{where}: none of the {len(table)} clusters has a redshift.")
        made: dict[str, Any] = {
            "cluster_id": whole_ids(table, used["cluster_id"], where)[rows],
            "ra": numbers(table, used["ra"], where)[rows],
            "dec": numbers(table, used["dec"], where)[rows],
            "redshift": redshift[rows],
        }
        if "error" in used:
            error = numbers(table, used["error"], where)
            made["redshift_err"] = np.where(known, 0.0, np.where(error > 0.0, error, 0.0))[rows]
        made["redshift_is_spectroscopic"] = known[rows]
        made["richness"] = numbers(table, used["richness"], where)[rows]
        counts = {"photometric_redshifts": int(np.sum(~known[rows])), "no_redshift": len(table) - rows.size}
        notes = [f"{plural(rows.size, 'cluster')}, {counts['no_redshift']} without a redshift left out."]
        if counts["photometric_redshifts"]:
            notes.append(
                f"{plural(counts['photometric_redshifts'], 'redshift')} photometric, off by about 2000 km/s: find "
                "the velocity centre again before inferring a mass."
            )
        clusters = carry_others(table, used.values(), made, rows)
        return Reading(clusters=clusters, notes=tuple(notes), counts=counts, used=used)


class RedmapperMembers(TableFormat):
    """``MEM_MATCH_ID, ID, RA, DEC, R [Mpc/h], P, PFREE, ZSPEC, ...``; members without a spectrum are left out."""

    name = "redmapper-members"
    title = "redMaPPer members"
    gives = ("galaxies",)

    def matches(self, names: Set[str]) -> bool:
        """By the cluster's id and the probability of membership, without a redshift of the cluster."""
        return {"mem_match_id", "ra", "dec", "p"} <= names and "z_lambda" not in names

    def convert(self, table: Any, where: str, cosmology: Cosmology = MDPL2) -> Reading:
        """See `TableFormat.convert`."""
        used = name_columns(table, where, _MEMBER, {"galaxy_id": ("id",)})
        z = numbers(table, used["z"], where)
        rows = np.flatnonzero(np.isfinite(z) & (z > 0.0))
        if rows.size == 0:
            raise CatalogError(
                f"{where}: none of the {len(table)} members has a spectroscopic redshift (ZSPEC), and without "
                "redshifts there are no velocities: use a redshift survey with the clusters instead."
            )
        ids = [name for name in ("cluster_id", "galaxy_id") if name in used]
        made: dict[str, Any] = {name: whole_ids(table, used[name], where)[rows] for name in ids}
        made |= {name: numbers(table, used[name], where)[rows] for name in ("ra", "dec")}
        made |= {"z": z[rows], "membership_probability": numbers(table, used["p"], where)[rows]}
        counts = {"no_redshift": len(table) - rows.size}
        notes = (
            f"{plural(len(table), 'member')}, {rows.size} with a spectroscopic redshift; the others are left out.",
            "members were chosen by colour, so most interlopers are gone: recorded as cleaned.",
        )
        galaxies: Table = carry_others(table, used.values(), made, rows)
        if "R" in galaxies.colnames:
            galaxies.rename_column("R", "r_redmapper")
        return Reading(galaxies=galaxies, notes=notes, counts=counts, cleaned=True, used=used)

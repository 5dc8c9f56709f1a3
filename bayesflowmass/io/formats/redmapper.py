"""redMaPPer: clusters found by their red galaxies, and the members of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from bayesflowmass.catalog import CatalogError
from bayesflowmass.cosmology import MDPL2, Cosmology
from bayesflowmass.io.formats.base import Reading, TableFormat, normal_name
from bayesflowmass.io.formats.columns import carry_others, find_column, numbers, plural, require_column

__all__ = ["RedmapperClusters", "RedmapperMembers"]

_CLUSTER_IDS = ("mem_match_id", "id")
_SPECTROSCOPIC = ("cg_spec_z", "z_spec", "bcg_spec_z")


class RedmapperClusters(TableFormat):
    """``MEM_MATCH_ID, RA, DEC, Z_LAMBDA, LAMBDA, CG_SPEC_Z, ...``.

    The redshift is that of the central galaxy where it has a spectrum, else the photometric one, with its error.
    """

    name = "redmapper-clusters"
    title = "redMaPPer clusters"
    place = 60
    gives = ("clusters",)

    def matches(self, columns: Sequence[str]) -> bool:
        """By the photometric redshift and the richness."""
        names = {normal_name(name) for name in columns}
        return {"z_lambda", "ra", "dec"} <= names and bool({"lambda", "lambda_chisq"} & names)

    def convert(self, table: Any, where: str, cosmology: Cosmology = MDPL2) -> Reading:
        """See `TableFormat.convert`."""
        used = {"cluster_id": require_column(table, where, *_CLUSTER_IDS)}
        used |= {name: require_column(table, where, name) for name in ("ra", "dec", "z_lambda")}
        used["richness"] = require_column(table, where, "lambda", "lambda_chisq")
        for ours, theirs in (("spectroscopic", _SPECTROSCOPIC), ("error", ("z_lambda_e", "z_lambda_err"))):
            if (found := find_column(table, *theirs)) is not None:
                used[ours] = found
        photometric = numbers(table, used["z_lambda"], where)
        measured = numbers(table, used.get("spectroscopic", used["z_lambda"]), where)
        # Without a spectrum the column holds -1 or 0.
        known = np.isfinite(measured) & (measured > 0.0) & ("spectroscopic" in used)
        redshift = np.where(known, measured, photometric)
        rows = np.flatnonzero(np.isfinite(redshift) & (redshift > 0.0))
        if rows.size == 0:
            raise CatalogError(f"{where}: none of the {len(table)} clusters has a redshift.")
        made: dict[str, Any] = {
            "cluster_id": _whole(table, used["cluster_id"], where)[rows],
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
        return Reading(
            clusters=carry_others(table, used.values(), made, rows),
            notes=tuple(notes),
            counts=counts,
            used=used,
        )


class RedmapperMembers(TableFormat):
    """``MEM_MATCH_ID, ID, RA, DEC, R [Mpc/h], P, PFREE, ZSPEC, ...``; members without a spectrum are left out."""

    name = "redmapper-members"
    title = "redMaPPer members"
    place = 70
    gives = ("galaxies",)

    def matches(self, columns: Sequence[str]) -> bool:
        """By the cluster's id and the probability of membership, without a redshift of the cluster."""
        names = {normal_name(name) for name in columns}
        return {"mem_match_id", "ra", "dec", "p"} <= names and "z_lambda" not in names

    def convert(self, table: Any, where: str, cosmology: Cosmology = MDPL2) -> Reading:
        """See `TableFormat.convert`."""
        used = {name: require_column(table, where, name) for name in ("mem_match_id", "ra", "dec", "p")}
        used["z"] = require_column(table, where, "zspec", "z_spec")
        z = numbers(table, used["z"], where)
        rows = np.flatnonzero(np.isfinite(z) & (z > 0.0))
        if rows.size == 0:
            raise CatalogError(
                f"{where}: none of the {len(table)} members has a spectroscopic redshift (ZSPEC), and without "
                "redshifts there are no velocities: use a redshift survey with the clusters instead."
            )
        made: dict[str, Any] = {"cluster_id": _whole(table, used["mem_match_id"], where)[rows]}
        if (own := find_column(table, "id")) is not None:
            used["galaxy_id"] = own
            made["galaxy_id"] = _whole(table, own, where)[rows]
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


def _whole(table: Any, name: str, where: str) -> NDArray[Any]:
    """Ids as whole numbers or text, not through floats."""
    ids: NDArray[Any] = np.ma.getdata(np.ma.asarray(table[name]))
    if ids.dtype.kind in "SUO":
        return ids.astype(str)
    if ids.dtype.kind == "f":
        raise CatalogError(f"{where}: {name} is stored as {ids.dtype}; expected whole numbers or text.")
    return ids.astype(np.int64)

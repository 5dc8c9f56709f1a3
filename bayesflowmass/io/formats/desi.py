"""Redshift catalogues of DESI: one row per coadded spectrum, so a target may be there several times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bayesflowmass.cosmology import MDPL2, Cosmology
from bayesflowmass.io.formats.base import Reading, TableFormat
from bayesflowmass.io.formats.columns import find_column, require_column
from bayesflowmass.io.formats.spectra import galaxies_of_spectra
from bayesflowmass.io.names import normal_name

__all__ = ["Desi"]

_RA = ("target_ra", "mean_fiber_ra", "ra")
_DEC = ("target_dec", "mean_fiber_dec", "dec")


class Desi(TableFormat):
    """``TARGETID, TARGET_RA, TARGET_DEC, Z, ZERR, ZWARN, SPECTYPE, ...``.

    Rows with a ``ZWARN``, stars and quasars (``SPECTYPE``) and rows without a redshift are left out and counted; of a
    target with several rows the one with the smallest error is kept.
    """

    name = "desi"
    title = "DESI redshift catalogue"
    gives = ("galaxies",)
    place = 95

    def matches(self, columns: Sequence[str]) -> bool:
        """By the target id, a redshift and its warning."""
        names = {normal_name(name) for name in columns}
        known = {"targetid", "z", "zwarn"} <= names and "cluster_id" not in names
        return known and bool(names & set(_RA)) and bool(names & set(_DEC))

    def convert(self, table: Any, where: str, cosmology: Cosmology = MDPL2) -> Reading:
        """See `TableFormat.convert`."""
        used = {"ra": require_column(table, where, *_RA), "dec": require_column(table, where, *_DEC)}
        used |= {
            "galaxy_id": require_column(table, where, "targetid"),
            "z": require_column(table, where, "z"),
        }
        used["warning"] = require_column(table, where, "zwarn")
        for ours, theirs in (("z_err", "zerr"), ("class", "spectype")):
            if (found := find_column(table, theirs)) is not None:
                used[ours] = found
        return galaxies_of_spectra(table, where, used)

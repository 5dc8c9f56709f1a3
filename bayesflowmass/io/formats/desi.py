"""Redshift catalogues of DESI: one row per coadded spectrum, so a target may be there several times."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from bayesflowmass.cosmology import MDPL2, Cosmology
from bayesflowmass.io.formats.base import Reading, TableFormat
from bayesflowmass.io.formats.columns import name_columns
from bayesflowmass.io.formats.spectra import galaxies_of_spectra

_NEEDED = {
    "ra": ("target_ra", "mean_fiber_ra", "ra"),
    "dec": ("target_dec", "mean_fiber_dec", "dec"),
    "galaxy_id": ("targetid",),
    "z": ("z",),
    "warning": ("zwarn",),
}


class Desi(TableFormat):
    """``TARGETID, TARGET_RA, TARGET_DEC, Z, ZERR, ZWARN, SPECTYPE, ...``.

    Rows with a ``ZWARN``, stars and quasars (``SPECTYPE``) and rows without a redshift are left out and counted; of a
    target with several rows the one with the smallest error is kept.
    """

    name = "desi"
    title = "DESI redshift catalogue"
    gives = ("galaxies",)

    def matches(self, names: Set[str]) -> bool:
        """By the target id, a redshift and its warning."""
        return "cluster_id" not in names and all(names & set(some) for some in _NEEDED.values())

    def convert(self, table: Any, where: str, cosmology: Cosmology = MDPL2) -> Reading:
        """See `TableFormat.convert`."""
        used = name_columns(table, where, _NEEDED, {"z_err": ("zerr",), "class": ("spectype",)})
        return galaxies_of_spectra(table, where, used)

"""Exports of the SDSS SkyServer and CasJobs: one row per spectrum, so a galaxy may be there twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bayesflowmass.cosmology import MDPL2, Cosmology
from bayesflowmass.io.formats.base import Reading, TableFormat
from bayesflowmass.io.formats.columns import find_column, require_column
from bayesflowmass.io.formats.spectra import galaxies_of_spectra
from bayesflowmass.io.names import normal_name

__all__ = ["SkyServer"]

_IDS = ("objid", "bestobjid", "specobjid")
_REDSHIFTS = ("specz", "z", "redshift")
_ERRORS = ("speczerr", "zerr", "redshift_err")


class SkyServer(TableFormat):
    """``objid, ra, dec, specz, speczerr``, ``specObjID, ra, dec, z, zErr, zWarning, class``, or with ``redshift``.

    Stars and quasars (``class``), spectra with a ``zWarning`` and rows without a redshift are left out and
    counted; of an object with several spectra the one with the smallest error is kept.
    """

    name = "skyserver"
    title = "SDSS SkyServer export"
    place = 100
    gives = ("galaxies",)

    def matches(self, columns: Sequence[str]) -> bool:
        """By an SDSS object id beside a redshift and what says that it is of a spectrum."""
        names = {normal_name(name) for name in columns}
        spectra = {"zerr", "zwarning", "specobjid", "fiberid"}
        redshift = "specz" in names or (bool({"z", "redshift"} & names) and bool(spectra & names))
        # Rows that name their cluster were prepared, and a galaxy may be in two clusters.
        return {"ra", "dec"} <= names and bool(set(_IDS) & names) and redshift and "cluster_id" not in names

    def convert(self, table: Any, where: str, cosmology: Cosmology = MDPL2) -> Reading:
        """See `TableFormat.convert`."""
        used = {"ra": require_column(table, where, "ra"), "dec": require_column(table, where, "dec")}
        used["galaxy_id"] = require_column(table, where, *_IDS)
        # Beside u, g, r, i the column z is a magnitude.
        magnitudes = all(find_column(table, band) is not None for band in "ugriz")
        used["z"] = require_column(table, where, *(("specz", "redshift") if magnitudes else _REDSHIFTS))
        for ours, theirs in (("z_err", _ERRORS), ("warning", ("zwarning",)), ("class", ("class",))):
            if (found := find_column(table, *theirs)) is not None:
                used[ours] = found
        reading = galaxies_of_spectra(table, where, used)
        if magnitudes:
            note = f"{used['z']} is the redshift; z, beside u, g, r and i, is a magnitude."
            reading = replace(reading, notes=(*reading.notes, note))
        return reading

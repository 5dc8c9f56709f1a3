"""Exports of the SDSS SkyServer and CasJobs: one row per spectrum, so a galaxy may be there twice."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace
from typing import Any

from bayesflowmass.cosmology import MDPL2, Cosmology
from bayesflowmass.io.formats.base import Reading, TableFormat
from bayesflowmass.io.formats.columns import find_column, name_columns
from bayesflowmass.io.formats.spectra import galaxies_of_spectra

_IDS = ("objid", "bestobjid", "specobjid")
_OTHERS = {"z_err": ("speczerr", "zerr", "redshift_err"), "warning": ("zwarning",), "class": ("class",)}


class SkyServer(TableFormat):
    """``objid, ra, dec, specz, speczerr``, ``specObjID, ra, dec, z, zErr, zWarning, class``, or with ``redshift``.

    Stars and quasars (``class``), spectra with a ``zWarning`` and rows without a redshift are left out and
    counted; of an object with several spectra the one with the smallest error is kept.
    """

    name = "skyserver"
    title = "SDSS SkyServer export"
    gives = ("galaxies",)

    def matches(self, names: Set[str]) -> bool:
        """By an SDSS object id beside a redshift and what says that it is of a spectrum."""
        spectra = {"zerr", "zwarning", "specobjid", "fiberid"}
        redshift = "specz" in names or (bool({"z", "redshift"} & names) and bool(spectra & names))
        # Rows that name their cluster were prepared, and a galaxy may be in two clusters.
        return {"ra", "dec"} <= names and bool(names & set(_IDS)) and redshift and "cluster_id" not in names

    def convert(self, table: Any, where: str, cosmology: Cosmology = MDPL2) -> Reading:
        """See `TableFormat.convert`."""
        # Beside u, g, r, i the column z is a magnitude.
        magnitudes = all(find_column(table, band) is not None for band in "ugriz")
        redshift = ("specz", "redshift") if magnitudes else ("specz", "z", "redshift")
        needed = {"ra": ("ra",), "dec": ("dec",), "galaxy_id": _IDS, "z": redshift}
        used = name_columns(table, where, needed, _OTHERS)
        reading = galaxies_of_spectra(table, where, used)
        if magnitudes:
            note = f"{used['z']} is the redshift; z, beside u, g, r and i, is a magnitude."
            reading = replace(reading, notes=(*reading.notes, note))
        return reading

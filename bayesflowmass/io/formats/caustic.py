"""Text input of CausticSNUpy: one cluster, ``N RA DEC VEL`` and then a galaxy in each line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.table import Table

from bayesflowmass.catalog import CatalogError
from bayesflowmass.cosmology import SPEED_OF_LIGHT
from bayesflowmass.io.formats.base import FileHead, Reading, TableFormat
from bayesflowmass.io.text.blocks import read_rows
from bayesflowmass.io.text.layout import is_row


class CausticSNUpy(TableFormat):
    """First line ``N RA DEC VEL`` of the cluster, then ``RA DEC VEL`` of N galaxies [deg, deg, cz in km/s]."""

    name = "causticsnupy"
    title = "CausticSNUpy text"
    gives = ("galaxies", "clusters")

    def recognises(self, head: FileHead) -> bool:
        """By a first row of four numbers, the first whole, above rows of three."""
        rows = head.numbers
        first, *others = map(len, rows or [[]])
        if first != 4 or set(others) != {3}:
            return False
        count, ra, dec, _ = rows[0]
        return count == int(count) and count >= 1 and abs(ra) <= 360.0 and abs(dec) <= 90.0

    def read(self, path: Path) -> Reading:
        """See `TableFormat.read`."""
        head = FileHead(path)
        first = next(number for number, line in enumerate(head.lines, start=1) if is_row(line))
        count, ra, dec, velocity = head.numbers[0]
        names = ("RA", "DEC", "VEL")
        values = read_rows(path, names, dict.fromkeys(names, "number"), skip_lines=first)
        found = values["RA"].size
        if found != int(count):
            raise CatalogError(
                f"{path}: the first line announces {int(count)} galaxies and {found} follow; expected as many, so "
                "the file is half-written or was edited: correct the number or copy the file again."
            )
        if np.median(np.abs(values["VEL"])) < 10.0 or abs(velocity) < 10.0:
            raise CatalogError(
                f"{path}: the velocities are {np.median(values['VEL']):.3g} typically and {velocity:g} for the "
                "cluster, which look like redshifts; expected cz in km/s."
            )
        galaxies = Table({"ra": values["RA"], "dec": values["DEC"], "cz": values["VEL"]})
        clusters = Table(
            {
                "cluster_id": [Path(head.name).stem],
                "ra": [ra],
                "dec": [dec],
                "redshift": [velocity / SPEED_OF_LIGHT],
            }
        )
        note = f"one cluster at ra {ra:g}, dec {dec:g}, cz {velocity:g} km/s, {found} galaxies."
        return Reading(galaxies, clusters, (note,))

"""Text input of MG-MAMPOSSt: radii and rest-frame velocities of one cluster."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.table import Table

from bayesflowmass.catalog import CatalogError
from bayesflowmass.catalog.errors import refuse_where
from bayesflowmass.io.formats.base import FileHead, Reading, TableFormat
from bayesflowmass.io.text.blocks import read_rows
from bayesflowmass.io.text.rows import Kind

_NAMES = ("R", "v", "e_v", "weight")


class Mamposst(TableFormat):
    """Two comment lines, then ``R [proper kpc]  v [km/s]  e_v [km/s]  (weight)`` in the rest frame."""

    name = "mg-mamposst"
    title = "MG-MAMPOSSt text"
    gives = ("galaxies",)

    def recognises(self, head: FileHead) -> bool:
        """By two lines without numbers above rows of three or four: a radius, a velocity, an error."""
        if len(head.lines) < 3 or any(_is_row(line) for line in head.lines[:2]) or not _is_row(head.lines[2]):
            return False
        rows = [[float(w) for w in line.split()] for line in head.lines[2:200] if _is_row(line)]
        if len({len(row) for row in rows}) != 1 or len(rows[0]) not in (3, 4):
            return False
        radius, velocity, error = (np.array([row[i] for row in rows]) for i in range(3))
        named = {word.strip("#[](),").lower() for line in head.lines[:2] for word in line.split()}
        if named & {"ra", "dec", "z", "redshift", "id"}:
            return False
        plausible = (radius >= 0.0).all() and (error >= 0.0).all() and (np.abs(velocity) < 20_000.0).all()
        # Degrees and redshifts in that place do not look so.
        return bool(plausible and np.std(velocity) > 100.0 and (np.median(error) >= 1.0 or not error.any()))

    def read(self, path: Path) -> Reading:
        """See `TableFormat.read`."""
        head = FileHead(path)
        names = _NAMES[: len(head.lines[2].split())]
        kinds: dict[str, Kind] = dict.fromkeys(names, "number")
        values = read_rows(path, names, kinds, skip_lines=2)

        def not_negative(name: str) -> None:
            given, place = values[name], f"{path}: {name} in row"
            refuse_where(given < 0.0, lambda row: f"{place} {row + 1} is {given[row]:g}; expected 0 or more.")

        not_negative("R")
        not_negative("e_v")
        typical = float(np.median(values["R"]))
        if typical < 20.0:
            raise CatalogError(
                f"{path}: radii are {typical:.3g} typically, as in Mpc; expected kpc: multiply them by 1000."
            )
        galaxies = Table({"r_proj": values["R"], "v_los": values["v"], "v_err": values["e_v"]})
        galaxies["r_proj"].unit = "proper kpc"
        if "weight" in values:
            galaxies["weight"] = values["weight"]
        note = (
            f"{len(galaxies)} galaxies of one cluster, R taken as proper kpc; the file says neither its "
            "redshift nor whether interlopers were removed."
        )
        return Reading(galaxies, notes=(note,), one_cluster=Path(head.name).stem)


def _is_row(line: str) -> bool:
    try:
        return bool([float(word) for word in line.split()])
    except ValueError:
        return False

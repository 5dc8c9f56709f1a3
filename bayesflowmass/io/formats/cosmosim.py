"""Rockstar haloes from the CosmoSim database, as CSV: the full column set, and that of queries."""

from __future__ import annotations

import re
from pathlib import Path

from bayesflowmass.io.formats.base import FileHead
from bayesflowmass.io.formats.boxes import HALO_COLUMNS, BoxColumn, BoxInfo, HaloText
from bayesflowmass.io.names import normal_name
from bayesflowmass.io.text.layout import is_row

_REDSHIFTS = (0.0, 0.022, 0.045, 0.069, 0.093, 0.117, 0.142, 0.168, 0.194, 0.221, 0.248, 0.276, 0.304)
MDPL2_REDSHIFTS = dict(zip(range(125, 112, -1), _REDSHIFTS, strict=True))
"""Redshift of each MDPL2 snapshot."""


class CosmoSim(HaloText):
    """``rockstarId, upId, x, y, z [Mpc/h], vx, vy, vz [km/s], M200c [Msun/h], Rvir [kpc/h], ...``."""

    name = "cosmosim"
    title = "Rockstar haloes from the CosmoSim database (CSV)"
    known = {"id": BoxColumn(("rockstarid",))} | {k: v for k, v in HALO_COLUMNS.items() if k != "id"}
    remedy = "ask the database for rockstarId, upId, x, y, z, vx, vy, vz and M200c"
    delimiter = ","
    bytes_per_row = 200

    def recognises(self, head: FileHead) -> bool:
        """By ``rockstarId`` in the header of a CSV file."""
        return head.is_text and "rockstarid" in map(normal_name, self.header(head)[0])

    def header(self, head: FileHead) -> tuple[list[str], int]:
        """The first line that is no comment; a column without a name, the index of pandas, gets one."""
        first = next((number for number, line in enumerate(head.lines) if is_row(line)), None)
        if first is None:
            return [], 0
        names = [name.strip().strip('"') for name in head.lines[first].split(",")]
        return [name or f"unnamed_{place}" for place, name in enumerate(names)], first + 1

    def info(self, path: Path) -> BoxInfo:
        """The redshift from ``scale``, where it is there, or from ``_120`` in the name (MDPL2)."""
        head = FileHead(path)
        names, skip = self.header(head)
        scale = next((place for place, name in enumerate(names) if normal_name(name) == "scale"), None)
        first = [line.split(",") for line in head.lines[skip : skip + 1]]
        if scale is not None and first and len(first[0]) == len(names):
            return BoxInfo(redshift=1.0 / float(first[0][scale]) - 1.0)
        snapshot = re.search(r"(?<!\d)(1[12]\d)(?!\d)", head.name)
        return BoxInfo(redshift=MDPL2_REDSHIFTS.get(int(snapshot.group(1))) if snapshot else None)

"""Rockstar haloes from the CosmoSim database, as CSV: the full column set, and that of queries."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from bayesflowmass.io.formats.base import BoxFormat, BoxInfo, FileHead, normal_name
from bayesflowmass.io.formats.box_columns import (
    PHASE_SPACE,
    BoxColumn,
    check_box,
    choose_columns,
    converted,
    wanted_kinds,
)
from bayesflowmass.io.text.blocks import iterate_rows

__all__ = ["MDPL2_REDSHIFTS", "CosmoSim"]

MDPL2_REDSHIFTS = {
    125: 0.0,
    124: 0.022,
    123: 0.045,
    122: 0.069,
    121: 0.093,
    120: 0.117,
    119: 0.142,
    118: 0.168,
    117: 0.194,
    116: 0.221,
    115: 0.248,
    114: 0.276,
    113: 0.304,
}
"""Redshift of each MDPL2 snapshot."""

_BYTES_PER_ROW = 200

_COLUMNS = {
    "id": BoxColumn(("rockstarid",)),
    "upid": BoxColumn(("upid",)),
    **{name: BoxColumn((name,)) for name in PHASE_SPACE[2:]},
    "log10_mass": BoxColumn(("m200c",), log10=True),
    "log10_mvir": BoxColumn(("mvir",), log10=True),
    "log10_m200b": BoxColumn(("m200b",), log10=True),
    "log10_m500c": BoxColumn(("m500c",), log10=True),
    "log10_macc": BoxColumn(("macc",), log10=True),
    "v_acc": BoxColumn(("vacc",)),
    "r_vir": BoxColumn(("rvir",), 1e-3),
    "r_s": BoxColumn(("rs",), 1e-3),
}


class CosmoSim(BoxFormat):
    """``rockstarId, upId, x, y, z [Mpc/h], vx, vy, vz [km/s], M200c [Msun/h], Rvir [kpc/h], ...``."""

    name = "cosmosim"
    title = "Rockstar haloes from the CosmoSim database (CSV)"
    place = 10

    def recognises(self, head: FileHead) -> bool:
        """By ``rockstarId`` in the header of a CSV file."""
        return head.is_text and "rockstarid" in [normal_name(name) for name in _header(head)]

    def chunks(self, path: Path, rows: int) -> Iterator[dict[str, NDArray[Any]]]:
        """See `BoxFormat.chunks`."""
        names, skip, chosen = self._layout(path)
        done = 0
        for values in iterate_rows(
            path,
            names,
            wanted_kinds(chosen),
            delimiter=",",
            skip_lines=skip,
            block_bytes=rows * _BYTES_PER_ROW,
        ):
            chunk = converted(values, chosen, _COLUMNS)
            check_box(chunk, done, str(path))
            done += len(chunk["id"])
            yield chunk

    def info(self, path: Path) -> BoxInfo:
        """The redshift from ``scale``, where it is there, or from ``_120`` in the name (MDPL2)."""
        names, skip, _ = self._layout(path)
        scale = next((name for name in names if normal_name(name) == "scale"), None)
        head = FileHead(path)
        first = head.lines[skip : skip + 1]
        if scale is not None and first:
            fields = first[0].split(",")
            if len(fields) == len(names):
                return BoxInfo(redshift=1.0 / float(fields[names.index(scale)]) - 1.0)
        snapshot = re.search(r"(?<!\d)(1[12]\d)(?!\d)", head.name)
        return BoxInfo(redshift=MDPL2_REDSHIFTS.get(int(snapshot.group(1))) if snapshot else None)

    def columns(self, path: Path) -> list[str]:
        """See `BoxFormat.columns`."""
        return list(self._layout(path)[2])

    def _layout(self, path: Path) -> tuple[list[str], int, dict[str, str]]:
        head = FileHead(path)
        names = _header(head)
        skip = next(i for i, line in enumerate(head.lines) if line.strip() and line.lstrip()[:1] != "#") + 1
        # An index column without a name, as pandas writes it, needs one to be parsed.
        named = [name or f"unnamed_{index}" for index, name in enumerate(names)]
        chosen = choose_columns(
            named, _COLUMNS, str(path), "ask the database for rockstarId, upId, x, y, z, vx, vy, vz and M200c"
        )
        return named, skip, chosen


def _header(head: FileHead) -> list[str]:
    lines = [line for line in head.lines if line.strip() and not line.lstrip().startswith("#")]
    return [name.strip().strip('"') for name in lines[0].split(",")] if lines else []

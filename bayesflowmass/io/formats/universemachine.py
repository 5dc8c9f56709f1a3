"""UniverseMachine galaxies: ``sfr_catalog_<a>.npy``, and the raw binary records of DR1."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesflowmass.catalog import CatalogError
from bayesflowmass.io.formats.base import FileHead
from bayesflowmass.io.formats.boxes import PHASE_SPACE, BoxColumn, BoxFormat, BoxInfo
from bayesflowmass.io.names import normal_name
from bayesflowmass.io.npy import is_npy, npy_dtype, open_npy

_IGNORE_FLAG = 16
"""Bit 4 of ``flags``: records that are to be left out (field explanations of UniverseMachine DR1)."""

DR1_RECORD = np.dtype(
    [
        *((name, "<i8") for name in ("id", "descid", "upid")),
        ("flags", "<i4"),
        ("uparent_dist", "<f4"),
        ("pos", "<f4", (6,)),
        *((name, "<f4") for name in ("vmp", "lvmp", "mp", "m", "v", "r", "rank1", "rank2", "ra", "rarank")),
        *((name, "<f4") for name in ("a_uv", "sm", "icl", "sfr", "obs_sm", "obs_sfr", "obs_uv", "empty")),
    ],
    align=True,
)
"""One galaxy of DR1, 128 bytes."""

_COLUMNS = {
    **{name: BoxColumn((name,)) for name in PHASE_SPACE},
    "log10_mvir": BoxColumn(("mvir", "m"), log10=True),
    "log10_mpeak": BoxColumn(("mpeak", "mp"), log10=True),
    "log10_stellar_mass": BoxColumn(("obs_sm", "sm"), log10=True),
    "sfr": BoxColumn(("obs_sfr", "sfr")),
}


class UniverseMachine(BoxFormat):
    """A structured array ``x, y, z, vx, vy, vz, upid, id, mvir, mpeak, obs_sm, obs_sfr`` of any widths."""

    name = "universemachine"
    title = "UniverseMachine galaxies (npy)"
    known = _COLUMNS
    remedy = "save the structured array with its fields id, upid, x, y, z, vx, vy, vz"

    def recognises(self, head: FileHead) -> bool:
        """By the field names of a structured npy array."""
        names = (npy_dtype(head.path).names or ()) if is_npy(head.data) else ()
        return {"upid", "id", "obs_sm"} <= {normal_name(name) for name in names}

    def names(self, path: Path) -> list[str]:
        """Names of the fields."""
        return list(npy_dtype(path).names or ())

    def chosen(self, path: Path) -> dict[str, str]:
        """See `BoxFormat.chosen`; ids need 64 bits."""
        chosen, dtype = super().chosen(path), npy_dtype(path)
        for kind, name in ((dtype[chosen[ours]], chosen[ours]) for ours in ("id", "upid")):
            if kind.kind not in "iu" or kind.itemsize < 8:
                raise CatalogError(
                    f"{path}: {name} is stored as {kind}; expected 64-bit integers, since the ids of orphans exceed "
                    "2^53 and are damaged by anything less: make the file again from the original."
                )
        return chosen

    def parts(self, path: Path, chosen: Mapping[str, str], rows: int) -> Iterator[dict[str, NDArray[Any]]]:
        """See `BoxFormat.parts`."""
        array = open_npy(path)
        for start in range(0, len(array), rows):
            yield {name: _native(array[name][start : start + rows]) for name in chosen.values()}

    def info(self, path: Path) -> BoxInfo:
        """The redshift, from the scale factor in the name."""
        match = re.search(r"_([01]\.\d+)\.(?:npy|bin)$", path.name)
        return BoxInfo(redshift=None if match is None else 1.0 / float(match.group(1)) - 1.0)


class UniverseMachineDR1(UniverseMachine):
    """Raw records `DR1_RECORD`; halo masses Msun/h, stellar masses Msun; records flagged 2^4 are left out."""

    name = "universemachine-dr1"
    title = "UniverseMachine DR1 galaxies (binary records of 128 bytes)"

    def recognises(self, head: FileHead) -> bool:
        """By ``sfr_catalog_<a>.bin``, or by records that make sense."""
        if is_npy(head.data) or head.path.suffix != ".bin":
            return False
        if re.fullmatch(r"sfr_catalog_[\d.]+\.bin", head.name):
            return True
        whole = len(head.data) // DR1_RECORD.itemsize
        if whole == 0:
            return False
        records = np.frombuffer(head.data, dtype=DR1_RECORD, count=whole)
        with np.errstate(invalid="ignore"):
            place = (records["pos"][:, :3] >= 0.0) & (records["pos"][:, :3] < 20_000.0)
            sane = place.all(axis=1) & (records["id"] >= 0) & (records["upid"] >= -1) & (records["mp"] > 1e5)
        return bool(sane.all())

    def chosen(self, path: Path) -> dict[str, str]:
        """All that a record has."""
        _records(path)
        fields = {*PHASE_SPACE, *(DR1_RECORD.names or ())}
        return {
            ours: next(one for one in column.theirs if one in fields) for ours, column in _COLUMNS.items()
        }

    def parts(self, path: Path, chosen: Mapping[str, str], rows: int) -> Iterator[dict[str, NDArray[Any]]]:
        """See `BoxFormat.parts`."""
        records = _records(path)
        for start in range(0, len(records), rows):
            part = records[start : start + rows]
            axes = dict(zip(PHASE_SPACE[2:], np.moveaxis(part["pos"], 1, 0), strict=True))
            yield {name: _native(axes[name] if name in axes else part[name]) for name in chosen.values()}

    def chunks(self, path: Path, rows: int) -> Iterator[dict[str, NDArray[Any]]]:
        """See `BoxFormat.chunks`."""
        flags, done = _records(path)["flags"], 0
        for chunk in super().chunks(path, rows):
            kept = (flags[done : done + len(chunk["id"])] & _IGNORE_FLAG) == 0
            done += kept.size
            yield chunk if kept.all() else {name: value[kept] for name, value in chunk.items()}


def _records(path: Path) -> NDArray[Any]:
    size = path.stat().st_size
    if size % DR1_RECORD.itemsize:
        raise CatalogError(
            f"{path}: {size} bytes are not a whole number of records of {DR1_RECORD.itemsize} bytes, so the "
            "file is half-written or of another version; copy it again."
        )
    return np.memmap(path, dtype=DR1_RECORD, mode="r")


def _native(values: NDArray[Any]) -> NDArray[Any]:
    # A copy in memory, contiguous: the map of the file is left behind.
    return np.array(values, dtype=values.dtype.newbyteorder("="))

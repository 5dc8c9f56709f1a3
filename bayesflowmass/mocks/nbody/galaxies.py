"""The galaxies of a box on disk, sorted by place, so that any part of it is read without the rest.

The box is divided into cells of about 25 Mpc/h. Reading a file of any length needs the memory of one slab of
cells; afterwards all processes share one read-only map of the sorted file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from bayesflowmass.catalog import CatalogError
from bayesflowmass.common.arrays import BoolArray, FloatArray, IntArray
from bayesflowmass.common.files import write_whole
from bayesflowmass.io.box import box_columns, iterate_box
from bayesflowmass.mocks.nbody.box import wrapped_positions
from bayesflowmass.mocks.nbody.hosts import Hosts

_CELL_SIZE = 25.0
_MOST_CELLS = 40
_RECORD = np.dtype(
    [("position", "<f8", 3), ("id", "<i8"), ("velocity", "<f4", 3), ("host", "<i4"), ("central", "?")],
    align=True,
)
_PHASE_SPACE = ("id", "upid", "x", "y", "z", "vx", "vy", "vz")
_CUT_COLUMNS = ("log10_macc", "log10_mpeak")
_DEFAULT_CUT = 11.0


@dataclass(frozen=True)
class GalaxyCut:
    """Which rows of a galaxies file are galaxies: ``column >= minimum``."""

    column: str
    minimum: float


@dataclass(frozen=True)
class Region:
    """Galaxies of a part of the periodic box, each periodic image with its own position.

    Attributes:
        position: (n, 3) comoving Mpc/h, not wrapped.
        velocity: (n, 3) peculiar, km/s.
        id: (n,) int64.
        host: (n,) row in `Hosts` of the halo whose satellite or central it is; -1 for other haloes.
        central: (n,) the central galaxy of its halo.
    """

    position: FloatArray
    velocity: NDArray[np.float32]
    id: IntArray
    host: NDArray[np.int32]
    central: BoolArray


def galaxy_cut(path: Path, column: str | None, minimum: float | None) -> GalaxyCut:
    """The cut that is asked for; by default log10 mass at accretion (or peak mass) >= 11 [Msun/h].

    Raises:
        CatalogError: if the file lacks the column, or a limit is missing.
    """
    there = box_columns(path)
    numbers = [name for name in there if name not in _PHASE_SPACE]
    if column is None:
        column = next((name for name in _CUT_COLUMNS if name in there), None)
        if column is None:
            raise CatalogError(
                f"{path}: there is neither {' nor '.join(_CUT_COLUMNS)} to choose galaxies by; name a column with "
                f"--galaxy-column ({', '.join(numbers) or 'the file has none'}) and its limit with --galaxy-min."
            )
        return GalaxyCut(column, _DEFAULT_CUT if minimum is None else float(minimum))
    if column not in numbers:
        raise CatalogError(
            f"{path}: --galaxy-column is {column}, which the file does not give; it gives {', '.join(numbers)}."
        )
    if minimum is None and column not in _CUT_COLUMNS:
        raise CatalogError(f"--galaxy-column is {column}; give its lower limit with --galaxy-min.")
    return GalaxyCut(column, _DEFAULT_CUT if minimum is None else float(minimum))


def sort_galaxies(
    path: Path, folder: Path, hosts: Hosts, box_size: float, cut: GalaxyCut, *, centrals: bool, progress: bool
) -> None:
    """Read a galaxies file and leave it sorted in ``folder``, for `GalaxyStore`.

    Args:
        centrals: keep galaxies with upid -1, too.

    Raises:
        CatalogError: if the file is broken or no galaxy is left.
        OSError: if the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    n_cells = max(1, min(_MOST_CELLS, math.floor(box_size / _CELL_SIZE)))
    counts = {"rows": 0, "below_cut": 0, "centrals_left_out": 0, "of_hosts": 0}
    speed, extent = 0.0, np.zeros(3)
    slabs = [folder / f"slab_{index:02d}" for index in range(n_cells)]
    with ExitStack() as stack:
        streams = [stack.enter_context(slab.open("wb")) for slab in slabs]
        bar = stack.enter_context(
            tqdm(desc="reading galaxies", unit="row", unit_scale=True, disable=not progress)
        )
        for chunk in iterate_box(path, list(dict.fromkeys((*_PHASE_SPACE, cut.column)))):
            records = _records(chunk, path, hosts, box_size, cut, centrals, counts)
            bar.update(chunk["id"].size)
            if records.size:
                speed = max(speed, float(np.sqrt((records["velocity"].astype(float) ** 2).sum(-1).max())))
                extent = np.maximum(extent, records["position"].max(axis=0))
            slab = _cell(records["position"][:, 0], box_size, n_cells)
            order = np.argsort(slab, kind="stable")
            bounds = np.searchsorted(slab[order], np.arange(n_cells + 1))
            for index, stream in enumerate(streams):
                # Not tofile, which says nothing of a full disk but that it wrote less.
                stream.write(records[order[bounds[index] : bounds[index + 1]]].tobytes())
    n_galaxies = _join(slabs, folder, box_size, n_cells)
    _check(path, counts, n_galaxies, extent, box_size, cut)
    facts = {"n_galaxies": n_galaxies, "n_cells": n_cells, "box_size": box_size, "speed": speed}
    # Written last: what is there with it is whole.
    write_whole(folder / "galaxies.json", json.dumps({**facts, "counts": counts}))


class GalaxyStore:
    """Sorted galaxies, as `sort_galaxies` left them.

    Attributes:
        n_galaxies: of them.
        speed: largest peculiar speed [km/s].
        counts: of rows read, left out, and belonging to hosts.
    """

    def __init__(self, folder: Path) -> None:
        facts = json.loads((folder / "galaxies.json").read_text(encoding="utf-8"))
        self.n_galaxies: int = facts["n_galaxies"]
        self.speed: float = facts["speed"]
        self.counts: dict[str, int] = facts["counts"]
        self._size: float = facts["box_size"]
        self._n: int = facts["n_cells"]
        self._records = np.memmap(folder / "galaxies.bin", dtype=_RECORD, mode="r")
        self._offsets = np.load(folder / "offsets.npy", allow_pickle=False)

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether a folder holds a whole store."""
        return (folder / "galaxies.json").is_file()

    def region(self, lower: FloatArray, upper: FloatArray) -> Region:
        """Galaxies and their periodic images in all cells that touch a cuboid.

        Args:
            lower, upper: (3,) its corners [comoving Mpc/h]; it may leave the box, and be larger.
        """
        side = self._size / self._n
        first, last = (np.floor(lower / side - 1e-9).astype(int), np.floor(upper / side + 1e-9).astype(int))
        pieces = []
        for start, stop, shift in self._runs(first, last):
            piece = self._records[start:stop]
            if shift.any():
                piece = np.array(piece)
                piece["position"] += shift
            pieces.append(piece)
        records = np.concatenate(pieces) if pieces else np.zeros(0, _RECORD)
        return Region(**{name: np.ascontiguousarray(records[name]) for name in _RECORD.names or ()})

    def _runs(self, first: IntArray, last: IntArray) -> Iterator[tuple[int, int, FloatArray]]:
        """Stretches of the file that make up a range of (unwrapped) cells, with the shift of their image."""
        n = self._n
        for i in range(first[0], last[0] + 1):
            for j in range(first[1], last[1] + 1):
                row = ((i % n) * n + j % n) * n
                # Along the last axis cells lie one after another: one stretch for each image of the box.
                for image in range(first[2] // n, last[2] // n + 1):
                    k0, k1 = max(first[2] - image * n, 0), min(last[2] - image * n, n - 1)
                    start, stop = int(self._offsets[row + k0]), int(self._offsets[row + k1 + 1])
                    if stop > start:
                        yield start, stop, self._size * np.array([i // n, j // n, image], dtype=np.float64)


def _records(
    chunk: dict[str, NDArray[Any]],
    path: Path,
    hosts: Hosts,
    box_size: float,
    cut: GalaxyCut,
    centrals: bool,
    counts: dict[str, int],
) -> NDArray[Any]:
    position = wrapped_positions(chunk, box_size, counts["rows"], str(path))
    counts["rows"] += position.shape[0]
    bright = chunk[cut.column] >= cut.minimum
    central = chunk["upid"] == -1
    counts["below_cut"] += int((~bright).sum())
    kept = bright if centrals else bright & ~central
    counts["centrals_left_out"] += int((bright & ~kept).sum())
    records = np.zeros(int(kept.sum()), dtype=_RECORD)
    records["position"] = position[kept]
    for axis, name in enumerate(("vx", "vy", "vz")):
        records["velocity"][:, axis] = chunk[name][kept]
    records["id"], records["central"] = chunk["id"][kept], central[kept]
    # A central has no upid; its halo has its own id.
    owner = np.where(central, chunk["id"], chunk["upid"])[kept]
    order = np.argsort(hosts.id)
    place = order[np.minimum(np.searchsorted(hosts.id, owner, sorter=order), len(hosts) - 1)]
    records["host"] = np.where(hosts.id[place] == owner, place, -1)
    counts["of_hosts"] += int(((records["host"] >= 0) & ~records["central"]).sum())
    return records


def _join(slabs: list[Path], folder: Path, box_size: float, n_cells: int) -> int:
    """Sort each slab by cell and put them one after another; returns the number of galaxies."""
    per_cell = []
    with (folder / "galaxies.bin").open("wb") as stream:
        for slab in slabs:
            records = np.fromfile(slab, dtype=_RECORD)
            y, z = (_cell(records["position"][:, axis], box_size, n_cells) for axis in (1, 2))
            cell = y * n_cells + z
            stream.write(records[np.argsort(cell, kind="stable")].tobytes())
            per_cell.append(np.bincount(cell, minlength=n_cells**2))
            slab.unlink()
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(per_cell))]).astype(np.int64)
    np.save(folder / "offsets.npy", offsets)
    return int(offsets[-1])


def _cell(coordinate: FloatArray, box_size: float, n_cells: int) -> IntArray:
    return np.minimum((coordinate * (n_cells / box_size)).astype(np.int64), n_cells - 1)


def _check(
    path: Path, counts: dict[str, int], n_galaxies: int, extent: FloatArray, box_size: float, cut: GalaxyCut
) -> None:
    if n_galaxies == 0:
        raise CatalogError(
            f"{path}: none of {counts['rows']} rows is left as a galaxy ({counts['below_cut']} have {cut.column} "
            f"below {cut.minimum:g}, {counts['centrals_left_out']} are centrals); lower --galaxy-min, or keep "
            "centrals with --mode survey."
        )
    # By chance a thousand galaxies leave a tenth of a side empty once in 10^45 boxes.
    if n_galaxies >= 1000 and float(extent.min()) < 0.9 * box_size:
        raise CatalogError(
            f"{path}: galaxies reach only to {extent.min():.4g} of a box of {box_size:g} comoving Mpc/h; give its "
            "true size with --box-size, and the whole box, since its faces are joined to one another."
        )

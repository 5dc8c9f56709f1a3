"""The published SAG mock catalogue, text without a header, and SDSS catalogues in that layout."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from bayesflowmass.catalog import CatalogError
from bayesflowmass.catalog.errors import refuse_where
from bayesflowmass.common.arrays import FloatArray, IntArray
from bayesflowmass.io.formats.base import FileHead, Reading, TableFormat
from bayesflowmass.io.text.blocks import read_rows
from bayesflowmass.io.text.rows import Kind

_SAG = ("id", "log10_mass", "distance", "x", "y", "z", "los_x", "los_y", "los_z", "a")
_SDSS = ("id", "log10_mass", "log10_mass_err")
_GALAXIES = ("id", "x", "y", "v_los")


class SagClusters(TableFormat):
    """Ten columns: id, log10 M200c [Msun/h], distance, x, y, z, line of sight (3), scale factor.

    Or three, for SDSS: id, log10 M200c, its error; such a table has no redshifts.
    """

    name = "sag-clusters"
    title = "clusters in the layout of the SAG catalogue (text)"
    gives = ("clusters",)

    def recognises(self, head: FileHead) -> bool:
        """By ``clusters_M200c`` in the name, or by ids 1, 2, 3, ... beside logarithms of masses."""
        rows = head.numbers
        if head.name.startswith("clusters_M200c") and rows:
            return True
        if not rows or {len(row) for row in rows} not in ({10}, {3}):
            return False
        table = np.array(rows)
        ids = np.array_equal(table[:, 0], np.arange(1, len(table) + 1))
        masses = bool(np.all((table[:, 1] > 11.0) & (table[:, 1] < 16.5)))
        if table.shape[1] == 3:
            return ids and masses and bool(np.all((table[:, 2] >= 0.0) & (table[:, 2] < 2.0)))
        return ids and masses and bool(np.all((table[:, 9] > 0.0) & (table[:, 9] <= 1.0)))

    def read(self, path: Path) -> Reading:
        """See `TableFormat.read`."""
        width = len(FileHead(path).numbers[0])
        if width not in (3, 10):
            raise CatalogError(
                f"{path}: rows have {width} values; expected 10 (SAG: id, log10 M200c, distance, x, y, z, line of "
                "sight, scale factor) or 3 (SDSS: id, log10 M200c, error)."
            )
        names = _SAG if width == 10 else _SDSS
        values = _read(path, names)
        ids = _cluster_ids(values["id"], path)
        ordered, mass = np.sort(ids), values["log10_mass"]
        refuse_where(
            np.diff(ordered) == 0,
            lambda row: f"{path}: cluster {ordered[row]} stands in two rows; ids are unique.",
        )
        refuse_where(
            (mass < 10.0) | (mass > 17.0),
            lambda row: (
                f"{path}: the mass in row {row + 1} is {mass[row]:g}; expected log10 of M200c in Msun/h, 10 to 17."
            ),
        )
        made: dict[str, Any] = {"cluster_id": ids, "log10_mass": mass}
        if width == 3:
            note = f"{ids.size} clusters with masses and their errors, without redshifts: give one for all."
            return Reading(clusters=Table(made | {"log10_mass_err": values["log10_mass_err"]}), notes=(note,))
        scale = values["a"]
        refuse_where(
            (scale <= 0.0) | (scale > 1.0),
            lambda row: (
                f"{path}: the scale factor in row {row + 1} is {scale[row]:g}; expected more than 0, up to 1."
            ),
        )
        place = np.column_stack([values[name] for name in ("x", "y", "z")])
        # Lines of sight to one halo repeat its position; they share one fold by it.
        _, halo = np.unique(place, axis=0, return_inverse=True)
        made |= {"halo_id": halo.ravel().astype(np.int64) + 1, "redshift": 1.0 / scale - 1.0}
        made |= {f"{name}_box": values[name] for name in ("x", "y", "z")}
        made |= {name: values[name] for name in ("distance", "los_x", "los_y", "los_z")}
        note = f"{ids.size} clusters, lines of sight to {int(halo.max()) + 1} haloes (by their positions)."
        return Reading(clusters=Table(made), notes=(note,))


class SagGalaxies(TableFormat):
    """Four columns: cluster id, x, y [comoving Mpc/h], v_los [km/s]."""

    name = "sag-galaxies"
    title = "galaxies in the layout of the SAG catalogue (text)"
    gives = ("galaxies",)

    def recognises(self, head: FileHead) -> bool:
        """By ``galaxies_XYvZ`` in the name, or by ids from 1 on that never fall, beside offsets."""
        rows = head.numbers
        if head.name.startswith("galaxies_XYvZ") and rows:
            return True
        if len(rows) < 3 or {len(row) for row in rows} != {4}:
            return False
        table = np.array(rows)
        ids = table[:, 0]
        ordered = ids[0] == 1 and bool(np.all(np.isin(np.diff(ids), (0, 1))))
        offsets = bool(np.all(np.abs(table[:, 1:3]) < 20.0))
        return ordered and offsets and bool(np.std(table[:, 3]) > 20.0)

    def read(self, path: Path) -> Reading:
        """See `TableFormat.read`."""
        values = _read(path, _GALAXIES)
        ids = _cluster_ids(values["id"], path)
        galaxies = Table({"cluster_id": ids} | {name: values[name] for name in _GALAXIES[1:]})
        aperture = re.search(r"(\d+(?:\.\d+)?)Mpc", path.name)
        within = f", within {aperture.group(1)} Mpc/h" if aperture else ""
        return Reading(galaxies, notes=(f"{ids.size} galaxies of {np.unique(ids).size} clusters{within}.",))


def _read(path: Path, names: tuple[str, ...]) -> dict[str, FloatArray]:
    kinds: dict[str, Kind] = dict.fromkeys(names, "number")
    return read_rows(path, names, kinds)


def _cluster_ids(values: FloatArray, path: Path) -> IntArray:
    """Whole numbers from 1 on, which numpy.savetxt writes as floats."""
    expected = "expected a whole number from 1 on."
    refuse_where(
        (values != np.round(values)) | (values < 1.0),
        lambda row: f"{path}: the cluster id in row {row + 1} is {values[row]:g}; {expected}",
    )
    return values.astype(np.int64)

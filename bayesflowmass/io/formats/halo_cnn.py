"""Mock catalogues of ``halo_cnn``: npy, a structured row for each cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesflowmass.catalog import CatalogError, CatalogMetadata, ClusterCatalog
from bayesflowmass.catalog.errors import refuse_where
from bayesflowmass.common.arrays import BoolArray, FloatArray, IntArray
from bayesflowmass.cosmology import Cosmology
from bayesflowmass.io.formats.base import CatalogFormat, FileHead
from bayesflowmass.io.npy import is_npy, npy_dtype, open_npy

_GALAXY = {"x": "gal_xproj", "y": "gal_yproj", "v_los": "gal_vlos"}
_MEMBER = ("gal_memb_halo", "gal_memb_FOF", "memb_FOF")
_LARGEST_EXACT = 2.0**53


class HaloCNN(CatalogFormat):
    """Host columns, ``rotation, Ngal, sigv``, and one padded array ``gal_<name>`` for each galaxy column.

    The true number of galaxies is ``Ngal``. The file knows neither redshift nor cosmology.
    """

    name = "halo_cnn"
    title = "halo_cnn mock catalogue (npy)"

    def recognises(self, head: FileHead) -> bool:
        """By ``Ngal`` and ``gal_vlos`` among the fields."""
        names = (npy_dtype(head.path).names or ()) if is_npy(head.data) else ()
        return {"Ngal", "gal_vlos"} <= set(names)

    def iterate(
        self, path: Path, batch_size: int, redshift: float | None, cosmology: Cosmology
    ) -> Iterator[ClusterCatalog]:
        """See `CatalogFormat.iterate`."""
        array = open_npy(path)
        names = array.dtype.names or ()
        missing = [name for name in ("Ngal", *_GALAXY.values(), "M200c") if name not in names]
        if missing:
            raise CatalogError(f"{path}: field {missing[0]} is missing (there are {', '.join(names)}).")
        if redshift is None:
            raise CatalogError(
                f"{path}: a halo_cnn catalogue does not say its redshift; give it (--redshift, 0.117 for MDPL2 "
                "snapshot 120)."
            )
        for start in range(0, len(array), batch_size):
            yield _catalog(array[start : start + batch_size], start, path, float(redshift), cosmology)


def _catalog(
    rows: NDArray[Any], start: int, path: Path, redshift: float, cosmology: Cosmology
) -> ClusterCatalog:
    names = rows.dtype.names or ()
    width = rows.dtype["gal_xproj"].shape[0] if rows.dtype["gal_xproj"].shape else 0
    count = rows["Ngal"].astype(np.float64)
    refuse_where(
        ~((count >= 0) & (count <= width) & (count == np.floor(count))),
        lambda row: (
            f"{path}: Ngal in row {start + row + 1} is {count[row]:g}; expected a whole number up to {width}, the "
            "length of the galaxy arrays."
        ),
    )
    counts = count.astype(np.int64)
    there = np.arange(width)[None, :] < counts[:, None]
    galaxies: dict[str, Any] = {ours: rows[theirs][there] for ours, theirs in _GALAXY.items()}
    member = next((name for name in _MEMBER if name in names), None)
    if member is not None:
        galaxies["gal_is_member"] = rows[member][there].astype(bool)
    for name in names:
        if rows.dtype[name].shape == (width,) and name not in (*_GALAXY.values(), member):
            galaxies[name if name.startswith("gal_") else f"gal_{name}"] = rows[name][there]
    _check(galaxies, counts, start, path)
    hosts = {"cluster_id": np.arange(start, start + len(rows)), "redshift": np.full(len(rows), redshift)}
    hosts["log10_mass"] = _log10_mass(rows["M200c"], start, path)
    for name in names:
        if rows.dtype[name].shape == () and name not in ("Ngal", "M200c"):
            if name.lower() in ("rockstarid", "halo_id", "haloid") and np.all(
                np.abs(rows[name]) < _LARGEST_EXACT
            ):
                hosts["halo_id"] = rows[name].astype(np.int64)
            else:
                hosts[name if name not in (*hosts, *galaxies, "z", "ra", "dec") else f"host_{name}"] = (
                    np.array(rows[name])
                )
    kind = None if member is None else "pure" if galaxies["gal_is_member"].all() else "contaminated"
    metadata = CatalogMetadata(kind=kind, mode="paper", cosmology=cosmology, extra={"format": "halo_cnn"})
    return ClusterCatalog.from_arrays(hosts, galaxies, counts, metadata)


def _check(galaxies: dict[str, Any], counts: IntArray, start: int, path: Path) -> None:
    owner = np.repeat(np.arange(counts.size), counts)

    def refuse(bad: BoolArray, name: str, what: str) -> None:
        refuse_where(bad, lambda index: f"{path}: {name} in row {start + owner[index] + 1} is {what}.")

    for name, theirs in _GALAXY.items():
        refuse(~np.isfinite(galaxies[name]), theirs, "not finite; expected Ngal finite numbers")
    if "gal_Rproj" in galaxies:
        given, made = galaxies["gal_Rproj"], np.hypot(galaxies["x"], galaxies["y"])
        refuse(
            np.abs(given - made) > 0.01 + 0.01 * np.abs(made),
            "gal_Rproj",
            "not the distance of (gal_xproj, gal_yproj); expected that, so Ngal or the arrays are wrong",
        )


def _log10_mass(mass: NDArray[Any], start: int, path: Path) -> FloatArray:
    place, expected = f"{path}: M200c in row", "expected a mass in Msun/h."
    bad = ~((mass > 1e10) & (mass < 1e17))
    refuse_where(bad, lambda row: f"{place} {start + row + 1} is {mass[row]:g}; {expected}")
    return np.log10(mass.astype(np.float64))

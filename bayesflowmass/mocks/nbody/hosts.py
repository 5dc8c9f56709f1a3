"""The haloes of a box whose masses are to be learnt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesflowmass.catalog import CatalogError
from bayesflowmass.common.arrays import FloatArray, IntArray
from bayesflowmass.cosmology import convert_mass, radius_delta
from bayesflowmass.io.box import box_columns, iterate_box
from bayesflowmass.mocks.nbody.box import Box, wrapped_positions

_NEEDED = ("id", "upid", "x", "y", "z", "vx", "vy", "vz", "log10_mass")
_TRUTHS = ("log10_mvir", "log10_m200b", "log10_m500c", "log10_macc", "log10_mpeak", "v_max", "v_acc")


@dataclass(frozen=True)
class Hosts:
    """Host haloes in a range of mass, in the order of their file.

    Attributes:
        id: (n,) int64.
        position: (n, 3) in [0, box size) [comoving Mpc/h].
        velocity: (n, 3) peculiar [km/s].
        log10_mass: (n,) log10 M200c [Msun/h].
        r_vir: (n,) comoving Mpc/h.
        truths: further properties (n,), as columns of the catalogue.
        n_read: hosts of any mass in the file.
    """

    id: IntArray
    position: FloatArray
    velocity: FloatArray
    log10_mass: FloatArray
    r_vir: FloatArray
    truths: dict[str, FloatArray]
    n_read: int

    def __len__(self) -> int:
        return self.id.size


def read_hosts(path: Path, box: Box, log10_mass_range: tuple[float, float]) -> Hosts:
    """Haloes with upid -1 and log10 M200c in [low, high), from a file of any length.

    R_vir is that of the file, else it follows from M_vir, else from M200c and the median concentration. Truths
    are the other masses and velocities of the file, and ``concentration``, R_200c / R_s, where it has R_s.

    Raises:
        CatalogError: if the file has no M200c, no host is in the range, or an id stands in it twice.
    """
    there = box_columns(path)
    if "log10_mass" not in there:
        raise CatalogError(
            f"{path}: column M200c is missing (it gives {', '.join(there)}); hosts need log10 M200c, so ask the "
            "halo finder for it."
        )
    optional = [name for name in (*_TRUTHS, "r_vir", "r_s") if name in there]
    low, high = log10_mass_range
    parts: list[dict[str, NDArray[Any]]] = []
    rows = n_hosts = 0
    for chunk in iterate_box(path, [*_NEEDED, *optional]):
        position = wrapped_positions(chunk, box.size, rows, str(path))
        rows += position.shape[0]
        host = chunk["upid"] == -1
        n_hosts += int(host.sum())
        kept = host & (chunk["log10_mass"] >= low) & (chunk["log10_mass"] < high)
        part = {name: chunk[name][kept] for name in ("id", "log10_mass", *optional)}
        velocity = np.stack([chunk[name][kept] for name in ("vx", "vy", "vz")], axis=-1)
        parts.append(part | {"position": position[kept], "velocity": velocity})
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}
    if not parts or found["id"].size == 0:
        raise CatalogError(
            f"{path}: none of {n_hosts} hosts (upid -1) has log10 M200c in {low:g}-{high:g}; lower "
            "--log10-mass-range, or take the file that holds the hosts."
        )
    unique, counts = np.unique(found["id"], return_counts=True)
    if unique.size < found["id"].size:
        raise CatalogError(
            f"{path}: host {unique[counts > 1][0]} stands in {counts.max()} rows; each halo must be there once."
        )
    log10_mass = np.asarray(found["log10_mass"], dtype=np.float64)
    truths = {name: np.asarray(found[name], dtype=np.float64) for name in _TRUTHS if name in found}
    if "r_s" in found:
        with np.errstate(divide="ignore"):
            radius = radius_delta(log10_mass, box.redshift, cosmology=box.cosmology)
            truths["concentration"] = np.asarray(radius / found["r_s"], dtype=np.float64)
    return Hosts(
        id=found["id"],
        position=found["position"],
        velocity=np.asarray(found["velocity"], dtype=np.float64),
        log10_mass=log10_mass,
        r_vir=_virial_radius(found, log10_mass, box),
        truths=truths,
        n_read=n_hosts,
    )


def _virial_radius(found: dict[str, NDArray[Any]], log10_mass: FloatArray, box: Box) -> FloatArray:
    z, cosmology = box.redshift, box.cosmology
    mass = found.get("log10_mvir")
    if mass is None or not np.all(np.isfinite(mass)):
        mass = convert_mass(log10_mass, z, "200c", "vir", cosmology=cosmology)
    radius = radius_delta(mass, z, "vir", cosmology=cosmology)
    given = found.get("r_vir")
    return radius if given is None else np.where(np.isfinite(given) & (given > 0.0), given, radius)

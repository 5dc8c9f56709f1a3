"""What must be known about an N-body box beside its rows: redshift, size, cosmology."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesflowmass.catalog import CatalogError
from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.cosmology import MDPL2, Cosmology
from bayesflowmass.io import box_info

_MAX_REDSHIFT = 3.0
_SAME_REDSHIFT = 0.005
_SAME = 1e-3
_TOLERANCE = 1.0
"""Mpc/h that a position may lie outside the box, as rounding and some halo finders leave it."""


@dataclass(frozen=True)
class Box:
    """A periodic box at one redshift.

    Attributes:
        redshift: of the snapshot.
        size: comoving Mpc/h.
        cosmology: turns depth into velocity.
    """

    redshift: float
    size: float
    cosmology: Cosmology

    @property
    def volume(self) -> float:
        """Comoving (Mpc/h)^3."""
        return self.size**3


def describe_box(
    hosts: Path,
    galaxies: Path,
    redshift: float | None = None,
    box_size: float | None = None,
    cosmology: Mapping[str, Any] | None = None,
) -> Box:
    """What the caller gives, else what the files or their names say; MDPL2 for the rest of the cosmology.

    Raises:
        CatalogError: if redshift or size are known from nowhere, are impossible, or the two files disagree.
    """
    infos = {path: box_info(path) for path in dict.fromkeys((hosts, galaxies))}
    redshifts = {path: info.redshift for path, info in infos.items() if info.redshift is not None}
    sizes = {path: info.box_size for path, info in infos.items() if info.box_size is not None}
    z = _agreed("redshift", redshift, redshifts, _SAME_REDSHIFT)
    if not (math.isfinite(z) and 0.0 <= z <= _MAX_REDSHIFT):
        raise CatalogError(f"the redshift of the box is {z:g}; expected 0 to {_MAX_REDSHIFT:g}.")
    size = _agreed("box size", box_size, sizes, _SAME * max([*sizes.values(), 0.0]))
    if not (math.isfinite(size) and size > 0.0):
        raise CatalogError(f"the box size is {size:g}; expected its side in comoving Mpc/h.")
    known = {name: value for info in infos.values() for name, value in info.cosmology.items()}
    for name, value in known.items():
        if any(abs(info.cosmology.get(name, value) - value) > _SAME for info in infos.values()):
            raise CatalogError(
                f"{hosts} and {galaxies} have different {name}: they are not of one simulation."
            )
    changed = {
        name: value for name, value in known.items() if abs(value - getattr(MDPL2, name)) > _SAME * value
    }
    base = replace(MDPL2, name="box", **changed) if changed else MDPL2
    given = dict(cosmology or {})
    if given:
        base = Cosmology.from_dict({**base.to_dict(), "name": "box", **given})
    return Box(z, size, base)


def wrapped_positions(
    chunk: Mapping[str, NDArray[Any]], size: float, first_row: int, where: str
) -> FloatArray:
    """Positions (n, 3) in [0, size).

    Raises:
        CatalogError: if one lies outside the box, naming the row, counted from 1.
    """
    position = np.stack([np.asarray(chunk[name], dtype=np.float64) for name in ("x", "y", "z")], axis=-1)
    outside = (position > size + _TOLERANCE) | (position < -_TOLERANCE)
    if outside.any():
        row, axis = (int(index) for index in np.argwhere(outside)[0])
        raise CatalogError(
            f"{where}: {'xyz'[axis]} in row {first_row + row + 1} is {position[row, axis]:g}; expected 0 to "
            f"{size:g} comoving Mpc/h, the size of the box: check --box-size."
        )
    position %= size
    # A tiny negative number is rounded to the size itself.
    position[position >= size] = 0.0
    return position


def _agreed(what: str, given: float | None, found: Mapping[Path, float], tolerance: float) -> float:
    if given is not None:
        return float(given)
    flag = "--" + what.replace(" ", "-")
    if not found:
        unit = " in comoving Mpc/h" if what == "box size" else ""
        raise CatalogError(f"the {what} is not known from the files or their names; give {flag}{unit}.")
    (first, value), *others = found.items()
    for path, other in others:
        if abs(other - value) > tolerance:
            raise CatalogError(
                f"{first} is of {what} {value:.4g} and {path} of {other:.4g}; take files of one snapshot, or say "
                f"with {flag} which is right."
            )
    return float(value)

"""How the columns of halo finders become ours: names, factors, logarithms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesflowmass.catalog import CatalogError
from bayesflowmass.common.arrays import BoolArray
from bayesflowmass.io.formats.base import log10_of_mass, normal_name
from bayesflowmass.io.text.rows import Kind

__all__ = ["PHASE_SPACE", "BoxColumn", "check_box", "choose_columns", "converted", "wanted_kinds"]

PHASE_SPACE = ("id", "upid", "x", "y", "z", "vx", "vy", "vz")


@dataclass(frozen=True)
class BoxColumn:
    """One of our columns.

    Args:
        theirs: names that it may have in a file, in the form of `normal_name`.
        factor: from their unit to ours.
        log10: whether ours is the logarithm.
    """

    theirs: tuple[str, ...]
    factor: float = 1.0
    log10: bool = False


def choose_columns(
    names: Sequence[str], columns: Mapping[str, BoxColumn], where: str, remedy: str
) -> dict[str, str]:
    """``{our name: name in the file}`` for the columns that a file has.

    Raises:
        CatalogError: if one of `PHASE_SPACE` is missing; ``remedy`` says what to do then.
    """
    there: dict[str, str] = {}
    for name in names:
        there.setdefault(normal_name(name), name)
    found = {
        ours: next(there[name] for name in column.theirs if name in there)
        for ours, column in columns.items()
        if any(name in there for name in column.theirs)
    }
    for ours in PHASE_SPACE:
        if ours not in found:
            expected = columns[ours].theirs[0]
            raise CatalogError(
                f"{where}: column {expected} is missing (there are {', '.join(n for n in names if n)}); "
                f"{remedy}."
            )
    return found


def wanted_kinds(chosen: Mapping[str, str]) -> dict[str, Kind]:
    """What `iterate_rows` is to read."""
    kinds: dict[str, Kind] = {}
    for ours, theirs in chosen.items():
        kinds[theirs] = "id" if ours in ("id", "upid") else "number" if ours in PHASE_SPACE else "maybe"
    return kinds


def converted(
    values: Mapping[str, NDArray[Any]], chosen: Mapping[str, str], columns: Mapping[str, BoxColumn]
) -> dict[str, NDArray[Any]]:
    """Columns under our names in our units."""
    result: dict[str, NDArray[Any]] = {}
    for ours, theirs in chosen.items():
        column, given = columns[ours], values[theirs]
        if column.factor != 1.0:
            given = given * given.dtype.type(column.factor)
        result[ours] = log10_of_mass(given) if column.log10 else given
    return result


def check_box(chunk: Mapping[str, NDArray[Any]], first_row: int, where: str) -> None:
    """Refuse numbers that no box has.

    Raises:
        CatalogError: for positions or velocities that are not finite, negative or kpc-sized positions, or
            ids below -1, naming the row, counted from 1.
    """

    def refuse(name: str, bad: BoolArray, expected: str) -> None:
        if bad.any():
            row = int(np.argmax(bad))
            raise CatalogError(
                f"{where}: {name} in row {first_row + row + 1} is {chunk[name][row]}; expected {expected}."
            )

    for name in ("x", "y", "z"):
        refuse(name, ~np.isfinite(chunk[name]), "a finite number")
        refuse(name, chunk[name] < -1.0, "a position in the periodic box, from 0 to its size")
        refuse(name, chunk[name] > 20_000.0, "comoving Mpc/h, and this looks like kpc/h")
    for name in ("vx", "vy", "vz"):
        refuse(name, ~np.isfinite(chunk[name]), "a finite number")
        refuse(name, np.abs(chunk[name]) > 30_000.0, "a peculiar velocity in km/s")
    refuse("upid", chunk["upid"] < -1, "the id of a host halo, or -1")

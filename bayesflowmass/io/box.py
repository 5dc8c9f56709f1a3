"""Haloes and galaxies of N-body boxes, in any of the formats that hold them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesflowmass.catalog import CatalogError
from bayesflowmass.io.formats import BoxFormat, BoxInfo, identify

_ROWS_AT_ONCE = 200_000


def iterate_box(
    path: str | os.PathLike[str], columns: Sequence[str] | None = None, rows: int = _ROWS_AT_ONCE
) -> Iterator[dict[str, NDArray[Any]]]:
    """Parts of about ``rows`` rows of a box, in bounded memory; columns and units of `BoxFormat`.

    Args:
        path: Rockstar (CosmoSim CSV or text) or UniverseMachine (npy or DR1 binary).
        columns: which of our columns; None gives all that the file has.

    Raises:
        CatalogError: if the file is no such box or is broken, naming the row; or a column is missing.
    """
    known, place = _box(path)
    if columns is not None and (missing := [name for name in columns if name not in known.columns(place)]):
        raise CatalogError(
            f"{path}: column {missing[0]} is missing; this file gives {', '.join(known.columns(place))}."
        )
    for chunk in known.chunks(place, rows):
        yield chunk if columns is None else {name: chunk[name] for name in columns}


def read_box(path: str | os.PathLike[str], columns: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
    """All rows of a box at once; as `iterate_box`."""
    parts = list(iterate_box(path, columns))
    if not sum(len(next(iter(part.values()))) for part in parts):
        raise CatalogError(f"{path}: the table has no rows.")
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def box_info(path: str | os.PathLike[str]) -> BoxInfo:
    """Redshift, box size and cosmology, as far as the file or its name says.

    Raises:
        CatalogError: if the file is no N-body box.
    """
    known, place = _box(path)
    return known.info(place)


def box_columns(path: str | os.PathLike[str]) -> list[str]:
    """The columns that `iterate_box` gives for this file."""
    known, place = _box(path)
    return known.columns(place)


def _box(path: str | os.PathLike[str]) -> tuple[BoxFormat, Path]:
    known = identify(path)
    if not isinstance(known, BoxFormat):
        what = "of no format that is known" if known is None else known.title
        raise CatalogError(
            f"{path}: expected an N-body box (Rockstar or UniverseMachine), and this is {what}."
        )
    return known, Path(path)

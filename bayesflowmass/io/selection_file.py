"""Selection functions from files."""

from __future__ import annotations

import os

import numpy as np

from bayesflowmass.catalog import CatalogError
from bayesflowmass.io.any_table import read_any_table
from bayesflowmass.selection import SelectionProbability, SelectionTable


def read_selection(path: str | os.PathLike[str]) -> SelectionTable | SelectionProbability:
    """P(select | log10 mass) from a table that astropy reads.

    Either ``log10_mass, probability``: the function itself. Or ``log10_mass, selected`` and perhaps ``redshift``,
    one row per mock cluster, ``selected`` 0 or 1: the function is fitted (`SelectionProbability`).
    """
    table = read_any_table(path)
    names = {name.strip(): name for name in table.colnames}
    second = "probability" if "probability" in names else "selected"
    for name in ("log10_mass", second):
        if name not in names:
            raise CatalogError(
                f"{path}: there is no column {name}; expected log10_mass and probability, or log10_mass and selected"
                f" of mock clusters; found {', '.join(names)}."
            )
    try:
        columns = {
            name: np.asarray(table[names[name]], dtype=np.float64)
            for name in ("log10_mass", second, "redshift")
            if name in names
        }
        if second == "probability":
            return SelectionTable(columns["log10_mass"], columns["probability"])
        if not np.isin(columns["selected"], (0.0, 1.0)).all():
            raise ValueError("selection: the column selected must hold 0 or 1.")
        return SelectionProbability(
            columns["log10_mass"], columns.get("redshift", 0.0), columns["selected"] > 0.5
        )
    except ValueError as error:
        raise CatalogError(f"{path}: {error}") from None

"""ECSV: names, units and types of the columns in a header of YAML; the rest of its metadata is not read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from numpy.typing import NDArray

from bayesflowmass.catalog import CatalogError
from bayesflowmass.catalog.errors import reason
from bayesflowmass.io.text.layout import TextLayout
from bayesflowmass.io.text.rows import RowFormat, split_line
from bayesflowmass.io.text.values import column_values, text_array


def ecsv_layout(lines: Sequence[str]) -> TextLayout | None:
    """The layout of an ECSV file, whose header has to fit the names above the rows."""
    number = next((place for place, line in enumerate(lines) if not line.startswith("#")), len(lines))
    header = [line.removeprefix("#").removeprefix(" ") for line in lines[:number]]
    while number < len(lines) and not lines[number].strip():
        number += 1
    wanted = _sections(header, ("datatype", "delimiter"))
    try:
        # Plain lists and words: nothing that a SafeLoader makes, and no reference to expand.
        given = yaml.load(wanted, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise CatalogError(f"the header of this ECSV file is damaged: {reason(error)}.") from None
    columns = (given or {}).get("datatype") if isinstance(given, dict) else None
    if not isinstance(columns, list) or not all(_is_column(column) for column in columns):
        raise CatalogError("the header of this ECSV file has no list of columns (datatype).")
    names = tuple(str(column["name"]) for column in columns)
    delimiter = str(given.get("delimiter", " "))
    if delimiter not in (" ", ","):
        raise CatalogError(f"the delimiter of this ECSV file is {delimiter!r}; expected a blank or a comma.")
    if number >= len(lines):
        return None
    if tuple(split_line(lines[number], delimiter) or []) != names:
        raise CatalogError(
            f"the header of this ECSV file announces the columns {', '.join(names)}, and line {number + 1} names "
            "others; correct one of them."
        )
    kinds = {
        name: "string" if column.get("subtype") else str(column.get("datatype", "string"))
        for name, column in zip(names, columns, strict=True)
    }
    units = tuple(None if column.get("unit") is None else str(column["unit"]) for column in columns)
    return TextLayout(RowFormat(names, delimiter), units, number + 1, kinds=kinds)


def _is_column(entry: Any) -> bool:
    """Whether an entry of the header names a column, in plain words."""
    return (
        isinstance(entry, dict)
        and "name" in entry
        and all(isinstance(entry.get(key), str | int | float | None) for key in ("name", "unit", "datatype"))
    )


def typed(cells: Any, kind: str, where: str) -> NDArray[Any]:
    """A column as its ECSV type says."""
    cells = cells.combine_chunks() if isinstance(cells, pa.ChunkedArray) else cells
    if kind.startswith(("int", "uint", "float")):
        values = column_values(cells, where)
        numeric = values.dtype.kind in "iuf"
        if numeric and (
            kind.startswith("float") or values.dtype.kind != "f" or np.ma.getmaskarray(values).all()
        ):
            return values.astype(np.float64) if kind.startswith("float") else values
        row = _first_odd(cells, kind)
        if row is None:
            return values
        raise CatalogError(f"{where} in row {row + 1} is {cells[row].as_py()!r}; expected {kind}.")
    if kind == "bool":
        words = cells.to_pylist()
        if {*words} <= {"True", "1", "False", "0"}:
            return np.array([word in ("True", "1") for word in words], dtype=bool)
    return text_array(cells, where)


def _sections(header: Sequence[str], names: Sequence[str]) -> str:
    """The lines of some entries of the outermost level of a YAML text."""
    kept, inside = [], False
    for line in header:
        if line[:1] not in (" ", "-", "") or line.startswith("---"):
            inside = line.partition(":")[0].strip() in names
        if inside:
            kept.append(line)
    return "\n".join(kept)


def _first_odd(cells: Any, kind: str) -> int | None:
    whole = kind.startswith(("int", "uint"))
    for row, cell in enumerate(cells.to_pylist()):
        try:
            if cell.strip():
                int(cell) if whole else float(cell)
        except ValueError:
            return row
    return None

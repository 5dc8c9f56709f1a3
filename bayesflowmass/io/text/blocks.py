"""Numbers from long text files, block by block in bounded memory; a broken row is named by its line."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesflowmass.catalog import CatalogError
from bayesflowmass.io.opening import open_bytes
from bayesflowmass.io.text.rows import BYTES_AT_ONCE, Kind, RowFormat, iterate_parts


def iterate_rows(
    path: str | os.PathLike[str],
    names: Sequence[str],
    wanted: Mapping[str, Kind],
    *,
    delimiter: str = " ",
    skip_lines: int = 0,
    block_bytes: int = BYTES_AT_ONCE,
) -> Iterator[dict[str, NDArray[Any]]]:
    """Columns of successive blocks of rows; comments and empty lines are passed over (`iterate_parts`).

    Args:
        names: of all columns in the file, in their order.
        wanted: which of them to return: ``"id"`` as int64 (never through floats), ``"number"`` as finite
            float64, ``"maybe"`` as float64 with NaN where a value is missing.
        delimiter: ``","``, or ``" "`` for any run of blanks.
        skip_lines: lines before the first row.
        block_bytes: of (unpacked) text held at once, about.
    """
    with open_bytes(path) as stream:
        for _ in range(skip_lines):
            stream.readline()
        form = RowFormat(tuple(names), delimiter)
        for table in iterate_parts(
            stream, form, wanted, str(path), first_line=1 + skip_lines, block_bytes=block_bytes
        ):
            yield {
                name: table[name].combine_chunks().to_numpy(zero_copy_only=False)
                for name in table.column_names
            }


def read_rows(
    path: str | os.PathLike[str], names: Sequence[str], wanted: Mapping[str, Kind], **options: Any
) -> dict[str, NDArray[Any]]:
    """All rows at once, one at least; arguments of `iterate_rows`."""
    parts = list(iterate_rows(path, names, wanted, **options))
    if not any(values.size for part in parts for values in part.values()):
        raise CatalogError(f"{path}: the table has no rows.")
    return {name: np.concatenate([part[name] for part in parts]) for name in wanted}

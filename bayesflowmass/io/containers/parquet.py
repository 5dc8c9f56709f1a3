"""Flat parquet tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from astropy.table import Table
from numpy.typing import NDArray

from bayesflowmass.catalog import CatalogError
from bayesflowmass.io.opening import open_bytes
from bayesflowmass.io.text.values import text_array

__all__ = ["read_parquet_table"]


def read_parquet_table(path: Path, name: str) -> Table:
    """Numbers, truth values and text of a parquet file; dates become text, and nested columns are left out.

    Raises:
        CatalogError: if the file is damaged.
    """
    try:
        # The open file and not its name: Arrow cannot follow a path then.
        with open_bytes(path) as stream:
            table = pq.ParquetFile(pa.BufferReader(stream.read())).read()
            # Texts that are no UTF-8, and the like, which would fail later.
            table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, EOFError) as error:
        raise CatalogError(
            f"{name}: not a whole parquet file (truncated, damaged, or another format)."
        ) from error
    twice = sorted({one for one in table.column_names if table.column_names.count(one) > 1})
    if twice:
        raise CatalogError(f"{name}: column {twice[0]} is there more than once; rename all but one.")
    columns: dict[str, Any] = {}
    left_out = []
    for one in table.column_names:
        values = _values(table[one], f"{name}: {one}")
        if values is None:
            left_out.append(one)
        else:
            columns[one] = values
    result = Table(columns, copy=False)
    said = f"columns that are no numbers or text are left out: {', '.join(left_out)}."
    result.meta["notes"] = [said] if left_out else []
    return result


def _values(column: Any, where: str) -> NDArray[Any] | None:
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind = array.type
    if pa.types.is_null(kind):
        return np.ma.MaskedArray(np.zeros(len(array)), mask=True)
    if pa.types.is_decimal(kind):
        array = pc.cast(array, pa.float64() if kind.scale > 0 else pa.string())
    elif pa.types.is_float16(kind):
        array = pc.cast(array, pa.float32())
    elif pa.types.is_temporal(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        array = _as_text(array)
    elif pa.types.is_nested(kind):
        return None
    if array is None:
        return None
    if (
        pa.types.is_string(array.type)
        or pa.types.is_large_string(array.type)
        or str(array.type) == "string_view"
    ):
        return text_array(pc.cast(array, pa.large_string()), where)
    if not array.null_count:
        return np.asarray(array.to_numpy(zero_copy_only=False))
    mask = array.is_null().to_numpy(zero_copy_only=False)
    filler: Any = False if pa.types.is_boolean(array.type) else 0
    return np.ma.array(array.fill_null(filler).to_numpy(zero_copy_only=False), mask=mask)


def _as_text(array: Any) -> Any:
    try:
        return pc.cast(array, pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None

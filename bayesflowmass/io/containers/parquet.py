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
from bayesflowmass.catalog.errors import damaged
from bayesflowmass.io.opening import UNPACKED_LIMIT, UNPACKED_RATIO, open_bytes
from bayesflowmass.io.plain_table import plain_table
from bayesflowmass.io.text.values import text_array

_BROKEN = "not a whole parquet file: truncated, damaged, or another format"


def is_parquet(start: bytes) -> bool:
    """Whether the first bytes of a file are those of parquet."""
    return start.startswith(b"PAR1")


def parquet_columns(path: Path, name: str) -> list[str]:
    """Names of the columns."""
    with damaged(name, _BROKEN):
        return list(pq.read_schema(path).names)


def read_parquet_table(path: Path, name: str) -> Table:
    """Numbers, truth values and text of a parquet file; dates become text, and nested columns are left out."""
    # The open file and not its name: Arrow cannot follow a path then.
    with damaged(name, _BROKEN), open_bytes(path) as stream:
        data = stream.read()
        file = pq.ParquetFile(pa.BufferReader(data))
        # A column of one value takes no place in the file, and eight bytes a row in memory.
        size = 8 * file.metadata.num_rows * max(1, file.metadata.num_columns)
        if size > max(UNPACKED_LIMIT, UNPACKED_RATIO * len(data)):
            raise CatalogError(
                f"{name}: {len(data)} bytes announce {file.metadata.num_rows} rows of {file.metadata.num_columns} "
                "columns, as no table does; look at it with another programme."
            )
        table = file.read()
        # Texts that are no UTF-8, and the like, which would fail later.
        table.validate(full=True)
    columns = zip(table.column_names, table.columns, strict=True)
    return plain_table(((one, _values(column, f"{name}: {one}"), None) for one, column in columns), [], name)


def _values(column: Any, where: str) -> NDArray[Any] | None:
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind = array.type
    if pa.types.is_null(kind):
        return np.ma.MaskedArray(np.zeros(len(array)), mask=True)
    if pa.types.is_nested(kind):
        return None
    if pa.types.is_decimal(kind):
        array = pc.cast(array, pa.float64() if kind.scale > 0 else pa.string())
    elif pa.types.is_float16(kind):
        array = pc.cast(array, pa.float32())
    elif pa.types.is_temporal(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        try:
            array = pc.cast(array, pa.string())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return None
    if str(array.type) in ("string", "large_string", "string_view"):
        return text_array(pc.cast(array, pa.large_string()), where)
    if not array.null_count:
        return np.asarray(array.to_numpy(zero_copy_only=False))
    mask = array.is_null().to_numpy(zero_copy_only=False)
    filled = array.fill_null(pa.scalar(False).cast(array.type))
    return np.ma.array(filled.to_numpy(zero_copy_only=False), mask=mask)

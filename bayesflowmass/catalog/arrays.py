"""Arrow and numpy arrays of ragged data: conversion without copies, gathering, reduction by cluster.

A ragged column of n clusters is a flat array of all galaxies and ``offsets`` (n + 1,), int64, from 0 to their
number: cluster i owns ``flat[offsets[i]:offsets[i + 1]]``. No function here loops over clusters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from bayesflowmass.catalog.errors import CatalogError
from bayesflowmass.common.arrays import BoolArray, IntArray

if TYPE_CHECKING:
    import torch

_ID_COLUMNS = ("cluster_id", "halo_id", "gal_galaxy_id")
_LIST_OFFSET_LIMIT = 2**31 - 1


def is_list(kind: Any) -> bool:
    """Whether an Arrow type is a list of variable length (a galaxy column)."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def is_nested(kind: Any) -> bool:
    """Whether an Arrow type is a struct of lists, as nested-pandas and LSDB write the galaxies of a cluster, or a list
    of structs, as they have them in memory."""
    if is_list(kind):
        return bool(pa.types.is_struct(kind.value_type))
    return pa.types.is_struct(kind) and kind.num_fields > 0 and all(is_list(one.type) for one in kind)


def nested_lists(values: Any) -> dict[str, Any]:
    """The lists, by name, of a chunked column that `is_nested`."""
    whole = values.combine_chunks()
    if not is_list(whole.type):
        return {field.name: part for field, part in zip(whole.type, whole.flatten(), strict=True)}
    lengths = pc.fill_null(pc.list_value_length(whole), 0).to_numpy()
    bounds, inner = pa.array(np.append(0, np.cumsum(lengths)), pa.int64()), whole.flatten()
    return {
        field.name: pa.LargeListArray.from_arrays(bounds, part)
        for field, part in zip(inner.type, inner.flatten(), strict=True)
    }


def to_arrow(name: str, values: Any) -> Any:
    """One Arrow array of numbers, booleans or strings, sharing memory where the input allows it."""
    array = values
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks() if array.num_chunks != 1 else array.chunk(0)
    if not isinstance(array, pa.Array):
        array = _numpy_to_arrow(name, array)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_large_string(array.type) and array.nbytes < _LIST_OFFSET_LIMIT:
        array = array.cast(pa.string())
    if name in _ID_COLUMNS and pa.types.is_floating(array.type):
        raise CatalogError(
            f"column {name} holds {array.type}; expected integers or strings, since an id above 2^53 does "
            "not survive as a float."
        )
    if array.null_count and not (pa.types.is_floating(array.type) or pa.types.is_fixed_size_list(array.type)):
        row = int(np.argmax(array.is_null().to_numpy(zero_copy_only=False)))
        raise CatalogError(f"column {name} has no value in row {row}; only floats may be missing (as NaN).")
    return array


def _numpy_to_arrow(name: str, values: Any) -> Any:
    masked = isinstance(values, np.ma.MaskedArray)
    mask = np.ma.getmaskarray(values) if masked else None
    array = np.asarray(values.data if masked else values)
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8")
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype.kind not in "biufUOT" or array.ndim not in (1, 2):
        raise CatalogError(
            f"column {name} has dtype {array.dtype} and {array.ndim} dimensions; expected numbers."
        )
    try:
        if array.ndim == 2:
            flat = pa.array(np.ascontiguousarray(array).ravel())
            return pa.FixedSizeListArray.from_arrays(flat, array.shape[1])
        if array.dtype.kind in "UOT":
            return pa.array(array.tolist(), mask=mask)
        return pa.array(np.ascontiguousarray(array), mask=mask)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise CatalogError(f"column {name} cannot be stored: {error}") from error


def to_numpy(array: Any) -> NDArray[Any]:
    """Read-only numpy array of an Arrow array; numbers without missing values share its memory."""
    if pa.types.is_fixed_size_list(array.type):
        width = array.type.list_size
        result = to_numpy(array.flatten()).reshape(-1, width)
    elif pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        result = array.to_numpy(zero_copy_only=False).astype(str)
    else:
        result = array.to_numpy(zero_copy_only=False)
    result.flags.writeable = False
    return np.asarray(result)


def to_tensor(name: str, array: Any) -> torch.Tensor:
    """Tensor of an Arrow array of numbers, of the same memory where none is missing; booleans are copied."""
    # Imported late: reading a table should not wait for torch.
    import torch
    import torch.utils.dlpack

    if pa.types.is_boolean(array.type) or array.null_count:
        return torch.from_numpy(np.array(to_numpy(array)))
    if not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type)):
        raise CatalogError(f"galaxy column {name} holds {array.type}, which no tensor can.")
    # DLPack and not numpy: a read-only numpy view would make torch warn.
    return torch.utils.dlpack.from_dlpack(array)


def split_list_column(name: str, column: Any) -> tuple[Any, IntArray]:
    """Flat values and offsets (from 0) of a list column, chunked or sliced or neither."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    values, counts = [], []
    row = 0
    for chunk in chunks:
        if chunk.null_count:
            bad = row + int(np.argmax(chunk.is_null().to_numpy(zero_copy_only=False)))
            raise CatalogError(
                f"list column {name} has no list in row {bad}; expected a list, which may be empty."
            )
        row += len(chunk)
        bounds = np.asarray(chunk.offsets.to_numpy(), dtype=np.int64)
        values.append(chunk.values.slice(int(bounds[0]), int(bounds[-1] - bounds[0])))
        counts.append(np.diff(bounds))
    value_type = column.type.value_type
    if pa.types.is_string(value_type) and len(values) > 1:
        # Chunks that fit one by one may not fit together.
        value_type = pa.large_string()
        values = [value.cast(value_type) for value in values]
    flat = values[0] if len(values) == 1 else pa.chunked_array(values, type=value_type).combine_chunks()
    return flat, offsets_from_counts(np.concatenate([np.zeros(0, np.int64), *counts]))


def join_list_column(flat: Any, offsets: Any, large: bool) -> Any:
    """List array of flat values; ``offsets`` is an Arrow array shared by all columns of one table."""
    return (pa.LargeListArray if large else pa.ListArray).from_arrays(offsets, flat)


def arrow_offsets(offsets: IntArray) -> tuple[Any, bool]:
    """Offsets as an Arrow array, int32 where they fit, and whether they are 64 bits wide."""
    large = bool(offsets[-1] > _LIST_OFFSET_LIMIT)
    return pa.array(offsets if large else offsets.astype(np.int32)), large


def offsets_from_counts(counts: ArrayLike) -> IntArray:
    """Offsets (n + 1,) from the number of galaxies of each cluster (n,)."""
    counted = np.asarray(counts, dtype=np.int64)
    offsets = np.zeros(counted.size + 1, dtype=np.int64)
    np.cumsum(counted, out=offsets[1:])
    return offsets


def rows_of_galaxies(offsets: IntArray) -> IntArray:
    """Row of the cluster that each galaxy belongs to (n_galaxies,)."""
    return np.repeat(np.arange(offsets.size - 1, dtype=np.int64), np.diff(offsets))


def gather(offsets: IntArray, rows: IntArray) -> tuple[IntArray, IntArray]:
    """Indices of the galaxies of chosen clusters, in that order, and the offsets of the result."""
    counts = np.diff(offsets)[rows]
    result = offsets_from_counts(counts)
    index = np.arange(result[-1], dtype=np.int64)
    index += np.repeat(offsets[:-1][rows] - result[:-1], counts)
    return index, result


def segment_sum(values: NDArray[Any], offsets: IntArray) -> NDArray[Any]:
    """Sum over the galaxies of each cluster (n,); 0 for an empty one."""
    return _reduced(np.add, values, offsets)


def segment_max(values: NDArray[Any], offsets: IntArray) -> NDArray[Any]:
    """Largest value among the galaxies of each cluster (n,); 0 for an empty one."""
    return _reduced(np.maximum, values, offsets)


def _reduced(function: np.ufunc, values: NDArray[Any], offsets: IntArray) -> NDArray[Any]:
    result = np.zeros(offsets.size - 1, dtype=np.result_type(values.dtype, np.float64))
    filled = np.flatnonzero(np.diff(offsets))
    if filled.size:
        # reduceat misreads empty segments, so it gets the filled ones: their starts still tile the array.
        result[filled] = function.reduceat(values, offsets[:-1][filled], dtype=result.dtype)
    return result


def segment_median(values: NDArray[Any], offsets: IntArray, chosen: BoolArray | None = None) -> NDArray[Any]:
    """Median over the (chosen) galaxies of each cluster (n,), float64; NaN where there are none."""
    rows = rows_of_galaxies(offsets)
    if chosen is not None:
        values, rows = values[chosen], rows[chosen]
    values = values.astype(np.float64)
    lowest = values.min(initial=0.0)
    width = values.max(initial=0.0) - lowest
    # One float key sorts faster than two; its rounding can only swap values that all but agree.
    key = rows * (1.01 * width + 1.0) + (values - lowest)
    ordered = values[np.argsort(key)]
    counts = np.bincount(rows, minlength=offsets.size - 1)
    starts = offsets_from_counts(counts)[:-1]
    result = np.full(counts.size, np.nan)
    filled = counts > 0
    low = (starts + (counts - 1) // 2)[filled]
    high = (starts + counts // 2)[filled]
    result[filled] = 0.5 * (ordered[low] + ordered[high])
    return result


def match_ids(wanted: NDArray[Any], known: NDArray[Any]) -> IntArray:
    """Position in ``known`` (unique) of each of ``wanted``; -1 where it is not there."""
    order = np.argsort(known, kind="stable")
    if known.size == 0:
        return np.full(wanted.size, -1, dtype=np.int64)
    place = np.minimum(np.searchsorted(known, wanted, sorter=order), known.size - 1)
    found = order[place]
    return np.where(known[found] == wanted, found, -1).astype(np.int64)


def sized_column(name: str, values: Any, size: int, what: str) -> Any:
    """Arrow array of a column of ``size`` values; one number fills it."""
    if np.ndim(values) == 0 and not isinstance(values, pa.Array | pa.ChunkedArray):
        values = np.full(size, values)
    array = to_arrow(name, values)
    if len(array) != size:
        raise CatalogError(f"column {name} has {len(array)} values for {size} {what}.")
    return array


def checked_mask(mask: ArrayLike, size: int, what: str) -> BoolArray:
    """Boolean mask of shape (size,)."""
    keep = np.asarray(mask)
    if keep.dtype != np.bool_ or keep.shape != (size,):
        raise CatalogError(
            f"a mask of {keep.dtype} and shape {keep.shape} was given; "
            f"expected booleans, one for each of {size} {what}."
        )
    return keep


def joined_columns(name: str, arrays: list[Any]) -> Any:
    """One Arrow array from those of several catalogues, of the wider type where they differ."""
    kinds = {array.type for array in arrays}
    if len(kinds) > 1:
        if all(pa.types.is_floating(kind) for kind in kinds):
            arrays = [array.cast(pa.float64()) for array in arrays]
        elif all(pa.types.is_signed_integer(kind) for kind in kinds):
            arrays = [array.cast(pa.int64()) for array in arrays]
        elif all(pa.types.is_string(kind) or pa.types.is_large_string(kind) for kind in kinds):
            arrays = [array.cast(pa.large_string()) for array in arrays]
        else:
            listed = " and ".join(sorted(map(str, kinds)))
            raise CatalogError(
                f"column {name} is {listed} in catalogues to be concatenated; convert one of them."
            )
    return arrays[0] if len(arrays) == 1 else pa.concat_arrays(arrays)


def same_values(left: Any, right: Any) -> bool:
    """Whether two Arrow arrays are equal; NaN equals NaN."""
    if left.equals(right):
        return True
    if not pa.types.is_floating(left.type):
        return False
    return bool(np.array_equal(to_numpy(left), to_numpy(right), equal_nan=True))

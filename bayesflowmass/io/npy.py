"""Numpy's own files, without ever running a pickle."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesflowmass.catalog import CatalogError

__all__ = ["is_npy", "npy_dtype", "open_npy", "refuse_pickle"]

_MAGIC = b"\x93NUMPY"


def is_npy(data: bytes) -> bool:
    """Whether the first bytes of a file are those of an npy array."""
    return data[:6] == _MAGIC


def refuse_pickle(path: Path, data: bytes) -> None:
    """Refuse a pickle by its first bytes; it is not opened, since that can run any code.

    Raises:
        CatalogError: says how to convert it.
    """
    binary = data[:1] == b"\x80" and data[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    if binary or data.startswith((b"ccopy_reg", b"(dp0", b"(lp0", b"(itools", b"ctools")):
        raise CatalogError(
            f"{path}: this is a pickle, which can run any code when it is opened, so it is not; if it is a halo_cnn "
            "catalogue, open it where it was made and write it again with its Catalog.save_npy, otherwise save "
            "the table as csv, fits or parquet."
        )


def npy_dtype(path: str | os.PathLike[str]) -> np.dtype[Any]:
    """Type of the elements, from the header.

    Raises:
        CatalogError: if the header is broken.
    """
    try:
        with Path(path).open("rb") as stream:
            version = np.lib.format.read_magic(stream)
            read = (
                np.lib.format.read_array_header_1_0
                if version[0] == 1
                else np.lib.format.read_array_header_2_0
            )
            return np.dtype(read(stream)[2])
    except Exception as error:
        # numpy evaluates the header as Python: what is no Python fails in many ways.
        reason = " ".join(str(error).split())[:120]
        raise CatalogError(
            f"{path}: the header of this npy file is broken ({reason}); copy it again."
        ) from error


def open_npy(path: str | os.PathLike[str]) -> NDArray[Any]:
    """A one-dimensional structured array, mapped and not read.

    Raises:
        CatalogError: for Python objects (a pickle inside), a truncated file, or an array without fields.
    """
    dtype = npy_dtype(path)
    if dtype.hasobject:
        raise CatalogError(
            f"{path}: the array holds Python objects, which are stored as a pickle, and a pickle can run any code; "
            "save plain numbers, with np.save of a structured array."
        )
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:
        reason = " ".join(str(error).split())[:120]
        raise CatalogError(
            f"{path}: the npy file is half-written or damaged ({reason}); copy it again."
        ) from error
    if dtype.names is None or array.ndim != 1:
        raise CatalogError(
            f"{path}: the array has shape {array.shape} and type {dtype}; expected one structured row for each "
            "object, with named fields."
        )
    return array

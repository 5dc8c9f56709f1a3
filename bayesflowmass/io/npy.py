"""Numpy's own files, without ever running a pickle."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesflowmass.catalog import CatalogError
from bayesflowmass.catalog.errors import damaged


def is_npy(data: bytes) -> bool:
    """Whether the first bytes of a file are those of an npy array."""
    return data.startswith(b"\x93NUMPY")


def refuse_pickle(path: Path, data: bytes) -> None:
    """Refuse a pickle by its first bytes; it is not opened, since that can run any code."""
    binary = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
    if data.startswith((*binary, b"ccopy_reg", b"(dp0", b"(lp0", b"(itools", b"ctools")):
        raise CatalogError(
            f"{path}: this is a pickle, which can run any code when it is opened, so it is not; if it is a halo_cnn "
            "catalogue, open it where it was made and write it again with its Catalog.save_npy, otherwise save "
            "the table as csv, fits or parquet."
        )


def npy_dtype(path: str | os.PathLike[str]) -> np.dtype[Any]:
    """Type of the elements, from the header."""
    # numpy evaluates the header as Python: what is no Python fails in many ways.
    with damaged(str(path), "the header of this npy file is broken"), Path(path).open("rb") as stream:
        first = np.lib.format.read_magic(stream)[0] == 1
        read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
        return np.dtype(read(stream)[2])


def open_npy(path: str | os.PathLike[str]) -> NDArray[Any]:
    """A one-dimensional structured array, mapped and not read; Python objects (a pickle inside) are refused."""
    dtype = npy_dtype(path)
    if dtype.hasobject:
        raise CatalogError(
            f"{path}: the array holds Python objects, which are stored as a pickle, and a pickle can run any code; "
            "save plain numbers, with np.save of a structured array."
        )
    with damaged(str(path), "the npy file is half-written or damaged"):
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    if dtype.names is None or array.ndim != 1:
        raise CatalogError(
            f"{path}: the array has shape {array.shape} and type {dtype}; expected one structured row for each "
            "object, with named fields."
        )
    return array

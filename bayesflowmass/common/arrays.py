"""Names of numpy array types, and arrays by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]


def columns_under(columns: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    """The columns ``prefix.name``, by name: those of one dataclass in a file that holds several."""
    start = f"{prefix}."
    return {name.removeprefix(start): values for name, values in columns.items() if name.startswith(start)}

"""What all selections share: reading their arguments and writing themselves into the metadata."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesflowmass.catalog import CatalogError, ClusterCatalog

__all__ = ["check_positive", "generator", "per_cluster", "record", "recordable"]


def generator(seed: int | np.random.Generator) -> np.random.Generator:
    """The generator itself, or a new one from a seed."""
    return seed if isinstance(seed, np.random.Generator) else np.random.default_rng(seed)


def per_cluster(catalog: ClusterCatalog, name: str, values: ArrayLike) -> NDArray[np.float64]:
    """Values as one finite number per cluster (n,).

    Raises:
        CatalogError: for another shape, or a value that is not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.shape not in ((), (len(catalog),)):
        raise CatalogError(f"{name} has shape {array.shape}; expected one number, or one for each cluster.")
    if not np.all(np.isfinite(array)):
        raise CatalogError(f"{name} must be finite.")
    return np.broadcast_to(array, (len(catalog),))


def check_positive(name: str, value: float) -> float:
    """The value, if it is a positive number.

    Raises:
        CatalogError: if it is not.
    """
    if not value > 0.0:
        raise CatalogError(f"{name} is {value}; expected a positive number.")
    return float(value)


def recordable(values: ArrayLike) -> float | list[float] | None:
    """One number as it is, several as their range [smallest, largest]."""
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        return None
    low, high = float(array.min()), float(array.max())
    return low if low == high else [low, high]


def record(
    catalog: ClusterCatalog, seed: int | np.random.Generator | None = None, **entries: Any
) -> ClusterCatalog:
    """Write entries into ``metadata.selection``, with ``<first entry>_seed`` where the seed is a number."""
    if isinstance(seed, int | np.integer):
        entries[f"{next(iter(entries))}_seed"] = int(seed)
    metadata = catalog.metadata.with_selection(**entries)
    return catalog.with_metadata(selection=metadata.selection)

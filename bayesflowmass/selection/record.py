"""What all selections share: reading their arguments and writing themselves into the metadata."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.catalog.arrays import segment_sum
from bayesflowmass.common.arrays import BoolArray, FloatArray


def generator(seed: int | np.random.Generator, purpose: str) -> np.random.Generator:
    """The generator itself, or a new one from a seed; one seed gives each purpose its own draws."""
    if isinstance(seed, np.random.Generator):
        return seed
    if seed < 0:
        raise CatalogError(f"seed is {seed}; expected a whole number, 0 or more.")
    return np.random.default_rng([int(seed), zlib.crc32(purpose.encode())])


def per_cluster(catalog: ClusterCatalog, name: str, values: ArrayLike) -> FloatArray:
    """Values as one finite number per cluster (n,)."""
    array = np.asarray(values, dtype=np.float64)
    if array.shape not in ((), (len(catalog),)):
        raise CatalogError(f"{name} has shape {array.shape}; expected one number, or one for each cluster.")
    if not np.all(np.isfinite(array)):
        raise CatalogError(f"{name} must be finite.")
    return np.broadcast_to(array, (len(catalog),))


def at_least(chosen: BoolArray, catalog: ClusterCatalog, number: int) -> BoolArray:
    """The chosen galaxies (flat mask), or all of a cluster in which fewer than ``number`` are chosen."""
    enough = segment_sum(chosen.astype(np.float64), catalog.offsets) >= number
    return chosen | ~np.repeat(enough, catalog.n_galaxies)


def check_positive(name: str, value: float) -> float:
    """The value, if it is a positive number."""
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

"""The columns of a catalogue from what users have: arrays, or an Arrow table with lists."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesflowmass.catalog.arrays import (
    is_list,
    is_nested,
    nested_lists,
    offsets_from_counts,
    sized_column,
    split_list_column,
    to_arrow,
)
from bayesflowmass.catalog.errors import CatalogError
from bayesflowmass.common.arrays import IntArray

Parts = tuple[dict[str, Any], dict[str, Any], IntArray]
"""Cluster columns, flat galaxy columns, offsets."""


def columns_from_arrays(
    clusters: Mapping[str, Any], galaxies: Mapping[str, Any], n_galaxies: ArrayLike
) -> Parts:
    """Convert and check arrays; see `ClusterCatalog.from_arrays`."""
    counts = np.asarray(n_galaxies)
    if counts.ndim != 1 or (counts.size and counts.dtype.kind not in "iu") or np.any(counts < 0):
        raise CatalogError("n_galaxies must be one whole number, 0 or more, for each cluster.")
    offsets = offsets_from_counts(counts)
    twice = sorted(set(clusters) & set(galaxies))
    if twice:
        raise CatalogError(f"column {twice[0]!r} is given for clusters and for galaxies; rename one of them.")
    rows = {name: sized_column(name, values, counts.size, "clusters") for name, values in clusters.items()}
    flats = {
        name: sized_column(name, values, int(offsets[-1]), "galaxies") for name, values in galaxies.items()
    }
    return rows, flats, offsets


def columns_from_table(table: Any) -> Parts:
    """Take a pyarrow table apart; see `ClusterCatalog.from_table`. Nested columns are lists beside each other."""
    for name in [one for one in table.column_names if is_nested(table.schema.field(one).type)]:
        for field, values in nested_lists(table[name]).items():
            table = table.append_column(field, values)
        table = table.drop_columns([name])
    lists = [name for name in table.column_names if is_list(table.schema.field(name).type)]
    if not lists:
        raise CatalogError(
            "the table has no list column, so it is not a catalogue of one row per cluster; "
            "read flat tables with bayesflowmass.io.load_catalog."
        )
    clusters = {name: to_arrow(name, table[name]) for name in table.column_names if name not in lists}
    galaxies: dict[str, Any] = {}
    offsets: IntArray | None = None
    for name in lists:
        flat, bounds = split_list_column(name, table[name])
        galaxies[name] = to_arrow(name, flat)
        if offsets is not None and not np.array_equal(offsets, bounds):
            row = int(np.argmax(np.diff(offsets) != np.diff(bounds)))
            who = (
                f"cluster {clusters['cluster_id'][row]} (row {row})"
                if "cluster_id" in clusters
                else f"row {row}"
            )
            raise CatalogError(
                f"{who}: column {name} has {np.diff(bounds)[row]} galaxies where column {lists[0]} has "
                f"{np.diff(offsets)[row]}; all lists of a cluster must have one length."
            )
        offsets = bounds
    assert offsets is not None
    return clusters, galaxies, offsets


def parts_by_group(groups: NDArray[Any], fractions: Sequence[float], seed: int) -> IntArray:
    """Number of the random part of each row (n,), groups kept together; see `ClusterCatalog.split`."""
    shares = np.asarray(fractions, dtype=np.float64)
    if shares.ndim != 1 or not np.all(shares > 0.0) or abs(shares.sum() - 1.0) > 1e-9:
        raise CatalogError(f"split: fractions {list(fractions)} must be positive and add up to 1.")
    _, group, counts = np.unique(groups, return_inverse=True, return_counts=True)
    # A second word keeps this stream apart from those of other functions given the same seed.
    order = np.random.default_rng([seed, zlib.crc32(b"split")]).permutation(counts.size)
    middle = np.empty(counts.size)
    middle[order] = np.cumsum(counts[order]) - 0.5 * counts[order]
    part = np.searchsorted(np.cumsum(shares)[:-1] * groups.size, middle, side="right")[group]
    sizes = np.bincount(part, minlength=shares.size)
    if not np.all(sizes):
        raise CatalogError(f"split: {counts.size} haloes are too few for fractions {list(fractions)}.")
    return part.astype(np.int64)

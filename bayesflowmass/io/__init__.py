"""Files and tables into catalogues: one function, `load_catalog`, takes whatever a user has."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.catalog.files import is_catalog_file
from bayesflowmass.cosmology import MDPL2
from bayesflowmass.io.box import box_info, iterate_box, read_box
from bayesflowmass.io.cylinders import Recentring, cut_cylinders
from bayesflowmass.io.flat.read import drop_or_refuse_poor_clusters, read_flat
from bayesflowmass.io.formats import CatalogFormat, identify
from bayesflowmass.io.formats.boxes import BoxInfo
from bayesflowmass.io.opening import at_rest
from bayesflowmass.selection import cylinder

__all__ = [
    "BoxInfo",
    "Recentring",
    "box_info",
    "cut_cylinders",
    "iterate_box",
    "load_catalog",
    "read_box",
    "read_flat",
]

_CLUSTERS_AT_ONCE = 4096


def load_catalog(
    path: Any,
    clusters: Any = None,
    column_map: Mapping[str, str] | None = None,
    *,
    min_galaxies: int = 3,
    few_galaxies: str = "error",
    **options: Any,
) -> ClusterCatalog:
    """Read a catalogue file, a folder of them, or flat tables; the result is validated.

    Args:
        path: a catalogue (parquet with list columns, or halo_cnn npy), a folder of such files, a flat table of
            galaxies in one of the formats of `bayesflowmass.io.formats` or any that astropy reads, or an astropy
            table; or a list of catalogues, to be concatenated.
        clusters: table of clusters, beside a flat table of galaxies.
        column_map: ``{our name: their name}``.
        min_galaxies, few_galaxies: what to do with poor clusters; see `read_flat`.
        options: further arguments of `read_flat`, for flat tables; ``redshift, cosmology, r_max, v_max`` for
            halo_cnn.

    Raises:
        CatalogError: one sentence with the file, column, row or cluster, what was found and what to do.
    """
    if isinstance(path, list | tuple):
        if not path:
            raise CatalogError("there is no catalogue to load.")
        parts = [
            load_catalog(
                one, clusters, column_map, min_galaxies=min_galaxies, few_galaxies=few_galaxies, **options
            )
            for one in path
        ]
        return ClusterCatalog.concatenate(parts).validate(0)
    if isinstance(path, str | os.PathLike):
        path = at_rest(path)
    if not isinstance(path, str | os.PathLike) or not is_catalog_file(path):
        known = identify(path) if isinstance(path, str | os.PathLike) else None
        if isinstance(known, CatalogFormat):
            catalog = _read_whole(known, Path(path), clusters, **options)
        else:
            limits: dict[str, Any] = {"min_galaxies": min_galaxies, "few_galaxies": few_galaxies}
            return read_flat(path, clusters, column_map, **limits, **options)
    else:
        given = ["clusters"] * (clusters is not None) + sorted(options)
        if given:
            raise CatalogError(
                f"{path}: this is a catalogue, one row per cluster, and {given[0]} goes with flat tables only; "
                f"leave it out."
            )
        catalog = ClusterCatalog.read(path)
    if column_map:
        catalog = _renamed(path, catalog, column_map)
    try:
        return drop_or_refuse_poor_clusters(catalog, min_galaxies, few_galaxies)
    except CatalogError as error:
        raise CatalogError(f"{path}: {error}") from error


def _read_whole(known: CatalogFormat, path: Path, clusters: Any, **options: Any) -> ClusterCatalog:
    unfit = ["clusters"] * (clusters is not None) + sorted(
        set(options) - {"redshift", "cosmology", "r_max", "v_max"}
    )
    if unfit:
        raise CatalogError(
            f"{path}: this is a {known.title}, for which {unfit[0]} says nothing; leave it out."
        )
    parts = known.iterate(path, _CLUSTERS_AT_ONCE, options.get("redshift"), options.get("cosmology") or MDPL2)
    catalog = ClusterCatalog.concatenate(list(parts))
    r_max, v_max = options.get("r_max"), options.get("v_max")
    return cylinder(catalog, r_max or np.inf, v_max or np.inf) if r_max or v_max else catalog


def _renamed(path: Any, catalog: ClusterCatalog, column_map: Mapping[str, str]) -> ClusterCatalog:
    for ours, theirs in column_map.items():
        if not catalog.has(theirs):
            there = ", ".join(catalog.column_names)
            raise CatalogError(f"{path}: --column {ours}={theirs}: there is no column {theirs} ({there}).")
        if ours != theirs and catalog.has(ours):
            raise CatalogError(
                f"{path}: --column {ours}={theirs}: the catalogue has a column {ours} already."
            )
    names: Sequence[str] = catalog.table.column_names
    new = {theirs: ours for ours, theirs in column_map.items()}
    return ClusterCatalog.from_table(catalog.table.rename_columns([new.get(name, name) for name in names]))

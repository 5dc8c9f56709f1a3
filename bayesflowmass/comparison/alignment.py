"""Predictions of the models that are compared, laid side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.common.arrays import IntArray
from bayesflowmass.evaluation.files import StoredPredictions


def align(
    runs: Sequence[StoredPredictions], catalog: ClusterCatalog | None
) -> tuple[list[StoredPredictions], IntArray]:
    """All runs with their clusters in one order, and the index of each cluster's halo (n,), from zero.

    Clusters to which one of the runs gives no mass are in none of them.

    Args:
        runs: at least one.
        catalog: gives ``halo_id``; without it the files do, else each cluster is its own halo.

    Raises:
        ValueError: the runs are of different clusters, disagree on a true mass, or share no cluster with a mass.
    """
    first = runs[0]
    order = np.asarray(catalog.column("cluster_id")) if catalog is not None else first.cluster_id
    where = (
        f"the catalogue ({len(order)} clusters)"
        if catalog is not None
        else f"'{first.source}' ({len(order)})"
    )
    aligned: list[StoredPredictions] = []
    for run in runs:
        rows = _rows(run, order, where)
        columns = {name: values[rows] for name, values in run.columns.items()}
        halo = None if run.halo_id is None else run.halo_id[rows]
        aligned.append(replace(run, columns=columns, cluster_id=order, halo_id=halo))
        worst = np.abs(columns["log10_mass_true"] - aligned[0].columns["log10_mass_true"])
        if worst.max() > 1e-5:
            row = int(worst.argmax())
            raise ValueError(
                f"'{run.source}' and '{first.source}' disagree on the true log10_mass of cluster {order[row]} by "
                f"{worst[row]:.3g} dex; they are of different catalogues."
            )
    if catalog is not None and catalog.has("halo_id"):
        halo_id = np.asarray(catalog.column("halo_id"))
    else:
        halo_id = next((run.halo_id for run in aligned if run.halo_id is not None), order)
    usable = np.logical_and.reduce([run.usable for run in aligned])
    if not usable.any():
        raise ValueError(
            "No cluster has a mass from every one of the models, so there is nothing to compare."
        )
    kept = [
        replace(
            run,
            columns={name: values[usable] for name, values in run.columns.items()},
            cluster_id=order[usable],
            halo_id=None if run.halo_id is None else run.halo_id[usable],
        )
        for run in aligned
    ]
    return kept, np.unique(halo_id[usable], return_inverse=True)[1].reshape(-1).astype(np.int64)


def _rows(run: StoredPredictions, order: NDArray[Any], where: str) -> IntArray:
    """Row of the run for each cluster of ``order``."""
    given, wanted = run.cluster_id.astype(str), order.astype(str)
    sorter = np.argsort(given, kind="stable")
    if given.size > 1 and (twice := given[sorter][1:] == given[sorter][:-1]).any():
        name = given[sorter][1:][twice][0]
        raise ValueError(
            f"'{run.source}' has cluster_id {name} more than once; a cluster has one prediction."
        )
    place = np.searchsorted(given[sorter], wanted).clip(0, given.size - 1)
    rows = sorter[place]
    if given.size != wanted.size or (given[rows] != wanted).any():
        extra = np.setxor1d(given, wanted)[0]
        raise ValueError(
            f"'{run.source}' ({given.size} clusters) and {where} are not of the same clusters, {extra} is in one of "
            "them alone; all models must predict one catalogue."
        )
    return np.asarray(rows, dtype=np.int64)

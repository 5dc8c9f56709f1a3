"""Masses of the partitions of a Dask collection, one after the other, where and when Dask works on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.estimator.shipped import DEFAULT_MODEL
from bayesflowmass.evaluation.in_parts import Job
from bayesflowmass.evaluation.masses_table import whole_table
from bayesflowmass.evaluation.road import posteriors
from bayesflowmass.posterior import MassPrior


def infer_dask(
    frame: Any,
    model: str = DEFAULT_MODEL,
    *,
    prior: str | MassPrior = "flat",
    also: Sequence[str | MassPrior] = (),
    n_draws: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    assume: Mapping[str, float] | None = None,
    metadata: Mapping[str, Any] | None = None,
    **options: Any,
) -> Any:
    """Masses of the clusters of a Dask dataframe: another one, of a row for each, computed when it is asked for.

    The draws of the weights are the same in all partitions. Flags that speak of a catalogue as a whole are those of
    a partition.

    Args:
        frame: of clusters, one row each, with lists of galaxies or a nested column of them, of Arrow's types as LSDB
            and nested-pandas have them (``dask.dataframe.read_parquet(..., dtype_backend="pyarrow")``; of other lists
            Dask makes text); ``cluster_id``, ``redshift`` and the columns of a catalogue.
        model: folder, which the workers see, or name of a shipped model.
        prior, also, n_draws, seed, device: see `bayesflowmass.infer.infer`.
        assume: ``{parameter of the mocks: value}`` that the model is told (`bayesflowmass.estimator.told.tell`).
        metadata: fields of `CatalogMetadata`, which a dataframe does not keep: ``mode``, ``selection``.
        options: ``units``, ``mdef``, ``h`` of `bayesflowmass.infer.infer`.

    Returns:
        A Dask dataframe with the columns of the masses table, and the index of ``frame``.

    Raises:
        CatalogError: there is no column ``cluster_id`` or ``redshift``.
    """
    missing = [name for name in ("cluster_id", "redshift") if name not in frame.columns]
    if missing:
        raise CatalogError(
            f"The dataframe has no column {' or '.join(missing)}; its columns are {', '.join(map(str, frame.columns))}."
        )
    road = {"prior": prior, "n_draws": n_draws, "seed": seed}
    job = Job(
        model,
        device,
        dict(assume or {}),
        dict(metadata or {}),
        road,
        {"also": also, "model": model, **options},
    )
    return frame.map_partitions(_masses, job, meta=_made_up(job, frame.dtypes["cluster_id"])[:0])


def _masses(frame: Any, job: Job) -> Any:
    """The masses of a partition."""
    table = _table(job, pa.Table.from_pandas(frame, preserve_index=False)) if len(frame) else None
    if table is None or "log10_mass" not in table:
        # Columns that no cluster here has, as in the other partitions.
        example = _made_up(job, frame.dtypes["cluster_id"])
        table = example[:0] if table is None else table.reindex(columns=example.columns)
        table["prior"] = example["prior"].iloc[0]
    return table.set_index(frame.index).astype({"cluster_id": frame.dtypes["cluster_id"]})


def _table(job: Job, clusters: pa.Table) -> Any:
    catalog = job.told(ClusterCatalog.from_table(clusters))
    found, _ = whole_table(posteriors(job.estimator(), catalog, a_part=True, **job.road), **job.table)
    return found.to_pandas(index=False)


def _made_up(job: Job, identifier: Any) -> Any:
    """The masses table of one cluster that was made up, with identifiers of some type."""
    rng = np.random.default_rng(0)
    extras = {name: [1.0] for name in job.estimator().encoder.extras}
    columns: dict[str, list[Any]] = extras | {"cluster_id": ["0"], "redshift": [0.1]}
    lists = {name: [rng.normal(0.0, width, 50)] for name, width in (("x", 0.3), ("y", 0.3), ("v_los", 500.0))}
    return _table(job, pa.table(columns | lists)).astype({"cluster_id": identifier})

"""Evaluation of catalogues of any size: part by part, on several processes or a Dask cluster.

A part leaves some hundreds of bytes for each of its clusters (`bayesflowmass.evaluation.tested`); finished parts are
kept until the results are written.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bayesflowmass.baselines import fit_baselines
from bayesflowmass.baselines.suite import Baseline
from bayesflowmass.catalog import CatalogError, CatalogMetadata, ClusterCatalog
from bayesflowmass.catalog.files import RowGroups, catalog_metadata, parts_of
from bayesflowmass.catalog.work import WorkFolder, file_facts
from bayesflowmass.common.arrays import IntArray
from bayesflowmass.common.files import write_whole
from bayesflowmass.common.lock import sole_writer
from bayesflowmass.common.progress import progress_bar
from bayesflowmass.common.workers import processes, work_off
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.estimator.cylinder import in_cylinder
from bayesflowmass.estimator.shipped import model_folder
from bayesflowmass.evaluation.files import PREDICTIONS, model_hash
from bayesflowmass.evaluation.in_parts import files_of, loaded_model, together_empty
from bayesflowmass.evaluation.predictions import prior_range_of
from bayesflowmass.evaluation.results import write_results
from bayesflowmass.evaluation.test_sets import baseline_set
from bayesflowmass.evaluation.tested import gathered, packed, put_to_test


@dataclass(frozen=True)
class _Job:
    """What is done with each part; it goes to the processes that do it.

    Attributes:
        model, device: see `MassEstimator.load`.
        metadata: of the catalogue as a whole.
        baselines: fitted.
        options: of `predict`.
    """

    model: str
    device: str
    metadata: CatalogMetadata
    baselines: Mapping[str, Baseline]
    options: Mapping[str, Any]

    def estimator(self) -> MassEstimator:
        return loaded_model(self.model, self.device)

    def clusters(self, part: RowGroups) -> ClusterCatalog:
        return ClusterCatalog.from_table(part.read(), self.metadata)


def evaluate_in_parts(
    model: str | Path,
    path: Path,
    out: Path,
    *,
    prior: str,
    baseline_catalog: ClusterCatalog | None,
    baseline_file: Path | None = None,
    n_resamples: int,
    n_draws: int | None,
    seed: int,
    device: str,
    workers: int | None,
    scheduler: str | None = None,
    figures: bool = True,
    progress: bool,
) -> dict[str, Any]:
    """`bayesflowmass.evaluate.evaluate` in the memory of a few parts; the files do not depend on who makes them.

    Args:
        model: folder, or name of a shipped model.
        path: parquet file, or folder of them, one row per cluster, with ``log10_mass``.
        out: folder to write into; finished parts are kept in ``predictions.parquet.work`` in it until all is there.
        baseline_catalog: clusters to fit the baselines on, and the file they came from: where it changes, a run does
            not go on.
        prior, n_resamples, n_draws, seed, figures, progress: see `bayesflowmass.evaluate.evaluate`.
        device: of the model.
        workers: processes; None: one for each core.
        scheduler: address of a Dask scheduler, whose workers see the same folders.

    Returns:
        The content of ``metrics.json``.

    Raises:
        CatalogError: the catalogue cannot be read, has no masses, or its files changed since the run began.
        ValueError: another process writes these files; or see `work_off`, `evaluate`.
    """
    model, out = model_folder(model).absolute(), out.absolute()
    parts, metadata = list(parts_of(path)), catalog_metadata(path, needed="log10_mass")
    if not parts:
        raise CatalogError(f"{path}: the catalogue has no clusters; true masses are needed.")
    estimator = loaded_model(str(model), device)
    prior_range = prior_range_of(estimator, metadata, prior)
    if baseline_catalog is None:
        baseline_catalog = baseline_set(estimator.training_info, metadata, seed)
    options = {"prior": prior, "prior_range": prior_range, "n_draws": n_draws, "seed": seed}
    job = _Job(str(model), device, metadata, fit_baselines(baseline_catalog), options)
    read = [*files_of(parts), *([baseline_file] if baseline_file else [])]
    told = {**options, "model": model_hash(model), "files": [file_facts(file) for file in read]}
    go = partial(work_off, workers=processes(workers, len(parts)), scheduler=scheduler)
    n = sum(part.n_rows for part in parts)
    with (
        sole_writer(out / f"{PREDICTIONS}.work", "evaluate"),
        progress_bar(n, "posteriors", " clusters", progress) as bar,
    ):
        work = WorkFolder(out / PREDICTIONS, {"evaluation": told})
        try:
            empty = together_empty(job, parts, go)
            for index, _ in go(partial(_one_part, job, work, parts, empty), range(len(parts))):
                bar.update(parts[index].n_rows)
            tested = gathered([_file(work, index) for index in range(len(parts))], metadata)
            metrics = write_results(
                out,
                estimator,
                tested,
                job.baselines,
                partial(_rows, job, parts, np.flatnonzero(tested.predictions.usable)),
                prior=prior,
                prior_range=prior_range,
                baseline_selection=baseline_catalog.metadata.selection,
                n_draws=n_draws,
                n_resamples=n_resamples,
                seed=seed,
                figures=figures,
                threads=processes(workers, len(job.baselines)),
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"Finished parts are kept in '{work.path}'; the same command goes on from there."
            ) from None
        work.remove()
    return metrics


def _one_part(job: _Job, work: WorkFolder, parts: list[RowGroups], empty: bool | None, index: int) -> None:
    """Write what is said of the clusters of a part, unless it is there."""
    file = _file(work, index)
    if file.is_file():
        return
    tested = put_to_test(
        job.estimator(),
        job.clusters(parts[index]),
        job.baselines,
        empty_together=empty,
        a_part=True,
        **job.options,
    )
    stream = io.BytesIO()
    np.savez(stream, **packed(tested))  # type: ignore[arg-type]
    write_whole(file, stream.getvalue())


def _file(work: WorkFolder, index: int) -> Path:
    return work.path / f"tested_{index:06d}.npz"


def _rows(job: _Job, parts: list[RowGroups], judged: IntArray, rows: IntArray) -> ClusterCatalog:
    """Some of the clusters that have a mass, with their galaxies, as the model sees them."""
    ends = np.cumsum([part.n_rows for part in parts])
    few = []
    for row in judged[rows]:
        index = int(np.searchsorted(ends, row, side="right"))
        few.append(job.clusters(parts[index])[int(row - ends[index])])
    return in_cylinder(ClusterCatalog.concatenate(few), job.estimator().training_info.selection)

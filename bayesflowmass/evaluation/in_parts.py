"""Masses of catalogues of any size: part by part, from parquet to parquet, on several processes or a Dask cluster.

A part is a run of row groups of the files. Two rounds are made: one for what the flags need to know of the catalogue
as a whole, one for the masses. Finished parts are kept until the table is written.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.table import Table

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.catalog.files import RowGroups, TableWriter, parts_of
from bayesflowmass.catalog.slices import cluster_slices
from bayesflowmass.catalog.work import WorkFolder, file_facts
from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.common.files import write_whole
from bayesflowmass.common.lock import sole_writer
from bayesflowmass.common.progress import progress_bar
from bayesflowmass.common.workers import processes, work_off
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.estimator.cylinder import in_cylinder
from bayesflowmass.estimator.flags import UNUSABLE
from bayesflowmass.estimator.reference import Reference
from bayesflowmass.estimator.shipped import model_folder
from bayesflowmass.estimator.told import tell
from bayesflowmass.evaluation.masses_table import novelty_header, whole_table
from bayesflowmass.evaluation.road import CLUSTERS_AT_ONCE, GALAXIES_AT_ONCE, posteriors
from bayesflowmass.io.selection_file import read_selection
from bayesflowmass.novelty import Assessment
from bayesflowmass.posterior import MassPrior, SelectedPrior, make_prior
from bayesflowmass.posterior.write_table import write_table

_ASSESSED = "novelty"


class PartSource(Protocol):
    """What is the same for every part: the model, and how it is to see the clusters."""

    def estimator(self) -> MassEstimator: ...

    def clusters(self, part: RowGroups) -> ClusterCatalog: ...


@dataclass(frozen=True)
class Job:
    """What is done with each part; it goes to the processes that do it.

    Attributes:
        model, device: see `MassEstimator.load`.
        assume, metadata: what the catalogue is told (`tell`), and fields of its metadata that are other than it says.
        road: arguments of `posteriors`; table: of `masses_table`.
    """

    model: str
    device: str
    assume: Mapping[str, float]
    metadata: Mapping[str, Any]
    road: Mapping[str, Any]
    table: Mapping[str, Any]

    def estimator(self) -> MassEstimator:
        """The model, loaded once by each process."""
        return loaded_model(self.model, self.device)

    def clusters(self, part: RowGroups) -> ClusterCatalog:
        """The clusters of a part, as the model is to see them."""
        return self.told(ClusterCatalog.from_table(part.read()))

    def told(self, catalog: ClusterCatalog) -> ClusterCatalog:
        """Clusters with what they are told, valid."""
        catalog = catalog.validate(0)
        selection = catalog.metadata.selection | self.metadata.get("selection", {})
        catalog = catalog.with_metadata(**{**self.metadata, "selection": selection})
        if "mode" in self.metadata and catalog.has("mode"):
            catalog = catalog.without("mode")
        return tell(catalog, self.estimator(), self.assume)


def loaded_model(model: str, device: str) -> MassEstimator:
    """A model, read once by each process, and once more where its folder holds another since."""
    description = model_folder(model) / "model.json"
    written = description.stat().st_mtime_ns if description.is_file() else None
    return _loaded(model, device, written)


@lru_cache(maxsize=1)
def _loaded(model: str, device: str, written: int | None) -> MassEstimator:
    return MassEstimator.load(model, device)


def infer_in_parts(
    chosen: str,
    catalog: Path,
    out: Path,
    *,
    prior: str | MassPrior,
    n_draws: int | None,
    seed: int,
    device: str,
    workers: int | None,
    scheduler: str | None,
    assume: Mapping[str, float] | None,
    metadata: Mapping[str, Any],
    header: Mapping[str, Any],
    read: Sequence[Path],
    progress: bool,
    **options: Any,
) -> int:
    """Write the masses table of a catalogue, in the memory of a few parts; the table does not depend on who makes it.

    Args:
        chosen: model folder or name.
        catalog: parquet file, or folder of them, one row per cluster.
        out: masses table (parquet); finished parts are kept in ``<out>.work`` until it is there.
        prior, n_draws, seed, device: see `MassEstimator.posterior`.
        workers: processes; None: one for each core.
        scheduler: address of a Dask scheduler, whose workers see the same folders.
        assume, metadata: what the catalogue is told, and fields of its metadata to put in place of its own.
        header: further entries of the header.
        read: other files that the masses depend on: where one changes, a run does not go on.
        progress: show a bar on standard error.
        options: ``also``, ``pdf``, ``units``, ``mdef``, ``h``, ``model`` of `masses_tables`.

    Returns:
        Number of clusters.

    Raises:
        CatalogError: the catalogue cannot be read, or its files changed since the run began.
        ValueError: another process writes this table; or see `work_off`.
    """
    parts = list(parts_of(catalog))
    out = out.absolute()
    road = {"prior": prior, "n_draws": n_draws, "seed": seed}
    job = Job(chosen, device, dict(assume or {}), dict(metadata), road, options)
    told = {
        "chosen": chosen,
        "assume": job.assume,
        "metadata": job.metadata,
        "prior": str(getattr(prior, "name", prior)),
        "seed": seed,
    }
    told |= {
        "n_draws": n_draws,
        "table": options,
        "files": [file_facts(path) for path in [*files_of(parts), *read]],
    }
    go = partial(work_off, workers=processes(workers, len(parts)), scheduler=scheduler)
    n = sum(part.n_rows for part in parts)
    with (
        sole_writer(out.with_name(out.name + ".work"), "infer"),
        progress_bar(n, "masses", " clusters", progress) as bar,
    ):
        work = WorkFolder(out, {"masses": told})
        try:
            empty = together_empty(job, parts, go)
            for index, _ in go(partial(_one_part, job, work, parts, empty), range(len(parts))):
                bar.update(parts[index].n_rows)
            _put_together(job, work, len(parts), out, dict(header), seed)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"Finished parts are kept in '{work.path}'; the same command goes on from there."
            ) from None
        work.remove()
    return n


def infer_with_settings(model: str, settings: Mapping[str, Any], command: str) -> Table:
    """`infer_in_parts` as the command ``infer`` is told.

    Args:
        model: folder or name.
        settings: values of `bayesflowmass.infer.InferSettings` by name.
        command: for the header.

    Returns:
        Identifiers, medians, sigmas and flags from the table that was written, with its header.

    Raises:
        CatalogError, ValueError: see `infer_in_parts`.
    """
    priors = [settings["prior"] or "flat", *settings["also"]]
    out, catalog = Path(settings["out"]), Path(settings["galaxies"])
    prior: str | MassPrior = priors[0]
    if settings["selection"] is not None:
        info = loaded_model(model, settings["device"]).training_info
        made = make_prior(priors[0], info.log10_mass_range, info.cosmology)
        prior = SelectedPrior(made, read_selection(settings["selection"]))
    metadata: dict[str, Any] = {"selection": {"cleaned": True}} if settings["cleaned"] else {}
    metadata |= {} if settings["mode"] is None else {"mode": settings["mode"]}
    same = (
        "n_draws",
        "seed",
        "device",
        "workers",
        "scheduler",
        "assume",
        "progress",
        "pdf",
        "units",
        "mdef",
        "h",
    )
    options = {name: settings[name] for name in same}
    header = {"command": command}
    infer_in_parts(
        model,
        catalog,
        out,
        prior=prior,
        also=priors[1:],
        metadata=metadata,
        header=header,
        read=[] if settings["selection"] is None else [Path(settings["selection"])],
        model=model,
        **options,
    )
    table = Table.read(out, include_names=["cluster_id", "log10_mass", "sigma", "flags"])
    for name in ("log10_mass", "sigma"):
        # Nulls come as NaN.
        table[name] = np.ma.masked_invalid(table[name])
    table.meta = json.loads(pq.read_schema(out).metadata[b"bayesflowmass_masses"])
    return table


def files_of(parts: list[RowGroups]) -> list[Path]:
    """The files of a catalogue."""
    return sorted({place for part in parts for place, _ in part.groups})


def together_empty(job: PartSource, parts: list[RowGroups], go: Any) -> bool | None:
    """`Reference.together_empty` of the whole catalogue; None for a model that knows no `Reference`."""
    if job.estimator().training_info.reference is None:
        return None
    counted = dict(go(partial(_count, job), parts))
    # In the order of the parts, so that rounding is the same whoever was first.
    return Reference.too_empty(np.sum([counted[part] for part in parts], axis=0))


def _count(job: PartSource, part: RowGroups) -> FloatArray:
    info, catalog = job.estimator().training_info, job.clusters(part)
    assert info.reference is not None
    total = np.zeros(())
    for first, last in cluster_slices(catalog.offsets, CLUSTERS_AT_ONCE, GALAXIES_AT_ONCE):
        measured = info.reference.measure(in_cylinder(catalog[first:last], info.selection))
        total = total + info.reference.outer_sums(measured)
    return total


def _one_part(job: Job, work: WorkFolder, parts: list[RowGroups], empty: bool | None, index: int) -> None:
    """Write the masses of a part, unless they are there, and before them what novelty needs of its clusters."""
    if work.is_done(index):
        return
    catalog = job.clusters(parts[index])
    batches = posteriors(job.estimator(), catalog, empty_together=empty, a_part=True, **job.road)
    table, strange = whole_table(batches, **job.table)
    columns = {}
    if strange:
        rows = np.concatenate([rows for rows, _ in strange])
        found = Assessment.concatenate([one for _, one in strange])
        name = "halo_id" if catalog.has("halo_id") else "cluster_id"
        columns = {"rows": rows, "halo": catalog.column(name)[rows]}
        columns |= {field.name: getattr(found, field.name) for field in fields(found)}
    stream = io.BytesIO()
    np.savez(stream, **columns)
    write_whole(_assessed(work, index), stream.getvalue())
    table.meta["masses"] = json.dumps(catalog.metadata.masses)
    write_table(table, work.part(index))


def _assessed(work: WorkFolder, index: int) -> Path:
    return work.path / f"{_ASSESSED}_{index:06d}.npz"


def _put_together(
    job: Job, work: WorkFolder, n_parts: int, out: Path, header: dict[str, Any], seed: int
) -> None:
    schemas = [pq.read_schema(work.part(index)) for index in range(n_parts)]
    schema = next((schema for schema in schemas if "log10_mass" in schema.names), None)
    if schema is None:
        first = pq.read_table(work.part(0), columns=["cluster_id", "flags"]).slice(0, 1).to_pylist()[0]
        why = next(why for flag, why in UNUSABLE.items() if flag in first["flags"].split(","))
        raise CatalogError(
            f"None of the clusters can have a mass: cluster {first['cluster_id']} {why}; the catalogue is of "
            f"{n_parts} part{'s' * (n_parts > 1)}."
        )
    metadata = dict(schema.metadata)
    for name, value in ((n, v) for one in schemas for n, v in one.metadata.items() if b"::len::" in n):
        metadata[name] = str(max(int(value), int(metadata[name]))).encode()
    meta = json.loads(metadata[b"bayesflowmass_masses"])
    prior, masses = meta["prior"], json.loads(meta.pop("masses"))
    meta |= _novelty(job, work, n_parts, masses, seed) | header
    metadata[b"bayesflowmass_masses"] = json.dumps(meta).encode()
    schema = schema.with_metadata(metadata)
    with TableWriter(out) as writer:
        for index in range(n_parts):
            table = pq.read_table(work.part(index))
            nothing = {"prior": pa.repeat(prior, len(table))}
            columns = [
                table[field.name]
                if field.name in table.column_names and field.name != "prior"
                else nothing.get(field.name, pa.nulls(len(table), field.type))
                for field in schema
            ]
            writer.write(pa.table(columns, names=schema.names).cast(schema))


def _novelty(job: Job, work: WorkFolder, n_parts: int, masses: Any, seed: int) -> dict[str, Any]:
    """What the header says of the catalogue as a whole."""
    parts = []
    for index in range(n_parts):
        with np.load(_assessed(work, index)) as columns:
            parts += [dict(columns)] if len(columns) else []
    if not parts:
        return {}
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    n = len(whole["halo"])
    nothing = np.zeros(0, dtype=np.float32)
    clusters = ClusterCatalog.from_arrays(
        {"cluster_id": whole.pop("halo")}, {"x": nothing}, np.zeros(n, dtype=np.int64)
    ).with_metadata(masses=masses)
    del whole["rows"]
    found = [(np.arange(n), Assessment(**whole))]
    return novelty_header(job.estimator().novelty, found, clusters, seed)

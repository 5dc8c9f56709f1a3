"""Predictions of the models that are compared: made once, stored, and laid side by side."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.common.arrays import FloatArray, IntArray
from bayesflowmass.common.files import write_whole
from bayesflowmass.common.version import __version__
from bayesflowmass.diagnostics import PosteriorSummary
from bayesflowmass.estimator.description import DESCRIPTION, WEIGHTS

__all__ = [
    "COLUMNS",
    "Run",
    "align",
    "columns_of",
    "file_hash",
    "model_hash",
    "read_predictions",
    "stored",
    "write_predictions",
]


COLUMNS = ("median", "q025", "q16", "q84", "q975", "sigma", "pit", "log_density", "crps")
"""What a file of predictions must have, beside ``cluster_id`` and the true ``log10_mass``."""

_NOTE = b"bayesflowmass"
_UNITS = "log10 M200c [Msun/h]; sigma, crps [dex]; log_density: ln of the density per dex at the truth"


@dataclass(frozen=True)
class Run:
    """What one training says about n clusters.

    Attributes:
        seed: see :class:`~bayesflowmass.comparison.models.RunSource`.
        columns: those of ``COLUMNS``, ``log10_mass`` (the truth) and ``sigma_epistemic`` where known, each (n,).
        cluster_id: shape (n,).
        halo_id: shape (n,), or None where the file has none.
        note: prior and its limits, and what the predictions were made from; empty for foreign files.
        source: the file, for messages.
    """

    seed: str
    columns: Mapping[str, FloatArray]
    cluster_id: NDArray[Any]
    halo_id: NDArray[Any] | None
    note: Mapping[str, Any]
    source: str

    @property
    def bayesian(self) -> bool:
        """Whether the weights are known to be uncertain."""
        epistemic = self.columns.get("sigma_epistemic")
        return epistemic is not None and bool((epistemic > 0.0).any())


def read_predictions(path: str | Path, seed: str) -> Run:
    """Stored predictions: files of `compare`, of ``benchmarks/flagship/__main__.py`` or of `evaluate`.

    Raises:
        ValueError: the file is no parquet file, lacks a column, or gives a true mass no probability.
    """
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(
            f"'{path}' is not a readable parquet file ({' '.join(str(error).split())[:120]})."
        ) from None
    names = dict.fromkeys(table.column_names)
    # `evaluate` calls the truth so, and its median log10_mass.
    other = {"median": "log10_mass", "log10_mass": "log10_mass_true"} if "log10_mass_true" in names else {}
    wanted = {name: other.get(name, name) for name in ("log10_mass", *COLUMNS)}
    missing = [name for name in ("cluster_id", *wanted.values()) if name not in names]
    if missing:
        raise ValueError(
            f"'{path}' has no column {', '.join(missing)}; expected the predictions.parquet of compare, evaluate or "
            "the flagship comparison."
        )
    if "sigma_epistemic" in names:
        wanted["sigma_epistemic"] = "sigma_epistemic"
    values = {name: np.asarray(table[theirs].to_numpy(), dtype=np.float64) for name, theirs in wanted.items()}
    cluster_id = table["cluster_id"].to_numpy()
    for name, column in values.items():
        bad = np.flatnonzero(~np.isfinite(column))
        if bad.size and name != "sigma_epistemic":
            hint = "; its true mass lies outside the prior" if name == "log_density" else ""
            raise ValueError(
                f"'{path}': {name} is not finite for {bad.size} clusters, the first {cluster_id[bad[0]]}{hint}; "
                "predict those inside the range alone."
            )
    metadata = (table.schema.metadata or {}).get(_NOTE)
    note = json.loads(metadata) if metadata else {}
    halo_id = table["halo_id"].to_numpy() if "halo_id" in names else None
    return Run(seed, values, cluster_id, halo_id, note, str(path))


def stored(path: Path, note: Mapping[str, Any]) -> bool:
    """Whether a file holds predictions that were made from exactly this."""
    if not path.is_file():
        return False
    try:
        metadata = (pq.read_schema(path).metadata or {}).get(_NOTE)
    except (pa.ArrowInvalid, OSError):
        return False
    return metadata is not None and {**json.loads(metadata), "units": None} == {**note, "units": None}


def columns_of(summary: PosteriorSummary, sigma_epistemic: FloatArray | None) -> dict[str, FloatArray]:
    """The columns of a `Run` from posterior summaries."""
    columns = {name: getattr(summary, name) for name in COLUMNS} | {"log10_mass": summary.log10_true}
    nothing = np.zeros(len(summary))
    return columns | {"sigma_epistemic": nothing if sigma_epistemic is None else sigma_epistemic}


def write_predictions(
    path: Path, catalog: ClusterCatalog, columns: Mapping[str, FloatArray], note: Mapping[str, Any]
) -> None:
    """Write the predictions of a catalogue, whole or not at all."""
    names = ("cluster_id", "halo_id") if catalog.has("halo_id") else ("cluster_id",)
    table = pa.table({name: catalog.column(name) for name in names} | dict(columns))
    sink = pa.BufferOutputStream()
    metadata = {_NOTE: json.dumps({**note, "units": _UNITS})}
    pq.write_table(table.replace_schema_metadata(metadata), sink, compression="zstd")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, sink.getvalue().to_pybytes())


def align(runs: Sequence[Run], catalog: ClusterCatalog | None) -> tuple[list[Run], IntArray]:
    """All runs with their clusters in one order, and the index of each cluster's halo (n,), from zero.

    Args:
        runs: at least one.
        catalog: gives ``halo_id``; without it the files do, else each cluster is its own halo.

    Raises:
        ValueError: the runs are of different clusters, or disagree on a true mass.
    """
    first = runs[0]
    order = np.asarray(catalog.column("cluster_id")) if catalog is not None else first.cluster_id
    where = (
        f"the catalogue ({len(order)} clusters)"
        if catalog is not None
        else f"'{first.source}' ({len(order)})"
    )
    aligned = []
    for run in runs:
        rows = _rows(run, order, where)
        columns = {name: values[rows] for name, values in run.columns.items()}
        halo = None if run.halo_id is None else run.halo_id[rows]
        aligned.append(Run(run.seed, columns, order, halo, run.note, run.source))
        worst = np.abs(columns["log10_mass"] - aligned[0].columns["log10_mass"])
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
    return aligned, np.unique(halo_id, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _rows(run: Run, order: NDArray[Any], where: str) -> IntArray:
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


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file, or of all files of a folder."""
    path = Path(path)
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        try:
            digest.update(file.read_bytes())
        except FileNotFoundError:
            raise CatalogError(f"The file '{file}' does not exist.") from None
    return digest.hexdigest()


def model_hash(folder: str | Path) -> str:
    """SHA-256 of what a model folder's answers depend on."""
    digest = hashlib.sha256(__version__.encode())
    for name in (DESCRIPTION, WEIGHTS):
        digest.update((Path(folder) / name).read_bytes())
    return digest.hexdigest()

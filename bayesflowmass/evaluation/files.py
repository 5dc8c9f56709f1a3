"""Stored predictions: one row per cluster of known mass, the same names in every file.

``log10_mass`` is the posterior median, as in the masses table of ``infer``; the truth, which a catalogue calls
``log10_mass``, is ``log10_mass_true`` here. A cluster without a mass has its row, with nulls and its flag.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.common.arrays import BoolArray, FloatArray
from bayesflowmass.common.files import write_whole
from bayesflowmass.common.version import __version__
from bayesflowmass.diagnostics import PosteriorSummary
from bayesflowmass.estimator.description import DESCRIPTION, WEIGHTS
from bayesflowmass.evaluation.predictions import Predictions

PREDICTIONS = "predictions.parquet"
"""Name of the file in a folder of `evaluate` or `compare`."""

COLUMNS = {
    "log10_mass_true": "true log10 M200c [Msun/h]",
    "log10_mass": "median of the posterior, log10 M200c [Msun/h]",
    "q025": "quantile 0.025 [log10 Msun/h]",
    "q16": "quantile 0.16 [log10 Msun/h]",
    "q84": "quantile 0.84 [log10 Msun/h]",
    "q975": "quantile 0.975 [log10 Msun/h]",
    "sigma": "standard deviation of the posterior [dex]",
    "pit": "cdf of the posterior at the truth",
    "log_density": "ln of the density per dex at the truth",
    "crps": "continuous ranked probability score [dex]",
}
"""What every file of predictions has beside ``cluster_id``, and what it means."""

MORE_COLUMNS = {
    "halo_id": "clusters that share one are projections of one halo",
    "redshift": "of the cluster",
    "n_galaxies": "in the cylinder of the model",
    "log10_mass_mean": "mean of the posterior [log10 Msun/h]",
    "residual": "log10_mass_true - log10_mass [dex]",
    "sigma_aleatoric": "part of sigma from galaxies and noise [dex]; null for a point model",
    "sigma_epistemic": "part of sigma from the weights [dex]; null for a point model",
    "mutual_information": "of mass and weights [nats]; null for a point model",
    "p_novelty": "share of held-out training clusters of that richness that look as strange",
    "flags": "names joined by commas (docs/flags.md)",
}
"""What a file may have beside that; ``log10_mass_NAME`` is the prediction of the baseline NAME."""

_NOTE = b"bayesflowmass"
_EPISTEMIC = ("sigma_aleatoric", "sigma_epistemic", "mutual_information")


@dataclass(frozen=True)
class StoredPredictions:
    """What one training says about n clusters.

    Attributes:
        columns: those of ``COLUMNS``, and ``sigma_epistemic`` where the file has it, each (n,) float64; NaN for a
            cluster without a mass.
        cluster_id: shape (n,).
        halo_id: shape (n,), or None where the file has none.
        note: prior and its limits, and what the predictions were made from; empty for foreign files.
        source: the file, for messages.
        seed: what tells trainings of one method apart.
    """

    columns: Mapping[str, FloatArray]
    cluster_id: NDArray[Any]
    halo_id: NDArray[Any] | None
    note: Mapping[str, Any]
    source: str
    seed: str = "0"

    @property
    def usable(self) -> BoolArray:
        """Which clusters have a mass (n,)."""
        return np.isfinite(self.columns["log10_mass"])

    @property
    def bayesian(self) -> bool:
        """Whether the weights are known to be uncertain."""
        epistemic = self.columns.get("sigma_epistemic")
        return epistemic is not None and bool((epistemic > 0.0).any())


def summary_columns(summary: PosteriorSummary) -> dict[str, FloatArray]:
    """The columns of a file that posteriors and their truth give, each (k,)."""
    names = {"log10_mass_true": "log10_true", "log10_mass": "median", "log10_mass_mean": "mean"}
    columns: dict[str, FloatArray] = {}
    for name in (*COLUMNS, "log10_mass_mean"):
        columns[name] = getattr(summary, names.get(name, name))
    return columns | {"residual": summary.log10_true - summary.median}


def columns_of(predictions: Predictions, catalog: ClusterCatalog) -> dict[str, NDArray[Any]]:
    """The columns of a file that a model gives, each (n,); NaN where a cluster has no mass.

    Args:
        predictions: of the model.
        catalog: the clusters, all n.
    """
    known: dict[str, FloatArray] = summary_columns(predictions.summary)
    nothing = np.full(len(predictions.summary), np.nan)
    known |= {name: predictions.epistemic.get(name, nothing) for name in _EPISTEMIC}
    if predictions.strange is not None:
        known["p_novelty"] = predictions.strange.p_value
    columns: dict[str, NDArray[Any]] = dict(with_missing(known, predictions.usable))
    columns["log10_mass_true"] = np.asarray(catalog.column("log10_mass"), dtype=np.float64)
    return columns | {"flags": predictions.flags.astype(object)}


def with_missing(columns: Mapping[str, FloatArray], usable: BoolArray) -> dict[str, FloatArray]:
    """Columns of k usable clusters (k,) as those of all n (n,), NaN for the others."""
    result = {name: np.full(len(usable), np.nan) for name in columns}
    for name, values in columns.items():
        result[name][usable] = values
    return result


def write_predictions(
    path: str | Path, catalog: ClusterCatalog, columns: Mapping[str, NDArray[Any]], note: Mapping[str, Any]
) -> None:
    """Write the predictions of a catalogue, whole or not at all; NaN becomes null.

    Args:
        path: of the file; its folder is made.
        catalog: the clusters, as the model sees them.
        columns: name -> (n,); those of ``COLUMNS`` at least.
        note: prior and its limits, and what the predictions were made from.
    """
    path = Path(path)
    names = ("cluster_id", "halo_id") if catalog.has("halo_id") else ("cluster_id",)
    first: dict[str, Any] = {name: catalog.column(name) for name in names}
    first |= {"redshift": catalog.column("redshift"), "n_galaxies": catalog.n_galaxies}
    table = pa.table(
        {name: pa.array(values, from_pandas=True) for name, values in (first | dict(columns)).items()}
    )
    described = COLUMNS | MORE_COLUMNS
    units = {name: described[name] for name in table.column_names if name in described}
    metadata = {_NOTE: json.dumps({**note, "columns": units})}
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(metadata), sink, compression="zstd")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, sink.getvalue().to_pybytes())


def read_predictions(path: str | Path, seed: str = "0") -> StoredPredictions:
    """Stored predictions, of this version or of 0.1.

    Raises:
        ValueError: the file is no parquet file, lacks a column, or gives a true mass no probability.
    """
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(
            f"'{path}' is not a readable parquet file ({' '.join(str(error).split())[:120]})."
        ) from None
    names = set(table.column_names)
    wanted = {name: name for name in COLUMNS}
    if "median" in names and "log10_mass_true" not in names:
        # `compare` of version 0.1 called the truth log10_mass.
        wanted |= {"log10_mass": "median", "log10_mass_true": "log10_mass"}
    missing = [name for name in ("cluster_id", *wanted.values()) if name not in names]
    if missing:
        raise ValueError(
            f"'{path}' has no column {', '.join(missing)}; expected the predictions.parquet of evaluate or compare."
        )
    if "sigma_epistemic" in names:
        wanted["sigma_epistemic"] = "sigma_epistemic"
    columns = {
        name: np.asarray(table[theirs].to_numpy(zero_copy_only=False), dtype=np.float64)
        for name, theirs in wanted.items()
    }
    cluster_id = table["cluster_id"].to_numpy(zero_copy_only=False)
    usable = np.isfinite(columns["log10_mass"])
    for name, values in columns.items():
        bad = np.flatnonzero(~np.isfinite(values) & usable)
        if bad.size and name != "sigma_epistemic":
            hint = "; its true mass lies outside the prior" if name == "log_density" else ""
            raise ValueError(
                f"'{path}': {name} is not finite for {bad.size} clusters, the first {cluster_id[bad[0]]}{hint}; "
                "predict those inside the range alone."
            )
    halo_id = table["halo_id"].to_numpy(zero_copy_only=False) if "halo_id" in names else None
    note = _note(table.schema.metadata) or {}
    return StoredPredictions(columns, cluster_id, halo_id, note, str(path), seed)


def stored(path: Path, note: Mapping[str, Any]) -> bool:
    """Whether a file holds predictions that were made from exactly this."""
    if not path.is_file():
        return False
    try:
        found = _note(pq.read_schema(path).metadata)
    except (pa.ArrowInvalid, OSError):
        return False
    return (
        found is not None and "columns" in found and {**found, "columns": None} == {**note, "columns": None}
    )


def _note(metadata: Mapping[bytes, bytes] | None) -> dict[str, Any] | None:
    text = (metadata or {}).get(_NOTE)
    return None if text is None else dict(json.loads(text))


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

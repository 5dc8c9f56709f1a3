"""What a run folder holds: the files that the commands write, read and checked."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from astropy.io.votable import parse_single_table
from astropy.table import Table

from bayesflowmass.common.outputs import TABLE_FORMATS
from bayesflowmass.common.run_folder import RECORD, SETTINGS
from bayesflowmass.training.history import read_history

# Columns of a masses table that a page has use for.
_SHOWN = frozenset(
    {
        *("cluster_id", "n_galaxies", "n_members", "n_members_err", "redshift"),
        *("log10_mass", "sigma", "sigma_epistemic", "q16", "q84", "flags"),
    }
)
# Folders read.
_MOST = 12
# Working files of a command, and folders that hold no results.
_SKIPPED = frozenset({"checkpoint", "phases", "__pycache__"})


class ReportError(ValueError):
    """A folder that holds nothing to report, or a file that cannot be read; one sentence says which."""


@dataclass(frozen=True)
class MassTable:
    """A table that `infer` wrote, as far as a page shows it: PDFs are not read.

    Args:
        name: of the file.
        header: units, definition, prior, model.
        columns: Arrow table, one row for each cluster; null where a value is masked.
    """

    name: str
    header: dict[str, Any]
    columns: Any

    def __len__(self) -> int:
        return int(self.columns.num_rows)

    @property
    def n_without(self) -> int:
        """Clusters without a mass."""
        return int(self.columns["log10_mass"].null_count)

    @cached_property
    def flag_counts(self) -> Counter[str]:
        """How many clusters have each flag; under "" those that have none."""
        counts: Counter[str] = Counter()
        for found in pc.value_counts(self.columns["flags"]).to_pylist():
            counts.update(dict.fromkeys((found["values"] or "").split(","), found["counts"]))
        return counts

    def flagged_first(self, most: int) -> list[int]:
        """Numbers of at most so many rows: those with flags, then the others; all in their order, if they are few."""
        if len(self) <= most:
            return list(range(len(self)))
        flagged = pc.not_equal(self.columns["flags"], "").to_numpy()
        return [*np.flatnonzero(flagged)[:most].tolist(), *np.flatnonzero(~flagged)[:most].tolist()][:most]

    def row(self, number: int) -> dict[str, Any]:
        """One cluster; None where a value is masked."""
        return {name: self.columns[name][number].as_py() for name in self.columns.column_names}


@dataclass(frozen=True)
class RunFolder:
    """What one folder holds; None or empty where it does not.

    Args:
        path: of the folder.
        metrics, calibration: of `evaluate`.
        comparison: of `compare`.
        model, history, settings: of `train`.
        drawn: figures.json, of `figures`.
        record: run.json, the command of the folder.
        masses: tables of `infer`.
        notes: tables in words, ``NAME.md`` beside ``NAME.json``, of benchmarks.
        figures: name -> file, svg where there is one, else png.
    """

    path: Path
    metrics: dict[str, Any] | None = None
    calibration: dict[str, Any] | None = None
    comparison: dict[str, Any] | None = None
    model: dict[str, Any] | None = None
    history: list[dict[str, float]] = field(default_factory=list)
    settings: str | None = None
    drawn: dict[str, Any] | None = None
    record: dict[str, Any] | None = None
    masses: list[MassTable] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    figures: dict[str, Path] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(
            self.metrics
            or self.comparison
            or self.model
            or self.history
            or self.masses
            or self.notes
            or self.figures
        )


def read_run_folders(folder: Path) -> tuple[list[RunFolder], int]:
    """A folder and the folders directly in it that hold results, and how many were left out.

    Args:
        folder: of one run, or of several, such as that of the demo.

    Raises:
        ReportError: there is no such folder, it holds nothing to report, or a file cannot be read.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise ReportError(
            f"'{folder}' {what}; give a folder that train, evaluate, compare, infer or demo wrote."
        )
    inside = sorted(p for p in folder.iterdir() if p.is_dir() and p.name not in _SKIPPED and p.name[0] != ".")
    found = [run for run in map(read_run_folder, [folder, *inside]) if run]
    if not found:
        hint = (
            "its training run has not finished; go on with bayesflowmass train --resume"
            if (folder / "checkpoint").is_dir()
            else "give a folder that train, evaluate, compare, infer or demo wrote"
        )
        raise ReportError(f"'{folder}' holds nothing to report; {hint}.")
    return found[:_MOST], max(0, len(found) - _MOST)


def read_run_folder(folder: Path) -> RunFolder:
    """What one folder holds, without those inside it."""
    model = _json(folder / "model.json")
    settings = folder / SETTINGS
    notes = {
        path.stem: path.read_text(encoding="utf-8")
        for path in sorted(folder.glob("*.md"))
        if path.stem != "comparison" and path.with_suffix(".json").is_file()
    }
    return RunFolder(
        path=folder,
        metrics=_json(folder / "metrics.json"),
        calibration=_json(folder / "calibration.json") if (folder / "metrics.json").is_file() else None,
        comparison=_json(folder / "comparison.json"),
        model=model if model and model.get("format") == "bayesflowmass-model" else None,
        history=_history(folder / "history.csv"),
        settings=settings.read_text(encoding="utf-8") if settings.is_file() else None,
        drawn=_json(folder / "figures.json"),
        record=_json(folder / RECORD),
        masses=[table for table in map(_masses, sorted(folder.iterdir())) if table],
        notes=notes,
        figures=_figures(folder),
    )


def _json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ReportError(f"'{path}' is truncated or not JSON ({error}); run its command again.") from None
    if not isinstance(content, dict):
        raise ReportError(
            f"'{path}' holds a {type(content).__name__}; expected an object; run its command again."
        )
    return content


def _history(path: Path) -> list[dict[str, float]]:
    try:
        return [asdict(row) for row in read_history(path)] if path.is_file() else []
    except ValueError as error:
        raise ReportError(f"{error} Remove the file or train again.") from None


def _figures(folder: Path) -> dict[str, Path]:
    """The drawing of a name where there is one, else the image."""
    images = {path.stem: path for path in sorted(folder.glob("*.png"))}
    return dict(sorted((images | {path.stem: path for path in sorted(folder.glob("*.svg"))}).items()))


def _masses(path: Path) -> MassTable | None:
    """The masses of `infer` in a file; None where it is something else."""
    ending = path.suffix.lower()
    if ending not in TABLE_FORMATS or not path.is_file() or path.name[0] == ".":
        return None
    if ending == ".parquet":
        found = (pq.read_schema(path).metadata or {}).get(b"bayesflowmass_masses")
        if found is None:
            return None
        shown = [name for name in pq.read_schema(path).names if name in _SHOWN]
        return MassTable(path.name, json.loads(found), pq.read_table(path, columns=shown))
    if ending == ".ecsv" and b"log10_mass_map" not in _beginning(path):
        return None
    try:
        table, header = _table(path, TABLE_FORMATS[ending])
    except Exception as error:
        # Readers of formats raise whatever they like; the file is not ours unless it can be read.
        if ending == ".ecsv":
            raise ReportError(f"'{path}' cannot be read as a table ({error}); run infer again.") from None
        return None
    if "log10_mass_map" not in table.colnames or "mdef" not in header:
        return None
    columns = {name: _arrow(name, table[name]) for name in table.colnames if name in _SHOWN}
    return MassTable(path.name, header, pa.table(columns))


def _table(path: Path, kind: str) -> tuple[Table, dict[str, Any]]:
    """A table and its header, which a VOTable holds as parameters."""
    if kind == "votable":
        document = parse_single_table(path)
        return document.to_table(), {str(p.name): p.value for p in document.params}
    table = Table.read(path, format=kind)
    return table, {str(key).lower(): value for key, value in table.meta.items()}


def _beginning(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(8192)


def _arrow(name: str, column: Any) -> Any:
    """A column of a table, null where it is masked or not finite."""
    values, mask = np.ma.getdata(column), np.ma.getmaskarray(column)
    if values.dtype.kind in "SO":
        plain = [one.decode() if isinstance(one, bytes) else one for one in values.tolist()]
        values = np.array(plain, dtype=object)
    if values.dtype.kind == "f":
        mask = mask | ~np.isfinite(values)
    found = pa.array(np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("=")), mask=mask)
    return found.fill_null("") if name == "flags" else found

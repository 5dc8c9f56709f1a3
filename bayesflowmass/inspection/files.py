"""Inspection of catalogues, model folders and N-body boxes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.cosmology import MDPL2
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.estimator.description import DESCRIPTION, WEIGHTS, ModelError
from bayesflowmass.estimator.flags import UNUSABLE, usable_clusters
from bayesflowmass.inspection.report import Inspection, command
from bayesflowmass.io.formats import BoxFormat, CatalogFormat

_ROWS = 500_000
_WITHOUT_MASS = UNUSABLE | {"no_density": "has galaxies without spread in R or v, or on one line"}


def inspect_catalog(path: Path) -> Inspection:
    """A catalogue of ours, file or folder."""
    report = Inspection(str(path), "a catalogue of bayesflowmass (parquet)")
    try:
        catalog = ClusterCatalog.read(path)
    except CatalogError as error:
        return report.refuse(error)
    _describe(report, catalog)
    if report.usable:
        report.commands = [command("infer", "--galaxies", path, "--out", "masses.ecsv")]
        if catalog.has("log10_mass"):
            report.commands += [
                command("evaluate", "--model", "MODEL", "--catalog", path),
                command("train", "--catalog", path, "--out", "runs/mine"),
            ]
    return report


def inspect_whole(known: CatalogFormat, path: Path, redshift: float | None) -> Inspection:
    """A catalogue in another format, with a cluster in each row."""
    report = Inspection(str(path), known.title)
    try:
        parts = list(known.iterate(path, 4096, 0.1 if redshift is None else redshift, MDPL2))
        catalog = ClusterCatalog.concatenate(parts)
    except CatalogError as error:
        return report.refuse(error)
    _describe(report, catalog)
    if redshift is None:
        report.problems.append(
            "the file does not say its redshift: give it, --redshift 0.117 for MDPL2 snapshot 120."
        )
    shown = "Z" if redshift is None else f"{redshift:g}"
    if report.usable:
        report.commands = [command("infer", "--galaxies", path, "--redshift", shown)]
    return report


def _describe(report: Inspection, catalog: ClusterCatalog) -> None:
    counts = catalog.n_galaxies
    report.facts.append(f"{len(catalog)} clusters, {catalog.n_galaxies_total} galaxies")
    report.facts.append(f"cluster columns: {', '.join(catalog.cluster_columns)}")
    report.facts.append(f"galaxy columns: {', '.join(catalog.galaxy_columns)}")
    if len(catalog):
        report.facts.append(f"galaxies per cluster: {_span(counts)}")
        for name, label in (("redshift", "redshift"), ("log10_mass", "log10 M200c [Msun/h]")):
            if catalog.has(name):
                report.facts.append(f"{label}: {_span(catalog.column(name))}")
    metadata = catalog.metadata
    known = {"kind": metadata.kind, "mode": metadata.mode, "selection": _listed(metadata.selection) or None}
    report.facts += [f"{name}: {value}" for name, value in known.items() if value is not None]
    report.facts += [f"note: {note}" for note in metadata.extra.get("notes", [])]
    try:
        catalog.validate(0)
    except CatalogError as error:
        report.refuse(error)
    if len(catalog) == 0:
        report.problems.append("there are no clusters.")
    say_without_mass(report, catalog)
    if catalog.has("n_shared") and int(np.sum(catalog.column("n_shared") > 0)):
        shared = int(np.sum(catalog.column("n_shared") > 0.1 * np.maximum(counts, 1)))
        report.facts.append(f"clusters that share more than a tenth of their galaxies: {shared}")


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def say_without_mass(report: Inspection, catalog: ClusterCatalog) -> None:
    """Say how many clusters get no mass, and why; a catalogue of none but those is not usable."""
    problems = usable_clusters(catalog)
    for reason, has in _WITHOUT_MASS.items():
        rows = np.flatnonzero(problems == reason)
        if rows.size:
            first = catalog.column("cluster_id")[rows[0]]
            report.problems.append(
                f"clusters without a mass: {rows.size} of {len(catalog)}; the first, {first}, {has}."
            )
    report.usable = report.usable and bool(np.any(problems == ""))


def is_model_folder(path: Path) -> bool:
    """Whether a folder has one of the two files of a model."""
    return path.is_dir() and any((path / name).is_file() for name in (DESCRIPTION, WEIGHTS))


def inspect_model(path: Path) -> Inspection:
    """A model folder."""
    report = Inspection(str(path), "a model of bayesflowmass")
    try:
        estimator = MassEstimator.load(path, "cpu")
    except (ModelError, ValueError) as error:
        return report.refuse(error)
    info = estimator.training_info
    low, high = info.log10_mass_range
    report.facts += [
        f"log10 M200c [Msun/h] from {low:g} to {high:g}, trained with masses {info.masses}",
        f"redshift: {info.redshift_range[0]:g} to {info.redshift_range[1]:g}",
        f"kind {info.kind}, interloper mode {info.mode}, selection: {_listed(info.selection)}",
        f"{'uses' if info.uses_richness else 'does not use'} the number of galaxies",
        f"{sum(p.numel() for p in estimator.flow.parameters())} parameters, trained on {info.n_train} clusters, "
        f"bayesflowmass {info.version}",
    ]
    weights, maps = estimator.weights, [f"{r.prior} prior" for r in estimator.recalibrations]
    report.facts.append(
        f"posterior of the weights: {weights.method if weights else 'none'}; recalibrated: {', '.join(maps) or 'no'}"
    )
    report.facts += estimator.notes
    report.commands = [command("infer", "--model", path, "--galaxies", "FILE", "--out", "masses.ecsv")]
    return report


def inspect_box(known: BoxFormat, path: Path, quick: bool) -> Inspection:
    """An N-body box, read from beginning to end (or its first part)."""
    report = Inspection(str(path), known.title)
    report.facts.append(f"{os.stat(path).st_size / 2**20:.1f} MiB")
    rows = hosts = 0
    limits: dict[str, tuple[float, float]] = {}
    try:
        report.facts.append(f"gives {', '.join(known.columns(path))}")
        for chunk in known.chunks(path, _ROWS):
            rows += len(chunk["id"])
            hosts += int(np.sum(chunk["upid"] == -1))
            for name in ("x", "y", "z", "log10_mass", "log10_mvir", "log10_stellar_mass"):
                if name in chunk and (values := chunk[name][np.isfinite(chunk[name])]).size:
                    before = limits.get(name, (np.inf, -np.inf))
                    limits[name] = (min(before[0], float(values.min())), max(before[1], float(values.max())))
            if quick:
                break
        info = known.info(path)
    except CatalogError as error:
        return report.refuse(error)
    report.facts.append(
        f"{rows} rows{' read (quick)' if quick else ''}, {hosts} of them hosts or centrals (upid -1)"
    )
    report.facts += [f"{name}: {low:.4g} to {high:.4g}" for name, (low, high) in limits.items()]
    if info.redshift is not None:
        report.facts.append(f"redshift {info.redshift:.3f}")
    else:
        report.problems.append("neither the file nor its name says the redshift: it has to be given.")
    if info.box_size is not None:
        report.facts.append(f"box of {info.box_size:g} Mpc/h")
    if rows == 0:
        report.problems.append("there are no rows.")
    if hosts == 0 and rows:
        report.problems.append("no row has upid -1, so there are no host haloes.")
    report.usable = rows > 0
    files = [path, "--galaxies", "GALAXIES"] if "log10_mass" in limits else ["HOSTS", "--galaxies", path]
    size = [] if info.box_size else ["--box-size", "SIDE"]
    report.commands = [command("simulate", "--hosts", *files, *size, "--out", "mocks.parquet")]
    return report


def _span(values: NDArray[Any]) -> str:
    low, middle, high = np.min(values), np.median(values), np.max(values)
    return f"{low:.4g} to {high:.4g}, median {middle:.4g}"

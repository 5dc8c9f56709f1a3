"""Inspection of flat tables: what they hold, which cells are broken, what else is needed."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bayesflowmass.catalog import CatalogError
from bayesflowmass.inspection.cells import check_cells
from bayesflowmass.inspection.files import say_without_mass
from bayesflowmass.inspection.report import Inspection, command
from bayesflowmass.io import read_flat
from bayesflowmass.io.flat.galaxies import settle_redshift
from bayesflowmass.io.formats import Reading, TableFormat
from bayesflowmass.io.names import LIKELY, find_names
from bayesflowmass.io.sources import open_table
from bayesflowmass.io.table import NAMELESS, FlatTable, nameless


def inspect_table(
    path: Path,
    known: TableFormat | None,
    clusters: Path | None,
    column: Mapping[str, str],
    unit: Mapping[str, str],
    cluster_id: str | None,
    redshift: float | None,
) -> Inspection:
    """A table of galaxies or of clusters, in a known format or any."""
    report = Inspection(str(path), "a table" if known is None else known.title)
    try:
        role = "clusters" if known is not None and known.gives == ("clusters",) else "galaxies"
        table, reading, _ = open_table(path, role, column)
        if role == "galaxies":
            settle_redshift(table)
            role = _role(table)
        if role == "" and (known is None or "clusters" in known.gives):
            others, _, _ = open_table(path, "clusters", column)
            if {"ra", "dec", "redshift"} <= set(others.columns) and _one_each(others) is not False:
                role = "clusters"
        if role == "clusters" and table.what != role:
            table, reading, _ = open_table(path, role, column)
    except CatalogError as error:
        return report.refuse(error)
    notes = [*(reading.notes if reading is not None else ()), *table.notes]
    report.facts += [f"note: {note.removeprefix(f'{path}: ')}" for note in notes]
    report.facts.append(f"{table.n_rows} rows; columns: {', '.join(table.columns)}")
    check_cells(report, table)
    if role == "masses":
        report.title = "a table of masses, written by bayesflowmass infer"
    elif role == "":
        _unknown(report, path, table, column)
    elif role == "clusters":
        report.facts.append("a table of clusters")
        words = ["--galaxies", "GALAXIES", "--clusters", str(path)]
        report.commands = [command("infer", *words, *_named(column, unit))]
        if table.first("redshift", "z") is None:
            report.problems.append("it has no redshifts: give one for all, --redshift Z.")
    else:
        report.facts.append("a table of galaxies")
        _try(report, path, table, reading, clusters, column, unit, cluster_id, redshift)
    return report


def _role(table: FlatTable) -> str:
    """galaxies, clusters, masses, or empty where that cannot be told."""
    columns = set(table.columns)
    if {"log10_mass", "q16", "q84"} <= columns:
        return "masses"
    if "v_los" in table and ({"x", "y"} <= columns or "r_proj" in table):
        return "galaxies"
    one_each = _one_each(table)
    if one_each and ({"redshift", "log10_mass"} & columns) and not {"ra", "dec", "z"} <= columns:
        return "clusters"
    if {"ra", "dec"} <= columns and table.first("z", "cz") is not None:
        # One row for each id: clusters, and not their galaxies.
        return "clusters" if one_each and table.n_rows > 1 else "galaxies"
    return ""


def _one_each(table: FlatTable) -> bool | None:
    """Whether rows have ids of clusters of their own, but for a few; None where there are no such ids."""
    names = find_names(table.columns, {"cluster_id": LIKELY["clusters"]["cluster_id"]})
    own_id = "cluster_id" if "cluster_id" in table else names.get("cluster_id")
    if own_id is None:
        return None
    return bool(np.unique(np.ma.getdata(table.columns[own_id])).size > 0.5 * table.n_rows)


def _unknown(report: Inspection, path: Path, table: FlatTable, column: Mapping[str, str]) -> None:
    """Say which of our names its columns may stand for."""
    report.usable = False
    if nameless(table.columns):
        report.problems.append(NAMELESS)
        return
    free = [name for name in table.columns if name not in table.given]
    guesses = {o: t for o, t in find_names(free, LIKELY["galaxies"]).items() if o not in table}
    if "z" in guesses or "z" in table:
        guesses.pop("cz", None)
    if not guesses.keys() - {"v_err"}:
        report.problems.append(
            "no columns of galaxies (cluster_id, x, y, v_los; or ra, dec, z) or of clusters (cluster_id, ra, "
            "dec, redshift) are recognised: name them with --column OURS=THEIRS."
        )
        return
    words = " ".join(shlex.quote(f"{ours}={theirs}") for ours, theirs in guesses.items())
    report.problems.append(f"its columns have other names than ours; if this is what they are: {words}.")
    named = {**column, **{ours: table.theirs[theirs] for ours, theirs in guesses.items()}}
    report.commands = [command("inspect", path, *_named(named, {}))]


def _named(column: Mapping[str, str], unit: Mapping[str, str]) -> list[str]:
    """The words that name columns and units."""
    words = []
    for flag, pairs in (("--column", column), ("--unit", unit)):
        if pairs:
            words += [flag, *(f"{ours}={theirs}" for ours, theirs in pairs.items())]
    return words


def _try(
    report: Inspection,
    path: Path,
    table: FlatTable,
    reading: Reading | None,
    clusters: Path | None,
    column: Mapping[str, str],
    unit: Mapping[str, str],
    cluster_id: str | None,
    redshift: float | None,
) -> None:
    """Read it as `infer` would, as far as what is given allows, and say what is missing."""
    if not report.usable:
        return
    frame = "v_los" in table and ("r_proj" in table or {"x", "y"} <= set(table.columns))
    brings = reading is not None and reading.clusters is not None
    named = cluster_id is not None or "cluster_id" in table
    needs_clusters = not (frame or brings or named) and clusters is None
    words = ["--galaxies", str(path)]
    if needs_clusters:
        report.facts.append(
            "positions on the sky: a table of clusters (cluster_id, ra, dec, redshift) goes with it, or, where all "
            "galaxies are of one cluster, its name"
        )
    elif clusters is not None:
        words += ["--clusters", str(clusters)]
    if frame and clusters is None and "redshift" not in table:
        words += ["--redshift", "Z" if redshift is None else f"{redshift:g}"]
        if redshift is None:
            report.problems.append(
                "it does not say the redshift of its clusters: give --redshift or --clusters."
            )
    if cluster_id is not None:
        words += ["--cluster-id", cluster_id]
    ways = [["--clusters", "CLUSTERS"], ["--cluster-id", "NAME"]] if needs_clusters else [[]]
    report.commands = [
        command("infer", *words, *way, *_named(column, unit), "--out", "masses.ecsv") for way in ways
    ]
    if needs_clusters:
        return
    options: dict[str, Any] = {"units": dict(unit) or None, "cluster_id": cluster_id, "few_galaxies": "keep"}
    if clusters is not None or "redshift" not in table:
        options["redshift"] = 0.1 if redshift is None and clusters is None and frame else redshift
    try:
        catalog = read_flat(path, clusters, column, **options)
    except CatalogError as error:
        report.problems.append(str(error))
        report.usable, report.commands = False, []
        return
    for note in catalog.metadata.extra.get("notes", []):
        line = f"note: {note.removeprefix(f'{path}: ')}"
        report.facts += [line] if line not in report.facts else []
    counts = catalog.n_galaxies
    if not (frame and options.get("redshift") is not None and redshift is None):
        fewest, most = int(counts.min()), int(counts.max())
        span = f"{most}" if fewest == most else f"{fewest} to {most}"
        report.facts.append(
            f"{_plural(len(catalog), 'cluster')} with {span} galaxies within 1.6 Mpc/h and 2500 km/s"
        )
    say_without_mass(report, catalog)
    repeated = catalog.metadata.extra.get("repeated_positions", 0)
    if repeated:
        report.problems.append(
            f"{_plural(repeated, 'galaxy row')} at the very position of another in the same cluster: measured twice?"
        )


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"

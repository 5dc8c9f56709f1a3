"""Inspection of flat tables: which columns they have, which cells are broken, what else is needed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bayesflowmass.catalog import CatalogError
from bayesflowmass.inspection.report import Inspection
from bayesflowmass.io import read_flat
from bayesflowmass.io.formats import TableFormat
from bayesflowmass.io.formats.base import normal_name
from bayesflowmass.io.plausibility import check_not_radians
from bayesflowmass.io.table import FlatTable

__all__ = ["guess_columns", "inspect_table"]

_NUMBERS = ("ra", "dec", "z", "cz", "redshift", "x", "y", "r_proj", "v_los", "v_err", "z_err", "log10_mass")
_RANGES = {"ra": (-360.0, 360.0), "dec": (-90.0, 90.0), "z": (-0.02, 3.0), "redshift": (0.0, 3.0)}
_USUAL = {
    "cluster_id": (
        "clid",
        "cluster",
        "id_cluster",
        "clusterid",
        "group_id",
        "groupid",
        "cl_id",
        "mem_match_id",
    ),
    "ra": (
        "ra",
        "r_a",
        "raj2000",
        "ra_j2000",
        "ra_deg",
        "radeg",
        "alpha",
        "ra_icrs",
        "_raj2000",
        "target_ra",
    ),
    "dec": ("dec", "de", "decl", "dej2000", "decj2000", "dec_deg", "dedeg", "delta", "de_icrs", "target_dec"),
    "z": ("zspec", "z_spec", "specz", "zhelio", "z_helio", "zsp", "redshift", "zobs", "z_best"),
    "cz": ("velocity", "vel", "v", "hrv", "rv", "vhelio", "cz_helio"),
    "v_los": ("vlos", "v_los_kms", "vz", "v_z", "v_rest"),
    "r_proj": ("r", "rproj", "r_proj_mpch", "rp", "radius"),
    "redshift": ("z", "zcl", "z_cl", "zc", "z_cluster", "best_z"),
}


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
    table = None
    try:
        if known is None:
            table = FlatTable(path, "galaxies", column)
        else:
            reading = known.read(path)
            report.facts += [f"note: {note}" for note in reading.notes]
            given = reading.clusters if reading.galaxies is None else reading.galaxies
            table = FlatTable(given, "galaxies", column, name=str(path))
    except CatalogError as error:
        report.problems.append(str(error))
        report.usable = False
        return report
    guesses = guess_columns(table) if known is None else {}
    role = _role(table, guesses)
    report.facts.append(f"{table.n_rows} rows; columns: {', '.join(table.columns)}")
    _check_cells(report, table)
    if role == "masses":
        report.title = "a table of masses, written by bayesflowmass infer"
        return report
    if role == "":
        report.usable = False
        guesses = guess_columns(table)
        if guesses:
            words = " ".join(f"{ours}={_quoted(theirs)}" for ours, theirs in guesses.items())
            report.problems.append(
                f"its columns have other names than ours; if this is what they are: {words}."
            )
            report.commands = [f"bayesflowmass inspect {path} --column {words}"]
        elif all(re.fullmatch(r"col\d+", name) for name in table.columns):
            report.problems.append(
                "its columns have no names: give them by their number, such as --column x=col2 y=col3 v_los=col4 "
                "--unit 'x=proper kpc' 'y=proper kpc', as the author of the file describes them."
            )
        else:
            report.problems.append(
                "no columns of galaxies (cluster_id, x, y, v_los; or ra, dec, z) or of clusters (cluster_id, ra, "
                "dec, redshift) are recognised: name them with --column OURS=THEIRS."
            )
        return report
    report.facts.append({"galaxies": "a table of galaxies", "clusters": "a table of clusters"}[role])
    if role == "clusters" and "cluster_id" not in table and "cluster_id" in guesses:
        column = {**column, "cluster_id": guesses["cluster_id"]}
    brings = known is not None and "clusters" in known.gives and "galaxies" in known.gives
    _try(report, path, role, table, brings, clusters, column, unit, cluster_id, redshift)
    return report


def guess_columns(table: FlatTable) -> dict[str, str]:
    """``{our name: name in the table}`` for columns with names that others give them."""
    there = {normal_name(name): name for name in table.columns}
    guesses: dict[str, str] = {}
    for ours, usual in _USUAL.items():
        theirs = next((there[name] for name in usual if name in there), None)
        if ours not in table and theirs is not None and theirs not in guesses.values():
            guesses[ours] = theirs
    if "z" in guesses or "z" in table:
        guesses.pop("cz", None)
    return guesses


def _role(table: FlatTable, guesses: Mapping[str, str]) -> str:
    """galaxies, clusters, masses, or empty where that cannot be told."""
    if {"log10_mass", "q16", "q84"} <= set(table.columns):
        return "masses"
    if "v_los" in table and (("x" in table and "y" in table) or "r_proj" in table):
        return "galaxies"
    own_id = "cluster_id" if "cluster_id" in table else guesses.get("cluster_id")
    if own_id == "cluster_id" and ("redshift" in table or "log10_mass" in table):
        return "clusters"
    if "ra" in table and "dec" in table and table.first("z", "cz") is not None:
        # One row for each id: clusters, and not their galaxies.
        one_each = own_id is not None and np.unique(np.ma.getdata(table.columns[own_id])).size == table.n_rows
        return "clusters" if one_each else "galaxies"
    return ""


def _check_cells(report: Inspection, table: FlatTable) -> None:
    """Count, column by column, the cells that cannot be what they should."""
    for name in (n for n in _NUMBERS if n in table):
        values = table.columns[name]
        plain, empty = np.ma.getdata(values), np.ma.getmaskarray(values)
        numbers = np.array([_number(text) for text in plain]) if plain.dtype.kind not in "iuf" else plain
        bad = ~np.isfinite(numbers) | empty
        if bad.any():
            row = int(np.argmax(bad))
            found = "is empty" if empty[row] or not str(plain[row]).strip() else f"is {str(plain[row])!r}"
            report.problems.append(
                f"{_plural(int(bad.sum()), 'row')} without a number in {table.theirs[name]}: the first is row "
                f"{row + 1}, which {found}; remove or correct them."
            )
            report.usable = report.usable and name in ("v_err", "z_err")
        if name in _RANGES and table.units[name] is None:
            low, high = _RANGES[name]
            odd = np.isfinite(numbers) & ~empty & ((numbers < low) | (numbers > high))
            if odd.any():
                row = int(np.argmax(odd))
                report.problems.append(
                    f"{_plural(int(odd.sum()), 'row')} with {table.theirs[name]} outside {low:g} to {high:g}: the "
                    f"first is row {row + 1}, {numbers[row]:g}."
                )
    if {"ra", "dec"} <= set(table.columns) and table.units["ra"] is None and report.usable:
        try:
            check_not_radians(table.numbers("ra"), table.numbers("dec"), table.name)
        except CatalogError as error:
            report.problems.append(str(error))
            report.usable = False
    if "cluster_id" in table and np.ma.getdata(table.columns["cluster_id"]).dtype.kind == "f":
        report.problems.append("cluster_id holds floats; expected integers or text.")
        report.usable = False


def _try(
    report: Inspection,
    path: Path,
    role: str,
    table: FlatTable,
    brings: bool,
    clusters: Path | None,
    column: Mapping[str, str],
    unit: Mapping[str, str],
    cluster_id: str | None,
    redshift: float | None,
) -> None:
    """Read it as `infer` would, as far as what is given allows, and say what is missing."""
    words = [f" --column {' '.join(f'{o}={_quoted(t)}' for o, t in column.items())}" if column else ""]
    words += [f" --unit {' '.join(f'{o}={_quoted(t)}' for o, t in unit.items())}" if unit else ""]
    flags = "".join(words)
    if role == "clusters":
        report.commands = [f"bayesflowmass infer --model MODEL --galaxies GALAXIES --clusters {path}{flags}"]
        if table.first("redshift", "z") is None:
            report.problems.append("it has no redshifts: give one for all, --redshift Z.")
        return
    frame = "v_los" in table
    if not report.usable:
        return
    needs_clusters = not frame and clusters is None and not brings
    if needs_clusters:
        shown = "CLUSTERS"
        report.facts.append(
            "positions on the sky: a table of clusters (cluster_id, ra, dec, redshift) goes with it"
        )
    else:
        shown = "" if clusters is None else str(clusters)
    command = f"bayesflowmass infer --model MODEL --galaxies {path}" + (
        f" --clusters {shown}" if shown else ""
    )
    if frame and clusters is None and "redshift" not in table:
        command += f" --redshift {'Z' if redshift is None else f'{redshift:g}'}"
        if redshift is None:
            report.problems.append(
                "it does not say the redshift of its clusters: give --redshift or --clusters."
            )
    if cluster_id is not None:
        command += f" --cluster-id {_quoted(cluster_id)}"
    report.commands = [command + flags + " --out masses.ecsv"]
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
    counts = catalog.n_galaxies
    if not (frame and options.get("redshift") is not None and redshift is None):
        fewest, most = int(counts.min()), int(counts.max())
        span = f"{most}" if fewest == most else f"{fewest} to {most}"
        report.facts.append(
            f"{_plural(len(catalog), 'cluster')} with {span} galaxies within 1.6 Mpc/h and 2500 km/s"
        )
    poor = int(np.sum(counts < 3))
    if poor:
        report.problems.append(
            f"{poor} of {_plural(len(catalog), 'cluster')} with fewer than 3 galaxies: no mass."
        )
    repeated = catalog.metadata.extra.get("repeated_positions", 0)
    if repeated:
        report.problems.append(
            f"{_plural(repeated, 'galaxy row')} at the very position of another in the same cluster: measured twice?"
        )
    report.usable = poor < len(catalog)


def _number(text: Any) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan


def _quoted(text: str) -> str:
    return f"'{text}'" if any(mark in text for mark in " ()[]|;&'\"") else text


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"

"""What a user gives as galaxies and clusters, opened: a known format, or any table."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bayesflowmass.catalog import CatalogError
from bayesflowmass.io.formats import BoxFormat, Reading, TableFormat, identify, identify_columns
from bayesflowmass.io.names import normal_name
from bayesflowmass.io.opening import at_rest
from bayesflowmass.io.table import FlatTable


@dataclass(frozen=True)
class OpenedTables:
    """Flat tables under our names.

    Args:
        galaxies, clusters: tables.
        report: formats, notes and counts of what readers did, for the metadata of a catalogue.
        one_cluster: a name, where all galaxies are of one cluster.
        cleaned: interlopers were removed by those who made the table.
    """

    galaxies: FlatTable
    clusters: FlatTable | None
    report: dict[str, Any] = field(default_factory=dict)
    one_cluster: str | None = None
    cleaned: bool = False

    def all_said(self) -> dict[str, Any]:
        """The report, with what has been noted of the tables since."""
        tables = [one for one in (self.galaxies, self.clusters) if one is not None]
        notes = [*self.report.get("notes", []), *(note for one in tables for note in one.notes)]
        return {**self.report, **({"notes": list(dict.fromkeys(notes))} if notes else {})}


def open_tables(
    galaxies: Any, clusters: Any, column_map: Mapping[str, str] | None, guess: bool = False
) -> OpenedTables:
    """Open tables of galaxies and of clusters (None where there is no such table); see `FlatTable`.

    A file of galaxies may bring its clusters along. A table whose own columns are named in ``column_map`` is
    taken as it is.
    """
    names = column_map or {}
    table, reading, report = open_table(galaxies, "galaxies", names, guess)
    others = None
    if clusters is not None:
        others, _, more = open_table(clusters, "clusters", names, guess)
        report = _merged(report, more)
    elif reading is not None and reading.clusters is not None:
        others = FlatTable(reading.clusters, "clusters", names, name=str(galaxies))
        report = _merged(report, {"notes": others.notes})
    if reading is None:
        return OpenedTables(table, others, report)
    return OpenedTables(table, others, report, reading.one_cluster, reading.cleaned)


def read_known_table(source: Any) -> tuple[TableFormat, Reading] | None:
    """A path or an astropy table, read by the format that knows it; None where none does."""
    if not isinstance(source, str | os.PathLike):
        known = identify_columns(source.colnames) if hasattr(source, "colnames") else None
        return None if known is None else (known, known.convert(source, "the table"))
    path = at_rest(source)
    found = identify(path)
    if isinstance(found, TableFormat):
        return found, found.read(path)
    if found is not None:
        holds = (
            "an N-body box, not galaxies as they are observed: cut clusters out of it first"
            if isinstance(found, BoxFormat)
            else "whole clusters, one in each row: read it with bayesflowmass.io.load_catalog"
        )
        raise CatalogError(f"{path}: this is {found.title}, which holds {holds}.")
    return None


def mapped_names(column_map: Mapping[str, str], what: str) -> set[str]:
    """The names in a table of ``what`` that a column map speaks of."""
    return {theirs for key, theirs in column_map.items() if key.rpartition(".")[0] in ("", what)}


def open_table(
    source: Any, what: str, column_map: Mapping[str, str], guess: bool = False
) -> tuple[FlatTable, Reading | None, dict[str, Any]]:
    """One table under our names, what a reader of a known format gave, and its report."""
    found = read_known_table(source)
    if found is None:
        plain = FlatTable(source, what, column_map, guess=guess)
        return plain, None, {"notes": plain.notes} if plain.notes else {}
    known, reading = found
    table = getattr(reading, what)
    if table is None:
        raise CatalogError(
            f"{_name(source)}: this is {known.title}, which holds {' and '.join(known.gives)}; expected {what}."
        )
    # What the user names as the reader takes it is settled by the reader.
    left = {
        key: theirs
        for key, theirs in column_map.items()
        if normal_name(reading.used.get(key.rpartition(".")[2], "")) != normal_name(theirs)
        or key.rpartition(".")[0] not in ("", what)
    }
    unknown = mapped_names(left, what) - set(table.colnames)
    if unknown and unknown & set(FlatTable(source, what).theirs.values()):
        plain = FlatTable(source, what, column_map, guess=guess)
        note = (
            f"{', '.join(sorted(unknown))} named by the user, so the {known.title} is read as a plain table: nothing "
            "is left out, and measurements of one object stay as many."
        )
        return plain, None, {"formats": {what: "table"}, "notes": [note, *plain.notes]}
    flat = FlatTable(table, what, left, name=_name(source), guess=guess)
    flat.used_by_reader = set(reading.used.values())
    report: dict[str, Any] = {"formats": {what: known.name}, "notes": [*reading.notes, *flat.notes]}
    return flat, reading, report | reading.counts


def _name(source: Any) -> str | None:
    return str(source) if isinstance(source, str | os.PathLike) else None


def _merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    merged = {**second, **first}
    if "formats" in first and "formats" in second:
        merged["formats"] = {**first["formats"], **second["formats"]}
    if "notes" in first and "notes" in second:
        merged["notes"] = [*first["notes"], *second["notes"]]
    return merged

"""The table that every reader of a file makes of its columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from astropy import units
from astropy.table import Table

from bayesflowmass.catalog.errors import refuse_repeated


def plain_table(columns: Iterable[tuple[str, Any, Any]], notes: Sequence[str], where: str) -> Table:
    """An astropy table of (name, values, unit); ``meta["notes"]`` says what a reader decided.

    Values None are left out, and that is said: they are neither numbers nor text.
    """
    given = list(columns)
    refuse_repeated([name.strip() for name, *_ in given], where)
    table = Table({name: values for name, values, _ in given if values is not None}, copy=False)
    for name, values, unit in given:
        if values is not None and unit not in (None, "", "---"):
            table[name].unit = units.Unit(unit, parse_strict="silent")
    left_out = [name for name, values, _ in given if values is None]
    said = f"columns that are no numbers or text are left out: {', '.join(left_out)}."
    table.meta["notes"] = [said] * bool(left_out) + list(notes)
    return table

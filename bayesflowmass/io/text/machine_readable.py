"""Machine-readable tables of AAS journals and CDS: a byte-by-byte description above values in fixed places."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bayesflowmass.catalog import CatalogError
from bayesflowmass.io.text.layout import TextLayout
from bayesflowmass.io.text.rows import RowFormat

_TITLE = re.compile(r"\s*Byte-by-byte Description", re.I)
_RULE = re.compile(r"\s*[-=]{4,}\s*$")
_COLUMN = re.compile(r"\s*(?:(\d+)\s*-\s*)?(\d+)\s+([AIFED]\d+(?:\.\d+)?)\s+(\S+)\s+(\S+)")


def is_machine_readable(lines: Sequence[str]) -> bool:
    """Whether one of the first lines announces the description."""
    return any(_TITLE.match(line) for line in lines[:200])


def machine_readable_layout(lines: Sequence[str]) -> TextLayout:
    """The layout of a table with its description above it."""
    first = next(number for number, line in enumerate(lines) if _TITLE.match(line))
    rules = [number for number in range(first, len(lines)) if _RULE.match(lines[number])]
    names, units, spans = [], [], []
    for line in lines[next(iter(rules[1:]), first) : next(iter(rules[2:]), len(lines))]:
        match = _COLUMN.match(line)
        if match is not None:
            start, stop, _, unit, name = match.groups()
            names.append(name)
            units.append(None if unit in ("---", "-") else unit)
            spans.append((int(start or stop) - 1, int(stop)))
    if not names:
        raise CatalogError("the byte-by-byte description of this table names no column.")
    # Notes may follow the description, each block closed by a rule; the rows come after the last one.
    skip = rules[-1] + 1
    if skip >= len(lines) or not any(line.strip() for line in lines[skip:]):
        raise CatalogError(
            "this is the description of a table without its rows, a ReadMe: put the rows below its last line, or "
            "download the table as FITS or CSV."
        )
    return TextLayout(RowFormat(tuple(names), " ", tuple(spans)), tuple(units), skip)

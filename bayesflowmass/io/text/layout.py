"""What a text table looks like, from its first lines: delimiter, names, units, and where the rows begin."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise, takewhile

from astropy import units

from bayesflowmass.catalog import CatalogError
from bayesflowmass.io.names import known_name
from bayesflowmass.io.text.rows import MISSING, RowFormat, split_line
from bayesflowmass.io.text.values import is_number

_SAMPLE = 200
_NAME_AND_UNIT = re.compile(r"[^\s\[(]\S*(?:\s+[\[(][^\])]*[\])])?")


@dataclass(frozen=True)
class TextLayout:
    """How a text table is made.

    Args:
        form: delimiter and names of its rows.
        units: of each column, as the table gives them, or None.
        skip: lines above the first row.
        named: the names are the table's own, not ``col1, col2, ...``.
        notes: what was decided, in sentences.
        kinds: ``{name: type}`` of columns that the table declares, such as ``int64``.
    """

    form: RowFormat
    units: tuple[str | None, ...]
    skip: int
    named: bool = True
    notes: tuple[str, ...] = ()
    kinds: dict[str, str] = field(default_factory=dict)


def find_layout(lines: Sequence[str]) -> TextLayout | None:
    """The layout of a table from its first lines (without their ends), or None where there is no row.

    Names stand in a line of their own above the rows, or else in the last comment that has as many words as there
    are columns. A line of units and one of dashes may follow, as VizieR writes them.
    """
    preface = _preface(lines)
    comments = list(takewhile(lambda line: line.lstrip()[:1] in ("", "#", "\\"), lines[preface:]))
    start = preface + len(comments)
    numbers = [
        number for number, line in enumerate(lines[start : start + _SAMPLE], start=start) if is_row(line)
    ]
    body = [lines[number] for number in numbers]
    if not body:
        return None
    if body[0].lstrip().startswith("|") and not body[-1].lstrip().startswith("|"):
        return _ipac(lines, start)
    delimiter = _delimiter(body)
    cells = [split_line(line, delimiter) or [] for line in body]
    width = _usual([len(row) for row in cells[1:] or cells])
    _refuse_hidden_rows(comments, preface + 1, delimiter, width)
    notes = []
    if preface:
        many = f"{preface} lines above the names are" if preface > 1 else "the line sep= above the table is"
        notes.append(f"{many} passed over.")
    names = _names_of(body[0], delimiter, width)
    if len(names) == width - 1 and all(row[-1:] in ([], [""]) for row in cells[1:]):
        # The rows end with a delimiter, after which nothing stands.
        names.append("")
    commented = _names_in_comments(comments, delimiter, width)
    # Below names in a comment, a line with numbers is a row, be there a word too many in it.
    if _is_header(names, cells[1:], width) and (commented is None or not any(map(is_number, names))):
        found, below = _units_below(cells[1:], len(names))
        skip = numbers[below] + 1
        return TextLayout(RowFormat(_filled(names), delimiter), found, skip, notes=tuple(notes))
    if commented is None:
        form = RowFormat(tuple(f"col{place}" for place in range(1, width + 1)), delimiter)
        return TextLayout(form, (None,) * width, start, named=False, notes=tuple(notes))
    notes.append(f"names of columns taken from a comment: {', '.join(commented)}.")
    return TextLayout(RowFormat(_filled(commented), delimiter), (None,) * width, start, notes=tuple(notes))


def _preface(lines: Sequence[str]) -> int:
    """Lines that are not of the table: prose above a bar-separated table of NED, the ``sep=;`` that Excel wants."""
    if re.fullmatch(r'"?sep=."?[,;\s]*', lines[0], re.I):
        return 1
    named = re.compile(r"\s*No\.\s*\|\s*Object Name\s*\|", re.I)
    return next((number for number, line in enumerate(lines[:200]) if named.match(line)), 0)


def is_row(line: str) -> bool:
    """Whether a line is neither empty nor a comment."""
    return line.lstrip()[:1] not in ("", "#")


def _usual(counts: Sequence[int]) -> int:
    """The number that stands there most often, the first of several."""
    return max(counts, key=counts.count)


def _delimiter(body: Sequence[str]) -> str:
    """The mark that parts the first line and most others into the same number of values; else blanks."""
    for mark in ("\t", "|", ";", ","):
        counts = [_width(line, mark) for line in body]
        below = counts[1:] or counts
        width = _usual(below)
        if counts[0] < 2 or width < 2 or below.count(width) < 0.5 * len(below):
            continue
        # "1 149,98 19,99": blanks part the values, and the commas are points.
        blanks = {_width(line, " ") for line in body}
        if mark == "," and len(blanks) == 1 and blanks != {1} and is_number(body[-1].split()[-1]):
            continue
        return mark
    return " "


def _refuse_hidden_rows(comments: Sequence[str], first: int, delimiter: str, width: int) -> None:
    """Refuse a comment above the rows that is a row with a # before it; one that numbers the columns is none."""
    for number, line in enumerate(comments, start=first):
        cells = split_line(line.lstrip().removeprefix("#"), delimiter) or []
        if len(cells) != width or width < 2 or not re.match(r"\s*#\S", line):
            continue
        numbers = sum(map(is_number, cells))
        if numbers >= 0.5 * width and cells != [str(place) for place in range(1, width + 1)]:
            raise CatalogError(
                f"line {number} begins with # and has as many values as there are columns, so it may be a comment or a "
                "row: remove the line, or its #."
            )


def _width(line: str, mark: str) -> int:
    """Values in a line; one whose quotes do not close is counted by its delimiters, and refused later."""
    return len(split_line(line, mark) or line.split(mark))


def _names_of(line: str, delimiter: str, width: int) -> list[str]:
    """Words of a line of names; a unit in brackets belongs to the name before it."""
    names = split_line(line, delimiter) or []
    if delimiter == " " and len(names) != width:
        joined = _NAME_AND_UNIT.findall(line)
        return joined if len(joined) == width else names
    return names[:-1] if len(names) == width + 1 and not names[-1] else names


def _is_header(first: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> bool:
    """Whether the first line has names: nowhere a number, or a word above a column of numbers."""
    filled = [place for place, cell in enumerate(first) if cell not in MISSING]
    words = [place for place in filled if not is_number(first[place])]
    if words == filled:
        return bool(words)
    columns = dict(enumerate(zip(*(row for row in rows if len(row) == width), strict=True)))
    below = [[cell for cell in columns.get(place, ()) if cell not in MISSING] for place in words]
    return any(sum(map(is_number, cells)) > 0.8 * len(cells) for cells in below)


def _units_below(rows: Sequence[Sequence[str]], width: int) -> tuple[tuple[str | None, ...], int]:
    """Units in the line below the names, and how many lines below the names are no rows."""
    first, second = [*rows, [], []][:2]
    units = tuple(map(_unit, first))
    if _is_rule(first):
        return (None,) * width, 1
    if _is_rule(second) and len(first) == width:
        return units, 2
    known = [unit for unit in units if unit]
    if len(first) == width and known and all(map(_parses, known)) and not any(map(is_number, first)):
        return units, 1
    return (None,) * width, 0


def _is_rule(row: Sequence[str]) -> bool:
    """Whether dashes stand in each place, as below the names of VizieR."""
    return bool(row) and all(re.fullmatch(r"[-=:+]+", cell) for cell in row)


def _unit(cell: str) -> str | None:
    plain = cell.strip().strip("[]()").strip()
    return None if plain in ("", "-", "--", "---") else plain.strip('"')


def _parses(unit: str) -> bool:
    if re.fullmatch(r"[^a-z]*\d[^a-z]*", unit, re.I):
        # "1,2,3" is a unit to astropy, and a row.
        return False
    try:
        units.Unit(unit)
    except (ValueError, TypeError):
        return unit.strip('"') in ["degrees", "km/sec", "kms-1", "Mpc/h", "kpc/h", "h:m:s", "d:m:s"]
    return True


def _names_in_comments(comments: Sequence[str], delimiter: str, width: int) -> list[str] | None:
    numbered = [re.match(r"#\s*(?:col(?:umn)?\s*)?(\d+)[.:)=]?\s+([A-Za-z_]\S*)", line) for line in comments]
    pairs = [(int(match.group(1)), match.group(2).rstrip(":,")) for match in numbered if match is not None]
    if [place for place, _ in pairs] == list(range(1, width + 1)):
        return [name for _, name in pairs]
    found: list[list[str]] = []
    for line in reversed(comments):
        plain = line.lstrip().lstrip("#").strip()
        for mark in dict.fromkeys((delimiter, ",", " ")):
            names = _names_of(plain, mark, width)
            # "RA=104.65" says a value, and is no name.
            if len(names) == width and all(
                name and "=" not in name and not is_number(name) for name in names
            ):
                found.append(names)
                break
    # A remark may have as many words as there are columns: names that are known beat it, then what stands last.
    return max(found, key=lambda names: sum(known_name(name) is not None for name in names), default=None)


def _filled(names: Sequence[str]) -> tuple[str, ...]:
    """Names, with ``col<n>`` for a column that has none."""
    return tuple(name or f"col{place}" for place, name in enumerate(names, start=1))


def _ipac(lines: Sequence[str], start: int) -> TextLayout | None:
    """A table whose names, types and units stand between bars, above values in those places."""
    head = [line.rstrip() for line in takewhile(lambda line: line.lstrip().startswith("|"), lines[start:])]
    bars = [place for place, mark in enumerate(head[0]) if mark == "|"]
    spans = tuple((left + 1, right) for left, right in pairwise(bars))
    if not spans:
        return None
    names = tuple(head[0][left:right].strip() for left, right in spans)
    given = [head[2][left:right].strip() for left, right in spans] if len(head) > 2 else [""] * len(names)
    return TextLayout(
        RowFormat(_filled(names), " ", spans), tuple(_unit(unit) for unit in given), start + len(head)
    )

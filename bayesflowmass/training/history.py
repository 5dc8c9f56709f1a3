"""The record of a training run: one row for each validation, kept in ``history.csv``."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from bayesflowmass.common.files import write_whole


@dataclass(frozen=True)
class HistoryRow:
    """Losses are mean negative log densities -log p(log10 M | cluster) [nats], densities per dex."""

    update: int
    epoch: int
    train_loss: float
    validation_loss: float
    smoothed_validation_loss: float
    learning_rate: float
    seconds: float

    def to_list(self) -> list[Any]:
        """The values in the order of the columns."""
        return list(astuple(self))


COLUMNS = [field.name for field in fields(HistoryRow)]


def write_history(path: Path, rows: Iterable[HistoryRow]) -> None:
    """Write all rows, atomically; a resumed run does it first, so that no torn or repeated row remains."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(row.to_list() for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.getvalue().encode())


def append_history(path: Path, row: HistoryRow) -> None:
    """Append one row in one write."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(row.to_list())
    with open(path, "a", encoding="utf-8") as file:
        file.write(text.getvalue())


def read_history(path: Path) -> list[HistoryRow]:
    """Read ``history.csv``.

    Raises:
        ValueError: if the file has other columns or a damaged row.
    """
    with open(path, encoding="utf-8", newline="") as file:
        lines = list(csv.reader(file))
    if not lines or lines[0] != COLUMNS:
        raise ValueError(f"'{path}' is not a training history; expected the columns {', '.join(COLUMNS)}.")
    rows = []
    for number, line in enumerate(lines[1:], 2):
        try:
            rows.append(HistoryRow(int(line[0]), int(line[1]), *(float(value) for value in line[2:])))
        except (ValueError, TypeError, IndexError):
            raise ValueError(
                f"'{path}' has a damaged row at line {number}: {','.join(line)[:80]!r}."
            ) from None
    return rows

"""N-body boxes: how the columns of halo finders become ours, and what is checked in each of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bayesflowmass.catalog import CatalogError
from bayesflowmass.catalog.errors import refuse_repeated, refuse_where
from bayesflowmass.io.formats.base import FileHead, Format
from bayesflowmass.io.names import normal_name
from bayesflowmass.io.text.blocks import iterate_rows
from bayesflowmass.io.text.rows import Kind

PHASE_SPACE = ("id", "upid", "x", "y", "z", "vx", "vy", "vz")


@dataclass(frozen=True)
class BoxInfo:
    """What a file says about its N-body box; None where it does not.

    Args:
        redshift: of the snapshot.
        box_size: comoving Mpc/h.
        cosmology: ``Om0`` and ``h``, as far as the file gives them.
    """

    redshift: float | None = None
    box_size: float | None = None
    cosmology: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class BoxColumn:
    """One of our columns.

    Args:
        theirs: names that it may have in a file, in the form of `normal_name`.
        factor: from their unit to ours.
        log10: whether ours is the logarithm.
    """

    theirs: tuple[str, ...]
    factor: float = 1.0
    log10: bool = False


HALO_COLUMNS = {
    **{name: BoxColumn((name,)) for name in PHASE_SPACE},
    **{
        f"log10_{name}": BoxColumn((name,), log10=True)
        for name in ("mvir", "m200b", "m500c", "macc", "mpeak")
    },
    "log10_mass": BoxColumn(("m200c",), log10=True),
    "v_max": BoxColumn(("vmax",)),
    "v_acc": BoxColumn(("vacc",)),
    "r_vir": BoxColumn(("rvir",), 1e-3),
    "r_s": BoxColumn(("rs",), 1e-3),
}
"""Columns of Rockstar, by our names."""


class BoxFormat(Format):
    """Haloes or galaxies of a periodic N-body box.

    Columns that are always there: ``id, upid`` (int64; ``upid`` is -1 for a host halo or a central galaxy),
    ``x, y, z`` [comoving Mpc/h], ``vx, vy, vz`` [peculiar, km/s]. Where the file has them: ``log10_mass``
    (M200c), ``log10_mvir``, ``log10_m200b``, ``log10_m500c``, ``log10_macc``, ``log10_mpeak`` [log10 Msun/h],
    ``r_vir, r_s`` [comoving Mpc/h], ``v_max, v_acc`` [km/s], ``log10_stellar_mass`` [log10 Msun], ``sfr``
    [Msun/yr]. A mass of zero is -inf.
    """

    known: ClassVar[Mapping[str, BoxColumn]]
    """Our columns that such a file may have."""
    remedy: ClassVar[str]
    """What to do where one of `PHASE_SPACE` is missing."""

    @abstractmethod
    def names(self, path: Path) -> list[str]:
        """Names of the columns in the file."""

    @abstractmethod
    def parts(self, path: Path, chosen: Mapping[str, str], rows: int) -> Iterator[dict[str, NDArray[Any]]]:
        """Columns of successive parts of the file, of about ``rows`` rows, under the names of the file.

        Args:
            chosen: ``{our name: name in the file}`` of the columns that are wanted.
        """

    @abstractmethod
    def info(self, path: Path) -> BoxInfo:
        """What the file, or its name, says about the box."""

    def chunks(self, path: Path, rows: int) -> Iterator[dict[str, NDArray[Any]]]:
        """Our columns of successive parts of the file, of about ``rows`` rows; what no box has is refused."""
        chosen, done = self.chosen(path), 0
        for values in self.parts(path, chosen, rows):
            chunk: dict[str, NDArray[Any]] = {}
            for ours, theirs in chosen.items():
                column, given = self.known[ours], values[theirs]
                chunk[ours] = given if column.factor == 1.0 else given * given.dtype.type(column.factor)
                if column.log10:
                    with np.errstate(divide="ignore", invalid="ignore"):
                        chunk[ours] = np.log10(chunk[ours])
            _check(chunk, done, str(path))
            done += len(chunk["id"])
            yield chunk

    def columns(self, path: Path) -> list[str]:
        """The columns that `chunks` gives, without reading the rows."""
        return list(self.chosen(path))

    def chosen(self, path: Path) -> dict[str, str]:
        """``{our name: name in the file}`` for the columns that a file has."""
        names = self.names(path)
        there = {normal_name(name): name for name in reversed(names)}
        found = {
            ours: next(there[name] for name in column.theirs if name in there)
            for ours, column in self.known.items()
            if any(name in there for name in column.theirs)
        }
        for ours in PHASE_SPACE:
            if ours not in found:
                raise CatalogError(
                    f"{path}: column {self.known[ours].theirs[0]} is missing (there are "
                    f"{', '.join(name for name in names if name)}); {self.remedy}."
                )
        return found


class HaloText(BoxFormat):
    """Haloes in a table of text."""

    delimiter: ClassVar[str] = " "
    bytes_per_row: ClassVar[int]

    @abstractmethod
    def header(self, head: FileHead) -> tuple[list[str], int]:
        """Names of the columns (none, if it is no such file), and how many lines stand before the first row."""

    def names(self, path: Path) -> list[str]:
        """See `BoxFormat.names`."""
        names = self.header(FileHead(path))[0]
        refuse_repeated(names, str(path))
        return names

    def parts(self, path: Path, chosen: Mapping[str, str], rows: int) -> Iterator[dict[str, NDArray[Any]]]:
        """See `BoxFormat.parts`."""
        names, skip = self.header(FileHead(path))
        kinds: dict[str, Kind] = {
            theirs: "id" if ours in ("id", "upid") else "number" if ours in PHASE_SPACE else "maybe"
            for ours, theirs in chosen.items()
        }
        size = rows * self.bytes_per_row
        return iterate_rows(path, names, kinds, delimiter=self.delimiter, skip_lines=skip, block_bytes=size)


def _check(chunk: Mapping[str, NDArray[Any]], first_row: int, where: str) -> None:
    """Refuse numbers that no box has; rows count from 1."""

    def refuse(name: str, bad: NDArray[np.bool_], expected: str) -> None:
        refuse_where(
            bad,
            lambda row: (
                f"{where}: {name} in row {first_row + row + 1} is {chunk[name][row]}; expected {expected}."
            ),
        )

    for name in ("x", "y", "z"):
        refuse(name, ~np.isfinite(chunk[name]), "a finite number")
        refuse(name, chunk[name] < -1.0, "a position in the periodic box, from 0 to its size")
        refuse(name, chunk[name] > 20_000.0, "comoving Mpc/h, and this looks like kpc/h")
    for name in ("vx", "vy", "vz"):
        refuse(name, ~np.isfinite(chunk[name]), "a finite number")
        refuse(name, np.abs(chunk[name]) > 30_000.0, "a peculiar velocity in km/s")
    refuse("upid", chunk["upid"] < -1, "the id of a host halo, or -1")

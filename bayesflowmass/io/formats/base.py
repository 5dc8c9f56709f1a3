"""What a file format is: how a file of it is recognised, how it is read, and what it gives.

A format is one class in one file of this folder, listed in `bayesflowmass.io.formats.FORMATS`. There are three
sorts, by what they give: tables of galaxies or clusters (`TableFormat`), the haloes or galaxies of an N-body box
(`BoxFormat`), and whole catalogues, a cluster with its galaxies in each row (`CatalogFormat`).
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.cosmology import MDPL2, Cosmology
from bayesflowmass.io.any_table import read_any_table
from bayesflowmass.io.containers.fits import fits_columns, is_fits
from bayesflowmass.io.containers.votable import is_votable, votable_columns
from bayesflowmass.io.names import normal_name
from bayesflowmass.io.opening import at_rest, open_bytes, packed_as
from bayesflowmass.io.text.layout import TextLayout
from bayesflowmass.io.text.table import layout_of

__all__ = [
    "BoxFormat",
    "BoxInfo",
    "CatalogFormat",
    "FileHead",
    "Format",
    "Reading",
    "TableFormat",
    "log10_of_mass",
    "normal_name",
]

_HEAD_BYTES = 2**18


class FileHead:
    """The beginning of a file, for formats to recognise themselves by.

    Args:
        path: a file; unpacked where its content says that it is packed.

    Raises:
        CatalogError: if the file is missing, empty or unreadable.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = at_rest(path)
        with open_bytes(self.path) as stream:
            self.data = stream.read(_HEAD_BYTES)
        if not self.data:
            raise CatalogError(f"{self.path}: the file is empty.")
        if packed_as(self.data) is not None:
            raise CatalogError(f"{self.path}: this file is packed twice; unpack it once.")

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.path.stat().st_size

    @cached_property
    def name(self) -> str:
        """File name without the ending of a compressed file."""
        return re.sub(r"\.(gz|bz2|xz)$", "", self.path.name)

    @cached_property
    def is_text(self) -> bool:
        """Whether it could be text: no zero byte, and not parquet or a pickle."""
        return b"\0" not in self.data and self.data[:4] != b"PAR1" and self.data[:1] != b"\x80"

    @cached_property
    def lines(self) -> list[str]:
        """Whole lines of the head, none for a binary file."""
        if not self.is_text:
            return []
        text = self.data.decode("utf-8", errors="replace").lstrip("\ufeff")
        lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        if len(self.data) == _HEAD_BYTES or not lines[-1]:
            return lines[:-1] if len(lines) > 1 else lines
        return lines

    @cached_property
    def layout(self) -> TextLayout | None:
        """How the lines of a text table are made; None for what is no such table."""
        try:
            return layout_of(self.lines) if self.is_text else None
        except CatalogError as error:
            raise CatalogError(f"{self.path}: {error}") from None

    @cached_property
    def numbers(self) -> list[list[float]]:
        """Rows of a table of numbers that has no names, from its first lines; empty where a word is found."""
        rows = []
        for line in self.lines[:200]:
            if line.strip() and not line.lstrip().startswith("#"):
                try:
                    rows.append([float(word) for word in line.split()])
                except ValueError:
                    return []
        # Names beat what numbers look like.
        return rows if self.layout is None or not self.layout.named else []

    @cached_property
    def columns(self) -> list[str]:
        """Names of the columns of a table, as far as the file says."""
        if is_fits(self.data):
            return fits_columns(self.path, str(self.path))
        if self.data[:4] == b"PAR1":
            try:
                return list(pq.read_schema(self.path).names)
            except Exception as error:
                raise CatalogError(
                    f"{self.path}: not a whole parquet file (truncated or damaged)."
                ) from error
        if is_votable(self.data):
            return votable_columns(self.data)
        return [] if self.layout is None else list(self.layout.form.names)


@dataclass(frozen=True)
class Reading:
    """Tables under our names and units, and what was done on the way.

    Args:
        galaxies, clusters: astropy tables, or None where the format has none.
        notes: one sentence for each thing that the reader decided or left out.
        counts: numbers behind the notes, kept in the metadata of catalogues.
        one_cluster: all galaxies are of one cluster, and this is a name for it.
        cleaned: interlopers were removed by those who made the table.
        used: ``{ours: name in the file}`` of the columns that were taken up.
    """

    galaxies: Any = None
    clusters: Any = None
    notes: tuple[str, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)
    one_cluster: str | None = None
    cleaned: bool = False
    used: dict[str, str] = field(default_factory=dict)


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


class Format(ABC):
    """One file format."""

    name: ClassVar[str]
    """Short, for messages and metadata."""
    title: ClassVar[str]
    """What it is, in words."""
    place: ClassVar[int] = 1000
    """Order in which formats are tried: those with the surest signs have the smallest numbers."""

    @abstractmethod
    def recognises(self, head: FileHead) -> bool:
        """Whether a file is of this format, to judge by its beginning and its name."""


class TableFormat(Format):
    """Galaxies or clusters as flat tables.

    Formats with column names are converted from an astropy table, in whatever file it came; the others
    override `read`.
    """

    gives: ClassVar[tuple[str, ...]]
    """Of "galaxies" and "clusters"."""

    def matches(self, columns: Sequence[str]) -> bool:
        """Whether these are the columns of this format."""
        return False

    def recognises(self, head: FileHead) -> bool:
        """By the names of columns."""
        return bool(head.columns) and self.matches(head.columns)

    def read(self, path: Path) -> Reading:
        """Read a file.

        Raises:
            CatalogError: names the file and what is wrong in it.
        """
        return self.convert(read_any_table(path), str(path))

    def convert(self, table: Any, where: str, cosmology: Cosmology = MDPL2) -> Reading:
        """Convert an astropy table; ``where`` names it in messages."""
        raise NotImplementedError(f"{self.title} has no column names.")


class BoxFormat(Format):
    """Haloes or galaxies of a periodic N-body box.

    Columns that are always there: ``id, upid`` (int64; ``upid`` is -1 for a host halo or a central galaxy),
    ``x, y, z`` [comoving Mpc/h], ``vx, vy, vz`` [peculiar, km/s]. Where the file has them: ``log10_mass``
    (M200c), ``log10_mvir``, ``log10_m200b``, ``log10_m500c``, ``log10_macc``, ``log10_mpeak`` [log10 Msun/h],
    ``r_vir, r_s`` [comoving Mpc/h], ``v_max, v_acc`` [km/s], ``log10_stellar_mass`` [log10 Msun], ``sfr``
    [Msun/yr]. A mass of zero is -inf.
    """

    @abstractmethod
    def chunks(self, path: Path, rows: int) -> Iterator[dict[str, NDArray[Any]]]:
        """Columns of successive parts of the file, of about ``rows`` rows.

        Raises:
            CatalogError: names the file, the row or line and the column.
        """

    @abstractmethod
    def info(self, path: Path) -> BoxInfo:
        """What the file, or its name, says about the box."""

    @abstractmethod
    def columns(self, path: Path) -> list[str]:
        """The columns that `chunks` gives, without reading the rows."""


class CatalogFormat(Format):
    """Clusters with their galaxies, one row each."""

    @abstractmethod
    def iterate(
        self, path: Path, batch_size: int, redshift: float | None, cosmology: Cosmology
    ) -> Iterator[ClusterCatalog]:
        """Catalogues of ``batch_size`` clusters one after another, in bounded memory.

        Raises:
            CatalogError: names the file, the row and the column.
        """


def log10_of_mass(values: NDArray[Any]) -> NDArray[Any]:
    """log10, with -inf for zero and NaN for what is negative or missing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        result: NDArray[Any] = np.log10(values)
    return result

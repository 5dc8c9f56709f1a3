"""What a file format is: how a file of it is recognised, how it is read, and what it gives.

A format is one class in one file of this folder, listed in `bayesflowmass.io.formats.FORMATS`. There are three
sorts, by what they give: tables of galaxies or clusters (`TableFormat`), the haloes or galaxies of an N-body box
(`BoxFormat`), and whole catalogues, a cluster with its galaxies in each row (`CatalogFormat`).
"""

from __future__ import annotations

import csv
import os
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow.parquet as pq
from astropy.io import fits
from numpy.typing import NDArray

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.cosmology import MDPL2, Cosmology
from bayesflowmass.io.table import read_any_table
from bayesflowmass.io.text_rows import open_bytes

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

_HEAD_BYTES = 65_536


def normal_name(name: str) -> str:
    """A column name as it is compared: lower case, without blanks, points, units and index in brackets."""
    plain = re.sub(r"[\[(][^\])]*[\])]", "", name.strip().lstrip("\ufeff").strip("\"'"))
    return re.sub(r"[\s._-]+", "_", plain.strip().lower()).strip("_")


class FileHead:
    """The beginning of a file, for formats to recognise themselves by.

    Args:
        path: a file; unpacked where its name ends in .gz, .bz2 or .xz.

    Raises:
        CatalogError: if the file is missing, empty or unreadable.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        with open_bytes(self.path) as stream:
            try:
                self.data = stream.read(_HEAD_BYTES)
            except (OSError, EOFError) as error:
                raise CatalogError(
                    f"{self.path}: the compressed file is damaged or half-written ({error}); copy it again."
                ) from error
        if not self.data:
            raise CatalogError(f"{self.path}: the file is empty.")

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
        lines = self.data.decode("utf-8", errors="replace").lstrip("\ufeff").splitlines()
        return lines[:-1] if len(self.data) == _HEAD_BYTES and len(lines) > 1 else lines

    @cached_property
    def numbers(self) -> list[list[float]]:
        """Rows of a table of numbers without a header, from its first lines; empty where a word is found."""
        rows = []
        for line in self.lines[:200]:
            if line.strip() and not line.lstrip().startswith("#"):
                try:
                    rows.append([float(word) for word in line.split()])
                except ValueError:
                    return []
        return rows

    @cached_property
    def columns(self) -> list[str]:
        """Names of the columns of a table, as far as the file says."""
        if self.data[:9] == b"SIMPLE  =":
            return _fits_columns(self.path)
        if self.data[:4] == b"PAR1":
            try:
                return list(pq.read_schema(self.path).names)
            except Exception as error:
                raise CatalogError(
                    f"{self.path}: not a whole parquet file (truncated or damaged)."
                ) from error
        if self.data.lstrip()[:5].lower() == b"<?xml" or b"<VOTABLE" in self.data[:2000].upper():
            return list(read_any_table(self.path).colnames)
        return _text_columns(self.lines)


def _fits_columns(path: Path) -> list[str]:
    try:
        with warnings.catch_warnings(), fits.open(path, lazy_load_hdus=True) as hdus:
            warnings.simplefilter("ignore")
            return next((list(hdu.columns.names) for hdu in hdus if hasattr(hdu, "columns")), [])
    except (OSError, TypeError, ValueError) as error:
        raise CatalogError(f"{path}: not a whole FITS file ({error}); copy it again.") from error


def _text_columns(lines: Sequence[str]) -> list[str]:
    rows = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not rows:
        return []
    delimiter = next((mark for mark in (",", "\t", "|", ";") if mark in rows[0]), " ")
    words = next(csv.reader([rows[0].strip()], delimiter=delimiter, skipinitialspace=True))
    return [word.strip() for word in words if word.strip() or delimiter != " "]


@dataclass(frozen=True)
class Reading:
    """Tables under our names and units, and what was done on the way.

    Args:
        galaxies, clusters: astropy tables, or None where the format has none.
        notes: one sentence for each thing that the reader decided or left out.
        counts: numbers behind the notes, kept in the metadata of catalogues.
        one_cluster: all galaxies are of one cluster, and this is a name for it.
        cleaned: interlopers were removed by those who made the table.
    """

    galaxies: Any = None
    clusters: Any = None
    notes: tuple[str, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)
    one_cluster: str | None = None
    cleaned: bool = False


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

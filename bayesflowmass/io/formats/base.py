"""What a file format is: how a file of it is recognised, how it is read, and what it gives.

A format is one class in one file of this folder; `bayesflowmass.io.formats.FORMATS` finds it. There are three
sorts, by what they give: tables of galaxies or clusters (`TableFormat`), the haloes or galaxies of an N-body box
(`BoxFormat`, in ``boxes.py``), and whole catalogues, a cluster with its galaxies in each row (`CatalogFormat`).
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.cosmology import MDPL2, Cosmology
from bayesflowmass.io.any_table import read_any_table
from bayesflowmass.io.containers.fits import fits_columns, is_fits
from bayesflowmass.io.containers.parquet import is_parquet, parquet_columns
from bayesflowmass.io.containers.votable import is_votable, votable_columns
from bayesflowmass.io.names import normal_name
from bayesflowmass.io.opening import HEAD_BYTES, at_rest, open_bytes, packed_as
from bayesflowmass.io.text.layout import TextLayout, is_row
from bayesflowmass.io.text.table import layout_of, text_stream


class FileHead:
    """The beginning of a file, unpacked where its content says so, for formats to recognise themselves by."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = at_rest(path)
        with open_bytes(self.path) as stream:
            self.data = stream.read(HEAD_BYTES)
        if not self.data:
            raise CatalogError(f"{self.path}: the file is empty.")
        if packed_as(self.data) is not None:
            raise CatalogError(f"{self.path}: this file is packed twice; unpack it once.")

    @cached_property
    def name(self) -> str:
        """File name without the ending of a compressed file."""
        return re.sub(r"\.(gz|bz2|xz)$", "", self.path.name)

    @cached_property
    def is_text(self) -> bool:
        """Whether it could be text: no zero byte, and not parquet or a pickle."""
        return b"\0" not in self.data and not is_parquet(self.data) and self.data[:1] != b"\x80"

    @cached_property
    def lines(self) -> list[str]:
        """Whole lines of the beginning of a text, none of a binary file."""
        if not self.is_text:
            return []
        stream, head = text_stream(self.path)
        stream.close()
        return head.removesuffix("\n").split("\n")

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
        try:
            rows = [[float(word) for word in line.split()] for line in self.lines[:200] if is_row(line)]
        except ValueError:
            return []
        # Names beat what numbers look like.
        return rows if self.layout is None or not self.layout.named else []

    @cached_property
    def columns(self) -> list[str]:
        """Names of the columns of a table, as far as the file says."""
        if is_fits(self.data):
            return fits_columns(self.path, str(self.path))
        if is_parquet(self.data):
            return parquet_columns(self.path, str(self.path))
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

    def matches(self, names: Set[str]) -> bool:
        """Whether these are the columns of this format, by their `normal_name`."""
        return False

    def recognises(self, head: FileHead) -> bool:
        """By the names of columns."""
        return bool(head.columns) and self.matches({normal_name(name) for name in head.columns})

    def read(self, path: Path) -> Reading:
        """Read a file."""
        return self.convert(read_any_table(path), str(path))

    def convert(self, table: Any, where: str, cosmology: Cosmology = MDPL2) -> Reading:
        """Convert an astropy table; ``where`` names it in messages."""
        raise NotImplementedError(f"{self.title} has no column names.")


class CatalogFormat(Format):
    """Clusters with their galaxies, one row each."""

    @abstractmethod
    def iterate(
        self, path: Path, batch_size: int, redshift: float | None, cosmology: Cosmology
    ) -> Iterator[ClusterCatalog]:
        """Catalogues of ``batch_size`` clusters one after another, in bounded memory."""

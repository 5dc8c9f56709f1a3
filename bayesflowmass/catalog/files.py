"""Catalogue files: parquet, one row per cluster; atomic writing, reading whole or in bounded memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from bayesflowmass.catalog.arrays import is_list, is_nested
from bayesflowmass.catalog.columns import Columns
from bayesflowmass.catalog.errors import CatalogError
from bayesflowmass.catalog.hats import hats_parts, is_hats
from bayesflowmass.catalog.metadata import METADATA_KEY, CatalogMetadata
from bayesflowmass.common.files import reason_of, whole_file

_GALAXIES_PER_ROW_GROUP = 2_000_000
_ROWS_PER_ROW_GROUP = 65_536


def catalog_paths(path: str | os.PathLike[str]) -> list[Path]:
    """The parquet files of a catalogue: the file itself, or those of a folder in the order of their names.

    Raises:
        CatalogError: there are none, or those of a HATS table have another number of rows than it says.
    """
    place = Path(path)
    if place.is_dir() and is_hats(place):
        files, expected = hats_parts(place)
        found = 0
        for file in files:
            with _parquet_errors(file):
                found += pq.read_metadata(file).num_rows
        if expected not in (None, found):
            raise CatalogError(
                f"{place}: the files of the HATS table have {found} rows, and its properties say {expected}; "
                "was it copied as a whole?"
            )
        return files
    if place.is_dir():
        files = sorted(file for file in place.glob("*.parquet") if not file.name.startswith((".", "_")))
        if not files:
            raise CatalogError(f"{place}: the folder holds no *.parquet file.")
        return files
    if not place.exists():
        raise CatalogError(f"{place}: no such file or folder.")
    return [place]


def is_catalog_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file (or the first of a folder) is parquet with list columns, rather than a flat table."""
    place = catalog_paths(path)[0]
    try:
        with place.open("rb") as stream:
            if stream.read(4) != b"PAR1":
                return False
    except OSError as error:
        raise CatalogError(f"{place}: cannot be opened: {error.strerror}.") from error
    with _parquet_errors(place):
        return any(is_list(one.type) or is_nested(one.type) for one in pq.read_schema(place))


def read_table(path: str | os.PathLike[str], columns: Sequence[str] | None = None) -> Any:
    """Arrow table of a catalogue file or folder; with ``columns``, those and no others."""
    tables, metadata = [], []
    for place in catalog_paths(path):
        with _parquet_errors(place):
            file = pq.ParquetFile(place)
            chosen = _chosen(place, file.schema_arrow, columns)
            tables.append(file.read(columns=chosen))
        metadata.append(_metadata_of(file.schema_arrow))
    try:
        table = pa.concat_tables(tables) if len(tables) > 1 else tables[0]
    except pa.ArrowInvalid as error:
        raise CatalogError(f"{path}: the files of the folder have different columns or types.") from error
    return table.replace_schema_metadata({METADATA_KEY: CatalogMetadata.merge(metadata).to_json()})


def iterate_tables(
    path: str | os.PathLike[str], batch_size: int, columns: Sequence[str] | None = None, where: Any = None
) -> Iterator[Any]:
    """Tables of ``batch_size`` rows (the last one shorter), holding little more than a row group in memory.

    Args:
        where: condition on the columns, a `pyarrow.compute.Expression` as in ``pc.field("log10_mass") > 14``.
    """
    if batch_size < 1:
        raise CatalogError(f"batch_size is {batch_size}; expected at least 1.")
    places = catalog_paths(path)
    metadata, schemas = [], []
    for place in places:
        with _parquet_errors(place):
            schemas.append(pq.read_schema(place))
        metadata.append(_metadata_of(schemas[-1]))
        if not schemas[-1].equals(schemas[0]):
            raise CatalogError(f"{path}: {place.name} and {places[0].name} have different columns or types.")
    text = {METADATA_KEY: CatalogMetadata.merge(metadata).to_json()}
    chosen = _chosen(places[0], schemas[0], columns)
    pending: list[Any] = []
    rows = 0
    with _parquet_errors(Path(path)):
        # Imported late: it imports pandas.
        import pyarrow.dataset as pads

        dataset = pads.dataset([str(place) for place in places], format="parquet")
        batches = dataset.to_batches(
            columns=chosen, filter=where, batch_size=batch_size, batch_readahead=1, fragment_readahead=1
        )
        for batch in batches:
            pending.append(batch)
            rows += batch.num_rows
            while rows >= batch_size:
                table = pa.Table.from_batches(pending)
                yield table.slice(0, batch_size).replace_schema_metadata(text)
                pending = table.slice(batch_size).to_batches()
                rows -= batch_size
    if rows:
        yield pa.Table.from_batches(pending).replace_schema_metadata(text)


def catalog_metadata(path: str | os.PathLike[str], needed: str) -> CatalogMetadata:
    """What the files of a catalogue say of it as a whole.

    Args:
        path: of the file, or the folder of files.
        needed: a column that all of them must have.

    Raises:
        CatalogError: as `read_table`.
    """
    metadata = []
    for place in catalog_paths(path):
        with _parquet_errors(place):
            schema = pq.read_schema(place)
        _chosen(place, schema, [needed])
        metadata.append(_metadata_of(schema))
    return CatalogMetadata.merge(metadata)


@dataclass(frozen=True)
class RowGroups:
    """A part of a catalogue: consecutive row groups of its files.

    Attributes:
        groups: file and number of each row group.
        n_rows: clusters in them.
    """

    groups: tuple[tuple[Path, int], ...]
    n_rows: int

    def read(self) -> Any:
        """The Arrow table of these clusters.

        Raises:
            CatalogError: a file is gone or damaged, or two do not fit together.
        """
        tables, metadata = [], []
        for place, group in self.groups:
            if not place.exists():
                raise CatalogError(f"{place}: a part of the catalogue is missing; was it there before?")
            with _parquet_errors(place), pq.ParquetFile(place) as file:
                tables.append(file.read_row_group(group))
                metadata.append(_metadata_of(file.schema_arrow))
        try:
            table = pa.concat_tables(tables)
        except pa.ArrowInvalid as error:
            raise CatalogError(
                f"{place}: the files of the folder have different columns or types."
            ) from error
        return table.replace_schema_metadata({METADATA_KEY: CatalogMetadata.merge(metadata).to_json()})


def parts_of(path: str | os.PathLike[str], n_rows: int = 32_768) -> Iterator[RowGroups]:
    """The parts of a catalogue, in order: as many row groups as hold ``n_rows`` clusters, and at least one.

    Raises:
        CatalogError: as `read_table`.
    """
    groups: list[tuple[Path, int]] = []
    held = 0
    for place in catalog_paths(path):
        with _parquet_errors(place):
            metadata = pq.read_metadata(place)
        for group in range(metadata.num_row_groups):
            more = metadata.row_group(group).num_rows
            if groups and held + more > n_rows:
                yield RowGroups(tuple(groups), held)
                groups, held = [], 0
            groups.append((place.absolute(), group))
            held += more
    if groups:
        yield RowGroups(tuple(groups), held)


def write_table(table: Any, path: str | os.PathLike[str]) -> None:
    """Write an Arrow table as one parquet file, atomically: the path holds the old file or the new one."""
    with TableWriter(path) as writer:
        writer.write(table)


class TableWriter:
    """Write tables of one schema, one after another, to one parquet file that appears only when all is well."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._stack = ExitStack()
        self._writer: Any = None
        self._schema: Any = None

    def __enter__(self) -> Self:
        with self._system_errors():
            self._path.parent.mkdir(parents=True, exist_ok=True)
        return self

    def write(self, table: Any) -> None:
        """Append the rows of a table."""
        with self._system_errors():
            if self._writer is None:
                self._schema = table.schema
                self._writer = pq.ParquetWriter(
                    self._stack.enter_context(whole_file(self._path)),
                    table.schema,
                    compression="zstd",
                    write_statistics=[column.name for column in table.schema if not is_list(column.type)],
                )
            if table.num_rows:
                self._writer.write_table(table, row_group_size=_row_group_size(table))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._system_errors():
            try:
                if self._writer is not None:
                    self._writer.close()
            except OSError as failed:
                self._stack.__exit__(type(failed), failed, failed.__traceback__)
                if error is None:
                    raise
            else:
                self._stack.__exit__(kind, error, trace)

    @contextmanager
    def _system_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = reason_of(error)
            remedy = "; free some space, or write elsewhere" if reason == "the disk is full" else ""
            raise CatalogError(f"{self._path} cannot be written: {reason}{remedy}.") from error


class CatalogWriter(TableWriter):
    """Write catalogues one after another to one file, for catalogues too large for memory.

    ``with CatalogWriter(path) as writer: writer.write(part)``. The file appears at the end, whole, or not at
    all.

    Raises:
        CatalogError: if a part has other columns or metadata than the first, or the disk is full.
    """

    def write(self, catalog: Columns) -> None:
        """Append clusters."""
        table = catalog.table
        if self._schema is not None and not table.schema.equals(self._schema, check_metadata=True):
            raise CatalogError("parts of one catalogue file must have the same columns, types and metadata.")
        super().write(table)


def _row_group_size(table: Any) -> int:
    """Rows of a row group: small enough that one decodes in a fraction of a second and tens of megabytes."""
    lists = [column for column in table.columns if is_list(column.type)]
    if not lists:
        return _ROWS_PER_ROW_GROUP
    galaxies = sum(
        int(chunk.offsets[-1].as_py()) - int(chunk.offsets[0].as_py()) for chunk in lists[0].chunks
    )
    per_cluster = max(1.0, galaxies / table.num_rows)
    return max(1, min(_ROWS_PER_ROW_GROUP, int(_GALAXIES_PER_ROW_GROUP / per_cluster)))


def _chosen(place: Path, schema: Any, columns: Sequence[str] | None) -> list[str] | None:
    if columns is None:
        return None
    missing = [name for name in columns if name not in schema.names]
    if missing:
        raise CatalogError(
            f"{place}: column {missing[0]!r} is missing; the file has {', '.join(schema.names)}."
        )
    chosen = list(dict.fromkeys(columns))
    if not any(is_list(schema.field(name).type) for name in chosen):
        # The lengths of one list column are what says how many galaxies each cluster has.
        chosen += [column.name for column in schema if is_list(column.type)][:1]
    return chosen


def _metadata_of(schema: Any) -> CatalogMetadata:
    text = (schema.metadata or {}).get(METADATA_KEY)
    return CatalogMetadata() if text is None else CatalogMetadata.from_json(text)


@contextmanager
def _parquet_errors(place: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, EOFError) as error:
        asked = isinstance(error, pa.ArrowKeyError | pa.ArrowNotImplementedError | pa.ArrowTypeError)
        if asked or "No match for FieldRef" in str(error):
            raise CatalogError(f"{place}: cannot be read as asked: {str(error).splitlines()[0]}") from error
        raise CatalogError(
            f"{place}: not a whole parquet file (truncated, damaged, or another format)."
        ) from error

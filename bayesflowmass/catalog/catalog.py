"""Galaxy clusters, each with its galaxies.

One row per cluster. A **cluster column** has one value per cluster, a **galaxy column** one list per
cluster; in memory all galaxies of a column lie in one flat array, and ``offsets`` says where each cluster
begins. Arrow inside, numpy and torch at the edges, without copies. Every operation is one pass over flat
arrays and gives a new catalogue.

Cluster columns: ``cluster_id`` (int64 or string), ``redshift``; optional ``log10_mass`` [log10 M200c,
Msun/h], ``halo_id``, ``ra``, ``dec`` [deg], ``redshift_err``, ``mode``, ``completeness``, ``sigma_v_err``
[km/s]. Galaxy columns: ``x``, ``y`` [comoving Mpc/h from the centre], ``v_los`` [km/s in the rest frame of
the cluster]; optional ``gal_v_err``, ``gal_is_member``, ``gal_component``, ``gal_galaxy_id``, ``gal_ra``,
``gal_dec``, ``gal_z``, ``gal_abs_mag``, ``gal_weight``. Other columns of either sort are kept.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike

from bayesflowmass.catalog import tables as catalog_tables
from bayesflowmass.catalog import validation as catalog_validation
from bayesflowmass.catalog.arrays import (
    checked_mask,
    gather,
    joined_columns,
    offsets_from_counts,
    sized_column,
)
from bayesflowmass.catalog.build import columns_from_arrays, columns_from_table, parts_by_group
from bayesflowmass.catalog.columns import Columns
from bayesflowmass.catalog.errors import CatalogError
from bayesflowmass.catalog.files import iterate_tables, read_table, write_table
from bayesflowmass.catalog.metadata import METADATA_KEY, CatalogMetadata
from bayesflowmass.common.arrays import IntArray


class ClusterCatalog(Columns):
    """Clusters with ragged galaxies; immutable.

    Build one with `from_arrays`, `from_table`, `from_astropy`, `read` or `bayesflowmass.io.load_catalog`.
    Arrays that come out are read-only views of Arrow memory; arrays that go in are shared, not copied: do
    not write to them.
    """

    @classmethod
    def from_arrays(
        cls,
        clusters: Mapping[str, Any],
        galaxies: Mapping[str, Any],
        n_galaxies: ArrayLike,
        metadata: CatalogMetadata | None = None,
    ) -> ClusterCatalog:
        """Build from one array per column.

        Args:
            clusters: arrays of shape (n,), or (n, k) for a vector per cluster.
            galaxies: flat arrays of shape (sum of n_galaxies,), cluster after cluster.
            n_galaxies: galaxies of each cluster, shape (n,).
            metadata: None takes the defaults.

        Raises:
            CatalogError: if a length does not fit, a name is used twice, or a type cannot be stored.
        """
        return cls(*columns_from_arrays(clusters, galaxies, n_galaxies), metadata or CatalogMetadata())

    @classmethod
    def from_table(cls, table: Any, metadata: CatalogMetadata | None = None) -> ClusterCatalog:
        """Build from a pyarrow table whose galaxy columns are lists; None reads the metadata of its schema.

        Raises:
            CatalogError: if there is no list column, or the lists of a cluster have different lengths.
        """
        clusters, galaxies, offsets = columns_from_table(table)
        if metadata is None:
            text = (table.schema.metadata or {}).get(METADATA_KEY)
            metadata = CatalogMetadata() if text is None else CatalogMetadata.from_json(text)
        return cls(clusters, galaxies, offsets, metadata)

    @classmethod
    def from_astropy(
        cls, clusters: Any, galaxies: Any, metadata: CatalogMetadata | None = None
    ) -> ClusterCatalog:
        """Build from two astropy tables with the names of our columns, as `to_tables` gives them.

        Galaxies are brought to their cluster by ``cluster_id`` and keep their order. Tables with other names
        or units, or with sky coordinates only, go through `bayesflowmass.io.load_catalog`.

        Raises:
            CatalogError: for a galaxy of an unknown cluster.
        """
        return cls.from_arrays(*catalog_tables.from_astropy(clusters, galaxies), metadata)

    @staticmethod
    def read(path: str | os.PathLike[str], columns: Sequence[str] | None = None) -> ClusterCatalog:
        """Read a parquet file, or a folder of them; of ``columns`` only, if given (and one list column).

        Raises:
            CatalogError: for a missing, truncated or foreign file or a missing column.
        """
        table = read_table(path, columns)
        try:
            return ClusterCatalog.from_table(table)
        except CatalogError as error:
            raise CatalogError(f"{path}: {error}") from error

    @staticmethod
    def iterate(
        path: str | os.PathLike[str], batch_size: int, columns: Sequence[str] | None = None, where: Any = None
    ) -> Iterator[ClusterCatalog]:
        """Read catalogues of ``batch_size`` clusters one after another, in bounded memory.

        Args:
            where: `pyarrow.compute.Expression` on the columns, such as ``pc.field("log10_mass") > 14.0``.

        Raises:
            CatalogError: as `read`.
        """
        for table in iterate_tables(path, batch_size, columns, where):
            yield ClusterCatalog.from_table(table)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write one parquet file (zstd), atomically: a failure leaves the old file, or none.

        Raises:
            CatalogError: if the disk is full or the place cannot be written to.
        """
        write_table(self.table, path)

    def __getitem__(self, rows: int | slice | ArrayLike) -> ClusterCatalog:
        """Some clusters, as a catalogue: one row, a slice (shares memory), indices in any order, or a mask.

        Raises:
            IndexError: outside the catalogue.
            CatalogError: for a mask of the wrong length, or something that is none of these.
        """
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step == 1:
                return self._contiguous(start, max(start, stop))
            return self._take(np.arange(start, stop, step, dtype=np.int64))
        if isinstance(rows, int | np.integer):
            row = int(rows) + (len(self) if rows < 0 else 0)
            if not 0 <= row < len(self):
                raise IndexError(f"cluster {int(rows)} of a catalogue of {len(self)} clusters.")
            return self._contiguous(row, row + 1)
        index = np.asarray(rows)
        if index.dtype == np.bool_:
            return self.filter(index)
        if index.size == 0:
            index = index.astype(np.int64)
        if index.ndim != 1 or index.dtype.kind not in "iu":
            raise CatalogError("a catalogue is indexed by a number, a slice, an array of numbers, or a mask.")
        if index.size and (index.max() >= len(self) or index.min() < -len(self)):
            raise IndexError(f"cluster {int(index.max())} of a catalogue of {len(self)} clusters.")
        return self._take(np.where(index < 0, index + len(self), index).astype(np.int64))

    def filter(self, mask: ArrayLike) -> ClusterCatalog:
        """The clusters where a mask (n,) is true.

        Raises:
            CatalogError: if the mask is not boolean or has another length.
        """
        keep = checked_mask(mask, len(self), "clusters")
        if keep.all():
            return self
        flat = pa.array(np.repeat(keep, self.n_galaxies))
        rows = pa.array(keep)
        return ClusterCatalog(
            {name: array.filter(rows) for name, array in self._clusters.items()},
            {name: array.filter(flat) for name, array in self._galaxies.items()},
            offsets_from_counts(self.n_galaxies[keep]),
            self._metadata,
        )

    def filter_galaxies(self, mask: ArrayLike) -> ClusterCatalog:
        """The galaxies where a flat mask is true; clusters stay, even those left without galaxies.

        Raises:
            CatalogError: if the mask is not boolean or has another length.
        """
        keep = checked_mask(mask, self.n_galaxies_total, "galaxies")
        if keep.all():
            return self
        kept_before = np.zeros(keep.size + 1, dtype=np.int64)
        np.cumsum(keep, out=kept_before[1:])
        flat = pa.array(keep)
        galaxies = {name: array.filter(flat) for name, array in self._galaxies.items()}
        return ClusterCatalog(self._clusters, galaxies, kept_before[self._offsets], self._metadata)

    def with_columns(self, **arrays: Any) -> ClusterCatalog:
        """A catalogue with cluster columns added or replaced; a single value goes to every cluster."""
        return self._with(arrays, {})

    def with_galaxies(self, **arrays: Any) -> ClusterCatalog:
        """A catalogue with galaxy columns (flat) added or replaced; a single value goes to every galaxy."""
        return self._with({}, arrays)

    def with_metadata(self, **changes: Any) -> ClusterCatalog:
        """A catalogue with fields of its metadata changed."""
        return ClusterCatalog(
            self._clusters, self._galaxies, self._offsets, self._metadata.replace(**changes)
        )

    def without(self, *names: str) -> ClusterCatalog:
        """A catalogue without some columns.

        Raises:
            CatalogError: if there is no such column.
        """
        for name in names:
            self._find(name, {**self._clusters, **self._galaxies}, "")
        clusters = {name: array for name, array in self._clusters.items() if name not in names}
        galaxies = {name: array for name, array in self._galaxies.items() if name not in names}
        return ClusterCatalog(clusters, galaxies, self._offsets, self._metadata)

    @staticmethod
    def concatenate(
        catalogs: Sequence[ClusterCatalog], metadata: CatalogMetadata | None = None
    ) -> ClusterCatalog:
        """Catalogues one below another; None takes the metadata that they agree on (`CatalogMetadata.merge`).

        Raises:
            CatalogError: if there is none, or columns, their types or the metadata do not fit together.
        """
        if not catalogs:
            raise CatalogError("there is no catalogue to concatenate.")
        first = catalogs[0]
        for other in catalogs[1:]:
            odd = sorted(set(first.column_names) ^ set(other.column_names))
            if odd or set(first.cluster_columns) != set(other.cluster_columns):
                raise CatalogError(
                    f"catalogues to be concatenated differ in column {', '.join(odd) or '(value or list)'}; "
                    "add it to all of them, or drop it."
                )
        clusters = {k: joined_columns(k, [cat._clusters[k] for cat in catalogs]) for k in first._clusters}
        galaxies = {k: joined_columns(k, [cat._galaxies[k] for cat in catalogs]) for k in first._galaxies}
        offsets = offsets_from_counts(np.concatenate([cat.n_galaxies for cat in catalogs]))
        merged = CatalogMetadata.merge([cat.metadata for cat in catalogs]) if metadata is None else metadata
        return ClusterCatalog(clusters, galaxies, offsets, merged)

    def split(self, fractions: Sequence[float], seed: int) -> list[ClusterCatalog]:
        """Random parts that share no halo: all rows of one ``halo_id`` (else ``cluster_id``) stay together.

        The number of clusters of each part differs from its fraction by less than one halo's rows. Which
        halo goes where depends on the set of ids and the seed, not on the order of the rows; within a part
        the order is kept.

        Raises:
            CatalogError: if fractions are not positive numbers that add up to 1, or a part would be empty.
        """
        halos = self.column("halo_id" if self.has("halo_id") else "cluster_id")
        part = parts_by_group(halos, fractions, seed)
        return [self.filter(part == index) for index in range(len(fractions))]

    def validate(self, min_galaxies: int | None = None) -> ClusterCatalog:
        """Return the catalogue itself if all is well.

        Required columns, finite numbers, units, unique ids, plausible ranges, at least ``min_galaxies``
        galaxies in each cluster (None: 3, the fewest that have a two-dimensional covariance).

        Raises:
            CatalogError: one sentence that names the cluster, its row and the column.
        """
        catalog_validation.validate(self, 3 if min_galaxies is None else min_galaxies)
        return self

    def to_tables(self) -> tuple[Any, Any]:
        """Two astropy tables with units: one row per cluster, and one per galaxy (with ``cluster_id``)."""
        return catalog_tables.to_astropy(self)

    def _with(self, clusters: Mapping[str, Any], galaxies: Mapping[str, Any]) -> ClusterCatalog:
        for name in clusters:
            if name in self._galaxies:
                raise CatalogError(f"column {name!r} exists for galaxies; it cannot be a cluster column too.")
        for name in galaxies:
            if name in self._clusters:
                raise CatalogError(f"column {name!r} exists for clusters; it cannot be a galaxy column too.")
        total = self.n_galaxies_total
        rows = {name: sized_column(name, new, len(self), "clusters") for name, new in clusters.items()}
        flats = {name: sized_column(name, new, total, "galaxies") for name, new in galaxies.items()}
        rows, flats = {**self._clusters, **rows}, {**self._galaxies, **flats}
        return ClusterCatalog(rows, flats, self._offsets, self._metadata)

    def _contiguous(self, start: int, stop: int) -> ClusterCatalog:
        bounds = self._offsets[start : stop + 1]
        begin, count = int(bounds[0]), int(bounds[-1] - bounds[0])
        return ClusterCatalog(
            {name: array.slice(start, stop - start) for name, array in self._clusters.items()},
            {name: array.slice(begin, count) for name, array in self._galaxies.items()},
            bounds - begin,
            self._metadata,
        )

    def _take(self, rows: IntArray) -> ClusterCatalog:
        index, offsets = gather(self._offsets, rows)
        arrow_rows, arrow_index = pa.array(rows), pa.array(index)
        return ClusterCatalog(
            {name: array.take(arrow_rows) for name, array in self._clusters.items()},
            {name: array.take(arrow_index) for name, array in self._galaxies.items()},
            offsets,
            self._metadata,
        )

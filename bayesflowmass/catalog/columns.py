"""The columns of a catalogue, to be read: what files, tables and checks need to know of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bayesflowmass.catalog.arrays import (
    arrow_offsets,
    join_list_column,
    rows_of_galaxies,
    same_values,
    to_numpy,
    to_tensor,
)
from bayesflowmass.catalog.errors import CatalogError
from bayesflowmass.catalog.metadata import METADATA_KEY, CatalogMetadata
from bayesflowmass.common.arrays import IntArray

if TYPE_CHECKING:
    import torch


class Columns:
    """Cluster columns, flat galaxy columns and where each cluster begins; immutable.

    `ClusterCatalog` adds how catalogues are built, chosen from, changed and put together.

    Args:
        clusters: Arrow arrays of one value per cluster.
        galaxies: flat Arrow arrays of one value per galaxy.
        offsets: where each cluster's galaxies begin, and their number at the end (n + 1,).
        metadata: of the catalogue as a whole.
    """

    def __init__(
        self,
        clusters: Mapping[str, Any],
        galaxies: Mapping[str, Any],
        offsets: IntArray,
        metadata: CatalogMetadata,
    ) -> None:
        """Take Arrow arrays as they are; users call `from_arrays`, which converts and checks."""
        self._clusters = dict(clusters)
        self._galaxies = dict(galaxies)
        self._offsets = offsets
        self._offsets.flags.writeable = False
        self._metadata = metadata

    @property
    def table(self) -> Any:
        """The catalogue as a pyarrow table; list columns share one array of offsets."""
        offsets, large = arrow_offsets(self._offsets)
        lists = {name: join_list_column(flat, offsets, large) for name, flat in self._galaxies.items()}
        return pa.table({**self._clusters, **lists}, metadata={METADATA_KEY: self._metadata.to_json()})

    @property
    def metadata(self) -> CatalogMetadata:
        """What is known about the catalogue as a whole."""
        return self._metadata

    @property
    def offsets(self) -> IntArray:
        """Where each cluster's galaxies begin in the flat arrays, and their number at the end (n + 1,)."""
        return self._offsets

    @property
    def n_galaxies(self) -> IntArray:
        """Number of galaxies of each cluster (n,)."""
        return np.diff(self._offsets)

    @property
    def n_galaxies_total(self) -> int:
        """Length of the flat arrays."""
        return int(self._offsets[-1])

    @property
    def cluster_columns(self) -> list[str]:
        """Names of the columns with one value per cluster."""
        return list(self._clusters)

    @property
    def galaxy_columns(self) -> list[str]:
        """Names of the columns with one value per galaxy."""
        return list(self._galaxies)

    @property
    def column_names(self) -> list[str]:
        """Names of all columns, cluster columns first."""
        return [*self._clusters, *self._galaxies]

    def __len__(self) -> int:
        return self._offsets.size - 1

    def __repr__(self) -> str:
        known = [value for value in (self._metadata.kind, self._metadata.mode) if value]
        parts = [f"{len(self)} clusters", f"{self.n_galaxies_total} galaxies", *known]
        return f"{type(self).__name__}({', '.join(parts)})"

    def has(self, *names: str) -> bool:
        """Whether all these columns exist."""
        return all(name in self._clusters or name in self._galaxies for name in names)

    def column(self, name: str) -> NDArray[Any]:
        """Values of a cluster column (n,), or (n, k) for vectors; read-only."""
        return to_numpy(self._find(name, self._clusters, "cluster"))

    def galaxies(self, name: str) -> NDArray[Any]:
        """Values of a galaxy column, flat (n_galaxies_total,); read-only."""
        return to_numpy(self._find(name, self._galaxies, "galaxy"))

    @property
    def r_proj(self) -> NDArray[Any]:
        """Projected distance of each galaxy from the centre [comoving Mpc/h], flat."""
        radius: NDArray[Any] = np.hypot(self.galaxies("x"), self.galaxies("y"))
        return radius

    @property
    def galaxy_rows(self) -> IntArray:
        """Row of the cluster that each galaxy belongs to, flat."""
        return rows_of_galaxies(self._offsets)

    def galaxy_tensor(self, names: str | Sequence[str], dtype: torch.dtype | None = None) -> torch.Tensor:
        """Galaxy columns side by side as a CPU tensor (n_galaxies_total, D).

        ``"r_proj"`` may be one of the names. One column of the right dtype shares memory with the catalogue
        (do not write to it); several are copied once into place. None keeps the dtype of the first column.
        """
        chosen = [names] if isinstance(names, str) else list(names)
        columns = [self._tensor(name) for name in chosen]
        kind = columns[0].dtype if dtype is None else dtype
        if len(columns) == 1:
            return columns[0].to(kind).unsqueeze(-1)
        result = columns[0].new_empty((self.n_galaxies_total, len(columns)), dtype=kind)
        for index, column in enumerate(columns):
            result[:, index] = column
        return result

    def equals(self, other: Columns) -> bool:
        """Whether columns, types, values and metadata are the same (NaN equals NaN)."""
        if self.column_names != other.column_names or self._metadata != other._metadata:
            return False
        if not np.array_equal(self._offsets, other._offsets):
            return False
        mine, theirs = ({**one._clusters, **one._galaxies} for one in (self, other))
        return all(
            mine[name].type == theirs[name].type and same_values(mine[name], theirs[name]) for name in mine
        )

    def _find(self, name: str, columns: Mapping[str, Any], sort: str) -> Any:
        if name in columns:
            return columns[name]
        there = ", ".join(columns) or "none"
        raise CatalogError(f"the catalogue has no {sort} column {name!r}; it has {there}.".replace("  ", " "))

    def _tensor(self, name: str) -> torch.Tensor:
        if name == "r_proj" and name not in self._galaxies:
            return to_tensor(name, pa.array(self.r_proj))
        return to_tensor(name, self._find(name, self._galaxies, "galaxy"))

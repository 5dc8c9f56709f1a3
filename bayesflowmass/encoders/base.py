"""What every encoder does: from the galaxies of a catalogue to the contexts of a flow."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from torch import Tensor, nn

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.catalog.slices import cluster_slices
from bayesflowmass.common.progress import progress_bar
from bayesflowmass.encoders.columns import ExtraColumns, OptionalColumns
from bayesflowmass.encoders.galaxy_set import Contexts, GalaxySet
from bayesflowmass.encoders.kde import KDEError

# Bounds the memory of one call to an encoder beside the result: about 40 MB of images, 60 MB of galaxies.
_CLUSTERS_AT_ONCE = 4096
_GALAXIES_AT_ONCE = 1 << 20

ENCODERS: dict[str, type[Encoder]] = {}
"""The class of each kind; a subclass enters by naming its ``kind``."""


class Encoder(nn.Module, ABC):
    """Galaxies to contexts, beside cluster columns that a context holds.

    Args:
        extras: names of numeric cluster columns, such as "redshift", that enter as (value - mean) / scale, with the
            constants that `fit_extras` takes from the training split.
        optional: names of cluster columns that may be unknown, such as "mode" (`OptionalColumns`); they are the last
            numbers of a cluster.
    """

    kind: ClassVar[str]
    described: ClassVar[tuple[str, ...]]
    """What `describe` says of this kind alone."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "kind" in cls.__dict__:
            ENCODERS[cls.kind] = cls

    def __init__(self, extras: Sequence[str] = (), optional: Sequence[str] = ()) -> None:
        super().__init__()
        self.extra_columns = ExtraColumns(extras)
        self.optional = OptionalColumns(optional)

    @property
    def extras(self) -> tuple[str, ...]:
        """Names of the cluster columns that stand in every context."""
        return self.extra_columns.names

    @property
    @abstractmethod
    def context_dim(self) -> int:
        """Numbers of a cluster."""

    @property
    @abstractmethod
    def uses_richness(self) -> bool:
        """Whether a context shows how many galaxies a cluster has."""

    @property
    def catalog_columns(self) -> frozenset[str]:
        """Columns of a catalogue that are read where they are there."""
        optional = (
            {*self.optional.names, "gal_v_err"}
            if "sigma_v_err" in self.optional.names
            else self.optional.names
        )
        return frozenset({"x", "y", "v_los", *self.extras, *optional})

    @property
    @abstractmethod
    def galaxy_columns(self) -> tuple[str, ...]:
        """Galaxy columns that are read; "r_proj" stands for hypot(x, y)."""

    @abstractmethod
    def flow_arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of :func:`~bayesflowmass.flows.build_flow`: those given, and what says how contexts look.

        Raises:
            ValueError: those given say otherwise.
        """

    @abstractmethod
    def memory(self, catalog: ClusterCatalog) -> int:
        """Bytes of the contexts of a catalogue."""

    @torch.no_grad()
    def encode(
        self,
        catalog: ClusterCatalog,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        progress: bool = False,
        truth: bool = False,
    ) -> Contexts:
        """Contexts of all clusters of a catalogue, in its order, float32.

        Args:
            catalog: clusters with the galaxy columns x, y [Mpc/h comoving] and v_los [km/s]; every galaxy counts.
            device: where to compute and to leave the result.
            dtype: precision of the densities, float32 or float64.
            progress: show a progress bar.
            truth: tell who is a member, where encoder and catalogue know it: for training alone.

        Raises:
            CatalogError: naming the cluster that has no density.
        """
        return self._joined(self._encoded_parts(catalog, device, dtype, progress), catalog, device, truth)

    @abstractmethod
    def _joined(
        self,
        parts: Iterator[tuple[slice, Contexts]],
        catalog: ClusterCatalog,
        device: torch.device | str,
        truth: bool,
    ) -> Contexts:
        """The contexts of consecutive clusters, and which they are, as one; ``truth`` as in `encode`."""

    def _encoded_parts(
        self, catalog: ClusterCatalog, device: torch.device | str, dtype: torch.dtype, progress: bool
    ) -> Iterator[tuple[slice, Contexts]]:
        """Contexts of parts of a catalogue that bound the memory, and which clusters they are of."""
        offsets = np.asarray(catalog.offsets, dtype=np.int64)
        with progress_bar(len(catalog), "densities", " clusters", progress) as bar:
            for first, last in cluster_slices(offsets, _CLUSTERS_AT_ONCE, _GALAXIES_AT_ONCE):
                part = catalog[first:last]
                columns = [
                    part.r_proj if name == "r_proj" else part.galaxies(name) for name in self.galaxy_columns
                ]
                points = torch.from_numpy(np.stack(columns, dtype=np.float64)).T
                try:
                    yield slice(first, last), self._contexts(part, points.to(device), dtype)
                except KDEError as error:
                    name = part.column("cluster_id")[error.cluster]
                    raise CatalogError(f"cluster {name}: {error.reason}") from error
                bar.update(last - first)

    @abstractmethod
    def _contexts(self, catalog: ClusterCatalog, points: Tensor, dtype: torch.dtype) -> Contexts:
        """As `at`, with densities of this precision."""

    def at(self, catalog: ClusterCatalog, points: Tensor) -> Contexts:
        """Contexts of the clusters of a catalogue if their galaxies were at ``points``, differentiable in these.

        Args:
            catalog: gives offsets, cluster columns and weights of galaxies.
            points: (n_galaxies_total, D) float32 or float64, the columns `galaxy_columns`; all is computed in their
                precision.
        """
        return self._contexts(catalog, points, points.dtype)

    @abstractmethod
    def sees(self, points: Tensor) -> Tensor:
        """Which of the galaxies at ``points`` (n, D), the columns `galaxy_columns`, have a part in a context (n,)."""

    @abstractmethod
    def flip_velocity(self, context: Contexts) -> Contexts:
        """Contexts of the mirrored clusters, every velocity v replaced by -v."""

    @abstractmethod
    def outline(self, context: Contexts) -> Tensor:
        """Contexts as vectors (n, p), by which clusters can be compared; without the cluster columns."""

    def fit_extras(self, catalog: ClusterCatalog) -> Self:
        """Take the mean and the standard deviation of each extra or optional column from a training split.

        A column that does not vary keeps the scale 1.

        Returns:
            self.

        Raises:
            CatalogError: if a column is missing, not numeric or not finite.
        """
        self.extra_columns.fit(catalog)
        self.optional.fit(catalog)
        return self

    def _raw_columns(self, catalog: ClusterCatalog, device: torch.device) -> dict[str, Tensor | None]:
        """Values of the columns ``extras`` and ``optional`` (n, k), float64, None where there are none."""
        columns: dict[str, ExtraColumns | OptionalColumns] = {
            "extras": self.extra_columns,
            "optional": self.optional,
        }
        return {
            name: torch.from_numpy(kind.values(catalog)).to(device) if kind else None
            for name, kind in columns.items()
        }

    def _column_entries(
        self, n: int, extras: Tensor | None, optional: Tensor | None, like: Tensor
    ) -> list[Tensor]:
        """Entries of the contexts of n clusters, in the type of ``like``, from raw values of the columns.

        Raises:
            ValueError: extra columns are not given; of optional ones none is known then.
        """
        entries = []
        if self.extras:
            if extras is None or extras.shape != (n, len(self.extras)):
                raise ValueError(f"the context needs the columns {', '.join(self.extras)} of each cluster")
            entries.append(self.extra_columns.standardised(extras.to(like.device)).to(like))
        if self.optional:
            values = like.new_full((n, len(self.optional)), math.nan) if optional is None else optional
            entries.append(self.optional.encode(values.to(like.device, torch.float64)).to(like))
        return entries

    def tell(self, context: Contexts, name: str, value: float) -> Contexts:
        """Contexts in which an optional column, where it is unknown, is known to be ``value``."""
        numbers = context.clusters if isinstance(context, GalaxySet) else context
        told = self.optional.replace(numbers, name, value)
        unknown = ~self.optional.known(numbers, name)
        changed = torch.where(unknown[..., None], told, numbers)
        return replace(context, clusters=changed) if isinstance(context, GalaxySet) else changed

    @abstractmethod
    def _describe(self) -> dict[str, Any]:
        """The values of ``described``, as JSON."""

    def describe(self) -> dict[str, Any]:
        """JSON-able description from which ``from_description`` builds an equal encoder."""
        columns = self.extra_columns.describe() | self.optional.describe()
        return {"kind": self.kind, **self._describe(), **columns}

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """The encoder described by ``describe``, of the class of its kind.

        Raises:
            ValueError: the kind is unknown, or another one than that of this class; or the description is incomplete.
        """
        kind = description.get("kind") if isinstance(description, Mapping) else None
        if "kind" in cls.__dict__ and kind != cls.kind:
            raise ValueError(
                f"not the description of a {cls.__name__}: its kind is {kind!r}, not {cls.kind!r}"
            )
        if kind not in ENCODERS:
            raise ValueError(f"unknown encoder {kind!r}; known are {', '.join(sorted(ENCODERS))}")
        known = ENCODERS[kind]
        wanted = {"kind", *known.described, "extras", "extra_constants"}
        if set(description) - {"optional", "optional_constants"} != wanted:
            raise ValueError(
                f"description of a {known.__name__} has the keys {sorted(description)}, expected {sorted(wanted)};"
                " it may come from another version"
            )
        encoder = cast(Self, known._restore(description))
        encoder.extra_columns = ExtraColumns.from_description(description)
        encoder.optional = OptionalColumns.from_description(description)
        return encoder

    @classmethod
    @abstractmethod
    def _restore(cls, description: Mapping[str, Any]) -> Self:
        """The encoder without its cluster columns."""

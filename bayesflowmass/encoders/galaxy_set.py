"""Contexts that are the galaxies themselves: ragged, where an image is one vector for each cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from bayesflowmass.catalog.slices import cluster_slices

# What a network makes of so many galaxies at once, 8 MB for each layer of width 64, mostly stays in a cache: a quarter
# faster than four times as many.
_GALAXIES_AT_ONCE = 1 << 15


@dataclass(frozen=True)
class GalaxySet:
    """Contexts of n clusters, as numbers of each galaxy, end to end, and of each cluster.

    It answers to what loops over rows ask of a tensor (``len``, ``[rows]``, ``index_select``, ``split``, ``to``, ...),
    where a row is a cluster with all its galaxies, so they take both alike (`Contexts`).

    Attributes:
        galaxies: (n_galaxies, F) numbers of each galaxy, cluster after cluster.
        offsets: (n + 1,) int64; cluster k owns ``galaxies[offsets[k]:offsets[k + 1]]``.
        clusters: (n, C) numbers of each cluster.
        members: (n_galaxies,) 1 for a member, 0 for an interloper: the truth, where training tells it; else None.
    """

    galaxies: Tensor
    offsets: Tensor
    clusters: Tensor
    members: Tensor | None = None

    def __len__(self) -> int:
        return len(self.clusters)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(n, F, C)."""
        return len(self), self.galaxies.shape[-1], self.clusters.shape[-1]

    @property
    def device(self) -> torch.device:
        """Where the numbers live."""
        return self.galaxies.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the numbers."""
        return self.galaxies.dtype

    @property
    def nbytes(self) -> int:
        """Memory of all parts."""
        return sum(part.numel() * part.element_size() for part in self.tensors().values())

    @cached_property
    def counts(self) -> Tensor:
        """Galaxies of each cluster (n,)."""
        return self.offsets.diff()

    @cached_property
    def numbers(self) -> Tensor:
        """The number of its cluster, for each galaxy (n_galaxies,)."""
        rows = torch.arange(len(self), device=self.device)
        return torch.repeat_interleave(rows, self.counts, output_size=len(self.galaxies))

    def tensors(self) -> dict[str, Tensor]:
        """All parts by their names, without those that are None."""
        parts = {"galaxies": self.galaxies, "offsets": self.offsets, "clusters": self.clusters}
        return parts if self.members is None else parts | {"members": self.members}

    def without_truth(self) -> GalaxySet:
        """The same clusters, with nothing said about who is a member."""
        return replace(self, members=None)

    def __getitem__(self, rows: slice | Tensor) -> GalaxySet:
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step == 1:
                return self._between(start, max(start, stop))
            rows = torch.arange(start, stop, step, device=self.device)
        if rows.dtype == torch.bool:
            rows = rows.nonzero()[:, 0]
        return self.index_select(0, rows)

    def _between(self, start: int, stop: int) -> GalaxySet:
        first, last = int(self.offsets[start]), int(self.offsets[stop])
        return GalaxySet(
            self.galaxies[first:last],
            self.offsets[start : stop + 1] - first,
            self.clusters[start:stop],
            None if self.members is None else self.members[first:last],
        )

    def index_select(self, dim: int, rows: Tensor) -> GalaxySet:
        """The clusters ``rows`` (k,), in that order, along dimension 0, the only one."""
        if dim != 0:
            raise IndexError(f"galaxies are chosen by cluster, dimension 0, not {dim}")
        rows = rows.to(self.device)
        counts = self.counts[rows]
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        shift = torch.repeat_interleave(self.offsets[rows] - offsets[:-1], counts)
        index = shift + torch.arange(len(shift), device=self.device)
        members = None if self.members is None else self.members.index_select(0, index)
        clusters = self.clusters.index_select(0, rows)
        return GalaxySet(self.galaxies.index_select(0, index), offsets, clusters, members)

    def split(self, size: int) -> list[GalaxySet]:
        """Parts of ``size`` clusters, the last of fewer."""
        return [self._between(i, min(i + size, len(self))) for i in range(0, len(self), size)] or [self]

    def to(self, target: torch.device | str | torch.dtype, *, non_blocking: bool = False) -> GalaxySet:
        """On another device, or with numbers of another precision."""
        moved = {name: part.to(target, non_blocking=non_blocking) for name, part in self.tensors().items()}
        if isinstance(target, torch.dtype):
            moved["offsets"] = self.offsets
        return GalaxySet(**moved)

    def double(self) -> GalaxySet:
        """In double precision."""
        return self.to(torch.float64)

    def clone(self) -> GalaxySet:
        """A copy."""
        return GalaxySet(**{name: part.clone() for name, part in self.tensors().items()})

    def pin_memory(self) -> GalaxySet:
        """In pinned memory of the host."""
        return GalaxySet(**{name: part.pin_memory() for name, part in self.tensors().items()})

    def record_stream(self, stream: Any) -> None:
        """As ``Tensor.record_stream``, for all parts."""
        for part in self.tensors().values():
            part.record_stream(stream)

    def finite(self) -> Tensor:
        """Whether all numbers of a cluster and of its galaxies are finite (n,)."""
        # Of the sum: a test of each number takes the memory of all of them once or twice more.
        broken = (~torch.isfinite(self.galaxies.sum(1))).to(torch.int64)
        total = torch.zeros_like(self.counts).index_add(0, self.numbers, broken)
        return torch.isfinite(self.clusters).all(1) & (total == 0)


Contexts = Tensor | GalaxySet
"""Contexts of n clusters: (n, C), or their galaxies."""


def in_parts(context: Contexts, size: int) -> Iterator[Contexts]:
    """Parts of at most ``size`` clusters and of a bounded number of galaxies, unless one cluster has more."""
    if isinstance(context, Tensor):
        yield from context.split(size)
        return
    for first, last in cluster_slices(context.offsets.cpu().numpy(), size, _GALAXIES_AT_ONCE):
        yield context[first:last]


def concatenate(parts: Sequence[Contexts]) -> Contexts:
    """Contexts of consecutive clusters, of one kind, as one.

    Raises:
        ValueError: there are none, or of both kinds.
    """
    sets = [part for part in parts if isinstance(part, GalaxySet)]
    if len(sets) not in (0, len(parts)) or not parts:
        raise ValueError(f"{len(parts)} contexts, of which {len(sets)} are galaxies, cannot become one")
    if not sets:
        return torch.cat([part for part in parts if isinstance(part, Tensor)])
    counts = torch.cat([part.counts for part in sets])
    told = [part.members for part in sets if part.members is not None]
    if len(told) not in (0, len(sets)):
        raise ValueError("who is a member is known of some of the contexts only, so they cannot become one")
    return GalaxySet(
        torch.cat([part.galaxies for part in sets]),
        torch.cat([counts.new_zeros(1), counts.cumsum(0)]),
        torch.cat([part.clusters for part in sets]),
        torch.cat(told) if told else None,
    )


def context_tensors(context: Contexts) -> Mapping[str, Tensor]:
    """The tensors of contexts by name, as hashes take them."""
    if isinstance(context, Tensor):
        return {"context": context}
    return {f"context.{name}": part for name, part in context.tensors().items()}

"""From the galaxies of a catalogue to a set of galaxies with what surrounds each of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.encoders.base import Encoder
from bayesflowmass.encoders.galaxy_set import Contexts, GalaxySet
from bayesflowmass.encoders.local.densities import KERNEL_WIDTHS, LocalDensities
from bayesflowmass.encoders.ragged import check_offsets, spread

# Velocities in units of which the numbers of a network are of order one [km/s].
_SPEED = 1000.0
# The smallest median absolute deviation [km/s]: velocities of a cluster that has less are not told apart by it.
_LEAST_MAD = 50.0
# Of a normal distribution, standard deviation over median absolute deviation.
_NORMAL = 1.4826


class SetEncoder(Encoder):
    """The galaxies of each cluster, with kernel densities of (x, y, v) at each of them (`LocalDensities`).

    Numbers of a galaxy: R [Mpc/h comoving], v [1000 km/s], v over 1.4826 median absolute deviations of its cluster,
    then four for each kernel. Numbers of a cluster: ln of that deviation [1000 km/s], then the columns. All are
    invariant under rotations and reflections of the sky.

    Args:
        widths: (r, s) of each kernel [Mpc/h comoving, km/s].
        counted: whether densities, and the network, may count galaxies; without, what is seen is made of means over
            the galaxies, which do not change on average where galaxies are missed at random.
        extras, optional: names of cluster columns, see `Encoder`.
    """

    kind = "galaxy-set"
    described = ("local",)

    def __init__(
        self,
        widths: Sequence[Sequence[float]] = KERNEL_WIDTHS,
        counted: bool = True,
        extras: Sequence[str] = (),
        optional: Sequence[str] = (),
    ) -> None:
        super().__init__(extras, optional)
        self.local = LocalDensities(widths, counted)

    @property
    def counted(self) -> bool:
        """Whether galaxies may be counted."""
        return self.local.counted

    @property
    def uses_richness(self) -> bool:
        """Whether a context shows how many galaxies a cluster has, to a network that may count."""
        return self.counted

    @property
    def galaxy_dim(self) -> int:
        """Numbers of a galaxy."""
        return 3 + self.local.width

    @property
    def context_dim(self) -> int:
        """Numbers of a cluster, beside those of its galaxies."""
        return 1 + len(self.extras) + self.optional.width

    @property
    def galaxy_columns(self) -> tuple[str, ...]:
        return ("x", "y", "v_los")

    @property
    def odd(self) -> tuple[bool, ...]:
        """Which numbers of a galaxy change sign where all velocities do."""
        return (False, True, True, *self.local.odd * len(self.local.widths))

    def flow_arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Those given, and a shared network over galaxies, of so many numbers, that counts where this encoder does.

        Raises:
            ValueError: a trunk of another kind, or of numbers that are the encoder's to say.
        """
        ours = {"galaxy_dim": self.galaxy_dim, "counted": self.counted}
        galaxies = dict(given.get("galaxies") or {})
        said = [key for key in (*ours, "cluster_dim") if key in galaxies]
        if said:
            raise ValueError(f"flow: galaxies.{said[0]} is what the encoder says; leave it out")
        if given.get("trunk", "set") != "set" or not given.get("shared", True):
            raise ValueError(
                "flow: contexts of galaxies need the trunk 'set', shared by all blocks; leave both out"
            )
        whole = dict(given) | {"trunk": "set", "shared": True, "galaxies": galaxies | ours}
        return {"hidden": (128,), "activation": "gelu"} | whole | {"context_dim": self.context_dim}

    def memory(self, catalog: ClusterCatalog) -> int:
        """Bytes of the contexts of a catalogue, with the truth about members."""
        return 4 * (catalog.n_galaxies_total * (self.galaxy_dim + 1) + len(catalog) * (self.context_dim + 2))

    def extra_repr(self) -> str:
        return f"extras={self.extras}, optional={self.optional.names}"

    def forward(
        self, points: Tensor, offsets: Tensor, extras: Tensor | None = None, *, optional: Tensor | None = None
    ) -> GalaxySet:
        """Contexts of a batch of clusters, differentiable as the densities are.

        Args:
            points: (n_points, 3) x, y [Mpc/h comoving] and v_los [km/s].
            offsets: (n + 1,) integers.
            extras: (n, len(extras)) raw values of the cluster columns; needed if there are any.
            optional: (n, len(optional)) raw values of the optional columns, NaN where unknown; None: all are.
        """
        offsets = check_offsets(points, offsets)
        local = self.local(points, offsets)
        x, y, v = points.unbind(1)
        deviation = _deviation(v, offsets)
        # The root has no derivative at the centre itself.
        radius = (x.square() + y.square()).clamp_min(1e-12).sqrt()
        relative = v / spread(deviation, offsets, len(points))
        galaxies = torch.cat([torch.stack([radius, v / _SPEED, relative], 1), local.flatten(1)], 1)
        columns = self._column_entries(len(offsets) - 1, extras, optional, points)
        return GalaxySet(galaxies, offsets, torch.cat([(deviation / _SPEED).log()[:, None], *columns], 1))

    def _contexts(self, catalog: ClusterCatalog, points: Tensor, dtype: torch.dtype) -> GalaxySet:
        if catalog.metadata.radial:
            raise CatalogError(
                "The catalogue has distances from the centre (r_proj) without directions, and this model reads places"
                " on the sky: give x, y or ra, dec of the galaxies, or take a model that reads images."
            )
        offsets = torch.tensor(catalog.offsets, device=points.device)
        found: GalaxySet = self(points.to(dtype), offsets, **self._raw_columns(catalog, points.device))
        return found

    def sees(self, points: Tensor) -> Tensor:
        """All of them."""
        return torch.ones(len(points), dtype=torch.bool, device=points.device)

    def _joined(
        self,
        parts: Iterator[tuple[slice, Contexts]],
        catalog: ClusterCatalog,
        device: torch.device | str,
        truth: bool,
    ) -> GalaxySet:
        # Filled part by part: parts and the whole at once would take twice the memory of large training sets.
        galaxies = torch.empty(catalog.n_galaxies_total, self.galaxy_dim, device=device)
        clusters = torch.empty(len(catalog), self.context_dim, device=device)
        offsets = torch.tensor(catalog.offsets, dtype=torch.int64)
        for rows, part in parts:
            assert isinstance(part, GalaxySet)
            galaxies[int(offsets[rows.start]) : int(offsets[rows.stop])] = part.galaxies
            clusters[rows] = part.clusters
        joined = GalaxySet(galaxies, offsets.to(device), clusters)
        if truth and catalog.has("gal_is_member"):
            members = np.array(catalog.galaxies("gal_is_member"), dtype=np.float32)
            joined = replace(joined, members=torch.from_numpy(members).to(device))
        return joined

    def flip_velocity(self, context: Contexts) -> GalaxySet:
        assert isinstance(context, GalaxySet)
        sign = torch.where(torch.tensor(self.odd, device=context.device), -1.0, 1.0).to(context.dtype)
        return GalaxySet(context.galaxies * sign, context.offsets, context.clusters, context.members)

    def outline(self, context: Contexts) -> Tensor:
        """Means and standard deviations over the galaxies of each of their numbers, in units of order one (n, 2 F)."""
        assert isinstance(context, GalaxySet)
        n = context.counts.clamp_min(1).to(context.dtype)[:, None]

        def mean(values: Tensor) -> Tensor:
            return values.new_zeros(len(context), values.shape[1]).index_add(0, context.numbers, values) / n

        first = mean(context.galaxies)
        second = mean((context.galaxies - first[context.numbers]).square())
        return torch.cat([first, second.sqrt()], 1)

    def _describe(self) -> dict[str, Any]:
        return {"local": self.local.describe()}

    @classmethod
    def _restore(cls, description: Mapping[str, Any]) -> SetEncoder:
        encoder = cls()
        encoder.local = LocalDensities.from_description(description["local"])
        return encoder


def _deviation(v: Tensor, offsets: Tensor) -> Tensor:
    """1.4826 median |v - median v| of each cluster (n,) [km/s], at least that of 50 km/s; empty clusters have that."""
    middle = _median(v, offsets)
    absolute = (v - spread(middle, offsets, len(v))).abs()
    return _NORMAL * _median(absolute, offsets).clamp_min(_LEAST_MAD)


def _median(values: Tensor, offsets: Tensor) -> Tensor:
    """Median of each group (n,), 0 of an empty one."""
    counts = offsets.diff()
    group = torch.repeat_interleave(counts, output_size=len(values))
    by_value = torch.argsort(values.detach(), stable=True)
    order = by_value[torch.argsort(group[by_value], stable=True)]
    last = max(0, len(values) - 1)
    pair = [(offsets[:-1] + (counts - 1 + k) // 2).clamp(0, last) for k in range(2)]
    if len(values) == 0:
        return values.new_zeros(len(counts))
    lower, upper = (values[order[index]] for index in pair)
    return torch.where(counts > 0, 0.5 * (lower + upper), torch.zeros_like(lower))

"""From the galaxies of a catalogue to the context vectors of a flow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.catalog.slices import cluster_slices
from bayesflowmass.encoders.base import CLUSTERS_PER_SLICE, GALAXIES_PER_SLICE, Encoder
from bayesflowmass.encoders.extra_columns import ExtraColumns
from bayesflowmass.encoders.galaxy_set import Contexts
from bayesflowmass.encoders.kde import KDEEncoder, KDEError
from bayesflowmass.encoders.optional_columns import OptionalColumns
from bayesflowmass.encoders.scaling import DEFAULT_CONSTANTS, check_scaling, scale_images

__all__ = ["ContextEncoder"]


class ContextEncoder(Encoder):
    """Context of each cluster: its scaled phase-space images, flattened, then standardised cluster columns.

    Args:
        kde: the image encoder; several of the same grid (different bandwidths) become channels. Images are
            normalised to sum to one over the grid before they are scaled, whatever the encoder's own
            normalisation.
        scaling: "mean", "sqrt" or "log1p_richness"; see ``scale_images``.
        constant: constant of the scaling; by default 2500, 2500 and 25.
        extras: names of numeric cluster columns, such as "redshift", appended after (value - mean) / scale,
            with the constants that ``fit_extras`` takes from the training split.
        galaxy_weight: name of a galaxy column of weights for the density, such as "gal_weight"; none by
            default.
        optional: names of cluster columns that may be unknown, such as "mode" (`OptionalColumns`); they are
            the end of a context.

    Raises:
        ValueError: if the grids differ or an option is unknown.
    """

    kind = "kde-context"

    def __init__(
        self,
        kde: KDEEncoder | Sequence[KDEEncoder],
        scaling: str = "mean",
        constant: float | None = None,
        extras: Sequence[str] = (),
        galaxy_weight: str | None = None,
        optional: Sequence[str] = (),
    ) -> None:
        super().__init__(extras, optional)
        kdes = [kde] if isinstance(kde, KDEEncoder) else list(kde)
        if not kdes or any(k.grid != kdes[0].grid for k in kdes):
            raise ValueError("a context needs one or more kernel densities on one and the same grid")
        self.kdes = nn.ModuleList(kdes)
        self.scaling = check_scaling(scaling)
        self.constant = DEFAULT_CONSTANTS[self.scaling] if constant is None else float(constant)
        if not (math.isfinite(self.constant) and self.constant > 0.0):
            raise ValueError(f"constant of the scaling must be positive, not {constant}")
        self.galaxy_weight = galaxy_weight

    @property
    def kde(self) -> KDEEncoder:
        """The first image encoder."""
        first = self.kdes[0]
        assert isinstance(first, KDEEncoder)
        return first

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(channels, *grid): the shape of the image part of a context."""
        return (len(self.kdes), *self.kde.grid.shape)

    @property
    def context_dim(self) -> int:
        """Length of a context vector."""
        return math.prod(self.image_shape) + len(self.extras) + self.optional.width

    @property
    def uses_richness(self) -> bool:
        """Whether the context shows how many galaxies a cluster has."""
        return self.scaling == "log1p_richness"

    @property
    def galaxy_columns(self) -> tuple[str, ...]:
        """Galaxy columns on the axes of the grid; "r_proj" stands for hypot(x, y)."""
        return {1: ("v_los",), 2: ("r_proj", "v_los"), 3: ("x", "y", "v_los")}[self.kde.grid.ndim]

    def extra_repr(self) -> str:
        return (
            f"scaling={self.scaling!r}, constant={self.constant}, extras={self.extras},"
            f" optional={self.optional.names}"
        )

    def forward(
        self,
        points: Tensor,
        offsets: Tensor,
        extras: Tensor | None = None,
        *,
        weights: Tensor | None = None,
        dtype: torch.dtype | None = None,
        optional: Tensor | None = None,
    ) -> Tensor:
        """Contexts of a batch of clusters, differentiable as the densities are.

        Args:
            points: (n_points, D) galaxies: R_proj [Mpc/h comoving] and v_los [km/s] in two dimensions.
            offsets: (n + 1,) integers.
            extras: (n, len(extras)) raw values of the cluster columns; needed if there are any.
            weights: (n_points,) weights of the galaxies.
            dtype: float32 or float64; by default that of the points.
            optional: (n, len(optional)) raw values of the optional columns, NaN where unknown; None: all are.

        Returns:
            (n, context_dim).
        """
        counts = offsets.diff()
        parts = []
        for kde in self.kdes:
            images = kde(points, offsets, weights=weights, dtype=dtype, normalisation="sum")
            parts.append(scale_images(images, self.scaling, self.constant, counts).flatten(1))
        if self.extras:
            if extras is None or extras.shape != (counts.numel(), len(self.extras)):
                raise ValueError(f"the context needs the columns {', '.join(self.extras)} of each cluster")
            parts.append(self.extra_columns.encode(extras.to(parts[0].device)).to(parts[0].dtype))
        if self.optional:
            shape = (counts.numel(), len(self.optional))
            values = parts[0].new_full(shape, math.nan) if optional is None else optional
            parts.append(self.optional.encode(values.to(torch.float64)).to(parts[0].dtype))
        return torch.cat(parts, 1)

    def flow_arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Those given, the length of a context, and the image that opens it where a network convolves it."""
        image = {"image_shape": self.image_shape} if given.get("trunk") == "conv" else {}
        return image | dict(given) | {"context_dim": self.context_dim}

    def memory(self, catalog: ClusterCatalog) -> int:
        """Bytes of the contexts of a catalogue."""
        return 4 * len(catalog) * self.context_dim

    def at(self, catalog: ClusterCatalog, points: Tensor) -> Tensor:
        """Contexts of clusters whose galaxies are at ``points``: see `Encoder.at`."""
        extras, optional = self.raw_columns(catalog)
        weights = None
        if self.galaxy_weight is not None:
            weights = catalog.galaxy_tensor(self.galaxy_weight, torch.float64)[:, 0].to(points.device)
        context: Tensor = self(
            points,
            torch.tensor(catalog.offsets, device=points.device),
            None if extras is None else extras.to(points.device),
            weights=weights,
            optional=None if optional is None else optional.to(points.device),
        )
        return context

    def sees(self, points: Tensor) -> Tensor:
        """Which galaxies lie inside the grid; others matter through the covariance alone."""
        return self.kde.grid.contains(points)

    @property
    def catalog_columns(self) -> frozenset[str]:
        """Columns of a catalogue that are read where they are there."""
        weight = () if self.galaxy_weight is None else (self.galaxy_weight,)
        return super().catalog_columns.union(weight)

    @torch.no_grad()
    def encode(
        self,
        catalog: ClusterCatalog,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        progress: bool = False,
        truth: bool = False,
    ) -> Tensor:
        """Contexts of all clusters of a catalogue (n, context_dim): see `Encoder.encode`. Images tell no members.

        Raises:
            CatalogError: naming the cluster whose covariance is singular or that has no galaxy inside the
                grid.
        """
        device = torch.device(device)
        offsets = np.asarray(catalog.offsets, dtype=np.int64)
        columns = [
            catalog.r_proj if name == "r_proj" else catalog.galaxies(name) for name in self.galaxy_columns
        ]
        weights = None if self.galaxy_weight is None else catalog.galaxies(self.galaxy_weight)
        extras, optional = self.raw_columns(catalog)
        contexts = torch.empty(len(catalog), self.context_dim, dtype=torch.float32, device=device)
        with tqdm(total=len(catalog), disable=not progress, desc="KDE", unit=" clusters") as bar:
            for first, last in cluster_slices(offsets, CLUSTERS_PER_SLICE, GALAXIES_PER_SLICE):
                inside = slice(int(offsets[first]), int(offsets[last]))
                points = torch.from_numpy(np.stack([c[inside] for c in columns], dtype=np.float64)).T
                try:
                    contexts[first:last] = self(
                        points.to(device),
                        torch.from_numpy(offsets[first : last + 1] - offsets[first]).to(device),
                        None if extras is None else extras[first:last].to(device),
                        weights=None
                        if weights is None
                        else torch.tensor(weights[inside], dtype=torch.float64, device=device),
                        dtype=dtype,
                        optional=None if optional is None else optional[first:last].to(device),
                    )
                except KDEError as error:
                    name = catalog.column("cluster_id")[first + error.cluster]
                    raise CatalogError(f"cluster {name}: {error.reason}") from error
                bar.update(last - first)
        return contexts

    def flip_velocity(self, context: Contexts) -> Tensor:
        """Context of the mirrored cluster, every velocity v replaced by -v; extras stay.

        Args:
            context: (*, context_dim).

        Raises:
            ValueError: if the velocity axis of the grid is not symmetric about zero.
        """
        assert isinstance(context, Tensor)
        grid = self.kde.grid
        if grid.lower[-1] != -grid.upper[-1]:
            raise ValueError(
                f"velocities cannot be mirrored on a grid from {grid.lower[-1]} to {grid.upper[-1]} km/s: "
                f"it is not symmetric about zero"
            )
        size = math.prod(self.image_shape)
        images = context[..., :size].reshape(*context.shape[:-1], *self.image_shape).flip(-1)
        return torch.cat([images.reshape(*context.shape[:-1], size), context[..., size:]], -1)

    def outline(self, context: Contexts) -> Tensor:
        """The images (n, pixels)."""
        assert isinstance(context, Tensor)
        return context[..., : math.prod(self.image_shape)]

    def describe(self) -> dict[str, Any]:
        """JSON-able description from which ``from_description`` builds an equal encoder."""
        return {
            "kind": self.kind,
            "kdes": [kde.describe() for kde in self.kdes if isinstance(kde, KDEEncoder)],
            "scaling": self.scaling,
            "constant": self.constant,
            **self.extra_columns.describe(),
            "galaxy_weight": self.galaxy_weight,
            **self.optional.describe(),
        }

    @classmethod
    def _restore(cls, description: Mapping[str, Any]) -> ContextEncoder:
        wanted = {"kind", "kdes", "scaling", "constant", "extras", "extra_constants", "galaxy_weight"}
        if set(description) - {"optional", "optional_constants"} != wanted:
            raise ValueError(
                f"description of a ContextEncoder has the keys {sorted(description)}, expected "
                f"{sorted(wanted)}; "
                f"it may come from another version"
            )
        encoder = cls(
            [KDEEncoder.from_description(kde) for kde in description["kdes"]],
            description["scaling"],
            description["constant"],
            galaxy_weight=description["galaxy_weight"],
        )
        encoder.extra_columns = ExtraColumns.from_description(description)
        encoder.optional = OptionalColumns.from_description(description)
        return encoder

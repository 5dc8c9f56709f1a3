"""From the galaxies of a catalogue to the context vectors of a flow."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.encoders.base import Encoder
from bayesflowmass.encoders.galaxy_set import Contexts
from bayesflowmass.encoders.kde import KDEEncoder
from bayesflowmass.encoders.scaling import DEFAULT_CONSTANTS, check_scaling, scale_images


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
        galaxy_weight: name of a galaxy column of weights in the density, such as "gal_weight"; none by
            default.
        optional: names of cluster columns that may be unknown, such as "mode" (`OptionalColumns`); they are
            the end of a context.

    Raises:
        ValueError: if the grids differ or an option is unknown.
    """

    kind = "kde-context"
    described = ("kdes", "scaling", "constant", "galaxy_weight")

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
        return math.prod(self.image_shape) + len(self.extras) + self.optional.width

    @property
    def uses_richness(self) -> bool:
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
        weight: Tensor | None = None,
        dtype: torch.dtype | None = None,
        optional: Tensor | None = None,
    ) -> Tensor:
        """Contexts of a batch of clusters, differentiable as the densities are.

        Args:
            points: (n_points, D) galaxies: R_proj [Mpc/h comoving] and v_los [km/s] in two dimensions.
            offsets: (n + 1,) integers.
            extras: (n, len(extras)) raw values of the cluster columns; needed if there are any.
            weight: (n_points,) of the galaxies.
            dtype: float32 or float64; by default that of the points.
            optional: (n, len(optional)) raw values of the optional columns, NaN where unknown; None: all are.

        Returns:
            (n, context_dim).
        """
        counts = offsets.diff()
        parts = []
        for kde in self.kdes:
            images = kde(points, offsets, weight=weight, dtype=dtype, normalisation="sum")
            parts.append(scale_images(images, self.scaling, self.constant, counts).flatten(1))
        return torch.cat([*parts, *self._column_entries(counts.numel(), extras, optional, parts[0])], 1)

    def flow_arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Those given, the length of a context, and the image that opens it where a network convolves it."""
        image = {"image_shape": self.image_shape} if given.get("trunk") == "conv" else {}
        return image | dict(given) | {"context_dim": self.context_dim}

    def memory(self, catalog: ClusterCatalog) -> int:
        return 4 * len(catalog) * self.context_dim

    def _contexts(self, catalog: ClusterCatalog, points: Tensor, dtype: torch.dtype) -> Tensor:
        weight = None
        if self.galaxy_weight is not None:
            weight = catalog.galaxy_tensor(self.galaxy_weight, torch.float64)[:, 0].to(points.device)
        offsets = torch.tensor(catalog.offsets, device=points.device)
        columns = self._raw_columns(catalog, points.device)
        context: Tensor = self(points, offsets, weight=weight, dtype=dtype, **columns)
        return context

    def sees(self, points: Tensor) -> Tensor:
        """Which galaxies lie inside the grid; others matter through the covariance alone."""
        return self.kde.grid.contains(points)

    @property
    def catalog_columns(self) -> frozenset[str]:
        weight = () if self.galaxy_weight is None else (self.galaxy_weight,)
        return super().catalog_columns.union(weight)

    def _joined(
        self,
        parts: Iterator[tuple[slice, Contexts]],
        catalog: ClusterCatalog,
        device: torch.device | str,
        truth: bool,
    ) -> Tensor:
        contexts = torch.empty(len(catalog), self.context_dim, dtype=torch.float32, device=device)
        for rows, part in parts:
            assert isinstance(part, Tensor)
            contexts[rows] = part
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

    def _describe(self) -> dict[str, Any]:
        return {
            "kdes": [kde.describe() for kde in self.kdes if isinstance(kde, KDEEncoder)],
            "scaling": self.scaling,
            "constant": self.constant,
            "galaxy_weight": self.galaxy_weight,
        }

    @classmethod
    def _restore(cls, description: Mapping[str, Any]) -> ContextEncoder:
        kdes = [KDEEncoder.from_description(kde) for kde in description["kdes"]]
        return cls(
            kdes, description["scaling"], description["constant"], galaxy_weight=description["galaxy_weight"]
        )

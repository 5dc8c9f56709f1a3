"""Exact Gaussian kernel densities of ragged clusters on a grid.

The phase-space image of Kodi Ramanah et al. (2020, arXiv:2003.05951), equation 2:

    f(x) = 1 / (n (2 pi)^(D/2) |H|^(1/2)) sum_i exp(-(x - X_i)^T H^-1 (x - X_i) / 2)

with the full covariance H of the cluster itself. docs/kde.md derives how it is evaluated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from bayesflowmass.encoders.kde.batches import densities
from bayesflowmass.encoders.kde.covariance import KDEError, KernelShape, kernel_shape, sample_covariance
from bayesflowmass.encoders.kde.grid import Grid
from bayesflowmass.encoders.kde.plan import Plan, bin_orders, block_nodes, narrow_orders, precision_levels
from bayesflowmass.encoders.ragged import check_offsets, group_of, segment_sum, spread

Convention = Literal["covariance", "scipy"]
Normalisation = Literal["sum", "density"]
Evaluate = Literal["centre", "bin"]
Narrow = Literal["integrate", "refuse", "keep"]


class KDEEncoder(nn.Module):
    """Gaussian kernel density image of each cluster, with the cluster's own full covariance.

    References:
        Kodi Ramanah et al. 2020, arXiv:2003.05951, equation 2.

    All the galaxies given define the number n and the covariance Sigma (division by n - 1, as in scipy),
    also those outside the grid: the 2500 km/s cylinder, while the image ends at 2200 km/s. Values are those
    at bin centres. Nothing is reflected at R = 0.

    Args:
        grid: bins along each axis; two axes are (R_proj, v_los).
        lower: lower edges, (Mpc/h comoving, km/s).
        upper: upper edges, (Mpc/h comoving, km/s).
        bandwidth: h0, a float or a scalar tensor (a parameter is registered, and learnt).
        convention: "covariance" for H = h0 Sigma (the paper); "scipy" for H = h0^2 Sigma, scipy's
            ``bw_method=h0``.
        normalisation: "sum" for images that sum to one over the grid; "density" per unit volume of phase
            space.
        evaluate: "centre" for the density at bin centres (what scipy gives); "bin" for its mean over each
            bin.
        narrow: what to do at "centre" with a kernel whose width is less than half a bin along an axis,
            where values at centres mean nothing: "integrate" over the bins of that axis, to 1e-5 of the
            peak; "refuse" with an error; or "keep" them.
    """

    def __init__(
        self,
        grid: Sequence[int] = (50, 50),
        lower: Sequence[float] = (0.0, -2200.0),
        upper: Sequence[float] = (1.6, 2200.0),
        bandwidth: float | Tensor = 0.15,
        convention: Convention = "covariance",
        normalisation: Normalisation = "sum",
        evaluate: Evaluate = "centre",
        narrow: Narrow = "integrate",
    ) -> None:
        super().__init__()
        self.grid = Grid(grid, lower, upper)
        for option, value, known in (
            ("convention", convention, Convention),
            ("normalisation", normalisation, Normalisation),
            ("evaluate", evaluate, Evaluate),
            ("narrow", narrow, Narrow),
        ):
            if value not in get_args(known):
                raise ValueError(f"{option} is one of {', '.join(get_args(known))}, not {value!r}")
        h0 = _number(bandwidth)
        if not (math.isfinite(h0) and h0 > 0.0):
            raise ValueError(f"bandwidth must be a positive number, not {h0}")
        self.convention = convention
        self.normalisation = normalisation
        self.evaluate = evaluate
        self.narrow = narrow
        self.bandwidth: float | Tensor
        if isinstance(bandwidth, Tensor) and not isinstance(bandwidth, nn.Parameter):
            self.register_buffer("bandwidth", bandwidth)
        else:
            self.bandwidth = bandwidth

    @property
    def h0(self) -> float:
        """The bandwidth as a number."""
        return _number(self.bandwidth)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.describe().items())

    def describe(self) -> dict[str, Any]:
        """JSON-able description from which ``from_description`` builds an equal encoder."""
        return {
            "grid": list(self.grid.shape),
            "lower": list(self.grid.lower),
            "upper": list(self.grid.upper),
            "bandwidth": self.h0,
            "convention": self.convention,
            "normalisation": self.normalisation,
            "evaluate": self.evaluate,
            "narrow": self.narrow,
        }

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> KDEEncoder:
        """Encoder described by ``describe``.

        Raises:
            ValueError: if a key is missing or unknown.
        """
        wanted = {"grid", "lower", "upper", "bandwidth", "convention", "normalisation", "evaluate", "narrow"}
        if not isinstance(description, Mapping) or set(description) != wanted:
            found = sorted(description) if isinstance(description, Mapping) else type(description).__name__
            raise ValueError(
                f"description of a KDEEncoder must have the keys {sorted(wanted)}, found {found}"
            )
        return cls(**description)

    def forward(
        self,
        points: Tensor,
        offsets: Tensor,
        *,
        weight: Tensor | None = None,
        dtype: torch.dtype | None = None,
        normalisation: Normalisation | None = None,
    ) -> Tensor:
        """Images of a batch of clusters; differentiable with respect to points, weight and a tensor
        bandwidth.

        Args:
            points: (n_points, D) galaxies, cluster after cluster, D the number of grid axes.
            offsets: (n + 1,) integers; cluster k owns ``points[offsets[k]:offsets[k + 1]]``.
            weight: (n_points,) of the galaxies, not negative, in n and Sigma as in scipy.
            dtype: float32 or float64 of the computation and the result; by default that of the points.
            normalisation: "sum" or "density", in place of the encoder's own.

        Returns:
            (n, *grid) images.

        Raises:
            ValueError: for malformed input, and as ``KDEError``, naming the cluster, for a singular
                covariance or a cluster without any density on the grid.
        """
        dtype = points.dtype if dtype is None else dtype
        if dtype not in (torch.float32, torch.float64):
            raise ValueError(f"a kernel density is computed in float32 or float64, not {dtype}")
        if points.ndim != 2 or points.shape[1] != self.grid.ndim:
            raise ValueError(
                f"points must have shape (n_points, {self.grid.ndim}), one column per axis of the grid, "
                f"not {tuple(points.shape)}"
            )
        offsets = check_offsets(points, offsets)
        n = offsets.numel() - 1
        if n == 0:
            return points.new_zeros((0, *self.grid.shape), dtype=dtype)
        middle = torch.tensor(self.grid.middle, dtype=torch.float64, device=points.device)
        columns = (points.to(torch.float64) - middle).T.contiguous()
        size = torch.zeros_like(middle)
        if len(points):
            size = torch.maximum(columns.detach().amax(1), -columns.detach().amin(1))
        if not bool(torch.isfinite(size).all()):
            galaxy = int(torch.nonzero(~torch.isfinite(columns.detach()).all(0))[0])
            raise KDEError(group_of(offsets, galaxy), "it has a galaxy with a NaN or infinite coordinate")
        if weight is not None:
            weight = _normalised(weight.to(torch.float64), offsets)
        covariance = sample_covariance(columns, offsets, weight)
        h0 = torch.as_tensor(self.bandwidth, dtype=torch.float64, device=points.device)
        kernel = kernel_shape(
            covariance, h0 if self.convention == "covariance" else h0**2, size + middle.abs()
        )
        plan = self._plan(kernel, size, dtype)
        images = densities(columns, offsets, kernel, weight, self.grid, plan, dtype)
        if (normalisation or self.normalisation) == "density":
            return images
        total = images.sum(tuple(range(1, images.ndim)))
        self._refuse_empty_images(total, points, offsets)
        return images / total.reshape(-1, *(1,) * self.grid.ndim)

    def _plan(self, kernel: KernelShape, size: Tensor, dtype: torch.dtype) -> Plan:
        with torch.no_grad():
            levels = precision_levels(kernel, self.grid, size, dtype)
            if self.evaluate == "bin":
                orders = bin_orders(kernel, self.grid)
            elif self.narrow == "keep":
                orders = torch.ones_like(kernel.marginal, dtype=torch.int64)
            else:
                orders, narrow = narrow_orders(kernel, self.grid)
                if self.narrow == "refuse" and bool(narrow.any()):
                    self._refuse_narrow(kernel, narrow)
            return Plan(orders, block_nodes(kernel, self.grid, size, orders, levels), levels)

    def _refuse_narrow(self, kernel: KernelShape, narrow: Tensor) -> None:
        cluster, axis = (int(i) for i in torch.nonzero(narrow)[0])
        raise KDEError(
            cluster,
            f"its kernel is {float(kernel.conditional[cluster, axis]):.3g} wide on axis {axis} of the grid, "
            f"less than half a bin of {self.grid.spacing[axis]:.3g}, so values at bin centres mean nothing; "
            f"use narrow='integrate', a larger bandwidth or finer bins",
        )

    def _refuse_empty_images(self, total: Tensor, points: Tensor, offsets: Tensor) -> None:
        # One galaxy inside the grid puts at least about 0.25 / n there, so only clusters below that are
        # looked at.
        suspects = torch.nonzero(~(total * offsets.diff() * math.prod(self.grid.spacing) > 0.1))[:, 0]
        for cluster in suspects.tolist():
            mine = points[int(offsets[cluster]) : int(offsets[cluster + 1])]
            if not bool(self.grid.contains(mine).any()):
                raise KDEError(
                    cluster, f"none of its {len(mine)} galaxies lies inside the grid, so its image is empty"
                )
            if not bool(total[cluster] > 0):
                raise KDEError(cluster, "its density underflows at every bin centre")


def _number(value: float | Tensor) -> float:
    return float(value.detach()) if isinstance(value, Tensor) else float(value)


def _normalised(weight: Tensor, offsets: Tensor) -> Tensor:
    if weight.shape != (int(offsets[-1]),):
        raise ValueError(
            f"weight must have one entry per galaxy, {int(offsets[-1])}, not shape {tuple(weight.shape)}"
        )
    if not bool((torch.isfinite(weight) & (weight >= 0)).all()):
        raise ValueError("weights of galaxies must be finite and not negative")
    total = segment_sum(weight, offsets)
    if bool((total <= 0).any()):
        raise KDEError(int(torch.nonzero(total <= 0)[0]), "its galaxies have zero total weight")
    return weight / spread(total, offsets, len(weight))

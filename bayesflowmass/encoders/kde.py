"""Exact Gaussian kernel densities of ragged clusters on a grid.

The phase-space image of Kodi Ramanah et al. (2020, arXiv:2009.03340), equation 2:

    f(x) = 1 / (n (2 pi)^(D/2) |H|^(1/2)) sum_i exp(-(x - X_i)^T H^-1 (x - X_i) / 2)

with the full covariance H of the cluster itself. docs/kde.md derives how it is evaluated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bayesflowmass.encoders.covariance import KDEError, KernelShape, kernel_shape, sample_covariance
from bayesflowmass.encoders.grid import Grid
from bayesflowmass.encoders.kde_kernels import direct_sum, factorised_sum, grid_factor
from bayesflowmass.encoders.ragged import (
    check_offsets,
    chunks_by_richness,
    group_index,
    padded_index,
    segment_sum,
)

__all__ = ["Convention", "KDEEncoder", "KDEError", "Normalisation"]

Convention = Literal["covariance", "scipy"]
Normalisation = Literal["sum", "density"]

# Largest exponent that may be split between factors: beyond it rounding exceeds the promised accuracy
# (1e-5 and 1e-10 of the peak) or the factors overflow.
_MAX_EXPONENT = {torch.float32: 30.0, torch.float64: 500.0}
# Galaxies further than this many kernel widths from the grid contribute less than exp(-cut^2 / 2) of one kernel's peak.
_CUT = 9.0


class KDEEncoder(nn.Module):
    """Gaussian kernel density image of each cluster, with the cluster's own full covariance.

    References:
        Kodi Ramanah et al. 2020, arXiv:2009.03340, equation 2.

    All the galaxies given define the number n and the covariance Sigma (division by n - 1, as in scipy), also those
    outside the grid: the 2500 km/s cylinder, while the image ends at 2200 km/s. Values are those at bin centres.
    Nothing is reflected at R = 0.

    Args:
        grid: bins along each axis; two axes are (R_proj, v_los).
        lower: lower edges, (Mpc/h comoving, km/s).
        upper: upper edges, (Mpc/h comoving, km/s).
        bandwidth: h0, a float or a scalar tensor (a parameter is registered, and learnt).
        convention: "covariance" for H = h0 Sigma (the paper); "scipy" for H = h0^2 Sigma, scipy's
            ``bw_method=h0``.
        normalisation: "sum" for images that sum to one over the grid; "density" per unit volume of phase space.
    """

    def __init__(
        self,
        grid: Sequence[int] = (50, 50),
        lower: Sequence[float] = (0.0, -2200.0),
        upper: Sequence[float] = (1.6, 2200.0),
        bandwidth: float | Tensor = 0.15,
        convention: Convention = "covariance",
        normalisation: Normalisation = "sum",
    ) -> None:
        super().__init__()
        self.grid = Grid(grid, lower, upper)
        if convention not in ("covariance", "scipy"):
            raise ValueError(
                f"convention is 'covariance' (H = h0 Sigma) or 'scipy' (H = h0^2 Sigma), not {convention!r}"
            )
        if normalisation not in ("sum", "density"):
            raise ValueError(f"normalisation is 'sum' or 'density', not {normalisation!r}")
        if not (math.isfinite(float(bandwidth)) and float(bandwidth) > 0.0):
            raise ValueError(f"bandwidth must be a positive number, not {float(bandwidth)}")
        self.convention = convention
        self.normalisation = normalisation
        self.bandwidth: float | Tensor
        if isinstance(bandwidth, Tensor) and not isinstance(bandwidth, nn.Parameter):
            self.register_buffer("bandwidth", bandwidth)
        else:
            self.bandwidth = bandwidth

    def extra_repr(self) -> str:
        return (
            f"grid={self.grid.shape}, lower={self.grid.lower}, upper={self.grid.upper}, "
            f"bandwidth={float(self.bandwidth)}, convention={self.convention!r}, normalisation={self.normalisation!r}"
        )

    def describe(self) -> dict[str, Any]:
        """JSON-able description from which ``from_description`` builds an equal encoder."""
        return {
            "grid": list(self.grid.shape),
            "lower": list(self.grid.lower),
            "upper": list(self.grid.upper),
            "bandwidth": float(self.bandwidth),
            "convention": self.convention,
            "normalisation": self.normalisation,
        }

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> KDEEncoder:
        """Encoder described by ``describe``.

        Raises:
            ValueError: if a key is missing or unknown.
        """
        wanted = {"grid", "lower", "upper", "bandwidth", "convention", "normalisation"}
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
        weights: Tensor | None = None,
        dtype: torch.dtype | None = None,
        normalisation: Normalisation | None = None,
    ) -> Tensor:
        """Images of a batch of clusters; differentiable with respect to points, weights and a tensor bandwidth.

        Args:
            points: (n_points, D) galaxies, cluster after cluster, D the number of grid axes.
            offsets: (n + 1,) integers; cluster k owns ``points[offsets[k]:offsets[k + 1]]``.
            weights: (n_points,) non-negative weights of the galaxies, in n and Sigma as in scipy.
            dtype: float32 or float64 of the computation and the result; by default that of the points.
            normalisation: "sum" or "density", in place of the encoder's own.

        Returns:
            (n, *grid) images.

        Raises:
            ValueError: for malformed input, and as ``KDEError``, naming the cluster, for a singular covariance or a
                cluster without any density on the grid.
        """
        dtype = points.dtype if dtype is None else dtype
        if dtype not in _MAX_EXPONENT:
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
        centred = points.to(torch.float64) - middle
        size = centred.detach().abs().amax(0)
        if not bool(torch.isfinite(size).all()):
            bad = ~torch.isfinite(points.detach()).all(1)
            raise KDEError(
                int(group_index(offsets, len(points))[bad][0]),
                "has a galaxy with a NaN or infinite coordinate",
            )
        if weights is not None:
            weights = _normalised_weights(weights.to(torch.float64), offsets)
        covariance = sample_covariance(centred, offsets, weights)
        h0 = torch.as_tensor(self.bandwidth, dtype=torch.float64, device=points.device)
        kernel = kernel_shape(
            covariance, h0 if self.convention == "covariance" else h0**2, size + middle.abs()
        )
        images = self._images(centred, offsets, kernel, weights, size, dtype)
        if (normalisation or self.normalisation) == "density":
            return images
        total = images.sum(tuple(range(1, images.ndim)))
        self._refuse_empty_images(total, points, offsets)
        return images / total.reshape(-1, *(1,) * self.grid.ndim)

    def _refuse_empty_images(self, total: Tensor, points: Tensor, offsets: Tensor) -> None:
        # One galaxy inside the grid puts at least about 0.25 / n there, so only clusters below that are looked at.
        suspects = torch.nonzero(~(total * offsets.diff() * math.prod(self.grid.spacing) > 0.1))[:, 0]
        for cluster in suspects.tolist():
            mine = points[int(offsets[cluster]) : int(offsets[cluster + 1])]
            if not bool(self.grid.contains(mine).any()):
                raise KDEError(
                    cluster, f"none of its {len(mine)} galaxies lies inside the grid, so its image is empty"
                )
            if not bool(total[cluster] > 0):
                raise KDEError(cluster, "its density underflows at every bin centre")

    def _images(
        self,
        centred: Tensor,
        offsets: Tensor,
        kernel: KernelShape,
        weights: Tensor | None,
        size: Tensor,
        dtype: torch.dtype,
    ) -> Tensor:
        counts = offsets.diff()
        level = self._precision_level(kernel, size, dtype)
        order = torch.argsort(level * (counts.max() + 1) + counts, stable=True)
        pieces: list[Tensor] = []
        for number in range(3):
            members = order[level[order] == number]
            for first, last in chunks_by_richness(counts[members].tolist(), 16384, 512):
                index = members[first:last]
                pieces.append(self._chunk(centred, offsets, kernel, weights, index, number, dtype))
        images = torch.cat(pieces)
        return images[torch.argsort(order)]

    def _precision_level(self, kernel: KernelShape, size: Tensor, dtype: torch.dtype) -> Tensor:
        """0: factorised in float32; 1: factorised in float64; 2: kernel by kernel in float64."""
        with torch.no_grad():
            half = 0.5 * torch.tensor(
                [b - a for a, b in zip(self.grid.lower, self.grid.upper, strict=True)],
                dtype=torch.float64,
                device=size.device,
            )
            reach = (
                torch.maximum(half, torch.minimum(size, half + _CUT * kernel.marginal)) / kernel.conditional
            )
            coupling = kernel.partial.abs()
            exponent = 0.5 * torch.einsum("nd,nde,ne->n", reach, coupling, reach)
            exponent = exponent + 0.5 * ((coupling @ reach[:, :, None])[..., 0] ** 2).sum(-1)
            level = (exponent > _MAX_EXPONENT[torch.float32]).to(torch.int64)
            level = level + (exponent > _MAX_EXPONENT[torch.float64])
            return level if dtype == torch.float32 else level.clamp(min=1)

    def _chunk(
        self,
        centred: Tensor,
        offsets: Tensor,
        kernel: KernelShape,
        weights: Tensor | None,
        index: Tensor,
        level: int,
        dtype: torch.dtype,
    ) -> Tensor:
        start = offsets[index]
        counts = offsets[index + 1] - start
        gather, real = padded_index(start, counts, int(counts.max()))
        points = centred[gather]
        kernel = kernel[index]
        axes = [self.grid.nodes(d).to(centred.device) - self.grid.middle[d] for d in range(self.grid.ndim)]
        if weights is None:
            log_weight = -counts.to(torch.float64).log()[:, None].expand(real.shape)
        else:
            log_weight = weights[gather].log()
        reach = torch.stack([axis.abs().amax() for axis in axes]) + _CUT * kernel.marginal.detach()
        near = real & (points.detach().abs() <= reach[:, None, :]).all(-1)
        log_weight = torch.where(near, log_weight, -torch.inf)
        points = torch.maximum(torch.minimum(points, reach[:, None, :]), -reach[:, None, :])
        if level == 2:
            budget = max(1, (1 << 21) // self.grid.size)
            pieces = []
            for b in range(len(index)):
                parts = [
                    direct_sum(
                        points[b : b + 1, i : i + budget],
                        axes,
                        kernel.whitener[b : b + 1],
                        log_weight[b : b + 1, i : i + budget],
                    )
                    for i in range(0, int(counts[b]), budget)
                ]
                pieces.append(torch.stack(parts).sum(0))
            density = torch.cat(pieces) * kernel.log_norm.neg().exp().reshape(-1, *(1,) * self.grid.ndim)
            return density.to(dtype)
        working = torch.float32 if level == 0 else torch.float64
        scaled_axes = [(axis / kernel.conditional[:, d, None]).to(working) for d, axis in enumerate(axes)]
        scaled = points / kernel.conditional[:, None, :]
        total: Tensor | None = None
        for i in range(0, scaled.shape[1], 1 << 16):
            part = factorised_sum(
                scaled[:, i : i + (1 << 16)], scaled_axes, kernel.partial, log_weight[:, i : i + (1 << 16)]
            )
            total = part if total is None else total + part
        assert total is not None
        return (total * grid_factor(scaled_axes, kernel.partial, -kernel.log_norm)).to(dtype)


def _normalised_weights(weights: Tensor, offsets: Tensor) -> Tensor:
    if weights.shape != (int(offsets[-1]),):
        raise ValueError(
            f"weights must have one entry per galaxy, {int(offsets[-1])}, not shape {tuple(weights.shape)}"
        )
    if not bool((torch.isfinite(weights) & (weights >= 0)).all()):
        raise ValueError("weights of galaxies must be finite and not negative")
    total = segment_sum(weights[:, None], offsets)[:, 0]
    if bool((total <= 0).any()):
        raise KDEError(int(torch.nonzero(total <= 0)[0]), "has galaxies of zero total weight")
    return weights / total[group_index(offsets, weights.numel())]

"""Sample covariances of ragged clusters, and the small dense algebra that a Gaussian kernel needs."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from bayesflowmass.encoders.ragged import segment_sum, spread

# Share of a variance that the axes before it leave unexplained (1 - rho^2 in two dimensions) below which
# a covariance is singular to the accuracy of float64 sums.
_MIN_UNEXPLAINED = 1e-10
# Spread over coordinate below which the spread is rounding.
_MIN_SPREAD = 1e-12


class KDEError(ValueError):
    """A cluster whose density cannot be estimated.

    Attributes:
        cluster: its number in the call.
        reason: what is wrong with it, without its name.
    """

    def __init__(self, cluster: int, reason: str) -> None:
        super().__init__(f"cluster {cluster}: {reason}")
        self.cluster = cluster
        self.reason = reason


@dataclass(frozen=True)
class KernelShape:
    """Gaussian kernels of covariance H for n clusters, in the forms that evaluation needs.

    Attributes:
        marginal: (n, D) sqrt(H_dd).
        conditional: (n, D) 1 / sqrt((H^-1)_dd), the width along axis d through the centre of the kernel.
        correlation: (n, D, D) correlation matrix of H.
        partial: (n, D, D) H^-1 scaled to a unit diagonal, with that diagonal set to zero.
        whitener: (n, D, D) lower triangular W with W H W^T = 1: the exponent is -|W (x - X)|^2 / 2.
        log_norm: (n,) log of (2 pi)^(D/2) |H|^(1/2).
    """

    marginal: Tensor
    conditional: Tensor
    correlation: Tensor
    partial: Tensor
    whitener: Tensor
    log_norm: Tensor

    def __getitem__(self, index: Tensor) -> KernelShape:
        return KernelShape(*(getattr(self, field.name)[index] for field in fields(self)))


def sample_covariance(columns: Tensor, offsets: Tensor, weight: Tensor | None = None) -> Tensor:
    """Unbiased sample covariance of each cluster, with the weights of ``scipy.stats.gaussian_kde``.

    Sigma = sum_i w_i (X_i - m)(X_i - m)^T / (1 - sum_i w_i^2) with weights that sum to one; equal weights
    give the usual division by n - 1.

    Args:
        columns: (D, n_points) float64.
        offsets: (n + 1,) int64.
        weight: (n_points,) float64, summing to one in each cluster; None for equal ones.

    Returns:
        (n, D, D) float64.

    Raises:
        KDEError: a cluster with fewer than two galaxies.
    """
    counts = offsets.diff()
    if bool((counts < 2).any()):
        cluster = int(torch.nonzero(counts < 2)[0])
        raise KDEError(
            cluster,
            f"it has {int(counts[cluster])} galaxies, too few for a covariance; drop clusters below "
            f"a minimum "
            f"richness first",
        )
    freedom, total = (counts - 1).to(columns.dtype), counts.to(columns.dtype)
    if weight is not None:
        freedom, total = 1.0 - segment_sum(weight**2, offsets), torch.ones_like(total)
    from_mean = []
    for column in columns:
        mean = segment_sum(column if weight is None else column * weight, offsets) / total
        from_mean.append(column - spread(mean, offsets, len(column)))
    weighted = from_mean if weight is None else [column * weight for column in from_mean]
    ndim = len(from_mean)
    rows = [
        [segment_sum(from_mean[j] * weighted[k], offsets) / freedom for k in range(j + 1)]
        for j in range(ndim)
    ]
    return torch.stack(
        [torch.stack([rows[max(j, k)][min(j, k)] for k in range(ndim)], -1) for j in range(ndim)], 1
    )


def kernel_shape(covariance: Tensor, scale: Tensor, size: Tensor) -> KernelShape:
    """Kernels with covariance ``scale * covariance``, refusing singular ones.

    Args:
        covariance: (n, D, D) float64.
        scale: () float64, what multiplies the covariance: h0 or h0^2.
        size: (D,) float64, largest absolute coordinate, which sets the rounding error of a spread.

    Raises:
        KDEError: naming the first cluster whose covariance is singular, and why.
    """
    ndim = len(size)
    variance = covariance.diagonal(dim1=1, dim2=2)
    # Written so that a NaN is refused as well.
    flat = ~(variance > (_MIN_SPREAD * size) ** 2)
    if bool(flat.any()):
        cluster, axis = (int(i) for i in torch.nonzero(flat)[0])
        raise KDEError(
            cluster,
            f"all its galaxies have the same value on axis {axis} of the grid, so its covariance is "
            f"singular; "
            f"a kernel density needs a spread on every axis",
        )
    sigma = variance.sqrt()
    correlation = covariance / (sigma[:, :, None] * sigma[:, None, :])
    factor = _cholesky(correlation)
    unit_whitener = _lower_inverse(factor)
    precision = unit_whitener.mT @ unit_whitener
    root = precision.diagonal(dim1=1, dim2=2).sqrt()
    off_diagonal = 1.0 - torch.eye(ndim, dtype=covariance.dtype, device=covariance.device)
    marginal = sigma * scale.sqrt()
    log_determinant = sum((factor[j][j].log() for j in range(ndim)), start=marginal.log().sum(-1))
    return KernelShape(
        marginal=marginal,
        conditional=marginal / root,
        correlation=correlation,
        partial=precision / (root[:, :, None] * root[:, None, :]) * off_diagonal,
        whitener=unit_whitener / marginal[:, None, :],
        log_norm=0.5 * ndim * math.log(2.0 * math.pi) + log_determinant,
    )


def _cholesky(correlation: Tensor) -> list[list[Tensor]]:
    """Cholesky factor of n small correlation matrices, entry by entry: a few vector operations a batch."""
    *_, ndim = correlation.shape
    factor: list[list[Tensor]] = []
    for j in range(ndim):
        row: list[Tensor] = []
        for k in range(j):
            known = sum((row[m] * factor[k][m] for m in range(k)), start=correlation.new_zeros(()))
            row.append((correlation[:, j, k] - known) / factor[k][k])
        pivot = sum((-r * r for r in row), start=correlation.new_ones(len(correlation)))
        singular = ~(pivot > _MIN_UNEXPLAINED)
        if bool(singular.any()):
            raise KDEError(
                int(torch.nonzero(singular)[0]),
                f"its galaxies lie on a line or a plane (axis {j} of the grid follows from the axes "
                f"before it), so "
                f"its covariance is singular; a kernel density needs more than {ndim} galaxies in "
                f"general position",
            )
        factor.append([*row, pivot.sqrt()])
    return factor


def _lower_inverse(factor: list[list[Tensor]]) -> Tensor:
    """Inverse of lower-triangular matrices given entry by entry: (n, D, D)."""
    ndim, zero = len(factor), torch.zeros_like(factor[0][0])
    inverse = [[zero] * ndim for _ in range(ndim)]
    for j in range(ndim):
        inverse[j][j] = 1.0 / factor[j][j]
        for k in range(j):
            inverse[j][k] = (
                -sum((factor[j][m] * inverse[m][k] for m in range(k, j)), start=zero) / factor[j][j]
            )
    return torch.stack([torch.stack(row, -1) for row in inverse], 1)

"""Sample covariances of ragged clusters, and the small dense algebra a Gaussian kernel needs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesflowmass.encoders.ragged import group_index, segment_sum

__all__ = ["KernelShape", "KDEError", "kernel_shape", "sample_covariance"]

# Below this share of a variance that the other axes leave unexplained (1 - rho^2 in two dimensions) the
# covariance is singular to the accuracy with which float64 sums can tell.
_MIN_UNEXPLAINED = 1e-10


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
    """A Gaussian kernel of covariance H for each of n clusters, in the forms that evaluation needs.

    Attributes:
        marginal: (n, D) sqrt(H_dd).
        conditional: (n, D) 1 / sqrt((H^-1)_dd), the width along axis d through the centre of the kernel.
        partial: (n, D, D) off-diagonal part of H^-1 scaled to a unit diagonal; zero on the diagonal.
        whitener: (n, D, D) lower triangular W with W H W^T = 1, so that the exponent is -|W (x - X)|^2 / 2.
        log_norm: (n,) log of (2 pi)^(D/2) |H|^(1/2).
    """

    marginal: Tensor
    conditional: Tensor
    partial: Tensor
    whitener: Tensor
    log_norm: Tensor

    def __getitem__(self, index: Tensor) -> KernelShape:
        return KernelShape(
            self.marginal[index],
            self.conditional[index],
            self.partial[index],
            self.whitener[index],
            self.log_norm[index],
        )


def sample_covariance(points: Tensor, offsets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Unbiased sample covariance of each cluster, with the weights of ``scipy.stats.gaussian_kde``.

    Sigma = sum_i w_i (X_i - m)(X_i - m)^T / (1 - sum_i w_i^2) with weights that sum to one; equal weights give the
    usual division by n - 1.

    Args:
        points: (n_points, D) float64.
        offsets: (n + 1,) int64.
        weights: (n_points,) float64, summing to one in each cluster; None for equal weights.

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
            f"has {int(counts[cluster])} galaxies, and a covariance needs more; drop clusters below a "
            f"minimum richness first",
        )
    group = group_index(offsets, points.shape[0])
    if weights is None:
        mean = segment_sum(points, offsets) / counts[:, None]
        freedom = (counts - 1).to(points.dtype)
        from_mean = points - mean[group]
        weighted = from_mean
    else:
        mean = segment_sum(points * weights[:, None], offsets)
        freedom = 1.0 - segment_sum(weights[:, None] ** 2, offsets)[:, 0]
        from_mean = points - mean[group]
        weighted = from_mean * weights[:, None]
    ndim = points.shape[1]
    first, second = torch.tril_indices(ndim, ndim, device=points.device)
    packed = segment_sum(from_mean[:, first] * weighted[:, second], offsets) / freedom[:, None]
    covariance = points.new_zeros(counts.numel(), ndim, ndim)
    covariance = covariance.index_put(_batch_index(first, second, counts.numel()), packed.reshape(-1))
    return covariance.index_put(_batch_index(second, first, counts.numel()), packed.reshape(-1))


def _batch_index(row: Tensor, column: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
    batch = torch.arange(n, device=row.device).repeat_interleave(row.numel())
    return batch, row.repeat(n), column.repeat(n)


def kernel_shape(covariance: Tensor, scale: Tensor, origin_size: Tensor) -> KernelShape:
    """Kernels with covariance ``scale * covariance``, refusing singular ones.

    Args:
        covariance: (n, D, D) float64.
        scale: (n,) or () float64, what multiplies the covariance: h0 or h0^2.
        origin_size: (n, D) float64, largest absolute coordinate, which sets the rounding error of a variance.

    Raises:
        KDEError: naming the first cluster whose covariance is singular, and why.
    """
    n, ndim = covariance.shape[:2]
    variance = covariance.diagonal(dim1=1, dim2=2)
    flat = variance <= (1e-14 * origin_size) ** 2
    if bool(flat.any()):
        cluster, axis = (int(i) for i in torch.nonzero(flat)[0])
        raise KDEError(
            cluster,
            f"all its galaxies have the same value on axis {axis}, so its covariance is singular; "
            f"a kernel density needs a spread on every axis",
        )
    sigma = variance.sqrt()
    correlation = covariance / (sigma[:, :, None] * sigma[:, None, :])
    factor: list[list[Tensor]] = []
    for j in range(ndim):
        row: list[Tensor] = []
        for k in range(j):
            inner = sum((row[m] * factor[k][m] for m in range(k)), start=torch.zeros_like(sigma[:, 0]))
            row.append((correlation[:, j, k] - inner) / factor[k][k])
        pivot = 1.0 - sum((r * r for r in row), start=torch.zeros_like(sigma[:, 0]))
        if bool((pivot < _MIN_UNEXPLAINED).any()):
            cluster = int(torch.nonzero(pivot < _MIN_UNEXPLAINED)[0])
            raise KDEError(
                cluster,
                f"its galaxies lie on a line (axis {j} follows from the axes before it), so its "
                f"covariance is singular; a kernel density needs more than {ndim} galaxies in general position",
            )
        row.append(pivot.sqrt())
        factor.append(row)
    # Inverse of the lower-triangular factor, row by row.
    zero = torch.zeros_like(sigma[:, 0])
    inverse: list[list[Tensor]] = [[zero] * ndim for _ in range(ndim)]
    for j in range(ndim):
        inverse[j][j] = 1.0 / factor[j][j]
        for k in range(j):
            total = sum((factor[j][m] * inverse[m][k] for m in range(k, j)), start=zero)
            inverse[j][k] = -total / factor[j][j]
    unit_whitener = torch.stack([torch.stack(row, -1) for row in inverse], 1)
    precision = unit_whitener.transpose(1, 2) @ unit_whitener
    root = precision.diagonal(dim1=1, dim2=2).sqrt()
    off_diagonal = 1.0 - torch.eye(ndim, dtype=covariance.dtype, device=covariance.device)
    partial = precision / (root[:, :, None] * root[:, None, :]) * off_diagonal
    marginal = sigma * scale.expand(n).sqrt()[:, None]
    log_pivots = torch.stack([factor[j][j].log() for j in range(ndim)], -1).sum(-1)
    log_norm = 0.5 * ndim * math.log(2.0 * math.pi) + marginal.log().sum(-1)
    return KernelShape(
        marginal=marginal,
        conditional=marginal / root,
        partial=partial,
        whitener=unit_whitener / marginal[:, None, :],
        log_norm=log_norm + log_pivots,
    )

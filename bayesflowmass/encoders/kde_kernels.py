"""Sums of Gaussian kernels on a product grid, for a padded batch of clusters that share a plan.

Coordinates are relative to the middle of the grid and divided by the conditional widths of the kernel, so that with
t = x - X the exponent is -sum_d t_d^2 / 2 - sum_{d<e} C_de t_d t_e, C the off-diagonal part of the precision matrix scaled
to a unit diagonal. With g_d = sum_e C_de X_e it splits into terms that each know one axis, and one that knows no galaxy:

    sum_d [ -(x_d - X_d - g_d)^2 / 2 + g_d^2 / 2 ]  +  sum_d X_d g_d / 2  -  sum_{d<e} C_de x_d x_e
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["direct_sum", "factorised_sum", "grid_factor"]


def factorised_sum(points: Tensor, axes: list[Tensor], partial: Tensor, log_weight: Tensor) -> Tensor:
    """Sum over galaxies of the factors that know one axis each, as a batched matrix product.

    Args:
        points: (B, N, D) float64 scaled coordinates of the galaxies.
        axes: D tensors (B, n_d), scaled grid coordinates; their dtype is the one computed in.
        partial: (B, D, D) float64.
        log_weight: (B, N) float64 logarithm of the weight of each galaxy; -inf for padding.

    Returns:
        (B, n_1, ..., n_D), to be multiplied by ``grid_factor``.
    """
    dtype = axes[0].dtype
    shift = points @ partial
    centres = (points + shift).to(dtype)
    constants = 0.5 * shift**2
    last = len(axes) - 1
    constants = torch.cat(
        [
            constants[..., :last],
            (constants[..., last] + 0.5 * (points * shift).sum(-1) + log_weight)[..., None],
        ],
        -1,
    ).to(dtype)
    product: Tensor | None = None
    for d, axis in enumerate(axes):
        distance = axis[:, :, None] - centres[:, None, :, d]
        factor = torch.addcmul(constants[:, None, :, d], distance, distance, value=-0.5).exp_()
        if d == last:
            break
        if product is None:
            product = factor
        else:
            product = (product[:, :, None, :] * factor[:, None, :, :]).flatten(1, 2)
    if product is None:
        return factor.sum(-1)
    total = torch.bmm(product, factor.transpose(1, 2))
    return total.reshape(total.shape[0], *(axis.shape[1] for axis in axes))


def grid_factor(axes: list[Tensor], partial: Tensor, log_factor: Tensor) -> Tensor:
    """exp(log_factor - sum_{d<e} C_de x_d x_e) on the grid.

    Args:
        axes: D tensors (B, n_d).
        partial: (B, D, D).
        log_factor: (B,).

    Returns:
        (B, n_1, ..., n_D) in the dtype of the axes.
    """
    ndim = len(axes)
    dtype = axes[0].dtype

    def along(values: Tensor, d: int) -> Tensor:
        return values.reshape(values.shape[0], *(values.shape[1] if e == d else 1 for e in range(ndim)))

    exponent = along(log_factor.to(dtype)[:, None], 0)
    for d in range(ndim):
        for e in range(d + 1, ndim):
            coupled = -partial[:, d, e, None].to(dtype) * axes[d]
            exponent = exponent + along(coupled, d) * along(axes[e], e)
    return exponent.exp()


def direct_sum(points: Tensor, axes: list[Tensor], whitener: Tensor, log_weight: Tensor) -> Tensor:
    """Sum of the kernels evaluated one by one, for what the factorised form cannot represent.

    Args:
        points: (B, N, D) coordinates of the galaxies relative to the middle of the grid.
        axes: D tensors (n_d,) of grid coordinates relative to it.
        whitener: (B, D, D) lower triangular W; the exponent is -|W (x - X)|^2 / 2.
        log_weight: (B, N); -inf for padding.

    Returns:
        (B, n_1, ..., n_D).
    """
    ndim = len(axes)
    distances = []
    for d, axis in enumerate(axes):
        shape = (1, *(axis.numel() if e == d else 1 for e in range(ndim)), 1)
        mine = points[:, :, d].reshape(points.shape[0], *(1,) * ndim, points.shape[1])
        distances.append(axis.reshape(shape) - mine)
    exponent = log_weight.reshape(points.shape[0], *(1,) * ndim, points.shape[1])
    for j in range(ndim):
        white = torch.zeros_like(exponent)
        for k in range(j + 1):
            white = white + whitener[:, j, k].reshape(-1, *(1,) * (ndim + 1)) * distances[k]
        exponent = exponent - 0.5 * white**2
    return exponent.exp().sum(-1).expand(points.shape[0], *(axis.numel() for axis in axes))

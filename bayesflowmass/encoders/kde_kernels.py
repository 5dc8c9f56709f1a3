"""Sums of Gaussian kernels on a product grid, for a padded batch of clusters that share a plan.

In coordinates relative to the middle of a tile of the grid, divided by the conditional widths of the
kernel, the exponent is -sum_d t_d^2 / 2 - sum_{d<e} C_de t_d t_e with t = x - X and C the precision matrix
scaled to a unit diagonal. With g_d = sum_{e != d} C_de X_e it splits into terms that each know one axis and
one galaxy, one that knows only the galaxy and one that knows only the grid:

    sum_d [ -(x_d - X_d - g_d)^2 / 2 + g_d^2 / 2 ]  +  sum_d X_d g_d / 2  -  sum_{d<e} C_de x_d x_e
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bayesflowmass.encoders.covariance import KernelShape
from bayesflowmass.encoders.kde_plan import CUT, TILES, Level

__all__ = ["kernel_sum", "values_per_galaxy"]

# Factors of the factorised sum, and kernels of the direct one, held at once for one cluster, however rich.
_VALUES_AT_ONCE = 1 << 23
# Factors held at once on a CPU: 1 MB in float32, the size of a core's own cache.
_VALUES_IN_CACHE = 1 << 18

# The exponential of an argument that underflows is up to 25 times slower than that of any other on a CPU.
# What a factor gains by staying above is below 1e-11 of a kernel in float32 and 1e-20 in float64.
_SMALLEST_EXPONENT = {torch.float32: -86.0, torch.float64: -700.0}


def values_per_galaxy(shape: Sequence[int]) -> int:
    """Factors that one galaxy needs on a grid of that shape, as the matrix product takes them."""
    return math.prod(shape[:-1]) + shape[-1]


def kernel_sum(
    points: Tensor, log_weights: Tensor, axes: Sequence[Tensor], kernel: KernelShape, level: Level
) -> Tensor:
    """sum_i w_i N(x; X_i, H) on a product grid.

    Args:
        points: (D, B, N) float64 galaxies, padded.
        log_weights: (B, N) float64; -inf for padding.
        axes: D increasing vectors (n_d,) float64 of grid coordinates.
        kernel: B kernels.
        level: the arithmetic.

    Returns:
        (B, n_1, ..., n_D), float32 for ``FACTORISED_32``, else float64.
    """
    if level == Level.DIRECT_64:
        return _direct(points, log_weights, axes, kernel)
    if level == Level.TILED_64:
        return _tiled(points, log_weights, list(axes), [], kernel)
    dtype = torch.float32 if level == Level.FACTORISED_32 else torch.float64
    return _tile(points, log_weights, axes, kernel, dtype)


def _tiled(
    points: Tensor, log_weights: Tensor, axes: list[Tensor], chosen: list[Tensor], kernel: KernelShape
) -> Tensor:
    if not axes:
        return _tile(points, log_weights, chosen, kernel, torch.float64)
    parts = [part for part in axes[0].tensor_split(TILES) if part.numel()]
    return torch.cat(
        [_tiled(points, log_weights, axes[1:], [*chosen, part], kernel) for part in parts], 1 + len(chosen)
    )


def _tile(
    points: Tensor, log_weights: Tensor, axes: Sequence[Tensor], kernel: KernelShape, dtype: torch.dtype
) -> Tensor:
    ndim = len(axes)
    middle = torch.stack([0.5 * (axis[0] + axis[-1]) for axis in axes])
    half = torch.stack([0.5 * (axis[-1] - axis[0]) for axis in axes])
    points = points - middle[:, None, None]
    reach = (half + CUT * kernel.marginal.detach()).T
    if bool((points.detach().abs().amax(2) > reach).any()):
        # Too far to matter, and far enough to overflow a factor.
        reach = reach[:, :, None]
        far = points.detach().abs() > reach
        log_weights = log_weights.masked_fill(far.any(0), -torch.inf)
        points = torch.where(far, points.sign() * reach, points)
    scaled = [points[d] / kernel.conditional[:, d, None] for d in range(ndim)]
    scaled_axes = [
        ((axis - middle[d]) / kernel.conditional[:, d, None]).to(dtype) for d, axis in enumerate(axes)
    ]
    size = len(kernel.marginal) * values_per_galaxy([len(axis) for axis in axes])
    at_once = max(1, _VALUES_AT_ONCE // size)
    total: Tensor | None = None
    for i in range(0, points.shape[2], at_once):
        some = slice(i, i + at_once)
        part = _factorised([x[:, some] for x in scaled], log_weights[:, some], scaled_axes, kernel.partial)
        total = part if total is None else total + part
    assert total is not None
    return total * _grid_factor(scaled_axes, kernel.partial, -kernel.log_norm)


def _factorised(
    points: Sequence[Tensor], log_weights: Tensor, axes: Sequence[Tensor], partial: Tensor
) -> Tensor:
    """The part of the sum that knows galaxies."""
    dtype, ndim = axes[0].dtype, len(axes)
    centres, constants = [], []
    constant = log_weights
    for d, point in enumerate(points):
        others = [partial[:, d, e, None] * points[e] for e in range(ndim) if e != d]
        shift = sum(others[1:], start=others[0]) if others else torch.zeros_like(point)
        constant = torch.addcmul(constant, point, shift, value=0.5)
        offset = 0.5 * shift**2 if d < ndim - 1 else torch.addcmul(constant, shift, shift, value=0.5)
        centres.append((point + shift).to(dtype))
        constants.append(offset.to(dtype))
    n, n_galaxies = log_weights.shape
    step = n
    if log_weights.device.type == "cpu":
        step = max(1, _VALUES_IN_CACHE // (n_galaxies * values_per_galaxy([x.shape[1] for x in axes])))
    parts = [
        _matrix_product(*([x[i : i + step] for x in tensors] for tensors in (axes, centres, constants)))
        for i in range(0, n, step)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _matrix_product(axes: Sequence[Tensor], centres: Sequence[Tensor], constants: Sequence[Tensor]) -> Tensor:
    """sum_i prod_d exp(constant_id - (x_d - centre_id)^2 / 2) as a batched matrix product over galaxies."""
    smallest = _SMALLEST_EXPONENT[axes[0].dtype]
    product: Tensor | None = None
    for axis, centre, constant in zip(axes, centres, constants, strict=True):
        distance = axis[:, :, None] - centre[:, None, :]
        # Without gradients in place: a buffer less keeps the work in cache.
        buffer = None if torch.is_grad_enabled() else distance
        exponent = torch.addcmul(constant[:, None, :], distance, distance, value=-0.5, out=buffer)
        factor = exponent.clamp_(min=smallest).exp_()
        if axis is axes[-1]:
            break
        product = factor if product is None else (product[:, :, None, :] * factor[:, None]).flatten(1, 2)
    if product is None:
        return factor.sum(-1)
    return torch.bmm(product, factor.transpose(1, 2)).reshape(-1, *(axis.shape[1] for axis in axes))


def _grid_factor(axes: Sequence[Tensor], partial: Tensor, log_factor: Tensor) -> Tensor:
    """exp(log_factor - sum_{d<e} C_de x_d x_e) on the grid."""
    ndim, dtype = len(axes), axes[0].dtype
    exponent = _along(log_factor.to(dtype)[:, None], 0, ndim)
    for d in range(ndim):
        for e in range(d + 1, ndim):
            coupled = axes[d] * partial[:, d, e, None].to(dtype)
            exponent = torch.addcmul(exponent, _along(coupled, d, ndim), _along(axes[e], e, ndim), value=-1.0)
    return exponent.exp()


def _along(values: Tensor, d: int, ndim: int) -> Tensor:
    """(B, n) as a batch of grids that vary along axis d only."""
    return values.reshape(len(values), *(values.shape[1] if e == d else 1 for e in range(ndim)))


def _direct(points: Tensor, log_weights: Tensor, axes: Sequence[Tensor], kernel: KernelShape) -> Tensor:
    """The kernels one by one: exact whatever the covariance, and the slowest by far."""
    shape = tuple(axis.numel() for axis in axes)
    at_once = max(1, _VALUES_AT_ONCE // 4 // math.prod(shape))
    images = []
    for b in range(points.shape[1]):
        real = torch.isfinite(log_weights[b].detach())
        mine, weights = points[:, b, real], log_weights[b][real]
        log_weight = weights - kernel.log_norm[b]
        total = points.new_zeros(shape)
        for i in range(0, len(weights), at_once):
            some = slice(i, i + at_once)
            total = total + _direct_some(mine[:, some], log_weight[some], axes, kernel.whitener[b])
        images.append(total)
    return torch.stack(images)


def _direct_some(points: Tensor, log_weights: Tensor, axes: Sequence[Tensor], whitener: Tensor) -> Tensor:
    ndim = len(axes)
    distance = [
        (axis[None, :] - points[d, :, None]).reshape(
            len(log_weights), *(-1 if e == d else 1 for e in range(ndim))
        )
        for d, axis in enumerate(axes)
    ]
    exponent = log_weights.reshape(-1, *(1,) * ndim)
    for j in range(ndim):
        white = sum((whitener[j, k] * distance[k] for k in range(j)), start=whitener[j, j] * distance[j])
        exponent = exponent - 0.5 * white**2
    return exponent.clamp_min(_SMALLEST_EXPONENT[torch.float64]).exp().sum(0)

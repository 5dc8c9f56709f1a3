"""Sums of Gaussian kernels on a product grid, for a padded batch of clusters that share a plan.

In coordinates relative to the middle of the grid or of a tile of it, divided by the conditional widths of the
kernel, the exponent is -sum_d t_d^2 / 2 - sum_{d<e} C_de t_d t_e with t = x - X and C the precision matrix
scaled to a unit diagonal. With g_d = sum_{e != d} C_de X_e it splits into terms that each know one axis and
one galaxy, one that knows only the galaxy and one that knows only the grid:

    sum_d [ -(x_d - X_d - g_d)^2 / 2 + g_d^2 / 2 ]  +  sum_d X_d g_d / 2  -  sum_{d<e} C_de x_d x_e

Exponentials of squares along an axis are products within blocks of its nodes (``kde_axes``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bayesflowmass.encoders.kde.axes import AxisNodes, ScaledAxis
from bayesflowmass.encoders.kde.covariance import KernelShape
from bayesflowmass.encoders.kde.plan import CUT, TILES, Level, largest_split
from bayesflowmass.encoders.ragged import chunks_by_richness

# Factors of the factorised sum, and kernels of the direct one, held at once for one cluster, however rich.
_VALUES_AT_ONCE = 1 << 23
# Factors held at once on a CPU: few enough for its cache, enough that starting an operation costs little.
_CACHED_AT_ONCE = 1 << 20

# The exponential of an argument that underflows is up to 25 times slower than that of any other on a CPU.
# What a factor gains by staying above is below 1e-11 of a kernel in float32 and 1e-20 in float64.
_SMALLEST_EXPONENT = {torch.float32: -86.0, torch.float64: -700.0}


def values_per_galaxy(shape: Sequence[int]) -> int:
    """Factors that one galaxy needs on a grid of that shape, as the matrix product takes them."""
    return math.prod(shape[:-1]) + shape[-1]


def kernel_sum(
    points: Tensor,
    log_weights: Tensor,
    counts: Sequence[int],
    axes: Sequence[AxisNodes],
    kernel: KernelShape,
    level: Level,
) -> Tensor:
    """sum_i w_i N(x; X_i, H) on a product grid.

    Args:
        points: (B, D, N) float64 galaxies, padded.
        log_weights: (B, N) float64; -inf for padding.
        counts: B numbers of galaxies in increasing order; what follows them is padding.
        axes: D axes of n_d nodes.
        kernel: B kernels.
        level: the arithmetic.

    Returns:
        (B, n_1, ..., n_D), float32 for ``FACTORISED_32``, else float64.
    """
    if level == Level.DIRECT_64:
        return _direct(points, log_weights, [axis.nodes for axis in axes], kernel)
    if level == Level.TILED_64:
        return _tiled(points, log_weights, counts, [axis.nodes for axis in axes], [], kernel)
    dtype = torch.float32 if level == Level.FACTORISED_32 else torch.float64
    return _tile(points, log_weights, counts, axes, kernel, dtype)


def _tiled(
    points: Tensor,
    log_weights: Tensor,
    counts: Sequence[int],
    axes: list[Tensor],
    chosen: list[Tensor],
    kernel: KernelShape,
) -> Tensor:
    if not axes:
        middle = torch.stack([0.5 * (axis[0] + axis[-1]) for axis in chosen])
        about = [AxisNodes(axis - middle[d], 1) for d, axis in enumerate(chosen)]
        return _tile(points - middle[:, None], log_weights, counts, about, kernel, torch.float64)
    parts = [part for part in axes[0].tensor_split(TILES) if part.numel()]
    tiles = [_tiled(points, log_weights, counts, axes[1:], [*chosen, part], kernel) for part in parts]
    return torch.cat(tiles, 1 + len(chosen))


def _tile(
    points: Tensor,
    log_weights: Tensor,
    counts: Sequence[int],
    nodes: Sequence[AxisNodes],
    kernel: KernelShape,
    dtype: torch.dtype,
) -> Tensor:
    half = torch.tensor([axis.half for axis in nodes], dtype=torch.float64, device=points.device)
    reach = half + CUT * kernel.marginal.detach()
    if bool((points.detach().abs().amax(2) > reach).any()):
        # Too far to matter, and far enough to overflow a factor.
        reach = reach[:, :, None]
        far = points.detach().abs() > reach
        log_weights = log_weights.masked_fill(far.any(1), -torch.inf)
        points = torch.where(far, points.sign() * reach, points)
    scaled = points / kernel.conditional[:, :, None]
    axes = [axis.scaled(kernel.conditional[:, d], dtype) for d, axis in enumerate(nodes)]
    size = len(kernel.marginal) * values_per_galaxy([len(axis) for axis in nodes])
    at_once = max(1, _VALUES_AT_ONCE // size)
    total: Tensor | None = None
    for i in range(0, points.shape[2], at_once):
        some = slice(i, i + at_once)
        left = [min(max(count - i, 1), at_once) for count in counts]
        part = _factorised(scaled[:, :, some], log_weights[:, some], left, axes, kernel.partial)
        total = part if total is None else total + part
    assert total is not None
    return total * _grid_factor(axes, kernel.partial, -kernel.log_norm)


def _factorised(
    points: Tensor, log_weights: Tensor, counts: Sequence[int], axes: Sequence[ScaledAxis], partial: Tensor
) -> Tensor:
    """The part of the sum that knows galaxies."""
    dtype = axes[0].nodes.dtype
    shifts = partial @ points
    offsets = 0.5 * shifts**2
    offsets[:, -1] += log_weights + 0.5 * (points * shifts).sum(1)
    centres, constants = (points + shifts).to(dtype), offsets.to(dtype)
    if log_weights.device.type != "cpu":
        return _matrix_product(axes, centres, constants)
    parts = []
    at_once = _CACHED_AT_ONCE // values_per_galaxy([axis.n_nodes for axis in axes])
    for first, last in chunks_by_richness(counts, at_once, len(counts), free_padding=at_once):
        some, width = slice(first, last), counts[last - 1]
        parts.append(
            _matrix_product(
                [axis[some] for axis in axes], centres[some, :, :width], constants[some, :, :width]
            )
        )
    return torch.cat(parts)


def _matrix_product(axes: Sequence[ScaledAxis], centres: Tensor, constants: Tensor) -> Tensor:
    """sum_i prod_d exp(constant_id - (x_d - centre_id)^2 / 2 + (x_d^2 - y_d^2) / 2): a matrix product."""
    product: Tensor | None = None
    for d, axis in enumerate(axes):
        factor = _axis_factor(axis, centres[:, d, None], constants[:, d, None])
        if d == len(axes) - 1:
            break
        product = factor if product is None else (product[:, :, None, :] * factor[:, None]).flatten(1, 2)
    if product is None:
        return factor.sum(-1)
    return torch.bmm(product, factor.mT).reshape(-1, *(axis.n_nodes for axis in axes))


def _axis_factor(axis: ScaledAxis, centre: Tensor, constant: Tensor) -> Tensor:
    """(B, n, N) factors of N galaxies, from centres and constants (B, 1, N)."""
    smallest = _SMALLEST_EXPONENT[centre.dtype]
    if axis.fine is not None:
        # Times the smallest factor of a place it still does not underflow.
        smallest += largest_split(centre.dtype)
    distance = axis.coarse[:, :, None] - centre
    # Without gradients in place: a buffer less keeps the work in cache.
    buffer = None if torch.is_grad_enabled() else distance
    exponent = torch.addcmul(constant, distance, distance, value=-0.5, out=buffer)
    of_blocks = exponent.clamp_(min=smallest).exp_()
    if axis.fine is None:
        return of_blocks
    of_places = (axis.fine[:, :, None] * centre).exp_()
    return (of_blocks[:, :, None] * of_places[:, None]).flatten(1, 2)[:, : axis.n_nodes]


def _grid_factor(axes: Sequence[ScaledAxis], partial: Tensor, log_factor: Tensor) -> Tensor:
    """exp(log_factor - sum_{d<e} C_de x_d x_e + sum_d from_blocks_d) on the grid."""
    dtype = axes[0].nodes.dtype
    exponent = log_factor.to(dtype)
    for d, axis in enumerate(axes):
        alone = torch.zeros_like(axis.nodes) if axis.from_blocks is None else axis.from_blocks
        grid = (len(alone), *(1,) * d, -1)
        exponent = exponent[..., None] + alone.reshape(grid)
        if d > 0:
            slopes = [
                _along(axes[e].nodes * partial[:, e, d, None].to(dtype), e, d)[..., None] for e in range(d)
            ]
            slope = sum(slopes[1:], start=slopes[0])
            exponent = torch.addcmul(exponent, slope, axis.nodes.reshape(grid), value=-1.0)
    return exponent.exp_()


def _along(values: Tensor, d: int, ndim: int) -> Tensor:
    """(B, n) as a batch of grids that vary along axis d only."""
    return values.reshape(len(values), *(values.shape[1] if e == d else 1 for e in range(ndim)))


def _direct(points: Tensor, log_weights: Tensor, axes: Sequence[Tensor], kernel: KernelShape) -> Tensor:
    """The kernels one by one: exact whatever the covariance, and the slowest by far."""
    shape = tuple(axis.numel() for axis in axes)
    at_once = max(1, _VALUES_AT_ONCE // 4 // math.prod(shape))
    images = []
    for b in range(len(points)):
        real = torch.isfinite(log_weights[b].detach())
        mine, weights = points[b][:, real], log_weights[b][real]
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

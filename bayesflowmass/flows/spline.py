"""Conditional monotone splines of rational quadratic pieces."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pyro.distributions.conditional import ConditionalTransformModule
from torch import Tensor, nn
from torch.distributions import Transform, constraints

from bayesflowmass.networks.dense import DenseNetwork

_MIN_BIN = 1e-3
_MIN_SLOPE = 1e-3
# softplus(raw + _IDENTITY) + _MIN_SLOPE is 1 at raw = 0.
_IDENTITY = math.log(math.expm1(1 - _MIN_SLOPE))


def _knots(raw: Tensor, bound: float) -> Tensor:
    """Increasing knots (*B, K + 1) from -bound to bound of raw bin sizes (*B, K)."""
    bins = raw.shape[-1]
    sizes = _MIN_BIN + (1 - _MIN_BIN * bins) * raw.softmax(-1)
    interior = bound * (2 * sizes[..., :-1].cumsum(-1) - 1)
    edge = torch.full_like(raw[..., :1], bound)
    return torch.cat([-edge, interior, edge], -1)


def _bin(knots: Tensor, value: Tensor) -> Tensor:
    """Index (*S, *B) of the bin of ``value``; knot by knot, so that memory stays that of the value."""
    shape = torch.broadcast_shapes(value.shape, knots.shape[:-1])
    # A byte is enough, and this is the slowest loop on a grid.
    narrow = torch.uint8 if knots.shape[-1] < 256 else torch.int32
    index = torch.zeros(shape, dtype=narrow, device=value.device)
    above = torch.empty(shape, dtype=torch.bool, device=value.device)
    # Forward differentiation knows no `out`, and a comparison has no slope.
    value = value.detach()
    for knot in knots[..., 1:-1].detach().movedim(-1, 0).contiguous():
        index += torch.ge(value, knot, out=above)
    return index


class ConditionedMonotoneSpline(Transform):
    r"""
    The elementwise bijection :math:`x = g(y)` of the line, with :math:`g` an increasing, once continuously
    differentiable spline of K rational quadratic pieces on [-bound, bound] and the identity outside. In the
    bin :math:`[y_k, y_{k+1}]`, with :math:`\xi = (y - y_k)/(y_{k+1} - y_k)`, mean slope :math:`s_k` and
    knot slopes :math:`\delta_k`,

        :math:`g(y) = x_k + (x_{k+1} - x_k)\,
        \frac{s_k \xi^2 + \delta_k \xi(1-\xi)}{s_k + (\delta_{k+1} + \delta_k - 2 s_k)\,\xi(1-\xi)}.`

    The density direction :math:`y \to x` is the direct evaluation; sampling solves the quadratic.

    It differs from :class:`pyro.distributions.transforms.spline.ConditionedSpline` in what a cumulative
    distribution needs: a declared ``sign``; slope exactly one at the bound (there 0.999, a step of the
    density); no tolerance in the choice of the bin, so that it is monotone to the last digit; no cache that
    can go stale; inputs masked before the spline, so that gradients outside the bound are finite; no test of
    values on the host, so that a CUDA graph can capture it.

    Args:
        data_knots: :math:`y_k`, (*B, K + 1), from -bound to bound.
        base_knots: :math:`x_k`, (*B, K + 1), from -bound to bound.
        slopes: :math:`\delta_k > 0`, (*B, K + 1), one at both ends.

    References:

    Conor Durkan, Artur Bekasov, Iain Murray, George Papamakarios. Neural Spline Flows. NeurIPS 2019.
    arXiv:1906.04032
    """

    domain = constraints.real
    codomain = constraints.real
    bijective = True
    sign = +1

    def __init__(
        self, data_knots: Tensor, base_knots: Tensor, slopes: Tensor, *, bound: float, cache_size: int = 0
    ) -> None:
        super().__init__(cache_size=cache_size)
        self.data_knots = data_knots
        self.base_knots = base_knots
        self.slopes = slopes
        self.bound = bound

    def with_cache(self, cache_size: int = 1) -> ConditionedMonotoneSpline:
        if cache_size == self._cache_size:
            return self
        return ConditionedMonotoneSpline(
            self.data_knots, self.base_knots, self.slopes, bound=self.bound, cache_size=cache_size
        )

    def _of_bins(self, index: Tensor, *tables: Tensor) -> list[Tensor]:
        """Entries (*S, *B) of bins ``index`` (*S, *B) in tables (*B, K)."""
        bins = tables[0].shape[-1]
        batch = index.shape[index.dim() - self.slopes.dim() + 1 :]
        rows = bins * torch.arange(batch.numel(), dtype=torch.int32, device=index.device).reshape(batch)
        place = (index.to(torch.int32) + rows).reshape(-1)
        # Twice as fast as gathering along an axis.
        return [
            table.expand(*batch, bins).reshape(-1).index_select(0, place).reshape(index.shape)
            for table in tables
        ]

    def inverse_and_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """``x`` and log|dx/dy|, each (*S, *B), of ``y`` (*S, *B)."""
        # Outside, the spline is evaluated at its bound, where its slope is one: no NaN gradients.
        masked = y.clamp(-self.bound, self.bound)
        per_width, heights = 1 / self.data_knots.diff(dim=-1), self.base_knots.diff(dim=-1)
        means = heights * per_width
        left, per_width, bottom, height, mean, slope0, slope1 = self._of_bins(
            _bin(self.data_knots, masked),
            self.data_knots[..., :-1],
            per_width,
            self.base_knots[..., :-1],
            heights,
            means,
            # In units of the mean slope.
            self.slopes[..., :-1] / means,
            self.slopes[..., 1:] / means,
        )
        xi = (masked - left) * per_width
        rest = 1 - xi
        mixed, square = xi * rest, xi * xi
        denominator = 1 + (slope0 + slope1 - 2) * mixed
        x = bottom + height * (square + slope0 * mixed) / denominator
        numerator = slope1 * square + 2 * mixed + slope0 * (rest * rest)
        return torch.where(masked == y, x, y), (mean * numerator / (denominator * denominator)).log()

    def _inverse(self, y: Tensor) -> Tensor:
        return self.inverse_and_log_det(y)[0]

    def _call(self, x: Tensor) -> Tensor:
        inside = (x > -self.bound) & (x < self.bound)
        masked = torch.where(inside, x, torch.zeros_like(x))
        left, width, bottom, height, slope0, slope1 = self._of_bins(
            _bin(self.base_knots, masked),
            self.data_knots[..., :-1],
            self.data_knots.diff(dim=-1),
            self.base_knots[..., :-1],
            self.base_knots.diff(dim=-1),
            self.slopes[..., :-1],
            self.slopes[..., 1:],
        )
        mean = height / width
        rise = masked - bottom
        curvature = slope0 + slope1 - 2 * mean
        a = height * (mean - slope0) + rise * curvature
        b = height * slope0 - rise * curvature
        c = -mean * rise
        # b > 0 on the branch wanted: this form of the root has no cancellation.
        xi = 2 * c / (-b - (b * b - 4 * a * c).clamp_min(0).sqrt())
        return torch.where(inside, left + width * xi, x)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return -self.inverse_and_log_det(y)[1]

    def forward_shape(self, shape: Sequence[int]) -> torch.Size:
        return torch.Size(torch.broadcast_shapes(torch.Size(shape), self.slopes.shape[:-1]))

    def inverse_shape(self, shape: Sequence[int]) -> torch.Size:
        return self.forward_shape(shape)


class ConditionalMonotoneSpline(ConditionalTransformModule):
    r"""
    The spline bijection of :class:`ConditionedMonotoneSpline` with knots and slopes that a network makes of
    the context. Zero network outputs give the identity.

    The target should be standardised: outside [-bound, bound] nothing bends, so the tails are those of the
    base.

    Args:
        nn: A network from the context (*B, C) to (*B, 3 K - 1): raw bin sizes on the data side, on the
            base side, raw slopes of the interior knots.
        count_bins: K.
        bound: Half the side of the box in which the spline bends.
    """

    domain = constraints.real
    codomain = constraints.real
    bijective = True

    def __init__(self, nn: nn.Module, *, count_bins: int, bound: float) -> None:
        super().__init__()
        if not 2 <= count_bins < 1 / _MIN_BIN:
            raise ValueError(f"count_bins is {count_bins}; a spline takes 2 to {1 / _MIN_BIN - 1:.0f}")
        if not bound > 0:
            raise ValueError(f"bound is {bound}; the half side of the spline's box must be positive")
        self.nn = nn
        self.count_bins = count_bins
        self.bound = bound

    def condition(self, context: Tensor) -> ConditionedMonotoneSpline:
        return self.conditioned(self.nn(context))

    def conditioned(self, raw: Tensor) -> ConditionedMonotoneSpline:
        """The transform of given network outputs ``raw`` (*B, 3 K - 1)."""
        bins = self.count_bins
        widths, heights, slopes = raw.split([bins, bins, bins - 1], -1)
        interior = _MIN_SLOPE + F.softplus(slopes + _IDENTITY)
        data_knots, base_knots = _knots(widths, self.bound), _knots(heights, self.bound)
        slopes = F.pad(interior, (1, 1), value=1.0)
        return ConditionedMonotoneSpline(data_knots, base_knots, slopes, bound=self.bound)


def conditional_monotone_spline(
    context_dim: int, hidden_dims: Sequence[int] | None = None, *, count_bins: int = 8, bound: float = 4.0
) -> ConditionalMonotoneSpline:
    """
    A helper that creates a :class:`ConditionalMonotoneSpline` together with its dense network.

    Args:
        context_dim: Dimension of the context.
        hidden_dims: Hidden dimensions of the network; defaults to ``[10 * count_bins]``.
        count_bins: Number of rational quadratic pieces.
        bound: Half the side of the box in which the spline bends.
    """
    network = DenseNetwork(context_dim, hidden_dims or [10 * count_bins], 3 * count_bins - 1)
    return ConditionalMonotoneSpline(network, count_bins=count_bins, bound=bound)

"""Densities of many clusters on adaptive nodes, with a monotone cdf that is exact at the nodes.

Between two nodes the cdf is the cubic through its two values with the two densities as slopes (Fritsch &
Carlson's condition keeps it monotone). Nodes are spread over the range, over the window that the PDF
fills, and by probability, so that a narrow peak is resolved wherever it lies. The error is of fourth
order in the spacing: for a Gaussian the cdf is good to 1e-8 and quantiles satisfy |cdf(quantile(p)) -
p| < 1e-12.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

NODES = 193
"""Of a density that is asked for its cdf to 1e-8."""

_FIRST_NODES = 33
# Rows handled at once: their arrays then stay in the cache of a core.
_ROWS_AT_ONCE = 1024
# Half of the panel that holds a jump of the weight, dex.
_BREAK = 1e-9
# Of a grid of the probability below the shortest interval, before its peak is searched.
_LEVELS = 33


class Curve(Protocol):
    """What can be tabulated: densities of n clusters."""

    def log_pdf(self, x: Tensor) -> Tensor:
        """ln of the density per dex, (k, n) -> (k, n)."""
        ...

    def log_pdf_and_cdf(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Both at the same masses, (k, n) each."""
        ...

    def window(self) -> tuple[Tensor, Tensor]:
        """Limits (n,) that hold all but a negligible probability."""
        ...

    def sketch(self) -> tuple[Tensor, Tensor]:
        """Some log10 masses from one end of the window to the other, and about what the cdf is there, (k, n) each."""
        ...

    def bends(self) -> Tensor | None:
        """log10 masses (k, n) where the slope of the density jumps, as far as they are known."""
        ...


@dataclass(frozen=True)
class Tabulated:
    """Nodes, densities and cdf of n clusters, float64.

    Attributes:
        x: nodes, increasing, log10 mass (n, k).
        pdf: density per dex at the nodes (n, k).
        cdf: cumulative probability at the nodes (n, k).
    """

    x: Tensor
    pdf: Tensor
    cdf: Tensor

    def cdf_at(self, x: Tensor) -> Tensor:
        """P(log10 mass < x) for x (n, q): 0 or 1 beyond the nodes, up to the tails left out."""
        index = self._panel(self.x, x)
        t, width, low, rise, left, right = self._cubic(index, x)
        inside = low + _hermite(t.clamp(0.0, 1.0), rise, left * width, right * width)
        first, last = self.cdf[:, :1], self.cdf[:, -1:]
        return torch.where(t < 0.0, torch.zeros_like(first), torch.where(t > 1.0, last.round(), inside))

    def quantile(self, p: Tensor) -> Tensor:
        """x (n, q) at which `cdf_at` is p (n, q); the end nodes beyond the tabulated probability."""
        return torch.cat([part._quantile(p[rows]) for rows, part in self._parts()])

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance (n,) of log10 mass (Simpson's rule, exact for the cubic cdf up to the mean)."""
        parts = [part._moments() for _, part in self._parts()]
        return torch.cat([mean for mean, _ in parts]), torch.cat([variance for _, variance in parts])

    def mode(self, log_pdf: Callable[[Tensor], Tensor]) -> Tensor:
        """Where the exact density ``log_pdf`` (k, n) -> (k, n) is highest, (n,), searched about the highest node."""
        return _highest(log_pdf, self.x.T, self.pdf.T)[0]

    def shortest(self, level: float) -> Tensor:
        """Limits (n, 2) of the shortest interval that holds the probability ``level``."""
        room, edge = 1.0 - level, 1e-9 * (1.0 - level)
        below = torch.linspace(edge, room - edge, _LEVELS, dtype=self.x.dtype)[:, None].expand(
            -1, len(self.x)
        )

        def shortness(start: Tensor) -> Tensor:
            left = start.T.contiguous()
            return (self.quantile(left) - self.quantile(left + level)).T

        start = _highest(shortness, below, shortness(below)).T
        return torch.cat([self.quantile(start), self.quantile(start + level)], dim=1)

    @staticmethod
    def concatenate(tables: Sequence[Tabulated]) -> Tabulated:
        """Tables of consecutive clusters as one."""
        return Tabulated(*(torch.cat([getattr(t, name) for t in tables]) for name in ("x", "pdf", "cdf")))

    def _parts(self) -> Iterator[tuple[slice, Tabulated]]:
        for start in range(0, len(self.x), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            yield rows, Tabulated(self.x[rows], self.pdf[rows], self.cdf[rows])

    def _quantile(self, p: Tensor) -> Tensor:
        index = self._panel(self.cdf, p)
        node = self.x.gather(1, index)
        _, width, low, rise, left, right = self._cubic(index, node)
        target = (p - low).clamp_min(0.0).minimum(rise)
        a, b = left * width, right * width
        lower, upper = torch.zeros_like(p), torch.ones_like(p)
        t = torch.where(rise > 0.0, target / rise.clamp_min(torch.finfo(p.dtype).tiny), 0.5)
        for _ in range(60):
            value = _hermite(t, rise, a, b) - target
            lower, upper = torch.where(value <= 0.0, t, lower), torch.where(value >= 0.0, t, upper)
            step = t - value / _hermite_slope(t, rise, a, b)
            new = torch.where(step == step.clamp(lower, upper), step, 0.5 * (lower + upper))
            # NaN is done too.
            if not bool(((new - t).abs() > 1e-14).any()):
                break
            t = new
        return node + t * width

    def _moments(self) -> tuple[Tensor, Tensor]:
        width = self.x.diff(dim=1)
        half = 0.5 * width
        middle = 4.0 * middle_density(self.cdf.T, width.T, self.pdf.T).T
        left, right = self.pdf[:, :-1], self.pdf[:, 1:]
        total = (width * (left + middle + right)).sum(1)
        # About a centre near the mean: squares of masses of 14 would lose three digits.
        centre = self.x.gather(1, self.pdf.argmax(1, keepdim=True))
        x = self.x - centre
        start, end, mid = x[:, :-1], x[:, 1:], x[:, :-1] + half
        first = (width * (left * start + middle * mid + right * end)).sum(1) / total
        second = (width * (left * start**2 + middle * mid**2 + right * end**2)).sum(1) / total
        return centre[:, 0] + first, second - first**2

    def _panel(self, nodes: Tensor, values: Tensor) -> Tensor:
        last = nodes.shape[1] - 2
        return (torch.searchsorted(nodes, values.contiguous(), right=True) - 1).clamp(0, last)

    def _cubic(self, index: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        start, end = self.x.gather(1, index), self.x.gather(1, index + 1)
        low = self.cdf.gather(1, index)
        width, rise = end - start, self.cdf.gather(1, index + 1) - low
        limit = 3.0 * rise / width
        left = self.pdf.gather(1, index).minimum(limit)
        right = self.pdf.gather(1, index + 1).minimum(limit)
        return (x - start) / width, width, low, rise, left, right


def tabulate(
    density: Curve,
    weight: Callable[[Tensor], Tensor] | None = None,
    limits: tuple[float, float] | None = None,
    breaks: Sequence[float] = (),
    n_nodes: int = NODES,
) -> Tabulated:
    """Tabulate a density, or its product with a weight, normalised between limits.

    Without a weight and limits the cdf of the density is kept as it is. With them
    cdf(x) = int_low^x p w dm / int_low^high p w dm, where the integral over a panel takes the cubic cdf of p
    and Simpson's rule for the weight.

    Args:
        density: p.
        weight: ln w at log10 mass (k, n), or None.
        limits: of log10 mass; required with a weight.
        breaks: log10 masses inside the limits at which the weight jumps; panels end there.
        n_nodes: beside those at the breaks.
    """
    nodes = place_nodes(density, weight, limits, breaks, n_nodes)
    return tabulate_at(density, nodes, *density.log_pdf_and_cdf(nodes), weight, limits)


def place_nodes(
    density: Curve,
    weight: Callable[[Tensor], Tensor] | None = None,
    limits: tuple[float, float] | None = None,
    breaks: Sequence[float] = (),
    n_nodes: int = NODES,
) -> Tensor:
    """The nodes (k, n) of `tabulate`; arguments as there."""
    if limits is None:
        window = None
        x, cdf = (part.T.contiguous() for part in density.sketch())
    else:
        start, end = limits
        low, high = density.window()
        window = low.clamp(start, end), high.clamp(start, end)
        spans = (torch.full_like(low, start), torch.full_like(high, end)), window
        nodes = torch.cat([even(*span) for span in spans]).sort(0).values
        # Nodes that coincide are set apart by less than anything that matters.
        nodes = nodes + 1e-12 * (end - start) * torch.arange(len(nodes), dtype=torch.float64)[:, None]
        first = tabulate_at(density, nodes, *density.log_pdf_and_cdf(nodes), weight, limits)
        x, cdf = first.x, first.cdf
    nodes = adaptive_nodes(x, cdf, n_nodes, window)
    bends = density.bends()
    if bends is not None:
        # An end of the window may be a bend; nodes that coincide are set apart by less than anything that matters.
        nodes = torch.cat([nodes, bends.clamp(nodes[0], nodes[-1])]).sort(0).values
        nodes = nodes + 1e-12 * torch.arange(len(nodes), dtype=nodes.dtype)[:, None]
    if breaks:
        sides = torch.tensor(breaks, dtype=nodes.dtype)[:, None] + _BREAK * torch.tensor([-1.0, 1.0])
        nodes = torch.cat([nodes, sides.reshape(-1, 1).expand(-1, nodes.shape[1])]).sort(0).values
    return nodes


def even(low: Tensor, high: Tensor) -> Tensor:
    """Evenly spaced nodes (k, n)."""
    return low + (high - low) * torch.linspace(0.0, 1.0, _FIRST_NODES, dtype=torch.float64)[:, None]


def adaptive_nodes(
    x: Tensor, cdf: Tensor, n_nodes: int, window: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """Nodes (k, n): quantiles of a mixture of the density (0.4), the window of p (0.45; None: the span), the whole
    span, from a cdf at some x, (n, j) each."""
    by_density = (cdf - cdf[:, :1]) / (cdf[:, -1:] - cdf[:, :1]).clamp_min(1e-300)
    by_window = by_span = (x - x[:, :1]) / (x[:, -1:] - x[:, :1])
    if window is not None:
        low, high = (end[:, None] for end in window)
        by_window = ((x - low) / (high - low).clamp_min(1e-9)).clamp(0.0, 1.0)
    level = (0.4 * by_density + 0.45 * by_window + 0.15 * by_span).contiguous()
    targets = level[:, :1] + (level[:, -1:] - level[:, :1]) * torch.linspace(0, 1, n_nodes, dtype=x.dtype)
    index = (torch.searchsorted(level, targets, right=True) - 1).clamp(0, level.shape[1] - 2)
    start, end = level.gather(1, index), level.gather(1, index + 1)
    left, right = x.gather(1, index), x.gather(1, index + 1)
    nodes = left + (right - left) * ((targets - start) / (end - start)).clamp(0.0, 1.0)
    nodes[:, 0], nodes[:, -1] = x[:, 0], x[:, -1]
    return nodes.T.contiguous()


def tabulate_at(
    density: Curve,
    x: Tensor,
    log_pdf: Tensor,
    cdf: Tensor,
    weight: Callable[[Tensor], Tensor] | None = None,
    limits: tuple[float, float] | None = None,
) -> Tabulated:
    """The table of `tabulate` on nodes x (k, n), from what the density says there."""
    if limits is None:
        return Tabulated(x.T.contiguous(), log_pdf.exp().T.contiguous(), cdf.T.contiguous())
    width, middle_x = x.diff(dim=0), 0.5 * (x[1:] + x[:-1])
    middle = middle_density(cdf, width, log_pdf.exp())
    log_middle = torch.where(middle > 0.0, middle, 0.0).log()
    # Where nearly all of the density lies outside the limits, differences of its cdf have no digits left.
    leaked = (cdf[-1] - cdf[0]) < 1e-5
    if bool(leaked.any()):
        log_middle = torch.where(leaked, density.log_pdf(middle_x), log_middle)
    if weight is not None:
        log_pdf, log_middle = log_pdf + weight(x), log_middle + weight(middle_x)
    peak = log_pdf.amax(0)
    pdf, middle = (log_pdf - peak).exp(), (log_middle - peak).exp()
    rise = width / 6.0 * (pdf[:-1] + 4.0 * middle + pdf[1:])
    total = torch.cat([torch.zeros_like(rise[:1]), rise.cumsum(0)])
    cdf = total / total[-1]
    return Tabulated(x.T.contiguous(), (pdf / total[-1]).T.contiguous(), cdf.T.contiguous())


def middle_density(cdf: Tensor, width: Tensor, pdf: Tensor) -> Tensor:
    """Density half-way through each panel of the cubic cdf, (k, ...) -> (k - 1, ...); Simpson's rule then returns the
    probability of the panel."""
    return (1.5 * cdf.diff(dim=0) / width - 0.25 * (pdf[:-1] + pdf[1:])).clamp_min(0.0)


def _highest(function: Callable[[Tensor], Tensor], x: Tensor, value: Tensor) -> Tensor:
    """Where an elementwise function (k, n) -> (k, n) of one peak is highest, (1, n).

    At the top of the parabola through the highest of some points and its neighbours, or of another through points forty
    times as near to it, or, at an end of the range and at a jump, at one of these points.

    Args:
        function: to be maximised.
        x, value: places in increasing order, and about what the function is there, (k, n) each.
    """
    peak = value.argmax(0, keepdim=True).clamp(1, len(x) - 2)
    left, middle, right = (x.gather(0, peak + side) for side in (-1, 0, 1))
    places, heights = [], []
    for _ in range(2):
        places.append(torch.cat([left, middle, right]))
        heights.append(function(places[-1]))
        before, after = (heights[-1].diff(dim=0) / places[-1].diff(dim=0)).split(1)
        top = 0.5 * (left + middle) + 0.5 * (right - left) * before / (before - after)
        middle = torch.where(top.isfinite(), top, middle).clamp(left, right)
        near = (right - left) / 40.0
        left, right = torch.maximum(left, middle - near), torch.minimum(right, middle + near)
    everywhere, found = torch.cat([*places, middle]), torch.cat([*heights, function(middle)])
    return everywhere.gather(0, found.argmax(0, keepdim=True))


def _hermite(t: Tensor, rise: Tensor, left: Tensor, right: Tensor) -> Tensor:
    return t * (left + t * (3.0 * rise - 2.0 * left - right + t * (left + right - 2.0 * rise)))


def _hermite_slope(t: Tensor, rise: Tensor, left: Tensor, right: Tensor) -> Tensor:
    return left + t * (2.0 * (3.0 * rise - 2.0 * left - right) + 3.0 * t * (left + right - 2.0 * rise))

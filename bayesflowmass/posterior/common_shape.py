"""Mixtures of draws of one shape, moved and stretched: p_d(m) = q((m - loc_d) / scale_d) / scale_d.

That is what draws of the weights make of a flow where they change its affine blocks alone. The shape is evaluated once
for each cluster, on an even grid fine enough for a cubic through cdf and density; each draw then is looked up in it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bayesflowmass.posterior.draws import Disagreement, Look
from bayesflowmass.posterior.tabulated import Curve, Tabulated, adaptive_nodes

_PANELS = 512
# Values looked up at once: they then stay in the cache of a core.
_AT_ONCE = 1 << 16


class CommonShape(NamedTuple):
    """Draws of n clusters that differ by an affine map.

    Attributes:
        shape: q of each cluster.
        loc, scale: of each draw (D, n).
    """

    shape: Curve
    loc: Tensor
    scale: Tensor


def look_at_shape(draws: CommonShape, n_nodes: int) -> Look:
    """Table of the equally weighted mixture of the draws, its moments, and what the draws disagree about.

    The cdf of the table is good to 1e-9 for smooth shapes, to some 1e-5 where a spline bends.

    Args:
        draws: of n clusters.
        n_nodes: of the table.
    """
    shape, loc, scale = draws
    u, p = shape.sketch()
    grid = u[0] + (u[-1] - u[0]) * torch.linspace(0.0, 1.0, _PANELS + 1, dtype=u.dtype)[:, None]
    log_pdf, cdf = shape.log_pdf_and_cdf(grid)
    fine = Tabulated(*(part.T.contiguous() for part in (grid, log_pdf.exp(), cdf)))
    x = loc.mean(0) + scale.mean(0) * u
    x[0], x[-1] = (loc + scale * u[0]).amin(0), (loc + scale * u[-1]).amax(0)
    nodes = adaptive_nodes(x.T.contiguous(), p.T.contiguous(), n_nodes).T.contiguous()
    mixture = _mixture(fine, loc.T, scale.T, nodes)
    mean, variance = fine.moments()
    means = loc + scale * mean
    aleatoric, epistemic = (scale**2).mean(0) * variance, means.var(0, correction=0)
    found = Disagreement(aleatoric.sqrt().numpy(), epistemic.sqrt().numpy())
    return Look(mixture, means.mean(0), aleatoric + epistemic, found)


def _mixture(shape: Tabulated, loc: Tensor, scale: Tensor, nodes: Tensor) -> Tabulated:
    """The mixture at nodes (n, k), from the shape on an even grid and draws (n, D); few clusters at once."""
    rows = max(1, _AT_ONCE // (nodes.shape[1] * loc.shape[1]))
    pdf, cdf = torch.empty_like(nodes), torch.empty_like(nodes)
    for start in range(0, len(nodes), rows):
        some = slice(start, start + rows)
        part = Tabulated(shape.x[some], shape.pdf[some], shape.cdf[some])
        pdf[some], cdf[some] = _looked_up(part, loc[some], scale[some], nodes[some])
    return Tabulated(nodes, pdf, cdf)


def _looked_up(shape: Tabulated, loc: Tensor, scale: Tensor, nodes: Tensor) -> tuple[Tensor, Tensor]:
    panels = shape.x.shape[1] - 1
    start = shape.x[:, :1]
    width = (shape.x[:, -1:] - start) / panels
    # Where a node lies in the grid of each draw (n, D, k), in panels.
    stretch = (1.0 / (width * scale))[..., None]
    at = (nodes[:, None] - (loc + scale * start)[..., None]).mul_(stretch).clamp_(0.0, panels)
    index = at.to(torch.int32).clamp_max_(panels - 1)
    at -= index
    index += (panels * torch.arange(len(nodes), dtype=torch.int32))[:, None, None]
    place = index.flatten()
    rise = shape.cdf.diff(dim=1)
    # Fritsch & Carlson's condition, as in `Tabulated`.
    left, right = ((width * one).minimum(3.0 * rise) for one in (shape.pdf[:, :-1], shape.pdf[:, 1:]))
    powers = shape.cdf[:, :-1], left, 3.0 * rise - 2.0 * left - right, left + right - 2.0 * rise
    a, b, c, d = (one.flatten().index_select(0, place).view_as(at) for one in powers)
    cdf = torch.addcmul(a, at, torch.addcmul(b, at, torch.addcmul(c, at, d)))
    slope = torch.addcmul(b, at, torch.addcmul(2.0 * c, at, d, value=3.0))
    return slope.mul_(stretch).mean(1), cdf.mean(1)

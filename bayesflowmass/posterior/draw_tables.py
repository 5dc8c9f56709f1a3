"""The posteriors of each draw of the weights, one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesflowmass.posterior.density import FlowDensity
from bayesflowmass.posterior.tabulated import Tabulated

__all__ = ["DrawPosteriors", "draw_posteriors"]


@dataclass(frozen=True)
class DrawPosteriors:
    """p(log10 mass | cluster, weights d) under one prior, for draws d = 0 ... D - 1 of the weights.

    Attributes:
        table: densities and cdfs; rows are the n clusters of draw 0, then of draw 1, ..., shape (D n, k).
        log_pdf_at: ln of the density per dex at the log10 masses asked for, shape (D, n); None where none
            were.
    """

    table: Tabulated
    log_pdf_at: Tensor | None


def draw_posteriors(
    flow: FlowDensity,
    nodes: Tensor,
    log_weight: Callable[[Tensor, slice], Tensor] | None = None,
    at: Tensor | None = None,
) -> DrawPosteriors:
    """Tabulate every draw on the nodes of the mixture; a point model has one draw.

    Under another prior each draw is reweighted and normalised by itself: the integral over a panel takes
    the cubic cdf of the draw and Simpson's rule for the weight, as for the mixture (`tabulate`).

    Args:
        flow: of D draws and n clusters.
        nodes: log10 masses that span the posteriors, shape (n, k).
        log_weight: ln pi_new / pi_train at log10 mass (k, m) of a slice of m clusters, or None.
        at: log10 masses at which the exact density is wanted, shape (n,), inside the prior's range.
    """
    x, pdf, cdf, density = [], [], [], []
    for block, rows in flow.parts():
        part, where = FlowDensity([block]), nodes[rows].T
        log_pdf, cumulative = _of_draws(part, where)
        height, rise, shift = log_pdf.exp(), cumulative.diff(dim=0), torch.zeros(where.shape[1])
        if log_weight is not None:
            width = where.diff(dim=0)[:, None]
            middle = (1.5 * rise / width - 0.25 * (height[:-1] + height[1:])).clamp_min(0.0)
            weight = log_weight(where, rows)
            shift = weight.amax(0)
            height = height * (weight - shift).exp()[:, None]
            middle = middle * (log_weight(0.5 * (where[1:] + where[:-1]), rows) - shift).exp()[:, None]
            rise = width / 6.0 * (height[:-1] + 4.0 * middle + height[1:])
        total = torch.cat([torch.zeros_like(rise[:1]), rise.cumsum(0)])
        evidence = total[-1].clamp_min(torch.finfo(total.dtype).tiny)
        x.append(where[:, None].expand_as(log_pdf))
        pdf.append(height / evidence)
        cdf.append(total / evidence)
        if at is not None:
            here = at[rows][None]
            value = _of_draws(part, here)[0][0]
            if log_weight is not None:
                value = value + log_weight(here, rows)[0] - shift - evidence.log()
            density.append(value)
    columns = (torch.cat(parts, dim=2).flatten(1).T.contiguous() for parts in (x, pdf, cdf))
    return DrawPosteriors(Tabulated(*columns), None if at is None else torch.cat(density, dim=1))


def _of_draws(flow: FlowDensity, x: Tensor) -> tuple[Tensor, Tensor]:
    """ln pdf and cdf at x (k, n), each (k, D, n)."""
    if flow.n_draws is None:
        return flow.log_pdf(x)[:, None], flow.cdf(x)[:, None]
    return flow.draw_log_pdf_and_cdf(x)

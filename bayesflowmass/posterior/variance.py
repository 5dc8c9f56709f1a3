"""What draws of the weights of a network disagree about: parts of the variance, and mutual information."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.posterior.density import FlowDensity
from bayesflowmass.posterior.tabulated import Tabulated

__all__ = ["Disagreement", "disagreement"]


class Disagreement(NamedTuple):
    """Parts of the standard deviation [dex] and mutual information [nats] of each cluster, all (n,)."""

    sigma_aleatoric: FloatArray
    sigma_epistemic: FloatArray
    mutual_information: FloatArray


def disagreement(
    flow: FlowDensity, table: Tabulated, log_weight: Callable[[Tensor, slice], Tensor] | None
) -> Disagreement | None:
    r"""How the draws of a mixture differ from each other; None for a point model.

    With shares s_d of the draws (1/D; under a new prior draw d has s_d proportional to Z_d = int p_d w dm),

        var(m) = E_d[var(m | d)] + var_d(E[m | d])                  (law of total variance),
        I(m; d) = sum_d s_d int p_d(m) ln(p_d(m) / p(m)) dm,  p = sum_d s_d p_d   (mutual information),

    the first term of the variance being aleatoric, the second epistemic; 0 <= I <= ln D.

    References:
        Depeweg et al. 2018, arXiv:1710.07283.

    Args:
        flow: densities of the draws.
        table: nodes, which span the posterior.
        log_weight: ln w of a change of prior at x (k, m) of a slice of the clusters, or None.
    """
    if flow.n_draws is None:
        return None
    parts = [
        _of_block(FlowDensity([block]), table.x[rows].T, log_weight, rows) for block, rows in flow.parts()
    ]
    aleatoric, epistemic, information = (torch.cat(column) for column in zip(*parts, strict=True))
    return Disagreement(aleatoric.sqrt().numpy(), epistemic.sqrt().numpy(), information.numpy())


def _of_block(
    flow: FlowDensity, x: Tensor, log_weight: Callable[[Tensor, slice], Tensor] | None, rows: slice
) -> tuple[Tensor, Tensor, Tensor]:
    """Variances and information (n,) by Simpson's rule on the cubic cdf of each draw over nodes x (k, n)."""
    width, middle_x = x.diff(dim=0), 0.5 * (x[1:] + x[:-1])
    log_pdf, cdf = flow.draw_log_pdf_and_cdf(x)
    pdf = log_pdf.exp()
    middle = (1.5 * cdf.diff(dim=0) / width[:, None] - 0.25 * (pdf[:-1] + pdf[1:])).clamp_min(0.0)
    log_middle = middle.log()
    if log_weight is not None:
        log_pdf = log_pdf + log_weight(x, rows)[:, None]
        log_middle = log_middle + log_weight(middle_x, rows)[:, None]
    peak = log_pdf.amax((0, 1))
    nodes = torch.stack([x[:-1], middle_x, x[1:]])[:, :, None]
    parts = torch.stack([log_pdf[:-1], log_middle + math.log(4.0), log_pdf[1:]])
    weight = (parts - peak).exp() * width[:, None]
    evidence = weight.sum((0, 1))
    safe = evidence.clamp_min(torch.finfo(evidence.dtype).tiny)
    mean = (nodes * weight).sum((0, 1)) / safe
    variance = ((nodes - mean) ** 2 * weight).sum((0, 1)) / safe
    share = evidence / evidence.sum(0)
    total_mean = (share * mean).sum(0)
    own = weight / safe
    pooled = (share * own).sum(2)
    information = (share * torch.xlogy(own, own).sum((0, 1))).sum(0) - torch.xlogy(pooled, pooled).sum((0, 1))
    return (
        (share * variance).sum(0),
        (share * (mean - total_mean) ** 2).sum(0),
        information.clamp(0.0, math.log(flow.n_draws or 1)),
    )

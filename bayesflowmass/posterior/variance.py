"""Aleatoric and epistemic parts of the variance of a mixture over draws of the weights of a network."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bayesflowmass.posterior.density import FlowDensity
from bayesflowmass.posterior.tabulated import Tabulated

__all__ = ["split_variance"]

FloatArray = npt.NDArray[np.float64]


def split_variance(
    flow: FlowDensity, table: Tabulated, log_weight: Callable[[Tensor, slice], Tensor] | None
) -> tuple[FloatArray, FloatArray] | None:
    """sigma_aleatoric and sigma_epistemic (n,), dex; None for a point model.

    The law of total variance over draws d, var(m) = E_d[var(m | d)] + var_d(E[m | d]). Under a new
    prior the draws no longer weigh the same: draw d has Z_d = int p_d w dm.

    Arguments:
        flow: densities of the draws.
        table: nodes, which span the posterior.
        log_weight: ln w of a change of prior at x (k, m) of a slice of the clusters, or None.
    """
    if flow.n_draws is None:
        return None
    aleatoric, epistemic = [], []
    for block, rows in flow.parts():
        part = _split_block(FlowDensity([block]), table.x[rows].T, log_weight, rows)
        aleatoric.append(part[0])
        epistemic.append(part[1])
    return torch.cat(aleatoric).sqrt().numpy(), torch.cat(epistemic).sqrt().numpy()


def _split_block(
    flow: FlowDensity, x: Tensor, log_weight: Callable[[Tensor, slice], Tensor] | None, rows: slice
) -> tuple[Tensor, Tensor]:
    """Both variances (n,) by Simpson's rule on the cubic cdf of each draw over the nodes x (k, n)."""
    width, middle_x = x.diff(dim=0), 0.5 * (x[1:] + x[:-1])
    log_pdf, cdf = flow.draw_log_pdf(x), flow.draw_cdf(x)
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
    return (share * variance).sum(0), (share * (mean - total_mean) ** 2).sum(0)

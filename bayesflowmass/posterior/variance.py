"""Aleatoric and epistemic parts of the variance of a mixture over draws of the weights of a network."""

from __future__ import annotations

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
    flow: FlowDensity, table: Tabulated, log_weight: Callable[[Tensor], Tensor] | None
) -> tuple[FloatArray, FloatArray] | None:
    """sigma_aleatoric and sigma_epistemic (n,), dex; None for a point model.

    The law of total variance over draws d, var(m) = E_d[var(m | d)] + var_d(E[m | d]). Under a new
    prior the draws no longer weigh the same: draw d has Z_d = int p_d w dm.

    Arguments:
        flow: densities of the draws.
        table: nodes, which span the posterior.
        log_weight: ln w of a change of prior, or None.
    """
    if flow.n_draws is None:
        return None
    x = table.x.T
    width = x.diff(dim=0)
    zero = torch.zeros_like(x[:1])
    trapezoid = 0.5 * (torch.cat([width, zero]) + torch.cat([zero, width]))
    log_density = flow.draw_log_pdf(x)
    if log_weight is not None:
        log_density = log_density + log_weight(x)[:, None]
    weight = (log_density - log_density.amax((0, 1))).exp() * trapezoid[:, None]
    evidence = weight.sum(0)
    safe = evidence.clamp_min(torch.finfo(evidence.dtype).tiny)
    nodes = x[:, None]
    mean = (nodes * weight).sum(0) / safe
    variance = ((nodes - mean) ** 2 * weight).sum(0) / safe
    share = evidence / evidence.sum(0)
    total_mean = (share * mean).sum(0)
    aleatoric = (share * variance).sum(0)
    epistemic = (share * (mean - total_mean) ** 2).sum(0)
    return aleatoric.sqrt().numpy(), epistemic.sqrt().numpy()

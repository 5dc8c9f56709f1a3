"""What draws of the weights of a network say: one by one, what they disagree about, how many of them are needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.posterior.tabulated import Tabulated, middle_density

__all__ = [
    "MONTE_CARLO_ERROR",
    "Disagreement",
    "DrawDensities",
    "DrawPosteriors",
    "disagreement",
    "draw_posteriors",
    "monte_carlo_error",
    "number_of_draws",
]

MONTE_CARLO_ERROR = 0.13
"""Relative standard error of sigma_epistemic that the default number of draws, 31, leaves."""


def monte_carlo_error(n_draws: int) -> float:
    r"""Relative standard error of sigma_epistemic from a number of draws.

    The standard deviation s of D independent, normally distributed means obeys sd(s) / s = 1 / sqrt(2 (D - 1))
    to leading order. The total sigma, with sigma^2 = sigma_aleatoric^2 + s^2, has this error times
    s^2 / sigma^2, the epistemic share.

    Raises:
        ValueError: fewer than two draws.
    """
    if n_draws < 2:
        raise ValueError(f"{n_draws} draws have no spread; expected at least 2.")
    return 1.0 / math.sqrt(2.0 * (n_draws - 1))


def number_of_draws(relative_error: float = MONTE_CARLO_ERROR) -> int:
    """The fewest draws whose `monte_carlo_error` is at most this.

    Raises:
        ValueError: the error is not between 0 and 1.
    """
    if not 0.0 < relative_error < 1.0:
        raise ValueError(f"The relative error is {relative_error}; expected a number between 0 and 1.")
    return 1 + math.ceil(1.0 / (2.0 * relative_error**2) - 1e-9)


LogWeight = Callable[[Tensor, slice], Tensor]
"""ln w of a change of prior at log10 masses (k, m) of a slice of m clusters."""


class DrawDensities(Protocol):
    """Densities of n clusters under each of D draws of the weights."""

    @property
    def n_draws(self) -> int | None: ...

    def parts(self) -> Iterator[tuple[DrawDensities, slice]]:
        """The same for few clusters at once, and which those are."""
        ...

    def draw_log_pdf_and_cdf(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """ln of the density per dex and the cdf of each draw, (k, n) -> (k, D, n); a point model has D = 1."""
        ...


class Disagreement(NamedTuple):
    """Parts of the standard deviation [dex] and mutual information [nats] of each cluster, all (n,)."""

    sigma_aleatoric: FloatArray
    sigma_epistemic: FloatArray
    mutual_information: FloatArray


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


def disagreement(
    draws: DrawDensities, table: Tabulated, log_weight: LogWeight | None = None
) -> Disagreement | None:
    r"""How the draws of a mixture differ from each other; None for a point model.

    With shares s_d of the draws (1/D; under a new prior draw d has s_d proportional to Z_d = int p_d w dm),

        var(m) = E_d[var(m | d)] + var_d(E[m | d])                  (law of total variance),
        I(m; d) = sum_d s_d int p_d(m) ln(p_d(m) / p(m)) dm,  p = sum_d s_d p_d   (mutual information),

    the first term of the variance being aleatoric, the second epistemic; 0 <= I <= ln D.

    References:
        Depeweg et al. 2018, arXiv:1710.07283.

    Args:
        draws: their densities.
        table: nodes, which span the posterior.
        log_weight: ln w of a change of prior at x (k, m) of a slice of the clusters, or None.
    """
    if draws.n_draws is None:
        return None
    parts = [_disagree(part, table.x[rows].T, log_weight, rows) for part, rows in draws.parts()]
    aleatoric, epistemic, information = (torch.cat(column) for column in zip(*parts, strict=True))
    information = information.clamp(0.0, math.log(draws.n_draws))
    return Disagreement(aleatoric.sqrt().numpy(), epistemic.sqrt().numpy(), information.numpy())


def draw_posteriors(
    draws: DrawDensities, nodes: Tensor, log_weight: LogWeight | None = None, at: Tensor | None = None
) -> DrawPosteriors:
    """Tabulate every draw on the nodes of the mixture; a point model has one draw.

    Under another prior each draw is reweighted and normalised by itself.

    Args:
        draws: D draws of n clusters.
        nodes: log10 masses that span the posteriors, shape (n, k).
        log_weight: ln pi_new / pi_train at log10 mass (k, m) of a slice of m clusters, or None.
        at: log10 masses at which the exact density is wanted, shape (n,), inside the prior's range.
    """
    x, pdf, cdf, density = [], [], [], []
    for part, rows in draws.parts():
        where = nodes[rows].T
        log_pdf, log_middle, total = _log_densities(part, where, log_weight, rows)
        if log_weight is None:
            peak, height, total = torch.zeros_like(log_pdf[0]), log_pdf.exp(), total - total[:1]
        else:
            peak = log_pdf.amax(0)
            height, middle = (log_pdf - peak).exp(), (log_middle - peak).exp()
            rise = where.diff(dim=0)[:, None] / 6.0 * (height[:-1] + 4.0 * middle + height[1:])
            total = torch.cat([torch.zeros_like(rise[:1]), rise.cumsum(0)])
        x.append(where[:, None].expand_as(log_pdf))
        pdf.append(height / total[-1])
        cdf.append(total / total[-1])
        if at is not None:
            here = at[rows][None]
            value = part.draw_log_pdf_and_cdf(here)[0][0]
            if log_weight is not None:
                value = value + log_weight(here, rows)[0] - peak - total[-1].log()
            density.append(value)
    columns = (torch.cat(parts, dim=2).flatten(1).T.contiguous() for parts in (x, pdf, cdf))
    return DrawPosteriors(Tabulated(*columns), None if at is None else torch.cat(density, dim=1))


def _log_densities(
    part: DrawDensities, x: Tensor, log_weight: LogWeight | None, rows: slice
) -> tuple[Tensor, Tensor, Tensor]:
    """ln of density times weight of each draw at nodes x (k, n) and half-way between, and the cdf without the weight.

    Half-way the density is the slope of the cubic through cdf and density at the nodes: Simpson's rule then gives
    each draw its own probability of a panel.
    """
    log_pdf, cdf = part.draw_log_pdf_and_cdf(x)
    log_middle = middle_density(cdf, x.diff(dim=0)[:, None], log_pdf.exp()).log()
    if log_weight is not None:
        log_pdf = log_pdf + log_weight(x, rows)[:, None]
        log_middle = log_middle + log_weight(0.5 * (x[1:] + x[:-1]), rows)[:, None]
    return log_pdf, log_middle, cdf


def _disagree(
    part: DrawDensities, x: Tensor, log_weight: LogWeight | None, rows: slice
) -> tuple[Tensor, Tensor, Tensor]:
    """Variances within and between the draws and their information, (n,) each, over nodes x (k, n)."""
    log_pdf, log_middle, _ = _log_densities(part, x, log_weight, rows)
    peak = log_pdf.amax((0, 1))
    nodes = torch.stack([x[:-1], 0.5 * (x[1:] + x[:-1]), x[1:]])[:, :, None]
    values = torch.stack([log_pdf[:-1], log_middle + math.log(4.0), log_pdf[1:]])
    weight = (values - peak).exp() * x.diff(dim=0)[:, None]
    evidence = weight.sum((0, 1))
    safe = evidence.clamp_min(torch.finfo(evidence.dtype).tiny)
    mean = (nodes * weight).sum((0, 1)) / safe
    variance = ((nodes - mean) ** 2 * weight).sum((0, 1)) / safe
    share = evidence / evidence.sum(0)
    total_mean = (share * mean).sum(0)
    own = weight / safe
    pooled = (share * own).sum(2)
    information = (share * torch.xlogy(own, own).sum((0, 1))).sum(0) - torch.xlogy(pooled, pooled).sum((0, 1))
    return (share * variance).sum(0), (share * (mean - total_mean) ** 2).sum(0), information

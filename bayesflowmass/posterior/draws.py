"""What draws of the weights of a network say: one by one, what they disagree about, how many of them are needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.posterior.tabulated import (
    NODES,
    Curve,
    Tabulated,
    middle_density,
    place_nodes,
    tabulate_at,
)

# Values of densities looked at together: intermediates then stay in the cache of a core.
_AT_ONCE = 1 << 16

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


def uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> FloatArray:
    """Probabilities by chance, without an exact zero, whose quantile is minus infinity."""
    return np.maximum(rng.random(shape), 1e-16)


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


class TabulatedDraws(Curve, DrawDensities, Protocol):
    """Draws whose mixture is a curve."""


class Look(NamedTuple):
    """What one look at the densities of n clusters finds: a table, mean and variance (n,) of log10 mass, and what draws
    disagree about (None for a point model)."""

    table: Tabulated
    mean: Tensor
    variance: Tensor
    disagreement: Disagreement | None


class Disagreement(NamedTuple):
    """Parts of the standard deviation of each cluster [dex], (n,) each."""

    sigma_aleatoric: FloatArray
    sigma_epistemic: FloatArray


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


def tabulate_draws(
    draws: TabulatedDraws,
    log_weight: Callable[[Tensor], Tensor] | None = None,
    limits: tuple[float, float] | None = None,
    breaks: Sequence[float] = (),
    n_nodes: int = NODES,
) -> Look:
    r"""Table of a mixture of D draws, and how the draws differ, from one look at each of them.

    With shares s_d of the draws (1/D; under a new prior draw d has s_d proportional to Z_d = int p_d w dm),

        var(m) = E_d[var(m | d)] + var_d(E[m | d])                  (law of total variance),

    the first term being aleatoric, the second epistemic. The moments of a draw are integrals over its cubic cdf,

        int f w dF_d = sum over panels of f_0 w_0 a_0 + 4 f_h w_h a_h + f_1 w_1 a_1,   a = h p_d / 6,

    where Simpson's rule takes the density half-way, p_h, from the cubic, so that they are linear in p_d and F_d at the
    nodes, and can be summed as these come.

    References:
        Depeweg et al. 2018, arXiv:1710.07283.

    Args:
        draws: their densities, of few clusters.
        log_weight, limits, breaks, n_nodes: see `bayesflowmass.posterior.tabulated.tabulate`.
    """
    x = place_nodes(draws, log_weight, limits, breaks, n_nodes)
    centre = x.mean(0)
    of_pdf, of_cdf = _moment_sums(x - centre, x, log_weight)
    rows = max(1, _AT_ONCE // (draws.n_draws or 1) // x.shape[1])
    log_pdf, cdf, moments = [], [], torch.zeros((), dtype=x.dtype)
    for nodes, a, b in zip(x.split(rows), of_pdf.split(rows, 1), of_cdf.split(rows, 1), strict=True):
        own, below = draws.draw_log_pdf_and_cdf(nodes)
        peak = own.amax(1, keepdim=True)
        height = (own - peak).exp_()
        log_pdf.append(peak[:, 0] + height.mean(1).log())
        cdf.append(below.mean(1))
        height = height * peak.exp()
        moments = moments + torch.stack(
            [(one[:, None] * height + other[:, None] * below).sum(0) for one, other in zip(a, b, strict=True)]
        )
    table = tabulate_at(draws, x, torch.cat(log_pdf), torch.cat(cdf), log_weight, limits)
    evidence, first, second = moments
    mean = first / evidence
    share = evidence / evidence.sum(0)
    whole = (share * mean).sum(0)
    aleatoric = (share * (second / evidence - mean**2)).sum(0).clamp_min(0.0)
    epistemic = (share * (mean - whole) ** 2).sum(0)
    found = Disagreement(aleatoric.sqrt().numpy(), epistemic.sqrt().numpy())
    return Look(table, centre + whole, aleatoric + epistemic, found)


def gathered(parts: Iterable[Look]) -> Look:
    """Looks at consecutive clusters as one."""
    tables, means, variances, found = zip(*parts, strict=True)
    together = None if None in found else Disagreement(*map(np.concatenate, zip(*found, strict=True)))
    return Look(Tabulated.concatenate(tables), torch.cat(means), torch.cat(variances), together)


def _moment_sums(
    c: Tensor, x: Tensor, log_weight: Callable[[Tensor], Tensor] | None
) -> tuple[Tensor, Tensor]:
    """What densities and cdfs at nodes x (k, n) count in the integrals of w, c w and c^2 w, (3, k, n) each."""
    width, middle = x.diff(dim=0), 0.5 * (x[1:] + x[:-1])
    weights = [torch.ones_like(x), torch.ones_like(middle)]
    if log_weight is not None:
        weights = [log_weight(at) for at in (x, middle)]
        weights = [(one - weights[0].amax(0)).exp() for one in weights]
    inner = 0.5 * (c[1:] + c[:-1])
    at_nodes, half_way = (
        torch.stack([w, at * w, at * at * w]) for at, w in ((c, weights[0]), (inner, weights[1]))
    )
    # 4 p_h = 6 (F_1 - F_0) / h - p_0 - p_1.
    of_pdf = torch.zeros_like(at_nodes)
    of_pdf[:, :-1] += width / 6.0 * (at_nodes[:, :-1] - half_way)
    of_pdf[:, 1:] += width / 6.0 * (at_nodes[:, 1:] - half_way)
    nothing = torch.zeros_like(half_way[:, :1])
    return of_pdf, torch.cat([nothing, half_way], 1) - torch.cat([half_way, nothing], 1)


def mutual_information(
    draws: DrawDensities, table: Tabulated, log_weight: LogWeight | None = None
) -> FloatArray | None:
    r"""I(m; d) = sum_d s_d int p_d(m) ln(p_d(m) / p(m)) dm of each cluster (n,), nats; None for a point model.

    p = sum_d s_d p_d, with the shares of `tabulate_draws`; 0 <= I <= ln D.

    References:
        Depeweg et al. 2018, arXiv:1710.07283.

    Args:
        draws: their densities.
        table: nodes, which span the posterior.
        log_weight: ln w of a change of prior at x (k, m) of a slice of the clusters, or None.
    """
    if draws.n_draws is None:
        return None
    parts = [_information(part, table.x[rows].T, log_weight, rows) for part, rows in draws.parts()]
    return np.asarray(torch.cat(parts).clamp(0.0, math.log(draws.n_draws)).numpy())


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


def _information(part: DrawDensities, x: Tensor, log_weight: LogWeight | None, rows: slice) -> Tensor:
    """Mutual information (n,) over nodes x (k, n)."""
    log_pdf, log_middle, _ = _log_densities(part, x, log_weight, rows)
    peak = log_pdf.amax((0, 1))
    values = torch.stack([log_pdf[:-1], log_middle + math.log(4.0), log_pdf[1:]])
    weight = (values - peak).exp() * x.diff(dim=0)[:, None]
    evidence = weight.sum((0, 1))
    share = evidence / evidence.sum(0)
    own = weight / evidence.clamp_min(torch.finfo(evidence.dtype).tiny)
    pooled = (share * own).sum(2)
    return (share * torch.xlogy(own, own).sum((0, 1))).sum(0) - torch.xlogy(pooled, pooled).sum((0, 1))

r"""Monotone maps of [0, 1]: shift and scale of normal scores, then a Bernstein polynomial.

A posterior that is biased or of wrong width by a factor has PITs whose normal scores are N(a, b^2); the first
map undoes exactly that,

    A(u) = Phi((Phi^-1(u) - a) / b)     for 1e-9 < u < 1 - 1e-9,

and goes on to 0 and 1 in proportion: cdfs are not known to more digits than that. What is left, a wrong shape, goes
into a polynomial with increasing coefficients W_0 = 0 ... W_K = 1,

    B(u) = sum_j W_j C(K, j) u^j (1 - u)^(K - j),   B'(u) = sum_k w_k Beta(u; k, K - k + 1),  w_k = W_k - W_(k-1),

which is increasing, smooth, and the identity for equal w. All in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesflowmass.flows.root_finding import bracketed_root

DEGREE = 16
"""K: as many parameters as 20 000 clusters in ten bins can afford, twice what a skewed or bimodal error needs."""

TAIL = 1e-9
"""Probability on each side beyond which A is linear."""

_SMALLEST, _LAST_DIGIT = 1e-300, 2.0**-53


@dataclass(frozen=True)
class StagedMap:
    """R = R_S o ... o R_1, each R_s = B_s o A_s, for n clusters.

    Attributes:
        shift, log_scale: a and ln b, (S, n).
        coefficients: W, (S, n, K + 1), from 0 to 1.
        levels: sorted conformal scores of each cluster's bin, (n, m), padded with 1; or (n, 0).
        counts: how many of them there are, (n,).
        label: for headers of tables.
    """

    shift: Tensor
    log_scale: Tensor
    coefficients: Tensor
    levels: Tensor
    counts: Tensor
    label: str = ""

    def __call__(self, u: Tensor) -> Tensor:
        """R(u), (k, n) -> (k, n)."""
        value = u
        for stage in range(len(self.shift)):
            value = self._polynomial(stage, self._affine(stage, value)[0])
        return value

    def log_slope(self, u: Tensor) -> Tensor:
        """ln R'(u), (k, n) -> (k, n)."""
        value, total = u, torch.zeros_like(u)
        for stage in range(len(self.shift)):
            value, slope = self._affine(stage, value)
            total = total + slope
            if not _is_identity(self.coefficients[stage]):
                weights = self.coefficients[stage].diff(dim=-1) * DEGREE
                total = total + bernstein(weights, value).log()
                value = self._polynomial(stage, value)
        return total

    def inverse(self, p: Tensor) -> Tensor:
        """u with R(u) = p, (k, n) -> (k, n)."""
        value = p
        for stage in reversed(range(len(self.shift))):
            coefficients = self.coefficients[stage]
            if not _is_identity(coefficients):
                value = _inverse_bernstein(coefficients, value)
            if self._moves(stage):
                low, high = self._ends(stage)
                z = torch.special.ndtri(value.clamp(_SMALLEST, 1.0 - _LAST_DIGIT))
                inside = _ndtr(self.shift[stage] + self.log_scale[stage].exp() * z)
                below, above = value * (TAIL / low), 1.0 - (1.0 - value) * (TAIL / high)
                value = torch.where(value < low, below, torch.where(1.0 - value < high, above, inside))
        return value

    def part(self, rows: Tensor) -> StagedMap:
        """The maps in rows (m,)."""
        stages = self.shift[:, rows], self.log_scale[:, rows], self.coefficients[:, rows]
        return StagedMap(*stages, self.levels[rows], self.counts[rows], self.label)

    def conformal_level(self, level: float) -> Tensor:
        """Level (n,) of the central interval: the ceil((m + 1) level)-th smallest of m scores, 1 if there is none."""
        rank = torch.ceil((self.counts + 1.0) * level - 1e-9).long().clamp_min(1)
        wide = torch.cat([self.levels, torch.ones(len(self.levels), 1, dtype=torch.float64)], dim=1)
        index = torch.where(rank > self.counts, wide.shape[1] - 1, rank - 1)
        return wide.gather(1, index[:, None])[:, 0]

    def _polynomial(self, stage: int, u: Tensor) -> Tensor:
        """B(u)."""
        coefficients = self.coefficients[stage]
        return u if _is_identity(coefficients) else bernstein(coefficients, u)

    def _affine(self, stage: int, u: Tensor) -> tuple[Tensor, Tensor]:
        """A(u) and ln A'(u)."""
        if not self._moves(stage):
            return u, torch.zeros_like(u)
        scale = self.log_scale[stage].exp()
        z = torch.special.ndtri(u.clamp(TAIL, 1.0 - TAIL))
        moved = (z - self.shift[stage]) / scale
        low, high = self._ends(stage)
        below, above = u < TAIL, 1.0 - u < TAIL
        value = _ndtr(moved)
        value = torch.where(
            below, u * (low / TAIL), torch.where(above, 1.0 - (1.0 - u) * (high / TAIL), value)
        )
        slope = 0.5 * (z * z - moved * moved) - self.log_scale[stage]
        slope = torch.where(below, (low / TAIL).log(), torch.where(above, (high / TAIL).log(), slope))
        return value, slope

    def _moves(self, stage: int) -> bool:
        return bool((self.shift[stage] != 0.0).any() or (self.log_scale[stage] != 0.0).any())

    def _ends(self, stage: int) -> tuple[Tensor, Tensor]:
        """A(1e-9) and 1 - A(1 - 1e-9), (n,)."""
        z = torch.special.ndtri(torch.tensor(TAIL, dtype=torch.float64))
        shift, scale = self.shift[stage], self.log_scale[stage].exp()
        return _ndtr((z - shift) / scale), _ndtr((z + shift) / scale)


def bernstein(coefficients: Tensor, u: Tensor) -> Tensor:
    """sum_j c_j C(K, j) u^j (1 - u)^(K - j), for c (n, K + 1) and u (k, n)."""
    degree = coefficients.shape[-1] - 1
    v = 1.0 - u
    # Horner's scheme in u / (1 - u), with the powers of 1 - u put in as they come: no division, no overflow.
    result = coefficients[:, degree].expand_as(u) if degree else coefficients[:, 0].expand_as(u)
    power = v
    for j in range(degree - 1, -1, -1):
        result = result * u + coefficients[:, j] * math.comb(degree, j) * power
        power = power * v
    return result


def elevate(coefficients: Tensor, degree: int) -> Tensor:
    """The same polynomial in the Bernstein basis of a higher degree: c (*, k + 1) -> (*, degree + 1)."""
    result = coefficients
    for k in range(coefficients.shape[-1], degree + 1):
        share = torch.arange(k + 1, dtype=result.dtype) / k
        left = torch.cat([torch.zeros_like(result[..., :1]), result], dim=-1)
        right = torch.cat([result, torch.zeros_like(result[..., :1])], dim=-1)
        result = share * left + (1.0 - share) * right
    return result


def _ndtr(z: Tensor) -> Tensor:
    """Phi(z) with all digits in the lower tail, which torch.special.ndtr has not."""
    return 0.5 * torch.erfc(-z / math.sqrt(2.0))


def _is_identity(coefficients: Tensor) -> bool:
    even = torch.linspace(0.0, 1.0, coefficients.shape[-1], dtype=coefficients.dtype)
    return bool((coefficients - even).abs().max() < 1e-14)


def _inverse_bernstein(coefficients: Tensor, p: Tensor) -> Tensor:
    weights = coefficients.diff(dim=-1) * (coefficients.shape[-1] - 1)

    def function(u: Tensor) -> tuple[Tensor, Tensor]:
        return bernstein(coefficients, u) - p, bernstein(weights, u)

    root = bracketed_root(function, torch.zeros_like(p), torch.ones_like(p))
    return torch.where((p <= 0.0) | (p >= 1.0), p, root)

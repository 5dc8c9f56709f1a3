"""From M200c [Msun/h] to other definitions of mass: the PDF, widened by the scatter of the concentration.

For an NFW halo log10 M_X = m + s(c, z), where m = log10 M200c and the shift s depends on the concentration c
alone (and, through the overdensity, on z). At given mass log10 c is normal about the median of Diemer & Joyce
2019 with 0.16 dex of scatter, so

    p(m_X) = int N(e; 0, 1) p(m_e(m_X)) |d m_e / d m_X| de,   m_e + s(c_median(m_e, z) 10^(0.16 e), z) = m_X,

a Gauss-Hermite sum over e. Mass and concentration scatter independently here: the galaxies that gave
the mass know a little about the concentration, which is neglected.
"""

from __future__ import annotations

from copy import copy
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.cosmology import MDPL2, Cosmology, concentration_median, convert_mass
from bayesflowmass.posterior.density import Density
from bayesflowmass.posterior.draws import Disagreement, DrawPosteriors
from bayesflowmass.posterior.smooth import polynomials, value_and_slope

MASS_DEFINITIONS = ("200c", "500c", "vir", "200m")
CONCENTRATION_SCATTER = 0.16
"""Scatter of log10 c_200c at fixed mass [dex]."""

_NODES = 7
_MASS_NODES = 8
_REDSHIFT_NODES = 6
# Beyond these masses [log10 Msun/h] the shift keeps its value there; concentrations are not known
# farther out.
_LIMITS = (12.5, 16.2)


class ConvertedDensity(Density):
    """The density of log10 M_X [Msun/h] from that of log10 M200c.

    Args:
        base: density of log10 M200c.
        mdef: ``"500c"``, ``"vir"`` or ``"200m"`` (``"200c"`` changes nothing).
        redshift: of the clusters (n,).
        cosmology: of the overdensities and the concentrations.
        scatter: of log10 c at fixed mass [dex].

    Raises:
        ValueError: an unknown definition of mass.
    """

    def __init__(
        self,
        base: Density,
        mdef: str,
        redshift: FloatArray,
        cosmology: Cosmology = MDPL2,
        scatter: float = CONCENTRATION_SCATTER,
    ) -> None:
        if mdef not in MASS_DEFINITIONS:
            raise ValueError(
                f"Unknown mass definition {mdef!r}; expected one of {', '.join(MASS_DEFINITIONS)}."
            )
        self.base = base
        nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
        self._log_weights = torch.from_numpy(np.log(weights / weights.sum()))
        self._shifts = [_shift_coefficients(mdef, redshift, scatter * float(e), cosmology) for e in nodes]

    @property
    def n_clusters(self) -> int:
        return self.base.n_clusters

    @property
    def n_draws(self) -> int | None:
        return self.base.n_draws

    def part(self, rows: Tensor) -> ConvertedDensity:
        result = copy(self)
        # What follows from the density of all is that of no part.
        result.__dict__ = {name: vars(self)[name] for name in ("_log_weights",)}
        result.base, result._shifts = self.base.part(rows), [shift[:, rows] for shift in self._shifts]
        return result

    def log_pdf(self, x: Tensor) -> Tensor:
        return self.log_pdf_and_cdf(x)[0]

    def cdf(self, x: Tensor) -> Tensor:
        return self.log_pdf_and_cdf(x)[1]

    def log_pdf_and_cdf(self, x: Tensor) -> tuple[Tensor, Tensor]:
        terms, total = [], torch.zeros_like(x)
        for log_weight, coefficients in zip(self._log_weights, self._shifts, strict=True):
            origin, slope = _undo(x, coefficients)
            log_pdf, cdf = self.base.log_pdf_and_cdf(origin)
            terms.append(log_weight + log_pdf - slope.log1p())
            total = total + log_weight.exp() * cdf
        return torch.stack(terms).logsumexp(0), total

    def quantile(self, p: Tensor) -> Tensor:
        return self.polished(super().quantile(p), p)

    @cached_property
    def disagreement(self) -> Disagreement | None:
        """The scatter of the concentration is not a matter of the weights: it adds to the aleatoric part."""
        before = self.base.disagreement
        if before is None:
            return None
        aleatoric = np.sqrt(np.maximum(self.moments[1].numpy() - before.sigma_epistemic**2, 0.0))
        return before._replace(sigma_aleatoric=aleatoric)

    @property
    def mutual_information(self) -> FloatArray | None:
        return self.base.mutual_information

    def of_draws(self, at: Tensor | None = None) -> DrawPosteriors:
        raise ValueError(
            "Draws of the weights are of M200c; take them before the mass definition is changed."
        )

    def window(self) -> tuple[Tensor, Tensor]:
        low, high = self.base.window()
        ends = [(low + _shift(low, c)[0], high + _shift(high, c)[0]) for c in self._shifts]
        return torch.stack([a for a, _ in ends]).amin(0), torch.stack([b for _, b in ends]).amax(0)


def _shift_coefficients(mdef: str, redshift: FloatArray, offset: float, cosmology: Cosmology) -> Tensor:
    """`polynomials` of s(m, z) at log10 c = log10 c_median(m, z) + offset."""

    def exact(log10_mass: FloatArray, z: float) -> FloatArray:
        c = concentration_median(log10_mass, z, cosmology) * 10.0**offset
        return (
            np.asarray(convert_mass(log10_mass, z, "200c", mdef, concentration=c, cosmology=cosmology))
            - log10_mass
        )

    return polynomials(exact, _LIMITS, redshift, _MASS_NODES, _REDSHIFT_NODES)


def _shift(m: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor]:
    """s and ds/dm at m (..., n); constant beyond `_LIMITS`."""
    inside = m.clamp(*_LIMITS)
    value, slope = value_and_slope(coefficients, _LIMITS, inside)
    return value, torch.where(inside == m, slope, 0.0)


def _undo(x: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor]:
    """m with m + s(m) = x, and ds/dm there; |ds/dm| < 0.05, so two Newton steps are exact to 1e-12."""
    m = x - _shift(x, coefficients)[0]
    for _ in range(2):
        value, slope = _shift(m, coefficients)
        m = m - (m + value - x) / (1.0 + slope)
    return m, _shift(m, coefficients)[1]

"""What a posterior needs to know of the densities of its clusters; adding a density is adding one file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property

import torch
from torch import Tensor

from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.posterior.draws import Disagreement, DrawPosteriors
from bayesflowmass.posterior.tabulated import Tabulated, even, tabulate

# Newton steps [dex] of this size leave 1e-11 of probability.
_LAST_STEP = 2e-7


class Density(ABC):
    """Densities of the log10 masses of n clusters, one column for each: x, p and results are (k, n), float64.

    A new density says where it is (`window`), what it is (`log_pdf`, `cdf`) and what the draws of the weights behind
    it disagree about. Its table, moments, quantiles and peak follow; it overrides those that it knows better.
    """

    @property
    @abstractmethod
    def n_clusters(self) -> int:
        """n."""

    @property
    @abstractmethod
    def n_draws(self) -> int | None:
        """Draws of the weights that this is a mixture over; None for a point model."""

    @abstractmethod
    def log_pdf(self, x: Tensor) -> Tensor:
        """ln of the density per dex, (k, n) -> (k, n)."""

    @abstractmethod
    def cdf(self, x: Tensor) -> Tensor:
        """P(log10 mass < x), (k, n) -> (k, n)."""

    @abstractmethod
    def window(self) -> tuple[Tensor, Tensor]:
        """Limits (n,) that hold all but a negligible probability."""

    @property
    @abstractmethod
    def disagreement(self) -> Disagreement | None:
        """Parts of the variance; None for a point model."""

    @property
    @abstractmethod
    def mutual_information(self) -> FloatArray | None:
        """Of log10 M200c and the weights (n,), nats; None for a point model."""

    @abstractmethod
    def of_draws(self, at: Tensor | None = None) -> DrawPosteriors:
        """The posterior of each draw of the weights, and its density `at` log10 masses (n,).

        Raises:
            ValueError: this density has no draws of its own.
        """

    @abstractmethod
    def part(self, rows: Tensor) -> Density:
        """The same of the clusters in rows (m,), in that order."""

    def log_pdf_and_cdf(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Both at the same masses, (k, n) each."""
        return self.log_pdf(x), self.cdf(x)

    def sketch(self) -> tuple[Tensor, Tensor]:
        """Some log10 masses from one end of the window to the other, and about what the cdf is there, (k, n) each."""
        x = even(*self.window())
        return x, self.cdf(x)

    def bends(self) -> Tensor | None:
        """log10 masses (k, n) where the slope of the density jumps, as far as they are known."""
        return None

    @cached_property
    def table(self) -> Tabulated:
        """The density and its cdf on adaptive nodes."""
        return tabulate(self)

    @cached_property
    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of log10 mass, (n,) each."""
        return self.table.moments()

    def quantile(self, p: Tensor) -> Tensor:
        """log10 masses at which the cdf is p, (k, n) -> (k, n)."""
        return self.table.quantile(p.T.contiguous()).T

    def polished(self, x: Tensor, p: Tensor) -> Tensor:
        """Quantiles x of the probabilities p that are good to 1e-5, after one or two Newton steps on the exact cdf."""
        for _ in range(2):
            log_pdf, cdf = self.log_pdf_and_cdf(x)
            step = (cdf - p) / log_pdf.exp()
            x = torch.where(step.abs() < 0.01, x - step, x)
            # What is left is half the slope of the density, 600 / dex^2 for a PDF of 0.02 dex, times the step squared.
            if not bool((step.abs() > _LAST_STEP).any()):
                break
        return x

    @cached_property
    def median(self) -> Tensor:
        """Median log10 mass (n,)."""
        return self.quantile(torch.full((1, self.n_clusters), 0.5, dtype=torch.float64))[0]

    @cached_property
    def mode(self) -> Tensor:
        """log10 mass of the highest density per dex (n,), to 1e-5 dex; the first of equal peaks."""
        return self.table.mode(self.log_pdf)

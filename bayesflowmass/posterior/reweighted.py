"""The PDF of a flow under another prior than that of its training."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.posterior.density import Density
from bayesflowmass.posterior.draws import (
    Disagreement,
    DrawPosteriors,
    Look,
    draw_posteriors,
    gathered,
    mutual_information,
    tabulate_draws,
)
from bayesflowmass.posterior.flow_density import FlowDensity
from bayesflowmass.posterior.priors import MassPrior, breaks_of
from bayesflowmass.posterior.tabulated import Tabulated, tabulate


class ReweightedDensity(Density):
    """p(m) = p_flow(m) w(m) / Z, w = pi_new / pi_train, Z = int p_flow w dm over the range of the new prior.

    Args:
        flow: p_flow.
        prior: pi_new.
        training_prior: pi_train.
        redshift: of the clusters (n,).

    Raises:
        ValueError: a prior needs redshifts and there are none.
    """

    def __init__(
        self, flow: FlowDensity, prior: MassPrior, training_prior: MassPrior, redshift: FloatArray | None
    ) -> None:
        if redshift is None:
            if "hmf" in prior.name or "hmf" in training_prior.name:
                raise ValueError(
                    "The mass function prior needs the redshift of each cluster; give `redshift`."
                )
            redshift = np.zeros(flow.n_clusters)
        self.flow = flow
        self.redshift = redshift
        self.prior = prior
        self.training_prior = training_prior
        self.limits = prior.log10_mass_range
        self._new = prior.log_density(redshift)
        self._old = training_prior.log_density(redshift)

    @property
    def n_clusters(self) -> int:
        return self.flow.n_clusters

    @property
    def n_draws(self) -> int | None:
        return self.flow.n_draws

    def part(self, rows: Tensor) -> ReweightedDensity:
        flow = self.flow.part(rows)
        return ReweightedDensity(flow, self.prior, self.training_prior, self.redshift[rows.numpy()])

    def log_weight(self, x: Tensor) -> Tensor:
        """ln w at x (k, n), up to a constant for each cluster."""
        return self._new(x) - self._old(x)

    def log_weight_of(self, x: Tensor, rows: slice) -> Tensor:
        """The same at x (k, m) for the m clusters of a slice."""
        redshift = self.redshift[rows]
        return self.prior.log_density(redshift)(x) - self.training_prior.log_density(redshift)(x)

    @property
    def table(self) -> Tabulated:
        """The normalised density on adaptive nodes."""
        return self.look.table

    @property
    def moments(self) -> tuple[Tensor, Tensor]:
        return self.look.mean, self.look.variance

    @cached_property
    def look(self) -> Look:
        """Table and moments, from one look at each block."""
        if len(self.flow.blocks) > 1:
            return gathered(
                ReweightedDensity(part, self.prior, self.training_prior, self.redshift[rows]).look
                for part, rows in self.flow.parts()
            )
        low, high = self.limits
        jumps = {*breaks_of(self.prior), *breaks_of(self.training_prior)}
        inner = sorted(jump for jump in jumps if low < jump < high)
        if self.n_draws is not None:
            return tabulate_draws(self.flow, self.log_weight, self.limits, inner, self.flow.n_nodes)
        table = tabulate(self.flow, self.log_weight, self.limits, inner, self.flow.n_nodes)
        return Look(table, *table.moments(), None)

    @property
    def disagreement(self) -> Disagreement | None:
        return self.look.disagreement

    @cached_property
    def mutual_information(self) -> FloatArray | None:
        return mutual_information(self.flow, self.table, self.log_weight_of)

    def of_draws(self, at: Tensor | None = None) -> DrawPosteriors:
        return draw_posteriors(self.flow, self.table.x, self.log_weight_of, at)

    @cached_property
    def _log_norm(self) -> Tensor:
        """ln Z (n,): the unnormalised density over the tabulated one, at the peak."""
        peak = self.table.pdf.argmax(1, keepdim=True)
        x = self.table.x.gather(1, peak).T
        raw = self.flow.log_pdf(x) + self.log_weight(x)
        return (raw - self.table.pdf.gather(1, peak).T.log())[0]

    def log_pdf(self, x: Tensor) -> Tensor:
        low, high = self.limits
        inside = (x >= low) & (x <= high)
        # The polynomials of the mass function run wild outside its range.
        value = self.flow.log_pdf(x) + self.log_weight(x.clamp(low, high)) - self._log_norm
        return torch.where(inside, value, -torch.inf)

    def cdf(self, x: Tensor) -> Tensor:
        return self.table.cdf_at(x.T.contiguous()).T

    def window(self) -> tuple[Tensor, Tensor]:
        low, high = (torch.full((self.n_clusters,), end, dtype=torch.float64) for end in self.limits)
        return low, high

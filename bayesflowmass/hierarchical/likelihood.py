"""The PDF of a cluster as a likelihood of its mass, for other people's models."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bayesflowmass.hierarchical.mass_function import evenly_spaced, simpson_weights
from bayesflowmass.posterior.mass_posterior import MassPosterior

_ROUNDING = 1e-9  # dex: a sampler that stays inside an interval may touch its ends.
# Probability by which the sum over a grid may be off for a PDF: 2 % in its factor of a population's likelihood.
_UNRESOLVED = 0.02
# Values evaluated at once: intermediates of 32 MB.
_AT_ONCE = 4_000_000


class MassLikelihood:
    r"""ln L_i(m) = ln p(m | d_i) - ln q_i(m): what the galaxies d_i of cluster i say about its log10 mass m.

    A flow trained on a population q gives p(m | d) = p(d | m) q(m) / p(d), so that L(m) = p(d | m) up to a
    factor that no model of the masses can see. q is the density of the training masses **before** clusters
    were selected, and d says that this one was: L contains P(select | m), which a model of the population
    must not multiply in again (docs/hierarchical.md).

    Nothing is normalised and the constant of each cluster is the same for all draws of the weights, so
    that draws can be compared. Values are float64 and differentiable in the mass: in a Pyro model,
    ``pyro.factor("galaxies", likelihood(log10_mass).sum())``.

    Args:
        posterior: of n clusters, a point model or draws of the weights; under whatever prior, since only
            the flow and the prior of its training are used.

    Raises:
        ValueError: the training prior is the mass function and the posterior has no redshifts.
    """

    def __init__(self, posterior: MassPosterior) -> None:
        self._flow = posterior.flow_density
        self.log10_mass_range = posterior.training_prior.log10_mass_range
        self.n_clusters = len(posterior)
        self.n_draws = self._flow.n_draws
        self._cluster_id = posterior.cluster_id
        redshift = posterior.redshift
        if redshift is None:
            if posterior.training_prior.name == "hmf":
                raise ValueError(
                    "The training masses follow the mass function, which needs the redshift of each "
                    "cluster; give `redshift` to the MassPosterior."
                )
            redshift = np.zeros(self.n_clusters)
        self._log_prior = posterior.training_prior.log_density(redshift)

    def __call__(self, log10_mass: Tensor) -> Tensor:
        """ln L at log10 masses (..., n) or (..., 1): (..., n), or (..., draws, n) with draws of the weights.

        Raises:
            ValueError: a mass lies outside the training range, where nothing was learnt.
        """
        self._check_range(log10_mass)
        log_pdf, prior = self._log_pdf_and_prior(log10_mass)
        return log_pdf - prior

    @torch.no_grad()
    def on_grid(self, log10_mass: Tensor) -> Tensor:
        """ln L at each node of a grid (g,): (n, g), or (draws, n, g).

        Raises:
            ValueError: the grid is not a vector, leaves the training range, or is too coarse for a PDF.
        """
        if log10_mass.dim() != 1:
            raise ValueError(f"A grid of log10 masses is a vector; found shape {tuple(log10_mass.shape)}.")
        self._check_range(log10_mass)
        rows = max(1, _AT_ONCE // (self.n_clusters * (self.n_draws or 1)))
        parts = [self._log_pdf_and_prior(part[:, None]) for part in log10_mass.split(rows)]
        log_pdf = torch.cat([values for values, _ in parts]).movedim(0, -1).contiguous()
        self._check_resolved(log10_mass, log_pdf)
        return log_pdf - torch.cat([values for _, values in parts]).movedim(0, -1)

    def _log_pdf_and_prior(self, log10_mass: Tensor) -> tuple[Tensor, Tensor]:
        """ln p (..., n) or (..., draws, n), and ln q, which broadcasts with it."""
        value = log10_mass.to(torch.float64).expand(*log10_mass.shape[:-1], self.n_clusters)
        prior = self._log_prior(value)
        if self.n_draws is not None:
            prior = prior.unsqueeze(-2)
        return self._of_blocks("log_prob", value), prior

    def _of_blocks(self, method: str, value: Tensor) -> Tensor:
        """A method of the distributions at log10 masses (..., n): (..., n) or (..., draws, n)."""
        if self.n_draws is not None:
            value = value.unsqueeze(-2).expand(*value.shape[:-1], self.n_draws, self.n_clusters)
        parts = [
            getattr(block, method)(part).to(device=value.device, dtype=torch.float64)
            for block, part in zip(self._flow.blocks, value.split(self._flow.sizes, dim=-1), strict=True)
        ]
        return torch.cat(parts, dim=-1)

    def _check_resolved(self, nodes: Tensor, log_pdf: Tensor) -> None:
        """Simpson's sum over the nodes must give each PDF the probability that its cdf gives it between the ends."""
        if len(nodes) < 3 or len(nodes) % 2 == 0 or not evenly_spaced(nodes):
            # Nobody integrates over such a grid.
            return
        found = log_pdf.exp() @ simpson_weights(nodes)
        ends = nodes[[0, -1], None].to(torch.float64).expand(-1, self.n_clusters)
        below, not_above = self._of_blocks("cdf", ends)
        wrong = (found - (not_above - below)).abs()
        if not bool((wrong > _UNRESOLVED).any()):
            return
        worst = int(wrong.argmax())
        cluster = self._cluster_id[worst % self.n_clusters]
        raise ValueError(
            f"The PDF of cluster {cluster} is too narrow for a grid of masses {float(nodes[1] - nodes[0]):.3g} dex "
            f"apart: Simpson's sum gives it {float(found.flatten()[worst]):.3g}, its cdf "
            f"{float((not_above - below).flatten()[worst]):.3g} of probability; take at least "
            f"{2 * len(nodes) - 1} nodes."
        )

    def _check_range(self, log10_mass: Tensor) -> None:
        low, high = self.log10_mass_range
        values = log10_mass.detach()
        inside = (values >= low - _ROUNDING) & (values <= high + _ROUNDING)
        if not bool(inside.all()):
            raise ValueError(
                f"A likelihood was asked for at log10 mass {float(values[~inside].flatten()[0]):g}; the model was "
                f"trained on {low:g} to {high:g} and knows nothing beyond. Confine the masses to that range."
            )

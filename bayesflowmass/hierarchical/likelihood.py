"""The PDF of a cluster as a likelihood of its mass, for other people's models."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bayesflowmass.posterior.mass_posterior import MassPosterior

__all__ = ["MassLikelihood"]

_ROUNDING = 1e-9  # dex: a sampler that stays inside an interval may touch its ends.
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
        value = log10_mass.to(torch.float64).expand(*log10_mass.shape[:-1], self.n_clusters)
        prior = self._log_prior(value)
        if self.n_draws is not None:
            value = value.unsqueeze(-2).expand(*value.shape[:-1], self.n_draws, self.n_clusters)
            prior = prior.unsqueeze(-2)
        parts = [
            block.log_prob(part).to(device=value.device, dtype=torch.float64)
            for block, part in zip(self._flow.blocks, value.split(self._flow.sizes, dim=-1), strict=True)
        ]
        return torch.cat(parts, dim=-1) - prior

    @torch.no_grad()
    def on_grid(self, log10_mass: Tensor) -> Tensor:
        """ln L at each node of a grid (g,): (n, g), or (draws, n, g).

        Raises:
            ValueError: the grid is not a vector, or leaves the training range.
        """
        if log10_mass.dim() != 1:
            raise ValueError(f"A grid of log10 masses is a vector; found shape {tuple(log10_mass.shape)}.")
        rows = max(1, _AT_ONCE // (self.n_clusters * (self.n_draws or 1)))
        values = torch.cat([self(part[:, None]) for part in log10_mass.split(rows)])
        return values.movedim(0, -1).contiguous()

    def _check_range(self, log10_mass: Tensor) -> None:
        low, high = self.log10_mass_range
        values = log10_mass.detach()
        inside = (values >= low - _ROUNDING) & (values <= high + _ROUNDING)
        if not bool(inside.all()):
            raise ValueError(
                f"A likelihood was asked for at log10 mass {float(values[~inside].flatten()[0]):g}; the model was "
                f"trained on {low:g} to {high:g} and knows nothing beyond. Confine the masses to that range."
            )

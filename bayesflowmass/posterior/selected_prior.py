"""A prior times the probability that a cluster of that mass is in the sample at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.posterior.priors import MassPrior

__all__ = ["SelectedPrior"]


# ln P stays finite where P is zero.
_LEAST = 1e-30


@dataclass(frozen=True)
class SelectedPrior:
    """pi(m) P(select | m, z), m = log10 M200c [Msun/h]: the population of a sample that was selected otherwise
    than by the galaxies that the model sees, such as by X-rays.

    A selection by those galaxies themselves (ten at least) cancels and must not be put in here (docs/priors.md).

    Args:
        prior: pi.
        probability: P of log10 masses and redshifts that broadcast, such as a `SelectionProbability` or a
            `SelectionTable`; only its shape matters.
    """

    prior: MassPrior
    probability: Callable[[FloatArray, FloatArray], FloatArray]

    @property
    def name(self) -> str:
        """That of pi, with a remark."""
        return f"{self.prior.name}, selected"

    @property
    def log10_mass_range(self) -> tuple[float, float]:
        """That of pi."""
        return self.prior.log10_mass_range

    def log_density(self, redshift: FloatArray) -> Callable[[Tensor], Tensor]:
        """ln of the density, up to a constant per cluster, as a function of log10 mass (*, n)."""
        before = self.prior.log_density(redshift)
        low, high = self.log10_mass_range

        def evaluate(log10_mass: Tensor) -> Tensor:
            # Tables reach a little beyond the range; what is there has no weight.
            mass = np.clip(log10_mass.detach().numpy(), low, high)
            chance = np.asarray(self.probability(mass, np.broadcast_to(redshift, mass.shape)))
            return before(log10_mass) + torch.from_numpy(np.log(np.maximum(chance, _LEAST)))

        return evaluate

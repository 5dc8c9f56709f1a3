"""What tables and ArviZ read of the posteriors of n clusters."""

from __future__ import annotations

from typing import Any, Protocol

import numpy.typing as npt
from torch import Tensor

from bayesflowmass.common.arrays import BoolArray, FloatArray
from bayesflowmass.cosmology import Cosmology
from bayesflowmass.posterior.draws import DrawPosteriors
from bayesflowmass.posterior.priors import MassPrior


class PosteriorSummary(Protocol):
    """Names, numbers and densities of n clusters; `MassPosterior` is one. Arrays are (n,), masses log10 Msun/h."""

    cosmology: Cosmology
    prior: MassPrior
    training_prior: MassPrior
    mdef: str
    redshift: FloatArray | None
    cluster_id: npt.NDArray[Any]
    n_galaxies: npt.NDArray[Any] | None

    def __len__(self) -> int: ...

    @property
    def has_mass(self) -> BoolArray: ...

    @property
    def median(self) -> FloatArray: ...

    @property
    def mean(self) -> FloatArray: ...

    @property
    def map(self) -> FloatArray: ...

    @property
    def sigma(self) -> FloatArray: ...

    @property
    def sigma_aleatoric(self) -> FloatArray | None: ...

    @property
    def sigma_epistemic(self) -> FloatArray | None: ...

    @property
    def recalibration(self) -> str | None: ...

    def quantile(self, p: npt.ArrayLike) -> FloatArray: ...

    def pdf(self, log10_mass: npt.ArrayLike) -> FloatArray: ...

    def cdf(self, log10_mass: npt.ArrayLike) -> FloatArray: ...

    def of_draws(self, at: Tensor | None = None) -> DrawPosteriors: ...

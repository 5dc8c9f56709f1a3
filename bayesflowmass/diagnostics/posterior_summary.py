"""What the posteriors of clusters of known mass amount to: arrays, from which every diagnostic is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from bayesflowmass.common.arrays import FloatArray, IntArray
from bayesflowmass.diagnostics.bins import QUANTILES
from bayesflowmass.diagnostics.highest_density import highest_density_level
from bayesflowmass.diagnostics.scores import crps_from_density, crps_gaussian, log_density_gaussian

if TYPE_CHECKING:
    from bayesflowmass.posterior import MassPosterior

SCORE_GRID = np.linspace(-4.0, 4.0, 65)
"""Normal scores at which the quantiles under the population's prior are kept, shape (65,)."""

_PRIOR_NODES = 513


@dataclass(frozen=True)
class PosteriorSummary:
    """Posteriors of n clusters and their truth; masses log10 M200c [Msun/h], float64, shape (n,).

    Attributes:
        log10_true: true masses.
        q025, q16, median, q84, q975: posterior quantiles.
        mean, sigma: posterior mean and standard deviation [dex].
        pit: posterior cdf at the truth, exact, float64.
        hpd: probability of the highest-density region that ends at the truth.
        log_density: natural log of the density per dex at the truth.
        crps: [dex].
        prior_sigma: standard deviation of the prior [dex].
        population_quantiles: quantiles at ``SCORE_GRID``, shape (n, 65), in single precision, since they are most of
            what is kept of a cluster: where the prior is the distribution of the test masses, what the model expects
            the truth to be. None where nobody will ask.
    """

    log10_true: FloatArray
    q025: FloatArray
    q16: FloatArray
    median: FloatArray
    q84: FloatArray
    q975: FloatArray
    mean: FloatArray
    sigma: FloatArray
    pit: FloatArray
    hpd: FloatArray
    log_density: FloatArray
    crps: FloatArray
    prior_sigma: FloatArray
    population_quantiles: NDArray[np.float32] | None

    def __post_init__(self) -> None:
        n = self.log10_true.size
        for field in fields(self):
            shape = (n, SCORE_GRID.size) if field.name == "population_quantiles" else (n,)
            values = getattr(self, field.name)
            if values is None:
                continue
            if values.shape != shape:
                raise ValueError(f"{field.name} must have shape {shape}; found {values.shape}.")
            bad = np.flatnonzero(~np.isfinite(values).all(axis=tuple(range(1, values.ndim))))
            if bad.size:
                raise ValueError(
                    f"{field.name} is not finite for {bad.size} clusters, the first in row {bad[0]}; check "
                    "that the test masses lie inside the range of the prior."
                )

    def __len__(self) -> int:
        return self.log10_true.size

    @property
    def quantiles(self) -> FloatArray:
        """2.5, 16, 50, 84 and 97.5 % of each posterior, shape (n, 5)."""
        return np.stack([getattr(self, name) for name in QUANTILES], axis=1)

    @property
    def z(self) -> FloatArray:
        """(truth - posterior mean) / sigma, shape (n,)."""
        return (self.log10_true - self.mean) / self.sigma

    @property
    def contraction(self) -> FloatArray:
        """1 - var_posterior / var_prior, shape (n,)."""
        return 1.0 - (self.sigma / self.prior_sigma) ** 2

    @classmethod
    def from_posterior(
        cls, posterior: MassPosterior, log10_true: ArrayLike, *, of_population: bool = True
    ) -> PosteriorSummary:
        """Summaries of a `MassPosterior`; the PIT is its exact cdf.

        Args:
            posterior: of n clusters.
            log10_true: shape (n,).
            of_population: its prior may be the distribution of the test masses: keep ``population_quantiles``.
        """
        true = np.asarray(log10_true, dtype=np.float64)
        nodes = posterior.table
        x, cdf, pdf = nodes.x.numpy(), nodes.cdf.numpy(), nodes.pdf.numpy()
        log_density = posterior.log_pdf(true)
        levels = torch.from_numpy(ndtr(SCORE_GRID)).expand(true.size, -1).contiguous()
        return cls(
            log10_true=true,
            **dict(zip(QUANTILES, posterior.quantile(list(QUANTILES.values())), strict=True)),
            mean=posterior.mean,
            sigma=posterior.sigma,
            pit=np.clip(posterior.cdf(true), 0.0, 1.0),
            hpd=highest_density_level(np.exp(log_density), x, cdf, pdf),
            log_density=log_density,
            crps=crps_from_density(true, x, cdf, pdf),
            prior_sigma=_prior_sigma(posterior),
            population_quantiles=nodes.quantile(levels).numpy().astype(np.float32) if of_population else None,
        )

    @classmethod
    def gaussian(
        cls, log10_true: ArrayLike, mean: ArrayLike, sigma: ArrayLike, prior_sigma: ArrayLike
    ) -> PosteriorSummary:
        """Summaries of Gaussian posteriors, in closed form; all arguments broadcast to (n,)."""
        true, mu, s, prior = np.broadcast_arrays(
            *(np.asarray(a, dtype=np.float64) for a in (log10_true, mean, sigma, prior_sigma))
        )
        z = (true - mu) / s
        return cls(
            log10_true=true,
            **{name: mu + ndtri(p) * s for name, p in QUANTILES.items()},
            mean=mu,
            sigma=s,
            pit=ndtr(z),
            hpd=1.0 - 2.0 * ndtr(-np.abs(z)),
            log_density=log_density_gaussian(true, mu, s),
            crps=crps_gaussian(true, mu, s),
            prior_sigma=prior,
            population_quantiles=(mu[:, None] + s[:, None] * SCORE_GRID).astype(np.float32),
        )

    @classmethod
    def concatenate(cls, parts: Sequence[PosteriorSummary]) -> PosteriorSummary:
        """Summaries of consecutive clusters as one; of none, where there are no parts."""
        whole: dict[str, Any] = {"population_quantiles": None}
        for field in fields(cls):
            columns = [getattr(part, field.name) for part in parts]
            if field.name != "population_quantiles" or (columns and columns[0] is not None):
                whole[field.name] = np.concatenate(columns) if columns else np.zeros(0)
        return cls(**whole)


def epistemic_columns(posterior: MassPosterior) -> dict[str, FloatArray]:
    """``sigma_aleatoric``, ``sigma_epistemic`` [dex] and ``mutual_information`` [nats], each (n,).

    Empty for a point model, which has none of them.
    """
    if posterior.n_draws is None:
        return {}
    names = ("sigma_aleatoric", "sigma_epistemic", "mutual_information")
    return {name: np.asarray(getattr(posterior, name), dtype=np.float64) for name in names}


def concatenate_columns(parts: Sequence[Mapping[str, FloatArray]]) -> dict[str, FloatArray]:
    """Columns of consecutive clusters as one."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}


def epistemic_share(columns: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """``epistemic_share`` = var_epistemic / (var_aleatoric + var_epistemic) of each cluster (n,).

    With the columns whose means are metrics; empty for a point model.
    """
    if not columns:
        return {}
    epistemic = columns["sigma_epistemic"] ** 2
    return {
        "epistemic_share": epistemic / (epistemic + columns["sigma_aleatoric"] ** 2),
        "sigma_epistemic": columns["sigma_epistemic"],
        "mutual_information": columns["mutual_information"],
    }


def _prior_sigma(posterior: MassPosterior) -> FloatArray:
    """Standard deviation of the prior of each cluster (n,), dex."""
    low, high = posterior.prior.log10_mass_range
    redshift = np.zeros(len(posterior)) if posterior.redshift is None else posterior.redshift
    kinds, index = np.unique(redshift, return_inverse=True)
    # The prior changes slowly with redshift: a few hundred redshifts stand for any number of clusters.
    if kinds.size > 256:
        kinds, index = _binned(redshift, 256)
    x = torch.linspace(low, high, _PRIOR_NODES, dtype=torch.float64)[:, None].expand(-1, kinds.size)
    density = posterior.prior.log_density(kinds)(x).exp()
    density = density / density.sum(0)
    mean = (x * density).sum(0)
    sigma: FloatArray = ((x - mean) ** 2 * density).sum(0).sqrt().numpy()
    return sigma[index.reshape(-1)]


def _binned(values: FloatArray, n: int) -> tuple[FloatArray, IntArray]:
    low, high = float(values.min()), float(values.max())
    index = np.minimum(((values - low) / (high - low) * n).astype(np.int64), n - 1)
    return low + (np.arange(n) + 0.5) * (high - low) / n, index

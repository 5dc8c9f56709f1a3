"""What a user of a single network can do about its widths: one temperature, or a recalibration."""

from __future__ import annotations

import numpy as np
import torch

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.diagnostics import merged_edges
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.evaluation.road import posterior_columns
from bayesflowmass.posterior import MassPosterior, MassPrior
from bayesflowmass.recalibration import Recalibration
from bayesflowmass.recalibration.fit import halo_weights
from bayesflowmass.recalibration.maps import DEGREE, TAIL, StagedMap

__all__ = ["Judged", "widened"]

MIN_COUNT = 100
"""Fewest validation clusters of a bin of the recalibration: a training set of 500 has no more."""


class Judged:
    """How the widths of a network fare on the validation clusters, under the prior that these were drawn from."""

    def __init__(self, estimator: MassEstimator, held_out: ClusterCatalog, prior: MassPrior) -> None:
        self.prior = prior
        self.halo = np.asarray(held_out.column("halo_id"))
        found = posterior_columns(
            estimator, held_out, {"pit": _pit, "median": lambda posterior, _: posterior.median}, prior
        )
        self.pit, self.median = found["pit"], found["median"]

    @property
    def log_temperature(self) -> float:
        """ln s of the largest likelihood of z ~ N(0, s^2), z the normal scores: s^2 = mean z^2 over haloes."""
        z = torch.special.ndtri(torch.from_numpy(self.pit).clamp(TAIL, 1.0 - TAIL)).numpy()
        return float(0.5 * np.log(np.average(z**2, weights=halo_weights(self.halo))))

    @property
    def recalibration(self) -> Recalibration:
        """As `bayesflowmass recalibrate` fits it, to all validation clusters; its conformal levels are not used."""
        own = self.pit, self.median, self.halo
        return Recalibration.fit(
            *own,
            held_out=own,
            edges=merged_edges(self.median, 0.25, MIN_COUNT)[1:-1],
            prior=self.prior.name,
            log10_mass_range=self.prior.log10_mass_range,
        )


def _pit(posterior: MassPosterior, clusters: ClusterCatalog) -> FloatArray:
    return np.clip(posterior.cdf(np.asarray(clusters.column("log10_mass"), dtype=np.float64)), 0.0, 1.0)


def widened(posterior: MassPosterior, log_scale: float | FloatArray) -> MassPosterior:
    """The posterior whose normal scores are divided by a number, or by one for each cluster (n,).

    Of a normal posterior it multiplies the standard deviation, which a temperature T = s^2 does too: p^(1/T).
    """
    n = len(posterior)
    scale = torch.from_numpy(np.broadcast_to(np.asarray(log_scale, dtype=np.float64), (1, n)).copy())
    even = torch.linspace(0.0, 1.0, DEGREE + 1, dtype=torch.float64).expand(1, n, -1)
    return posterior.recalibrated(
        StagedMap(
            torch.zeros_like(scale),
            scale,
            even,
            torch.zeros(n, 0, dtype=torch.float64),
            torch.zeros(n, dtype=torch.int64),
            "one temperature",
        )
    )

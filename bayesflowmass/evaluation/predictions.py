"""What a model says about clusters of known mass, batch by batch."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.diagnostics import PosteriorSummary
from bayesflowmass.diagnostics.posterior_summary import concatenate_columns, epistemic_columns
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.evaluation.calibration import expected_posterior
from bayesflowmass.novelty import Assessment

__all__ = ["Predictions", "predict", "prior_range_of"]


QUANTILES = {"q025": "q025", "q16": "q16", "log10_mass": "median", "q84": "q84", "q975": "q975"}
_BATCH = 4096


@dataclass(frozen=True)
class Predictions:
    """What a model says about clusters of known mass, all of shape (n,), masses in log10 Msun/h.

    Attributes:
        quantiles: names of ``QUANTILES`` -> posterior quantiles; ``log10_mass`` is the median.
        mean, sigma: of the posterior [dex].
        pit: cdf at the truth.
        log_density: natural log of the density per dex at the truth.
        crps: [dex].
        flags: as `infer` gives them.
        summary: all that calibration needs.
        epistemic: ``sigma_aleatoric``, ``sigma_epistemic``, ``mutual_information``; empty for a point model.
        strange: how unlike the training set each cluster is; None for a model that does not know.
        recalibration: what the posteriors were recalibrated for; None: they were not.
    """

    quantiles: dict[str, FloatArray]
    mean: FloatArray
    sigma: FloatArray
    pit: FloatArray
    log_density: FloatArray
    crps: FloatArray
    flags: NDArray[np.str_]
    summary: PosteriorSummary
    epistemic: dict[str, FloatArray]
    strange: Assessment | None = None
    recalibration: str | None = None


def predict(
    estimator: MassEstimator,
    catalog: ClusterCatalog,
    *,
    prior: str = "flat",
    prior_range: tuple[float, float] | None = None,
    n_draws: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Predictions:
    """Posterior summaries and scores of a catalogue, batch by batch, so that memory stays bounded.

    Args:
        estimator: the model.
        catalog: clusters with ``log10_mass``.
        prior: "flat" or "hmf".
        prior_range: limits of the prior in log10 M200c [Msun/h]; default: the training range.
        n_draws, seed: of the weights, see :meth:`~bayesflowmass.estimator.MassEstimator.posterior`.
        progress: show a bar.
    """
    population = (catalog.metadata.masses or {}).get("distribution")
    limits = prior_range_of(estimator, catalog, str(population))
    parts: list[PosteriorSummary] = []
    flags: list[NDArray[np.str_]] = []
    epistemic: list[dict[str, FloatArray]] = []
    strange: list[Assessment] = []
    recalibration: str | None = None
    starts = range(0, len(catalog), _BATCH)
    for start in tqdm(starts, desc="posteriors", disable=not progress, file=sys.stderr, leave=False):
        batch = catalog[start : start + _BATCH]
        contexts = estimator.encode(batch)
        posterior = estimator.posterior(
            batch,
            prior=prior,
            n_draws=n_draws,
            seed=seed,
            contexts=contexts,
            log10_mass_range=prior_range or estimator.training_info.log10_mass_range,
        )
        recalibration = posterior.recalibration
        found = estimator.assess(batch, contexts)
        truth = np.asarray(batch.column("log10_mass"), dtype=np.float64)
        expected = expected_posterior(posterior, population, limits)
        parts.append(PosteriorSummary.from_posterior(posterior, truth, expected))
        flags.append(estimator.flags(batch, posterior, None if found is None else found.p_value))
        strange += [] if found is None else [found]
        epistemic.append(epistemic_columns(posterior))
    s = PosteriorSummary.concatenate(parts)
    quantiles = {name: getattr(s, field) for name, field in QUANTILES.items()}
    return Predictions(
        quantiles, s.mean, s.sigma, s.pit, s.log_density, s.crps, np.concatenate(flags),
        summary=s, epistemic=concatenate_columns(epistemic),
        strange=Assessment.concatenate(strange) if strange else None, recalibration=recalibration,
    )  # fmt: skip


def prior_range_of(
    estimator: MassEstimator, catalog: ClusterCatalog, prior: str
) -> tuple[float, float] | None:
    """Where the prior is that of the test set, its limits too: a posterior is nominal for its own prior
    alone.
    """
    masses = catalog.metadata.masses or {}
    low, high = estimator.training_info.log10_mass_range
    if masses.get("distribution") != prior or not {"log10_mass_min", "log10_mass_max"} <= set(masses):
        return None
    limits = max(low, float(masses["log10_mass_min"])), min(high, float(masses["log10_mass_max"]))
    return None if limits == (low, high) else limits

"""What a model says about clusters of known mass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesflowmass.catalog import CatalogMetadata, ClusterCatalog
from bayesflowmass.common.arrays import BoolArray, FloatArray
from bayesflowmass.diagnostics import PosteriorSummary
from bayesflowmass.diagnostics.posterior_summary import concatenate_columns, epistemic_columns
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.evaluation.road import posteriors
from bayesflowmass.novelty import Assessment
from bayesflowmass.posterior import PRIOR_NAMES


@dataclass(frozen=True)
class Predictions:
    """What a model says about n clusters of known mass, k of which have one from the model.

    Attributes:
        usable: which of the n clusters those are (n,).
        flags: of all clusters (n,), as `infer` gives them.
        summary: posteriors and scores of the k clusters, masses in log10 Msun/h.
        epistemic: ``sigma_aleatoric``, ``sigma_epistemic``, ``mutual_information`` (k,); empty for a point model.
        strange: how unlike the training set each of the k is; None for a model that does not know.
        recalibration: what the posteriors were recalibrated for; None: they were not.
        matching: posteriors and scores under the prior that the masses of the clusters were drawn from, where that is
            known and is not the prior of ``summary``; calibration is judged under it. None: it is, or is not known.
    """

    usable: BoolArray
    flags: NDArray[Any]
    summary: PosteriorSummary
    epistemic: dict[str, FloatArray]
    strange: Assessment | None = None
    recalibration: str | None = None
    matching: PosteriorSummary | None = None

    @property
    def judged(self) -> PosteriorSummary:
        """What a calibration can be judged by: no posterior can be right for two priors."""
        return self.summary if self.matching is None else self.matching


def predict(
    estimator: MassEstimator,
    catalog: ClusterCatalog,
    *,
    prior: str = "flat",
    prior_range: tuple[float, float] | None = None,
    n_draws: int | None = None,
    seed: int = 0,
    **road: Any,
) -> Predictions:
    """Posterior summaries and scores of a catalogue, batch by batch, so that memory stays bounded.

    Args:
        estimator: the model.
        catalog: clusters with ``log10_mass``.
        prior: "flat" or "hmf".
        prior_range: limits of the prior in log10 M200c [Msun/h]; default: the training range.
        n_draws, seed: of the weights, see :meth:`~bayesflowmass.estimator.MassEstimator.posterior`.
        road: further arguments of `posteriors`: ``progress``, ``a_part``, ``empty_together``.

    Raises:
        CatalogError: there are no clusters, or none of them can have a mass.
        ValueError: a posterior gives a true mass no probability.
    """
    population = (catalog.metadata.masses or {}).get("distribution")
    limits = prior_range_of(estimator, catalog.metadata, str(population))
    usable: list[BoolArray] = []
    flags: list[NDArray[np.str_]] = []
    parts: list[PosteriorSummary] = []
    matching: list[PosteriorSummary] = []
    epistemic: list[dict[str, FloatArray]] = []
    strange: list[Assessment] = []
    recalibration: str | None = None
    for batch in posteriors(
        estimator,
        catalog,
        prior,
        n_draws=n_draws,
        seed=seed,
        log10_mass_range=prior_range or estimator.training_info.log10_mass_range,
        label="posteriors",
        **road,
    ):
        usable.append(batch.usable)
        flags.append(batch.flags)
        if batch.posterior is None:
            continue
        recalibration = batch.posterior.recalibration
        truth = np.asarray(batch.clusters.column("log10_mass"), dtype=np.float64)
        other = population in PRIOR_NAMES and population != batch.posterior.prior.name
        parts.append(PosteriorSummary.from_posterior(batch.posterior, truth, of_population=not other))
        if other:
            own = estimator.under(batch.posterior.raw, str(population), log10_mass_range=limits)
            matching.append(PosteriorSummary.from_posterior(own, truth))
        epistemic.append(epistemic_columns(batch.posterior))
        strange += [] if batch.novelty is None else [batch.novelty]
    return Predictions(
        np.concatenate(usable),
        np.concatenate(flags),
        PosteriorSummary.concatenate(parts),
        concatenate_columns(epistemic),
        Assessment.concatenate(strange) if strange else None,
        recalibration,
        PosteriorSummary.concatenate(matching) if matching else None,
    )


def prior_range_of(
    estimator: MassEstimator, metadata: CatalogMetadata, prior: str
) -> tuple[float, float] | None:
    """Where the prior is that of the test set, its limits too: a posterior is nominal for its own prior
    alone.
    """
    masses = metadata.masses or {}
    low, high = estimator.training_info.log10_mass_range
    if masses.get("distribution") != prior or not {"log10_mass_min", "log10_mass_max"} <= set(masses):
        return None
    limits = max(low, float(masses["log10_mass_min"])), min(high, float(masses["log10_mass_max"]))
    return None if limits == (low, high) else limits

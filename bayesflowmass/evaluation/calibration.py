"""The calibration part of an evaluation: calibration.json."""

from __future__ import annotations

from typing import Any

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.common.version import __version__
from bayesflowmass.diagnostics import PosteriorSummary, assess_calibration
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.evaluation.truth import halo_of


def measure_calibration(
    summary: PosteriorSummary,
    catalog: ClusterCatalog,
    estimator: MassEstimator,
    *,
    prior: str,
    n_resamples: int,
    seed: int,
) -> dict[str, Any]:
    """The content of calibration.json (docs/calibration.md).

    Args:
        summary: posteriors of all clusters of the catalogue.
        catalog: the test clusters.
        estimator: the model: bins of what it is not told are not judged.
        prior: of the posteriors.
        n_resamples: of the bootstrap.
        seed: of bootstrap and bands.
    """
    extras = getattr(getattr(estimator, "encoder", None), "extras", ())
    told = {"richness": estimator.training_info.uses_richness, "redshift": "redshift" in extras}
    result = assess_calibration(
        summary,
        halo_id=halo_of(catalog),
        groups={"richness": catalog.n_galaxies, "redshift": catalog.column("redshift")},
        unused=[name for name, known in told.items() if not known],
        population=(catalog.metadata.masses or {}).get("distribution"),
        prior=prior,
        n_resamples=n_resamples,
        seed=seed,
    )
    return {**result, "version": __version__}

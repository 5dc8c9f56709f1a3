"""The calibration part of an evaluation: calibration.json and its figures."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.common.version import __version__
from bayesflowmass.diagnostics import PosteriorSummary, assess_calibration
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.evaluation.truth import halo_of
from bayesflowmass.plots.checks.contraction import plot_contraction
from bayesflowmass.plots.checks.coverage import plot_coverage
from bayesflowmass.plots.checks.pit import plot_pit
from bayesflowmass.plots.checks.pit_ecdf import plot_pit_ecdf
from bayesflowmass.plots.checks.true_mass import plot_true_mass

__all__ = ["calibration_figures", "measure_calibration"]


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


def calibration_figures(
    summary: PosteriorSummary, calibration: dict[str, Any], catalog: ClusterCatalog, title: str
) -> dict[str, Figure]:
    """Name -> figure: PIT, its ECDF by bin, coverage, bins of true mass, contraction."""
    contraction = 1.0 - (summary.sigma / summary.prior_sigma) ** 2
    figures = {
        "pit": plot_pit(summary.pit, halo_id=halo_of(catalog), title=title),
        "coverage": plot_coverage(calibration["coverage"], title=title),
        "calibration_by_true_mass": plot_true_mass(calibration["by_true_mass"], title=title),
        "contraction": plot_contraction(
            contraction, (summary.log10_true - summary.mean) / summary.sigma, title=title
        ),
    }
    for name, bins in calibration["by"].items():
        if any(bins["tests"]):
            figures[f"pit_by_{name}"] = plot_pit_ecdf(bins, name, title=title)
    return figures

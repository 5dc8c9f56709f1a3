"""The figures of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bayesflowmass.baselines import BaselinePrediction
from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.evaluation.calibration import calibration_figures
from bayesflowmass.evaluation.predictions import Predictions
from bayesflowmass.evaluation.table import NAMES
from bayesflowmass.evaluation.truth import clusters_of_three_masses
from bayesflowmass.plots.checks.calibration_by_mass import plot_calibration_by_mass
from bayesflowmass.plots.checks.residuals import plot_residuals
from bayesflowmass.plots.paper.pdfs import plot_pdfs
from bayesflowmass.plots.paper.predicted_vs_true import plot_predicted_vs_true
from bayesflowmass.plots.style import save_figure

__all__ = ["FIRST_FIGURES", "draw_evaluation"]

FIRST_FIGURES = ("predicted_vs_true", "residuals", "pit")
"""What to look at first."""


def draw_evaluation(
    folder: Path,
    estimator: MassEstimator,
    catalog: ClusterCatalog,
    predictions: Predictions,
    simple: Mapping[str, BaselinePrediction],
    metrics: Mapping[str, Any],
    calibration: dict[str, Any],
    *,
    n_draws: int | None,
    seed: int,
) -> list[Path]:
    """Draw every figure of an evaluation; returns their files.

    Args:
        folder: to write into.
        estimator: the model.
        catalog: the clusters that have a mass.
        predictions: their posteriors and truth.
        simple: name -> predictions of the baselines.
        metrics, calibration: content of metrics.json and calibration.json.
        n_draws, seed: of the weights.
    """
    summary = predictions.summary
    truth = summary.log10_true
    population = {"hmf": "mass-function set", "flat": "flat set"}.get(str(metrics["population"]), "test set")
    title = f"{population}, {metrics['prior']} prior"
    shown = ("msigma_inverse", "msigma_regression", "richness")
    residuals = {"this model": truth - summary.median}
    residuals |= {NAMES[name]: truth - simple[name].log10_mass for name in shown}
    quantiles = np.stack([summary.q025, summary.q16, summary.median, summary.q84, summary.q975], 1)
    figures = {
        "predicted_vs_true": plot_predicted_vs_true(truth, quantiles, label=title),
        "residuals": plot_residuals(residuals, title=title),
        **calibration_figures(
            predictions.judged, calibration, catalog, f"{population}, {calibration['prior']} prior"
        ),
        "calibration_by_mass": plot_calibration_by_mass(
            metrics["bins_true"], metrics["bins_predicted"], title=title
        ),
        "pdfs": _three_pdfs(estimator, catalog, metrics, title, n_draws, seed),
    }
    return [path for name, figure in figures.items() for path in save_figure(figure, folder / name)]


def _three_pdfs(
    estimator: MassEstimator,
    catalog: ClusterCatalog,
    metrics: Mapping[str, Any],
    title: str,
    n_draws: int | None,
    seed: int,
) -> Figure:
    few = catalog[clusters_of_three_masses(catalog.column("log10_mass"))]
    low, high = metrics["prior_log10_mass_range"]
    posterior = estimator.posterior(
        few, metrics["prior"], n_draws=n_draws, seed=seed, log10_mass_range=(low, high)
    )
    grid = np.linspace(low, high, 601)
    return plot_pdfs(
        grid,
        posterior.pdf(grid[:, None]).T,
        cdf=posterior.cdf(grid[:, None]).T,
        log10_true=np.asarray(few.column("log10_mass"), dtype=np.float64),
        labels=[f"{n} galaxies" for n in few.n_galaxies],
        title=title,
    )

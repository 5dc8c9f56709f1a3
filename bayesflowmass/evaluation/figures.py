"""The figures of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bayesflowmass.baselines import BaselinePrediction
from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.common.arrays import IntArray
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.evaluation.predictions import Predictions
from bayesflowmass.evaluation.table import NAMES
from bayesflowmass.evaluation.truth import clusters_of_three_masses, halo_of
from bayesflowmass.plots.evaluated import Evaluated, evaluation_figures
from bayesflowmass.plots.style import save_figure

FIRST_FIGURES = ("predicted_vs_true", "residuals", "pit")
"""What to look at first."""

_SHOWN = ("msigma_inverse", "msigma_regression", "richness")


def draw_evaluation(
    folder: Path,
    estimator: MassEstimator,
    catalog: ClusterCatalog,
    pick: Callable[[IntArray], ClusterCatalog],
    predictions: Predictions,
    simple: Mapping[str, BaselinePrediction],
    metrics: Mapping[str, Any],
    calibration: dict[str, Any],
    *,
    n_draws: int | None,
    seed: int,
) -> list[Path]:
    """Draw every figure of an evaluation (`evaluation_figures`); returns their files.

    Args:
        folder: to write into.
        estimator: the model.
        catalog: the clusters that have a mass; their galaxies are not looked at.
        pick: those of some rows, with their galaxies.
        predictions: their posteriors and truth.
        simple: name -> predictions of the baselines.
        metrics, calibration: content of metrics.json and calibration.json.
        n_draws, seed: of the weights.
    """
    summary = predictions.summary
    truth = summary.log10_true
    population = {"hmf": "mass-function set", "flat": "flat set"}.get(str(metrics["population"]), "test set")
    residuals = {"this model": truth - summary.median}
    residuals |= {NAMES[name]: truth - simple[name].log10_mass for name in _SHOWN}
    rows = clusters_of_three_masses(truth)
    few = pick(rows)
    low, high = metrics["prior_log10_mass_range"]
    evaluated = Evaluated(
        metrics=metrics,
        calibration=calibration,
        summary=summary,
        judged=predictions.judged,
        halo_id=halo_of(catalog),
        residuals=residuals,
        three=estimator.posterior(
            few, metrics["prior"], n_draws=n_draws, seed=seed, log10_mass_range=(low, high)
        ),
        three_truths=truth[rows],
        three_labels=tuple(f"{n} galaxies" for n in few.n_galaxies),
        title=f"{population}, {metrics['prior']} prior",
        judged_title=f"{population}, {calibration['prior']} prior",
    )
    drawn = ((figure.name, figure.draw(evaluated)) for figure in evaluation_figures())
    return [path for name, picture in drawn if picture for path in save_figure(picture, folder / name)]

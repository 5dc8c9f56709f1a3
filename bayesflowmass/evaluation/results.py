"""What an evaluation writes: metrics, calibration, predictions, figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bayesflowmass.baselines import BaselinePrediction
from bayesflowmass.baselines.suite import Baseline
from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.common.arrays import IntArray
from bayesflowmass.common.files import write_json
from bayesflowmass.common.version import __version__
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.evaluation.calibration import measure_calibration
from bayesflowmass.evaluation.figures import draw_evaluation
from bayesflowmass.evaluation.files import PREDICTIONS, columns_of, with_missing, write_predictions
from bayesflowmass.evaluation.metrics import measure_metrics
from bayesflowmass.evaluation.tested import Tested


def write_results(
    folder: Path,
    estimator: MassEstimator,
    tested: Tested,
    baselines: Mapping[str, Baseline],
    pick: Callable[[IntArray], ClusterCatalog],
    *,
    prior: str,
    prior_range: tuple[float, float] | None,
    baseline_selection: Mapping[str, Any],
    n_draws: int | None,
    n_resamples: int,
    seed: int,
    figures: bool,
    threads: int,
) -> dict[str, Any]:
    """Measure, write and draw; returns the content of ``metrics.json``.

    Args:
        folder: to write into.
        estimator: the model.
        tested: clusters, and what it and the baselines say of them.
        baselines: the fitted relations.
        pick: the clusters of some rows, with their galaxies.
        prior, prior_range: of the masses.
        baseline_selection: of the clusters that the baselines were fitted on.
        n_draws, n_resamples, seed, figures: see `bayesflowmass.evaluate.evaluate`.
        threads: of the bootstraps of the baselines.
    """
    predictions, judged = tested.predictions, tested.judged
    simple = {name: BaselinePrediction(mass, baselines[name].scatter) for name, mass in tested.simple.items()}
    matching = predictions.matching is not None
    calibration = measure_calibration(
        predictions.judged,
        judged,
        estimator,
        prior=str((judged.metadata.masses or {})["distribution"]) if matching else prior,
        n_resamples=n_resamples,
        seed=seed,
    )
    metrics = measure_metrics(
        estimator,
        judged,
        (tested.members, tested.counted),
        predictions,
        {name: (baselines[name], prediction) for name, prediction in simple.items()},
        prior=prior,
        prior_range=prior_range,
        calibration=calibration,
        n_resamples=n_resamples,
        seed=seed,
        threads=threads,
    )
    metrics["baseline_selection"] = baseline_selection
    write_json(folder / "metrics.json", metrics)
    write_json(folder / "calibration.json", calibration)
    beside = {f"log10_mass_{name}": prediction.log10_mass for name, prediction in simple.items()}
    columns = columns_of(predictions, tested.clusters) | with_missing(beside, predictions.usable)
    limits = metrics["prior_log10_mass_range"]
    note = {"prior": prior, "prior_log10_mass_range": limits, "version": __version__}
    write_predictions(folder / PREDICTIONS, tested.clusters, columns, note)
    if figures:
        draw_evaluation(
            folder,
            estimator,
            judged,
            pick,
            predictions,
            simple,
            metrics,
            calibration,
            n_draws=n_draws,
            seed=seed,
        )
    return metrics

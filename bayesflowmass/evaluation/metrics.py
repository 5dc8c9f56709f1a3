"""All that ``metrics.json`` says of a model and of simpler estimators on the same clusters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from bayesflowmass.baselines import BaselinePrediction
from bayesflowmass.baselines.suite import Baseline
from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.common.arrays import FloatArray, IntArray
from bayesflowmass.common.version import __version__
from bayesflowmass.diagnostics import crps_gaussian, log_density_gaussian, summarise
from bayesflowmass.diagnostics.calibration import nominal_pair
from bayesflowmass.diagnostics.dependence import halo_sizes
from bayesflowmass.diagnostics.posterior_summary import epistemic_share
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.evaluation.novelty import novelty_metrics
from bayesflowmass.evaluation.predictions import Predictions
from bayesflowmass.evaluation.truth import halo_of

_BASELINES_AT_ONCE = 4
"""Each takes some 300 bytes for each cluster."""


def measure_metrics(
    estimator: MassEstimator,
    catalog: ClusterCatalog,
    members: tuple[IntArray | None, str],
    predictions: Predictions,
    baselines: Mapping[str, tuple[Baseline, BaselinePrediction]],
    *,
    prior: str,
    prior_range: tuple[float, float] | None,
    calibration: Mapping[str, Any],
    n_resamples: int,
    seed: int,
    threads: int,
) -> dict[str, Any]:
    """The numbers of ``metrics.json`` (docs/metrics.md): of the model, of the baselines, and what they are of.

    Args:
        estimator: the model.
        catalog: test clusters with ``log10_mass`` that have a mass from the model; their galaxies are not looked at.
        members: of each of them, None where nobody knows, and what was counted.
        predictions: of the model for them.
        baselines: name -> the fitted relation and its predictions.
        prior: "flat" or "hmf".
        prior_range: its limits, log10 M200c [Msun/h]; None: those of training.
        calibration: content of calibration.json.
        n_resamples, seed: of the bootstrap over haloes.
        threads: baselines that are measured side by side; numpy lets them run.
    """
    truth = np.asarray(catalog.column("log10_mass"), dtype=np.float64)
    # Numbers, which sort faster than names: haloes are told apart many times.
    halo_id, _ = halo_sizes(halo_of(catalog))
    counts, definition = members
    population = (catalog.metadata.masses or {}).get("distribution")
    nominal, statement = nominal_pair(population, prior)

    def measure(predicted: FloatArray, **scores: Any) -> dict[str, Any]:
        return summarise(
            truth, predicted, halo_id=halo_id, n_members=counts, n_resamples=n_resamples, seed=seed, **scores
        )

    def measure_baseline(name: str) -> dict[str, Any]:
        baseline, found = baselines[name]
        return measure(found.log10_mass, **_gaussian_scores(found, truth)) | {"fit": asdict(baseline)}

    with ThreadPoolExecutor(min(threads, _BASELINES_AT_ONCE)) as pool:
        simple = dict(zip(baselines, pool.map(measure_baseline, baselines), strict=True))
    return {
        "prior": prior,
        "prior_log10_mass_range": list(prior_range or estimator.training_info.log10_mass_range),
        "population": population,
        "coverage_can_be_nominal": nominal,
        "coverage_statement": statement,
        "calibration": calibration["verdict"],
        "calibration_prior": calibration["prior"],
        "residual": "log10(M_true / M_pred), M200c, M_pred the posterior median",
        **measure(
            predictions.summary.median,
            pit=predictions.summary.pit,
            log_density=predictions.summary.log_density,
            crps=predictions.summary.crps,
            sigma=predictions.summary.sigma,
            **epistemic_share(predictions.epistemic),
        ),
        "n_without_mass": int((~predictions.usable).sum()),
        "n_members_definition": definition,
        "flags": _count_flags(predictions.flags),
        "novelty": novelty_metrics(estimator, predictions.strange, catalog, seed),
        "recalibrated": predictions.recalibration,
        "kind": catalog.metadata.kind,
        "mode": catalog.metadata.mode,
        "selection": catalog.metadata.selection,
        "trained_on": estimator.training_info.summary(),
        "model_uses_richness": estimator.training_info.uses_richness,
        "median_n_galaxies": float(np.median(catalog.n_galaxies)),
        "n_resamples": n_resamples,
        "seed": seed,
        "version": __version__,
        "date": datetime.now(UTC).date().isoformat(),
        "baselines": simple,
    }


def _gaussian_scores(prediction: BaselinePrediction, truth: FloatArray) -> dict[str, Any]:
    arguments = truth, prediction.log10_mass, prediction.sigma
    return {
        "pit": ndtr((truth - prediction.log10_mass) / prediction.sigma),
        "log_density": log_density_gaussian(*arguments),
        "crps": crps_gaussian(*arguments),
        "sigma": np.full(truth.size, prediction.sigma),
    }


def _count_flags(flags: NDArray[Any]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for row, n in Counter(flags.tolist()).items():
        counts.update({flag: n for flag in row.split(",") if flag})
    return dict(sorted(counts.items()))

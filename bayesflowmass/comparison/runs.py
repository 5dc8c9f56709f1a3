"""Runs that have to predict first: trained models and the baselines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bayesflowmass.baselines import fit_baselines, predict_baselines
from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.common.terminal import say
from bayesflowmass.comparison.models import RunSource
from bayesflowmass.diagnostics import PosteriorSummary
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.estimator.cylinder import in_cylinder
from bayesflowmass.estimator.flags import usable_clusters
from bayesflowmass.evaluation.files import (
    PREDICTIONS,
    StoredPredictions,
    columns_of,
    file_hash,
    model_hash,
    read_predictions,
    stored,
    summary_columns,
    with_missing,
    write_predictions,
)
from bayesflowmass.evaluation.predictions import predict, prior_range_of
from bayesflowmass.evaluation.test_sets import BASELINE_CLUSTERS, baseline_set

BASELINES = ("msigma_inverse", "msigma_regression", "msigma_evrard", "richness")
"""Baselines that are compared: those of `evaluate` with the plain standard deviation, and the galaxy count."""


def model_run(
    source: RunSource,
    folder: Path,
    catalog: ClusterCatalog,
    fingerprint: str,
    *,
    prior: str,
    n_draws: int | None,
    seed: int,
    device: str = "auto",
    progress: bool = False,
    report: Callable[[str], None] = say,
) -> StoredPredictions:
    """What a trained model says about a catalogue, stored in a folder and read from there if it is the same.

    Args:
        source: the model.
        folder: receives predictions.parquet.
        catalog: the clusters, with true masses.
        fingerprint: of the catalogue.
        prior: "flat" or "hmf".
        n_draws, seed: of the weights.
        device, progress: of the prediction.
        report: told what is predicted.
    """
    estimator = MassEstimator.load(source.path, device)
    limits = prior_range_of(estimator, catalog.metadata, prior)
    note: dict[str, Any] = {
        "prior": prior,
        "prior_log10_mass_range": list(limits or estimator.training_info.log10_mass_range),
        "model": model_hash(source.path),
        "catalog": fingerprint,
        "n_draws": n_draws if estimator.weights is not None else None,
        "seed": seed if estimator.weights is not None else None,
    }
    file = folder / PREDICTIONS
    if not stored(file, note):
        report(f"{source.path} predicts {len(catalog)} clusters.")
        found = predict(
            estimator, catalog, prior=prior, prior_range=limits, n_draws=n_draws, seed=seed, progress=progress
        )
        seen = in_cylinder(catalog, estimator.training_info.selection)
        write_predictions(file, seen, columns_of(found, seen), note)
    return read_predictions(file, source.seed)


def baseline_runs(
    out: Path,
    catalog: ClusterCatalog,
    fingerprint: str,
    model: Path | None,
    training: Path | None,
    *,
    prior: str,
    seed: int,
    report: Callable[[str], None] = say,
) -> dict[str, list[StoredPredictions]]:
    """Gaussian predictions of the baselines, as wide as their residuals where they were fitted; they know no prior.

    Args:
        out: receives NAME-0/predictions.parquet.
        catalog: the clusters, with true masses.
        fingerprint: of the catalogue.
        model: clusters to fit on are simulated as its training set was.
        training: catalogue to fit on instead.
        prior: that the comparison is made under.
        seed: of the simulated clusters.
        report: told what is done.

    Raises:
        ValueError: neither a model nor a catalogue says what to fit on.
    """
    if training is None and model is None:
        raise ValueError(
            "Baselines need clusters to be fitted on; give --baseline-catalog FILE, or a model folder."
        )
    fitted_on = (
        file_hash(training) if training is not None else f"{model_hash(model)} {seed}" if model else ""
    )
    files = {name: out / f"{name}-0" / PREDICTIONS for name in BASELINES}
    note: dict[str, Any] = {"prior": prior, "catalog": fingerprint, "fitted_on": fitted_on}
    if not all(stored(file, note | {"baseline": name}) for name, file in files.items()):
        if training is not None:
            clusters = ClusterCatalog.read(training)
        else:
            assert model is not None
            report(
                f"Simulating {BASELINE_CLUSTERS} clusters to fit the baselines on (--baseline-catalog to give them)."
            )
            clusters = baseline_set(MassEstimator.load(model, "cpu").training_info, catalog.metadata, seed)
        seen = in_cylinder(catalog, clusters.metadata.selection)
        usable = usable_clusters(seen) == ""
        fitted = {name: b for name, b in fit_baselines(clusters).items() if name in BASELINES}
        truth = np.asarray(seen.column("log10_mass"), dtype=np.float64)
        for name, found in predict_baselines(fitted, seen.filter(usable)).items():
            summary = PosteriorSummary.gaussian(
                truth[usable], found.log10_mass, found.sigma, np.ptp(truth) / np.sqrt(12.0)
            )
            columns = with_missing(summary_columns(summary), usable) | {"log10_mass_true": truth}
            write_predictions(files[name], seen, columns, note | {"baseline": name})
    return {name: [read_predictions(file)] for name, file in files.items()}

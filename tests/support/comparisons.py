"""Predictions of Gaussian models whose scores and coverage are known in closed form."""

from __future__ import annotations

import numpy as np

from bayesflowmass.comparison.statistics import Comparison, Method, mass_bins
from bayesflowmass.diagnostics import PosteriorSummary
from bayesflowmass.evaluation.files import StoredPredictions, summary_columns

SIGMA = 0.12
BINS = mass_bins((14.0, 14.5, 15.0))


def gaussian_run(truth, mean, sigma, seed="0", epistemic=0.0, cluster_id=None):
    """Predictions of Gaussian PDFs."""
    summary = PosteriorSummary.gaussian(truth, mean, sigma, 0.4)
    ids = np.arange(truth.size) if cluster_id is None else cluster_id
    columns = summary_columns(summary) | {"sigma_epistemic": np.full(truth.size, float(epistemic))}
    return StoredPredictions(columns, ids, None, {}, f"run {seed}", seed)


def exact_sample(n, rng):
    """Truths of which N(mean, SIGMA) is the exact posterior at any mean, the population being wide."""
    mean = rng.uniform(13.7, 15.3, n)
    return mean + SIGMA * rng.normal(size=n), mean


def comparison_of(width, n=4000, rng=None, n_seeds=1, epistemic=0.03):
    """An exact Bayesian method against a point model that is wider or narrower by a factor."""
    truth, mean = exact_sample(n, rng if rng is not None else np.random.default_rng(0))
    point = Method("point", tuple(gaussian_run(truth, mean, width * SIGMA, str(s)) for s in range(n_seeds)))
    bayes = tuple(gaussian_run(truth, mean, SIGMA, str(s), epistemic) for s in range(n_seeds))
    return Comparison([point, Method("bayes", bayes)], np.arange(n), "point")

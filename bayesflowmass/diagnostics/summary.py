"""All numbers of one estimator on one test set: an entry of metrics.json."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.diagnostics.bins import binned_statistics, mass_edges
from bayesflowmass.diagnostics.bootstrap import with_errors
from bayesflowmass.diagnostics.equation8 import fit_equation8, weighted_equation8
from bayesflowmass.diagnostics.residuals import residual_statistics, weighted_mean

LEVELS = {"coverage_68": 0.68, "coverage_95": 0.95}
"""Probabilities of the central intervals whose coverage is reported."""

OUTLIER_LEVEL = 0.9973002
"""A cluster is an outlier where its truth lies outside this central interval (3 sigma of a Gaussian)."""


def summarise(
    log10_true: ArrayLike,
    log10_predicted: ArrayLike,
    *,
    halo_id: ArrayLike,
    n_members: ArrayLike | None = None,
    pit: ArrayLike | None = None,
    log_density: ArrayLike | None = None,
    crps: ArrayLike | None = None,
    sigma: ArrayLike | None = None,
    epistemic_share: ArrayLike | None = None,
    sigma_epistemic: ArrayLike | None = None,
    mutual_information: ArrayLike | None = None,
    bin_width: float = 0.1,
    n_resamples: int = 200,
    seed: int = 0,
) -> dict[str, Any]:
    """Residuals, scores, coverage and equation 8, each with a bootstrap standard error over haloes.

    Args:
        log10_true: log10 M200c [Msun/h], shape (n,).
        log10_predicted: posterior medians (or point estimates), shape (n,).
        halo_id: shape (n,); clusters that share one are resampled together.
        n_members: members of each cluster, for equation 8.
        pit: predictive cdf at the truth.
        log_density: natural log of the predictive density per dex at the truth.
        crps: in dex.
        sigma: standard deviation of the predictive density [dex].
        epistemic_share, sigma_epistemic, mutual_information: of each cluster, under draws of the weights
            (:func:`~bayesflowmass.diagnostics.posterior_summary.epistemic_share`).
        bin_width: of the mass bins [dex].
        n_resamples, seed: of the bootstrap.

    Returns:
        JSON-able; numbers as in ``metrics.json`` with ``<name>_se`` beside each, None where the sample
        does not define one; ``equation_8`` with the mass range and N it holds for; ``bins_true`` and
        ``bins_predicted``.

    Raises:
        ValueError: no clusters, lengths differ, or a number is not finite.
    """
    true = np.asarray(log10_true, dtype=np.float64)
    predicted = np.asarray(log10_predicted, dtype=np.float64)
    if true.size == 0:
        raise ValueError("There are no clusters to evaluate.")
    averages = _averages(
        true.size, pit=pit, log_density=log_density, crps=crps, sigma=sigma, epistemic_share=epistemic_share,
        sigma_epistemic=sigma_epistemic, mutual_information=mutual_information,
    )  # fmt: skip
    members = None if n_members is None else np.asarray(n_members, dtype=np.float64)
    fit = None
    if members is not None and (members > 0).sum() >= 10 and np.ptp(true[members > 0]) > 0:
        fit = fit_equation8(true, predicted, members)

    residuals = residual_statistics(true, predicted)
    eighth = None if fit is None or members is None else weighted_equation8(true, predicted, members)

    def statistics(counts: FloatArray) -> dict[str, FloatArray]:
        result = dict(residuals(counts))
        result.update({name: weighted_mean(column, counts) for name, column in averages.items()})
        return result | ({} if eighth is None else eighth(counts))

    summary: dict[str, Any] = {
        "n_clusters": int(true.size),
        "n_haloes": int(np.unique(np.asarray(halo_id)).size),
        "log10_mass_range": [float(true.min()), float(true.max())],
    }
    found = with_errors(statistics, halo_id, n_resamples, seed)
    summary |= {name: value[0] for name, value in found.items()}
    if fit is None:
        summary.update(sigma_N=None, sigma_N_se=None, sigma_0=None, sigma_0_se=None, equation_8=None)
    else:
        summary["equation_8"] = asdict(fit)
    for name, by in (("bins_true", true), ("bins_predicted", predicted)):
        summary[name] = binned_statistics(
            true,
            predicted,
            by=by,
            edges=mass_edges(by, bin_width),
            halo_id=halo_id,
            averages=averages,
            n_resamples=n_resamples,
            seed=seed,
        )
    return summary


def _averages(n: int, **columns: ArrayLike | None) -> dict[str, FloatArray]:
    """Per-cluster numbers whose means are metrics, checked."""
    result: dict[str, FloatArray] = {}
    for name, given in columns.items():
        if given is None:
            continue
        values = np.asarray(given, dtype=np.float64)
        if values.shape != (n,):
            raise ValueError(
                f"{name} must have one value for each of the {n} clusters; found shape {values.shape}."
            )
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            raise ValueError(
                f"{name} is not finite for {bad.size} clusters, the first in row {bad[0]}: the predictive "
                "density gives its true mass no probability; check that the test set lies inside the "
                "training range."
            )
        if name == "pit":
            result.update(
                {key: (np.abs(values - 0.5) <= 0.5 * level).astype(float) for key, level in LEVELS.items()}
            )
            result["outlier_rate"] = (np.abs(values - 0.5) > 0.5 * OUTLIER_LEVEL).astype(float)
        elif name == "log_density":
            result["nll"] = -values
        elif name == "sigma":
            result["mean_sigma"] = values
        else:
            result[name] = values
    return result

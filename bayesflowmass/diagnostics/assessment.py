"""Is a posterior calibrated? Every number, test and verdict of calibration.json.

Overall and in bins of predicted mass, richness and redshift the PIT of a calibrated posterior is uniform,
because these are known before the truth is: such bins have nominal verdicts. In bins of true mass nothing
is nominal; there the sample is compared with what the model itself expects
(:mod:`bayesflowmass.diagnostics.expectation`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from bayesflowmass.common.arrays import BoolArray, FloatArray
from bayesflowmass.diagnostics.bins import binned_statistics, merged_edges, quantile_edges
from bayesflowmass.diagnostics.bootstrap import with_errors
from bayesflowmass.diagnostics.calibration import central_level, nominal_pair
from bayesflowmass.diagnostics.dependence import halo_sizes
from bayesflowmass.diagnostics.expectation import compare_by_true_mass
from bayesflowmass.diagnostics.multiplicity import holm
from bayesflowmass.diagnostics.posterior_summary import PosteriorSummary
from bayesflowmass.diagnostics.residuals import residual_statistics
from bayesflowmass.diagnostics.scores import interval_score
from bayesflowmass.diagnostics.summary import OUTLIER_LEVEL
from bayesflowmass.diagnostics.uniformity import Uniformity, uniformity

_SCORE_LIMIT = 8.0


def assess_calibration(
    summary: PosteriorSummary,
    *,
    halo_id: ArrayLike,
    groups: Mapping[str, ArrayLike] | None = None,
    unused: Collection[str] = (),
    population: str | None = None,
    prior: str = "flat",
    alpha: float = 0.05,
    bin_width: float = 0.25,
    n_bins: int = 5,
    min_count: int = 50,
    n_resamples: int = 200,
    n_simulations: int = 999,
    n_grid: int = 100,
    n_sets: int = 300,
    seed: int = 0,
) -> dict[str, Any]:
    """Statistics, simultaneous tests and verdicts, overall and by bin.

    Args:
        summary: posteriors and truths of n clusters.
        halo_id: shape (n,); bands and errors allow for clusters that share a halo.
        groups: further quantities to bin by, known without the truth, shape (n,) each: ``richness``,
            ``redshift``.
        unused: names of groups that the posterior was not told of. Their bins are not nominal even for a
            perfect posterior of what it was told, and do not enter the verdict.
        population, prior: how the test masses were drawn, and the prior of the posteriors.
        alpha: familywise error rate of the verdict (Holm's correction over all nominal tests).
        bin_width: of the bins of mass [dex]; neighbours are merged up to ``min_count`` clusters.
        n_bins: of equal numbers, of the other groups.
        min_count: smallest bin that is tested.
        n_resamples: of the bootstrap; n_simulations, n_grid: of the bands; n_sets: of the expectation by true mass.
        seed: of all of them.

    Returns:
        JSON-able, as docs/calibration.md describes it.
    """
    # Numbers, which sort faster than names: haloes are told apart many times.
    halo, _ = halo_sizes(halo_id)
    nominal, statement = nominal_pair(population, prior)
    columns = _columns(summary)
    options: dict[str, Any] = {
        "probability": 1.0 - alpha,
        "n_simulations": n_simulations,
        "n_grid": n_grid,
        "seed": seed,
    }
    overall = _test(summary, np.ones(len(summary), dtype=bool), halo, **options)
    overall = _overall(summary, halo, columns, n_resamples, seed) | overall
    by: dict[str, Any] = {}
    kinds = {"predicted_mass": summary.median, **(groups or {})}
    for name, given in kinds.items():
        values = np.asarray(given, dtype=np.float64)
        if name == "predicted_mass":
            edges = merged_edges(values, bin_width, min_count)
        else:
            edges = quantile_edges(values, n_bins, min_count)
        if edges.size > 2:
            by[name] = {
                "told": name not in unused,
                **_binned(summary, values, edges, halo, columns, n_resamples, min_count, options),
            }
    family: list[dict[str, Any]] = [overall]
    family += [test for bins in by.values() if bins["told"] for test in bins["tests"] if test]
    for test, adjusted in zip(family, holm([t["p_value"] for t in family]), strict=True):
        test["p_holm"] = float(adjusted)
        test["inside"] = bool(adjusted > alpha) if nominal else None
    edges = merged_edges(summary.log10_true, bin_width, min_count)
    by_true = _statistics(summary, summary.log10_true, edges, halo, columns, n_resamples, seed)
    by_true |= compare_by_true_mass(
        summary, halo, edges, probability=1.0 - alpha, min_count=min_count // 2, n_sets=n_sets, seed=seed
    )
    curves = {"central": central_level(summary.pit), "highest_density": summary.hpd}
    return {
        "verdict": _verdict(family, alpha, nominal, statement, by),
        "nominal": nominal,
        "statement": statement,
        "population": population,
        "prior": prior,
        "alpha": alpha,
        "n_tests": len(family),
        "overall": overall,
        "by": by,
        "by_true_mass": by_true,
        "coverage": {name: _curve(uniformity(u, halo, **options)) for name, u in curves.items()},
        "n_resamples": n_resamples,
        "n_simulations": n_simulations,
        "n_sets": n_sets,
        "seed": seed,
    }


def _columns(s: PosteriorSummary) -> dict[str, FloatArray]:
    """Per-cluster numbers whose means are reported."""
    return {
        "coverage_68": ((s.log10_true >= s.q16) & (s.log10_true <= s.q84)).astype(float),
        "coverage_95": ((s.log10_true >= s.q025) & (s.log10_true <= s.q975)).astype(float),
        "coverage_hpd_68": (s.hpd <= 0.68).astype(float),
        "coverage_hpd_95": (s.hpd <= 0.95).astype(float),
        "outlier_rate": (np.abs(s.pit - 0.5) > 0.5 * OUTLIER_LEVEL).astype(float),
        "crps": s.crps,
        "nll": -s.log_density,
        "interval_score_68": interval_score(s.log10_true, s.q16, s.q84, 0.68),
        "interval_score_95": interval_score(s.log10_true, s.q025, s.q975, 0.95),
        "sharpness_68": s.q84 - s.q16,
        "mean_sigma": s.sigma,
        "z_mean": s.z,
        "z_square": s.z**2,
        "contraction": s.contraction,
    }


def _statistics(
    s: PosteriorSummary,
    values: FloatArray,
    edges: FloatArray,
    halo: NDArray[Any],
    columns: Mapping[str, FloatArray],
    n_resamples: int,
    seed: int,
) -> dict[str, Any]:
    result: dict[str, Any] = binned_statistics(
        s.log10_true,
        s.median,
        by=values,
        edges=edges,
        halo_id=halo,
        averages=columns,
        n_resamples=n_resamples,
        seed=seed,
    )
    result["mean"] = result.pop("mean_mass")
    return result


def _overall(
    s: PosteriorSummary, halo: NDArray[Any], columns: Mapping[str, FloatArray], n_resamples: int, seed: int
) -> dict[str, Any]:
    residuals = residual_statistics(s.log10_true, s.median)
    # Of the truth on the posterior mean: 1 where calibrated, whatever the scatter.
    reverse = residual_statistics(s.mean, s.log10_true)

    def statistics(counts: FloatArray) -> dict[str, FloatArray]:
        total = counts.sum(axis=1)
        result = {name: counts @ column / total for name, column in columns.items()}
        forward = residuals(counts)
        names = ("mean_residual", "scatter", "robust_scatter", "slope")
        result |= {name: forward[name] for name in names}
        result["slope_of_truth"] = reverse(counts)["slope"]
        return result

    return {name: value[0] for name, value in with_errors(statistics, halo, n_resamples, seed).items()}


def _binned(
    s: PosteriorSummary,
    values: FloatArray,
    edges: FloatArray,
    halo: NDArray[Any],
    columns: Mapping[str, FloatArray],
    n_resamples: int,
    min_count: int,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    result = _statistics(s, values, edges, halo, columns, n_resamples, options["seed"])
    index = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, edges.size - 2)
    members = [index == i for i in range(edges.size - 1)]
    result["tests"] = [_test(s, m, halo, **options) if m.sum() >= min_count else None for m in members]
    return result


def _test(s: PosteriorSummary, rows: BoolArray, halo: NDArray[Any], **options: Any) -> dict[str, Any]:
    """PIT of some clusters against uniform, and in words what is wrong where something is."""
    test = uniformity(s.pit[rows], halo[rows], **options)
    fault = _fault(s.pit[rows], test.n_effective)
    return {**_curve(test), "fault": None if test.inside else fault}


def _curve(test: Uniformity) -> dict[str, Any]:
    return {
        "n_clusters": test.n,
        "n_haloes": test.n_haloes,
        "n_effective": test.n_effective,
        "correlation": test.correlation,
        "p_value": test.p_value,
        "grid": np.round(test.grid, 6).tolist(),
        "difference": np.round(test.difference, 6).tolist(),
        "lower": np.round(test.lower, 6).tolist(),
        "upper": np.round(test.upper, 6).tolist(),
    }


def _fault(pit: FloatArray, n_effective: float) -> str:
    """How the normal scores of the PIT depart from N(0, 1), where by more than two standard errors."""
    score = np.clip(ndtri(pit), -_SCORE_LIMIT, _SCORE_LIMIT)
    mean, spread = float(score.mean()), float(score.std())
    words = []
    if abs(mean) > 2.0 * spread / np.sqrt(n_effective):
        words.append(f"masses too {'low' if mean > 0 else 'high'} by {abs(mean):.2f} sigma")
    if abs(spread - 1.0) > 2.0 * spread / np.sqrt(2.0 * n_effective):
        words.append(f"posteriors too {'narrow' if spread > 1 else 'wide'} (scores spread by {spread:.2f})")
    return ", ".join(words) or "neither biased nor of wrong width; the shape departs"


def _verdict(
    family: list[dict[str, Any]], alpha: float, nominal: bool, statement: str, by: Mapping[str, Any]
) -> str:
    """One sentence that the tests support."""
    if not nominal:
        return f"No nominal verdict. {statement}"
    untold = [name.replace("_", " ") for name, bins in by.items() if not bins["told"]]
    note = (
        f" The model is not told the {' and the '.join(untold)}: those bins are shown, not judged."
        if untold
        else ""
    )
    missed = [_name(test, family, by) for test in family if not test["inside"]]
    of = f"{len(family)} tests (PIT, simultaneous {100 * (1 - alpha):.0f} % bands, Holm)"
    if not missed:
        return f"Consistent with calibration: none of {of} rejects.{note}"
    return f"Miscalibrated: {len(missed)} of {of} reject: {'; '.join(missed)}.{note}"


def _name(test: dict[str, Any], family: list[dict[str, Any]], by: Mapping[str, Any]) -> str:
    if test is family[0]:
        return f"all clusters ({test['fault']})"
    for name, bins in by.items():
        for i, other in enumerate(bins["tests"]):
            if other is test:
                low, high = bins["edges"][i : i + 2]
                return f"{name.replace('_', ' ')} {low:.4g}-{high:.4g} ({test['fault']})"
    raise ValueError("The test belongs to no bin.")

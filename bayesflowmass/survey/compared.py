"""Two models on the same clusters: by how much one is narrower and nearer, and whether its intervals hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.diagnostics.paired import Influence, crossed_estimate, mean_influence, scatter_influence
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.evaluation.road import posterior_columns

NOMINAL = 0.04
"""Points from 68 % that a coverage may be off."""
WORTH = 2.0
"""Standard errors by which a difference counts."""

_TITLES = {"bias": "bias", "scatter": "scatter", "width": "width", "in_68": "in 68 %", "in_95": "in 95 %"}


def beside(
    models: Mapping[str, tuple[MassEstimator, ClusterCatalog]], truth: FloatArray, prior: str, seed: int = 0
) -> dict[str, Any]:
    """Numbers of each model on the same clusters, with errors, and the first minus each other, paired.

    Args:
        models: name -> model, and the n clusters told what it is to be told.
        truth: log10 M200c [Msun/h] (n,), NaN where it is not known; residuals are median minus truth.
        prior: of the masses.
        seed: of the draws of the weights.

    Returns:
        ``models``: ``{name: {statistic: [value, error]}}``: bias, scatter and log_score [dex, nats] where the truth is
        known, width (mean sigma), coverage; and under ``minus`` the first model minus this one, ``shift`` among them.
    """
    columns = {
        name: posterior_columns(
            model,
            catalog.with_columns(truth_here=truth),
            {
                "median": lambda p, _: p.median,
                "sigma": lambda p, _: p.sigma,
                "pit": lambda p, c: p.cdf(np.nan_to_num(c.column("truth_here"), nan=14.0)),
                "log_score": lambda p, c: p.log_pdf(np.nan_to_num(c.column("truth_here"), nan=14.0)),
            },
            prior,
            seed=seed,
        )
        for name, (model, catalog) in models.items()
    }
    everyone = np.all([np.isfinite(c["median"]) for c in columns.values()], axis=0)
    judged = everyone & np.isfinite(truth)
    first = next(iter(columns.values()))

    def estimates(influences: Mapping[str, Influence]) -> dict[str, list[float]]:
        found = {}
        for key, influence in influences.items():
            entering = everyone if key in ("width", "shift") else judged
            estimate = crossed_estimate([influence], np.arange(entering.size), entering)
            if np.isfinite(estimate.value):
                found[key] = [estimate.value, estimate.error]
        return found

    result: dict[str, Any] = {}
    for name, own in columns.items():
        numbers = {key: influence(own, truth, everyone, judged) for key, influence in _STATISTICS.items()}
        result[name] = estimates(numbers)
        if own is not first:
            minus = {key: _STATISTICS[key](first, truth, everyone, judged) - numbers[key] for key in numbers}
            minus["shift"] = mean_influence(first["median"] - own["median"], everyone)
            result[name]["minus"] = estimates(minus)
    return {"n": int(everyone.sum()), "n_judged": int(judged.sum()), "prior": prior, "models": result}


_STATISTICS = {
    "bias": lambda c, truth, _, judged: mean_influence(c["median"] - truth, judged),
    "scatter": lambda c, truth, _, judged: scatter_influence(c["median"] - truth, judged),
    "width": lambda c, _, everyone, __: mean_influence(c["sigma"], everyone),
    "in_68": lambda c, _, __, judged: mean_influence(np.abs(c["pit"] - 0.5) < 0.34, judged),
    "in_95": lambda c, _, __, judged: mean_influence(np.abs(c["pit"] - 0.5) < 0.475, judged),
    "log_score": lambda c, _, __, judged: mean_influence(c["log_score"], judged),
}


def table(found: Mapping[str, Any]) -> list[str]:
    """Lines of a table of `beside`, as text."""
    keys = [key for key in _TITLES if key in next(iter(found["models"].values()))]
    lines = [f"  {'':34}" + "".join(f"{_TITLES[key]:>17}" for key in keys)]
    for name, numbers in found["models"].items():
        cells = (
            f"{100 * v:.1f} +- {100 * e:.1f} %" if k.startswith("in_") else f"{v:.3f} +- {e:.3f}"
            for k, (v, e) in ((key, numbers[key]) for key in keys)
        )
        lines.append(f"  {name:34}" + "".join(f"{cell:>17}" for cell in cells))
    return lines


def verdict(found: Mapping[str, Any], survey: Mapping[str, Any] | None = None) -> str:
    """Whether the first model is worth it beside the best of the others: one plain sentence.

    Args:
        found: of `beside` on mocks of the survey.
        survey: of `beside` on the survey; where a reference judges it, it may contradict.
    """
    names = list(found["models"])
    own, others = found["models"][names[0]], names[1:]
    best = max(others, key=lambda name: found["models"][name]["log_score"][0])
    other = found["models"][best]
    gain, error = other["minus"]["log_score"]
    narrower = 1.0 - own["width"][0] / other["width"][0]
    numbers = (
        f"on mocks of this survey its masses scatter by {own['scatter'][0]:.3f} instead of"
        f" {other['scatter'][0]:.3f} dex and"
        f" its PDFs are {abs(narrower):.0%} {'narrower' if narrower >= 0 else 'wider'} than those of {best}, with"
        f" {own['in_68'][0]:.0%} of the true masses in the 68 % intervals (log score {gain:+.3f} +- {error:.3f} nats)."
    )
    if abs(own["in_68"][0] - 0.68) > NOMINAL + WORTH * own["in_68"][1]:
        return f"Not worth it as it is: its intervals do not hold; {numbers}"
    judged = {} if survey is None else survey["models"][best]["minus"]
    here, error_here = judged.get("log_score", (0.0, 0.0))
    if here < -WORTH * error_here:
        return (
            f"Not worth it before this is understood: beside the reference its log score on the survey is {here:+.2f}"
            f" +- {error_here:.2f} nats from that of {best}, though {numbers}"
        )
    if gain > WORTH * error:
        return f"It was worth it: {numbers}"
    return f"It was not worth it, use {best}: {numbers}"

"""What to believe of an evaluated model, in plain words that the tests support."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bayesflowmass.common.numbers import number, percent, with_error
from bayesflowmass.evaluation.table import POPULATIONS, PRIORS
from bayesflowmass.page.document import Tone, Verdict

_STATISTICS = {
    "mean_residual": "mean residual",
    "scatter": "scatter",
    "coverage_68": "68 % coverage",
    "coverage_95": "95 % coverage",
}
_MASS_FROM_DISPERSION = "msigma_inverse"
_SLIGHT = 0.05
"""Largest error of an interval's probability that is called slight: what a large test set finds need not matter."""


def evaluation_verdict(metrics: Mapping[str, Any], calibration: Mapping[str, Any] | None) -> Verdict:
    """Whether to believe the PDFs, how accurate the masses are, what speaks against them.

    Args:
        metrics: content of metrics.json.
        calibration: content of calibration.json; None where there is none.
    """
    tone, headline = _headline(metrics, calibration)
    points = []
    if calibration is not None:
        points += [str(calibration["verdict"])] if calibration["nominal"] else [_mixed(metrics)]
        points += _by_true_mass(calibration)
    if metrics.get("recalibrated"):
        points.append(f"These are recalibrated PDFs, for {metrics['recalibrated']}.")
    points += [_accuracy(metrics), *_beside_others(metrics), *_flags(metrics)]
    if metrics.get("novelty"):
        points.append(str(metrics["novelty"]["verdict"]))
    return Verdict(tone, headline, tuple(points))


def _headline(metrics: Mapping[str, Any], calibration: Mapping[str, Any] | None) -> tuple[Tone, str]:
    sample = f"{metrics['n_clusters']} {POPULATIONS.get(str(metrics.get('population')), 'clusters')}"
    if calibration is None:
        return (
            "open",
            "There is no calibration.json in this folder: whether to believe the PDFs is not known.",
        )
    if not calibration["nominal"]:
        return (
            "open",
            "Whether to believe the widths of the PDFs cannot be judged with this test set and prior.",
        )
    prior = PRIORS.get(str(calibration["prior"]), "prior")
    tests = [calibration["overall"], *_told_tests(calibration)]
    missed = [test for test in tests if not test["inside"]]
    if not missed:
        return "good", f"Believe the PDFs: on {sample}, {prior}, no test finds them miscalibrated."
    error = max(map(_error_of_an_interval, missed))
    rejected = f"{len(missed)} of {len(tests)} tests reject"
    if error <= _SLIGHT:
        return "open", (
            f"The PDFs are nearly calibrated: on {sample}, {prior}, {rejected}, but any interval holds the truth as"
            f" often as it says, to {100 * error:.1f} points."
        )
    where = "overall" if not calibration["overall"]["inside"] else "in some bins"
    return "bad", (
        f"Do not take the PDFs at their word: they are miscalibrated {where}, on {sample}, {prior}"
        f" ({rejected}, and intervals hold the truth up to {100 * error:.0f} points less or more often than they say)."
    )


def _error_of_an_interval(test: Mapping[str, Any]) -> float:
    """Largest difference between the probability of an interval of the PDF and how often it holds the truth.

    That of the PIT's interval [a, b] is D(b) - D(a), with D the ECDF less the diagonal, 0 at both ends.
    """
    difference = (0.0, *test["difference"])
    return float(max(difference) - min(difference))


def _mixed(metrics: Mapping[str, Any]) -> str:
    """Why a pair of population and prior has no nominal verdict, and which one has."""
    population = str(metrics.get("population"))
    why = f"The posteriors have a {PRIORS.get(str(metrics.get('prior')), 'prior of another kind')}"
    if population not in PRIORS:
        return (
            f"{why}; how the masses of the test set were drawn is not known. Give a catalogue that says it."
        )
    return (
        f"{why}, the test set is {POPULATIONS[population]}: no PDF can be right for both. `bayesflowmass evaluate"
        f" --prior {population}` judges them."
    )


def _told_tests(calibration: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [test for bins in calibration["by"].values() if bins["told"] for test in bins["tests"] if test]


def _by_true_mass(calibration: Mapping[str, Any]) -> list[str]:
    """What holds for mixed pairs too: the sample against what the model expects at fixed true mass."""
    by_true, alpha = calibration["by_true_mass"], calibration["alpha"]
    known = {name: by_true.get(f"p_holm_{name}") for name in _STATISTICS}
    found = {name: p for name, p in known.items() if p is not None}
    if not found:
        return []
    off = [f"{_STATISTICS[name]} (p = {p:.2g})" for name, p in found.items() if p <= alpha]
    if not off:
        return ["By true mass bias, scatter and coverage are what the model itself expects of this test set."]
    return [f"By true mass the sample is not what the model itself expects: {', '.join(off)}."]


def _accuracy(metrics: Mapping[str, Any]) -> str:
    factor = number(10.0 ** metrics["scatter"], 2)
    text = (
        f"A mass is off by a factor of {factor} typically: scatter"
        f" {with_error(metrics['scatter'], metrics.get('scatter_se'))} dex about a mean residual of"
        f" {with_error(metrics['mean_residual'], metrics.get('mean_residual_se'), sign=True)} dex, at a slope of"
        f" {with_error(metrics['slope'], metrics.get('slope_se'), 2)}. The PDFs claim"
        f" {number(metrics.get('mean_sigma'))} dex"
    )
    if metrics.get("calibration_prior", metrics.get("prior")) != metrics.get("prior"):
        # Coverage under this prior is no statement about the PDFs.
        return f"Under the {PRIORS.get(str(metrics.get('prior')), 'prior')}: {text[0].lower()}{text[1:]}."
    return (
        f"{text}; their 68 % intervals hold {percent(metrics['coverage_68'], metrics.get('coverage_68_se'))} of the"
        " true masses."
    )


def _beside_others(metrics: Mapping[str, Any]) -> list[str]:
    """Scatter over slope beside two baselines: shrinking all masses to the middle does not improve it."""
    others = {"M-sigma": _MASS_FROM_DISPERSION, "the galaxy count alone": "richness"}
    known = [
        f"{with_error(entry['scatter_over_slope'], entry.get('scatter_over_slope_se'))} of {name}"
        for name, key in others.items()
        if (entry := metrics.get("baselines", {}).get(key)) and entry.get("scatter_over_slope") is not None
    ]
    ours = metrics.get("scatter_over_slope")
    if not known or ours is None:
        return []
    return [
        "Scatter over slope, the lower the better:"
        f" {with_error(ours, metrics.get('scatter_over_slope_se'))} dex beside {' and '.join(known)}"
        " on the same clusters."
    ]


def _flags(metrics: Mapping[str, Any]) -> list[str]:
    flags = metrics.get("flags") or {}
    if not flags:
        return []
    counts = ", ".join(f"{name} {count}" for name, count in sorted(flags.items(), key=lambda f: -f[1]))
    return [f"Flags among the {metrics['n_clusters']} clusters: {counts}."]

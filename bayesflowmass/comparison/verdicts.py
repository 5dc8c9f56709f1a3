"""Verdicts in words: what the numbers of a comparison support, after correction for their number.

For each method, each bin and each of three questions there is a test. Is the coverage of the 68 % interval
closer to nominal than the reference's, in bins of each model's own prediction? Is the log score better, and the
CRPS, in bins of the mean of both predictions? All tests of a section are one family with Holm's correction: of
models that differ in nothing, a difference is claimed in at most ``alpha`` of all comparisons. A second family,
corrected likewise, asks whether a score is worse by more than a tolerance; only where that is excluded the words
are "not worse".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bayesflowmass.comparison.statistics import MIN_HALOES, Bin, Comparison
from bayesflowmass.diagnostics.multiplicity import holm
from bayesflowmass.diagnostics.paired import Estimate

TOLERANCES = {"log_score": 0.02, "crps": 0.002}
"""Loss that counts as none: nats and dex."""

_WORDS = {"log_score": ("log score", "nats", 3), "crps": ("CRPS", "dex", 4)}


@dataclass(frozen=True)
class Verdict:
    """One answer.

    Attributes:
        method, bin: what was asked about.
        quantity: coverage_68, log_score or crps.
        gain: positive where the method is better than the reference: smaller distance of the coverage from nominal,
            higher log score, lower CRPS. With its error.
        p: of no difference, before correction; None where it was not tested.
        p_holm: the same, corrected.
        p_not_worse_holm: of a loss beyond the tolerance, corrected; None where it was not tested.
        answer: better, worse, not worse, undecided or not tested.
        sentence: the answer in words.
    """

    method: str
    bin: str
    quantity: str
    gain: float | None
    error: float | None
    p: float | None
    p_holm: float | None
    p_not_worse_holm: float | None
    answer: str
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def section_verdicts(
    comparison: Comparison,
    bins: Sequence[Bin],
    *,
    nominal: bool,
    why_not: str = "",
    alpha: float = 0.05,
    tolerances: Mapping[str, float] = TOLERANCES,
) -> list[Verdict]:
    """Answers for every method but the reference, every bin and every question.

    Args:
        comparison: the methods.
        bins: of log10 mass.
        nominal: whether coverage can be nominal for this population and prior.
        why_not: the reason where it cannot.
        alpha: familywise error rate.
        tolerances: of the scores.
    """
    asked: list[tuple[str, Bin, str, Estimate]] = []
    for method in comparison.others:
        for bin_ in bins:
            distance = comparison.distance_from_nominal(method.label, "coverage_68", bin_, "predicted")
            asked.append((method.label, bin_, "coverage_68", _times(distance, -1.0)))
            for name, sign in (("log_score", 1.0), ("crps", -1.0)):
                difference = comparison.difference(method.label, name, bin_, "predicted")
                asked.append((method.label, bin_, name, _times(difference, sign)))
    tested = [e.n_haloes >= MIN_HALOES and (nominal or name != "coverage_68") for _, _, name, e in asked]
    p = [e.p_value() if test else np.nan for (_, _, _, e), test in zip(asked, tested, strict=True)]
    p_worse = [
        e.p_above(-tolerances[name]) if test and name in tolerances else np.nan
        for (_, _, name, e), test in zip(asked, tested, strict=True)
    ]
    return [
        _verdict(comparison, *question, raw, a, b, alpha, tolerances, nominal, why_not)
        for question, raw, a, b in zip(asked, p, holm(p), holm(p_worse), strict=True)
    ]


def _verdict(
    comparison: Comparison,
    label: str,
    bin_: Bin,
    name: str,
    gain: Estimate,
    raw: float,
    p: float,
    p_worse: float,
    alpha: float,
    tolerances: Mapping[str, float],
    nominal: bool,
    why_not: str,
) -> Verdict:
    if not np.isfinite(p):
        answer = "not tested"
        if name == "coverage_68" and not nominal:
            sentence = f"coverage not judged ({why_not})"
        else:
            sentence = f"{_title(name)} not judged: fewer than {MIN_HALOES} haloes ({gain.n_haloes})"
    else:
        excluded = np.isfinite(p_worse) and p_worse < alpha
        significant = "better" if gain.value > 0 else "worse"
        answer = significant if p < alpha else "not worse" if excluded else "undecided"
        said = _p(p, raw, answer)
        if name == "coverage_68":
            sentence = _coverage_sentence(comparison, label, bin_, gain, answer, said)
        else:
            sentence = _score_sentence(name, gain, answer, said, tolerances[name], bool(excluded))

    def number(value: float) -> float | None:
        return float(value) if np.isfinite(value) else None

    return Verdict(
        label,
        bin_.name,
        name,
        number(gain.value),
        number(gain.error),
        number(raw),
        number(p),
        number(p_worse),
        answer,
        sentence,
    )


def _coverage_sentence(
    comparison: Comparison, label: str, bin_: Bin, gain: Estimate, answer: str, said: str
) -> str:
    ours, theirs = (
        100.0 * comparison.alone(name, "coverage_68", bin_, "predicted").value
        for name in (label, comparison.reference.label)
    )
    change = f"{theirs:.1f} % to {ours:.1f} %"
    if answer == "undecided":
        return (
            f"coverage of the 68 % interval {change}: a change of its distance from nominal is not shown "
            f"({-100 * gain.value:+.1f} ± {100 * gain.error:.1f} points, {said})"
        )
    word = "closer to" if answer == "better" else "farther from"
    return (
        f"coverage of the 68 % interval {word} nominal by {100 * abs(gain.value):.1f} ± {100 * gain.error:.1f} points "
        f"({change}, {said})"
    )


def _score_sentence(
    name: str, gain: Estimate, answer: str, said: str, tolerance: float, excluded: bool
) -> str:
    title, unit, digits = _WORDS[name]
    numbers = f"{abs(gain.value):.{digits}f} ± {gain.error:.{digits}f} {unit}"
    if answer in ("better", "worse"):
        small = f", less than {tolerance:g}" if answer == "worse" and excluded else ""
        return f"{title} {answer} by {numbers}{small} ({said})"
    signed = f"gain {gain.value:+.{digits}f} ± {gain.error:.{digits}f} {unit}"
    if answer == "not worse":
        return f"{title} not worse ({signed}; a loss beyond {tolerance:g} is excluded)"
    return f"{title} undecided ({signed}, {said})"


def summary_sentence(verdicts: Sequence[Verdict], label: str, reference: str, n_pairs: int) -> str:
    """One sentence for a method: where its coverage is closer to nominal, and whether scores pay for it."""
    mine = [v for v in verdicts if v.method == label]
    coverage = [v for v in mine if v.quantity == "coverage_68"]
    words = {"better": "closer to", "worse": "farther from"}
    parts = []
    for answer, word in words.items():
        where = [v.bin for v in coverage if v.answer == answer]
        if where:
            parts.append(f"coverage {word} nominal in {_list(where, mine)}")
    if all(v.answer == "not tested" for v in coverage):
        parts.append("coverage not judged")
    elif not parts:
        parts.append("no change of the distance of its coverage from nominal is shown")
    for name in _WORDS:
        for answer in ("better", "worse", "not worse", "undecided"):
            where = [v.bin for v in mine if v.quantity == name and v.answer == answer]
            if where:
                parts.append(f"{_WORDS[name][0]} {answer} in {_list(where, mine)}")
    caveat = " One training of each: nothing is said about other trainings." if n_pairs == 1 else ""
    return f"{label} against {reference}: {'; '.join(parts)}.{caveat}"


def _times(estimate: Estimate, sign: float) -> Estimate:
    return Estimate(**{**asdict(estimate), "value": sign * estimate.value})


def _title(name: str) -> str:
    return _WORDS[name][0] if name in _WORDS else "coverage"


def _list(names: Sequence[str], verdicts: Sequence[Verdict]) -> str:
    if len(names) == len({v.bin for v in verdicts}):
        return "all bins" if len(names) > 1 else names[0]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _p(p: float, raw: float, answer: str) -> str:
    """The corrected p-value of a claim, the raw one where there is no claim."""
    value, kind = (p, "corrected") if answer in ("better", "worse") else (raw, "before correction")
    return f"p < 0.001 {kind}" if value < 0.001 else f"p = {value:.3f} {kind}"

"""Tables and the figure of the flagship comparison, from the predictions that its models left behind."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from bayesflowmass.comparison.statistics import Bin, Comparison
from bayesflowmass.diagnostics.paired import Estimate
from bayesflowmass.plots.style import COLOURS, PAGE_WIDTH, column_figure, journal_style, save_figure
from benchmarks.flagship.data import SPARSE_ABOVE
from benchmarks.flagship.outcomes import (
    BAYESIAN,
    BINS,
    COVERAGES,
    FINE,
    LOWER,
    MASSIVE,
    SINGLE,
    TITLES,
    Verdict,
    costs,
    detectors,
    finished,
    over_runs,
    read_sets,
    width,
)
from benchmarks.flagship.studies import Study
from benchmarks.provenance import header

__all__ = ["write_tables"]


def not_yet(work: Path, sets: dict[str, Comparison], study: Study) -> list[str]:
    """What the plan asks for and is not here."""
    short = [
        f"{TITLES[name]} ({len(finished(work, name, study))} of {len(study.seeds)} seeds)"
        for name in sets
        if len(finished(work, name, study)) < len(study.seeds)
    ]
    missing = [TITLES[name] for name in study.sets if name not in sets]
    if not short and not missing:
        return []
    parts = [("cut short by the clock", short), ("not run", missing)]
    said = "; ".join(f"{what}: {', '.join(which)}" for what, which in parts if which)
    return [f"**Not yet what was planned.** {said[0].upper()}{said[1:]}.", ""]


def cell(estimate: Estimate, digits: int = 3, percent: bool = False) -> str:
    """A number with its standard error."""
    scale, digits = (100.0, 1) if percent else (1.0, digits)
    if not math.isfinite(estimate.value):
        return "-"
    return f"{scale * estimate.value:.{digits}f} ± {scale * estimate.error:.{digits}f}"


def main_table(comparison: Comparison, bin_: Bin, seconds: dict[str, float] | None) -> list[str]:
    """A row for each method in one bin."""
    cost = " processor [s] |" if seconds else ""
    lines = [
        "| weights | log score | variational less this | coverage 68 % | coverage 95 % | CRPS [dex] | mean residual |"
        f" epistemic share |{cost}",
        "|---" * (9 if seconds else 8) + "|",
    ]
    for method, label in (SINGLE | BAYESIAN).items():
        if method not in comparison.methods:
            continue
        own = "-"
        if method != "variational":
            found = comparison.difference(method, "log_score", bin_, "true")
            own = f"{-found.value:+.3f} ± {found.error:.3f}"
        share = "-"
        if method in BAYESIAN:
            share = cell(comparison.alone(method, "epistemic_share", bin_, "true"))
        parts = [
            label,
            cell(comparison.alone(method, "log_score", bin_, "true")),
            own,
            *(cell(comparison.alone(method, name, bin_, "predicted"), percent=True) for name in COVERAGES),
            cell(comparison.alone(method, "crps", bin_, "true"), 4),
            cell(comparison.alone(method, "mean_residual", bin_, "true")),
            share,
        ]
        if seconds:
            parts.append(f"{seconds[method]:.0f}" if method in seconds else "")
        lines.append("| " + " | ".join(parts) + " |")
    return [*lines, ""]


def over_seeds(values: list[float], digits: int = 2) -> str:
    """Mean and standard error over seeds."""
    v = np.asarray(values)
    return f"{v.mean():.{digits}f} ± {v.std(ddof=1) / math.sqrt(len(v)):.{digits}f}"


def first_sentence(verdicts: dict[str, Verdict]) -> str:
    """What came of the rule."""
    won, better = (sum(getattr(v, key) for v in verdicts.values()) for key in ("wins", "better"))
    if won >= 2:
        return (
            "**Above log10 M = 14.7 the variational posterior of the weights beats the best single network"
            f" with controls in {won} of {len(verdicts)} settings** (log score, two standard errors, coverage"
            " nominal)."
        )
    return (
        "**The Bayesian model does not beat the best single network with controls on massive clusters:** above"
        f" log10 M = 14.7 its log score is better by two standard errors in {better} of {len(verdicts)}"
        f" settings, and with nominal coverage as well in {won}; two were asked for beforehand"
        " (`benchmarks/flagship_plan.md`)."
    )


def verdict_table(sets: dict[str, Comparison]) -> list[str]:
    """The primary outcome, and the same for the other posteriors."""
    lines = [
        "| training set | seeds | weights | best single network | gain over it [nats] | coverage 68 % |"
        " coverage 95 % | verdict |",
        "|---" * 8 + "|",
    ]
    for name, comparison in sets.items():
        for method in (m for m in BAYESIAN if m in comparison.methods):
            v = Verdict(comparison, method)
            said = "better" if v.better else "worse" if v.worse else "no difference shown"
            said += ", coverage nominal" if v.nominal else ", coverage not nominal"
            covered = " | ".join(cell(v.coverage[c], percent=True) for c in COVERAGES)
            gain = f"{v.gain.value:+.3f} ± {v.gain.error:.3f}"
            lines.append(
                f"| {TITLES[name]} | {len(comparison.reference.runs)} | {BAYESIAN[method]} | {SINGLE[v.best]} |"
                f" {gain} | {covered} | {said} |"
            )
    return [*lines, ""]


def detector_table(sets: dict[str, Comparison]) -> list[str]:
    """Areas under the curve."""
    kinds = (
        "variational: epistemic", "variational: epistemic share", "variational: aleatoric", "variational: sigma",
        "ensemble: epistemic", "point: sigma", "variational: predicted mass",
    )  # fmt: skip
    if not all("ensemble_10" in comparison.methods for comparison in sets.values()):
        kinds = tuple(kind for kind in kinds if not kind.startswith("ensemble"))
    lines = ["| training set | event | " + " | ".join(kinds) + " |", "|---" * (2 + len(kinds)) + "|"]
    for name, comparison in sets.items():
        for event, found in detectors(comparison, name).items():
            lines.append(
                f"| {TITLES[name]} | {event} | "
                + " | ".join(over_seeds(found[kind]) for kind in kinds)
                + " |"
            )
    return [*lines, ""]


def width_table(sets: dict[str, Comparison]) -> list[str]:
    """Where the epistemic width is large."""
    bins = BINS[:4]
    lines = [
        "| training set | weights | " + " | ".join(b.name for b in bins) + " |",
        "|---" * (2 + len(bins)) + "|",
    ]
    for name, comparison in sets.items():
        for method in (m for m in BAYESIAN if m in comparison.methods):
            values = (over_seeds(width(comparison, method, b), 4) for b in bins)
            lines.append(f"| {TITLES[name]} | {BAYESIAN[method]} | " + " | ".join(values) + " |")
    return [*lines, ""]


def realised_table(sets: dict[str, Comparison]) -> list[str]:
    """Epistemic width beside the scatter of medians over trainings on other clusters: root mean squares in bins."""
    bins = BINS[:4]
    lines = [
        "| training set | weights | " + " | ".join(b.name for b in bins) + " | rank correlation |",
        "|---" * (3 + len(bins)) + "|",
    ]
    for name, comparison in sets.items():
        point = over_runs(comparison, "point", "log10_mass")
        for method in (m for m in BAYESIAN if m in comparison.methods):
            stated = (over_runs(comparison, method, "sigma_epistemic") ** 2).mean(0)
            columns = [stated]
            for medians in (over_runs(comparison, method, "log10_mass"), point):
                columns.append(medians.var(0, ddof=1))
            inside = [b.holds(comparison.truth) for b in bins]
            cells = (" / ".join(f"{np.sqrt(c[rows].mean()):.3f}" for c in columns) for rows in inside)
            rank = spearmanr(stated, columns[2]).statistic
            lines.append(f"| {TITLES[name]} | {BAYESIAN[method]} | " + " | ".join(cells) + f" | {rank:.2f} |")
    return [*lines, ""]


def draw(sets: dict[str, Comparison], out: Path) -> None:
    """Gains over every single network, and epistemic width against mass: a column for each training set."""
    figure, flat = column_figure(
        4.6, width=max(PAGE_WIDTH, 1.9 * len(sets)), rows=2, columns=len(sets), sharey="row"
    )
    figure.set_layout_engine("constrained")
    axes = np.reshape(np.array(flat, dtype=object), (2, len(sets)))
    controls = [m for m in SINGLE if all(m in comparison.methods for comparison in sets.values())]
    with journal_style():
        for column, (name, comparison) in enumerate(sets.items()):
            upper, lower = axes[:, column]
            best = Verdict(comparison, "variational").best
            for row, method in enumerate(controls):
                found = comparison.difference(method, "log_score", MASSIVE, "true")
                upper.errorbar(
                    -found.value, row, xerr=2.0 * found.error, fmt="o", ms=3, lw=1,
                    color=COLOURS["vermillion"] if method == best else COLOURS["blue"],
                )  # fmt: skip
            upper.axvline(0.0, color="0.5", lw=0.8, ls=":")
            upper.set_title(TITLES[name].replace(", ", ",\n"), fontsize=7)
            upper.set_xlabel("log score of the variational\nless this, above 14.7 [nats]")
            centres = [0.5 * (b.low + b.high) for b in FINE]
            for (method, label), colour in zip(
                BAYESIAN.items(), ("blue", "sky", "orange", "green"), strict=True
            ):
                if method in comparison.methods:
                    values = [np.mean(width(comparison, method, b)) for b in FINE]
                    lower.plot(centres, values, color=COLOURS[colour], lw=1.2, label=label.strip("*"))
            lower.axvline(SPARSE_ABOVE, color="0.5", lw=0.8, ls=":")
            lower.set_xlabel(r"$\log_{10} M_{200c}$ [M$_\odot/h$]")
        axes[0, 0].set_yticks(range(len(controls)), [SINGLE[method] for method in controls])
        axes[0, 0].invert_yaxis()
        axes[1, 0].set_ylabel("epistemic standard\ndeviation [dex]")
        axes[1, 0].set_ylim(0.0)
        axes[1, 0].legend(fontsize=6, frameon=False)
    save_figure(figure, out)


def with_error(estimate: Estimate) -> list[float | None]:
    """A number and its standard error, for JSON."""
    return [round(x, 5) if math.isfinite(x) else None for x in (estimate.value, estimate.error)]


def numbers(comparison: Comparison) -> dict[str, Any]:
    """Every number of a set with its standard error, JSON-able; ``log_score_by_seed`` is above 14.7."""
    quantities = ("log_score", "crps", *COVERAGES, "mean_residual", "scatter", "epistemic_share")
    result: dict[str, Any] = {}
    for name, method in comparison.methods.items():
        by_bin = {
            b.name: {
                q: with_error(comparison.alone(name, q, b, "predicted" if q in COVERAGES else "true"))
                for q in quantities
                if name in BAYESIAN or q != "epistemic_share"
            }
            for b in BINS
        }
        inside = MASSIVE.holds(comparison.truth)
        result[name] = {
            "bins": by_bin,
            "log_score_by_seed": [float(run.columns["log_density"][inside].mean()) for run in method.runs],
        }
    return result


def write_tables(work: Path, out: Path, source: dict[str, Any], study: Study) -> None:
    """OUT.md, OUT.json and the figure."""
    sets = read_sets(work, study)
    if not sets:
        raise SystemExit(f"No set in '{work}' has its {len(study.seeds)} seeds.")
    verdicts = {name: Verdict(comparison, "variational") for name, comparison in sets.items()}
    lines = [
        first_sentence(verdicts),
        "",
        header(study.title, source).rstrip("\n"),
        "",
        f"{len(study.seeds)} seeds for each set were fixed beforehand, each with training clusters of its own;"
        f" {len(next(iter(sets.values())).truth)} test clusters (seed 779), the same for all, prior flat over"
        " 14.0-15.4. Scores, residuals and the epistemic share (variance of the means over that of the mixture)"
        " by **true** mass; coverage by **predicted** mass, where it can be nominal. Errors are standard errors"
        " over seeds and test clusters together. What each row is: `benchmarks/flagship_plan.md`.",
        "",
        *not_yet(work, sets, study),
        "**Primary outcome, log10 M = 14.7-15.4.** Against the single network with the highest log score there,"
        " chosen on the test set, which favours it. The rule was written for the variational posterior; for the"
        " others it is secondary.",
        "",
        *verdict_table(sets),
        f"![Gains over single networks with two standard errors, best of them red; epistemic width]({out.name}.png)",
        "",
        "**What the epistemic width detects.** Area under the ROC curve (0.5: nothing), mean and standard error"
        " over seeds; each by the errors of its own model.",
        "",
        *detector_table(sets),
        "**Epistemic standard deviation [dex]** by true mass, mean and standard error over seeds.",
        "",
        *width_table(sets),
        "**Stated and realised ignorance [dex]**, not in the plan: stated epistemic standard deviation / scatter"
        " over seeds, so over training sets, of the medians of the same method / of the point; root mean squares"
        " by true mass. Rank correlation over test clusters: of the stated one with the point's scatter.",
        "",
        *realised_table(sets),
    ]
    more = {}
    for name, comparison in sets.items():
        seconds, cells = costs(work, name, study)
        gains = [c["gain of as many updates again"] for c in cells]
        decays = ", ".join(f"{c['weight decay']:g}" for c in cells)
        temperatures = ", ".join(f"{c['point temperature']:.2f}" for c in cells)
        lines += [
            f"**{TITLES[name]}, log10 M = 14.7-15.4**", "", *main_table(comparison, MASSIVE, seconds),
            f"**{TITLES[name]}, log10 M = 14.0-14.7**", "", *main_table(comparison, LOWER, None),
            f"At full rate, as many updates again would raise the variational bound by {over_seeds(gains, 3)}"
            f" nats for each cluster. Weight decays chosen: {decays}. Temperatures of the point: {temperatures}.", "",
        ]  # fmt: skip
        more[name] = {
            "verdict": {
                "best": verdicts[name].best, "gain": with_error(verdicts[name].gain), "wins": verdicts[name].wins,
            },
            "methods": numbers(comparison),
            "detectors": detectors(comparison, name),
            "cells": cells,
        }  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".md").write_text("\n".join(lines), encoding="utf-8")
    # Lists of numbers on one line.
    text = json.dumps({**source, "seeds": list(study.seeds), "sets": more}, indent=1, allow_nan=False)
    text = re.sub(r"\[\s+([^\[\]]*?)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text)
    out.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    draw(sets, out)

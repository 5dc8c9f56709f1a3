"""comparison.md: the first page, then all numbers, then how to read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bayesflowmass.comparison.statistics import QUANTITIES

_READ = """## How to read this

- **Errors** are standard errors over haloes (sandwich: clusters of one halo together) and, where a method has several
  trainings, over these. A difference is paired: same clusters, same seed.
- **By predicted mass**: coverage of each model on the clusters that it puts into the bin; differences of scores on the
  clusters whose mean of the two medians lies there. Bins were chosen without the truth, so that a score is proper and a
  coverage can be nominal.
- **By true mass** neither holds: even a perfect posterior departs from nominal there, and a model that always shouts
  high masses scores well in the highest bin (the forecaster's dilemma, Lerch et al. 2017, arXiv:1512.09244). These
  numbers describe, they do not judge.
- **Verdicts** are corrected (Holm) for all questions of a section; "not worse" means that a loss beyond the
  tolerance is excluded; "undecided" means that neither a difference nor its absence is shown."""


def format_markdown(comparison: Mapping[str, Any]) -> str:
    """The page of a comparison.

    Args:
        comparison: content of ``comparison.json``.
    """
    lines = [f"# {_title(comparison)}", "", *_facts(comparison), ""]
    return "\n".join([*lines, *format_first_page(comparison), *format_tables(comparison), _READ, ""])


def format_first_page(comparison: Mapping[str, Any], *, level: int = 2, figures: bool = True) -> list[str]:
    """Verdicts, their table and figure, for each section, as lines of markdown.

    Args:
        comparison: content of ``comparison.json``.
        level: of the headings.
        figures: show them.
    """
    lines = []
    for section in comparison["sections"]:
        lines += [f"{'#' * level} {_heading(comparison, section)}", ""]
        lines += [f"- {sentence}" for sentence in section["summary"]]
        lines += ["", *_first_table(comparison, section), ""]
        stem = (section.get("figures") or {}).get("first")
        if figures and stem:
            lines += [
                f"![Coverage of 68 % (filled) and 95 % (open), differences of scores, epistemic share]({stem}.png)",
                "",
            ]
        lines += ["Answers, bin by bin:", "", *_answers(section), ""]
    return lines


def format_tables(
    comparison: Mapping[str, Any],
    binnings: Sequence[str] = ("true", "predicted"),
    *,
    level: int = 2,
    figures: bool = True,
) -> list[str]:
    """All numbers of each section, as lines of markdown.

    Args:
        comparison: content of ``comparison.json``.
        binnings: "true", "predicted".
        level: of the headings.
        figures: show them.
    """
    lines = []
    for section in comparison["sections"]:
        name = f", {section['name']}" if section["name"] else ""
        stem = (section.get("figures") or {}).get("accuracy")
        for binning in binnings:
            lines += [f"{'#' * level} By {binning} mass{name}", "", *_table(section, f"by_{binning}"), ""]
            if figures and stem and binning == "true":
                lines += [f"![Residuals, widths, scores]({stem}.png)", ""]
    return lines


def format_text(comparison: Mapping[str, Any]) -> str:
    """The verdicts for a terminal."""
    lines = [*_facts(comparison)]
    for section in comparison["sections"]:
        if section["name"]:
            lines += ["", section["name"]]
        lines += [f"  {sentence}" for sentence in section["summary"]]
    return "\n".join(lines)


def _title(comparison: Mapping[str, Any]) -> str:
    bayesian = any(m["bayesian"] for s in comparison["sections"] for m in s["methods"].values())
    return "Deterministic against Bayesian on massive clusters" if bayesian else "Models compared by mass"


def _heading(comparison: Mapping[str, Any], section: Mapping[str, Any]) -> str:
    bayesian = any(m["bayesian"] for m in section["methods"].values())
    what = (
        "Deterministic against Bayesian on massive clusters" if bayesian else "Against the reference by mass"
    )
    return f"{section['name']}: {what[0].lower()}{what[1:]}" if section["name"] else what


def _facts(comparison: Mapping[str, Any]) -> list[str]:
    population = {"hmf": "drawn from the mass function", "flat": "flat in log mass"}.get(
        comparison["population"] or "", "of unknown distribution"
    )
    lines = [
        f"{comparison['n_clusters']} clusters of {comparison['n_haloes']} haloes, masses {population}; "
        f"{comparison['prior']} prior; residual = log10(M_true / M_pred) [dex], M200c, M_pred the posterior median.",
        comparison["coverage_statement"],
    ]
    return [line for line in [*lines, *comparison["remarks"]] if line]


def _first_table(comparison: Mapping[str, Any], section: Mapping[str, Any]) -> list[str]:
    """By predicted mass: what the verdicts are about."""
    columns = [
        "log10 M", "model", "trainings", "clusters", "epistemic share", "coverage 68 %",
        "closer to nominal by [points]", "coverage 95 %", "Δ log score [nats]", "Δ CRPS [dex]",
    ]  # fmt: skip
    lines = [_row(columns), "|---" * len(columns) + "|"]
    labels = [section["reference"], *section["differences"]]
    for i, entry in enumerate(section["methods"][labels[0]]["by_predicted"]):
        for label in labels:
            alone = section["methods"][label]["by_predicted"][i]
            other = section["differences"].get(label, {}).get("by_predicted")
            distance = other[i]["coverage_68_distance"] if other else None
            lines.append(
                _row(
                    [
                        f"{entry['bin']}",
                        label,
                        str(len(section["methods"][label]["seeds"])),
                        str(alone["n"]),
                        _cell(alone.get("epistemic_share"), "epistemic_share"),
                        _cell(alone["coverage_68"], "coverage_68"),
                        _cell(distance, "coverage_68", sign=-1.0)
                        if comparison["coverage_can_be_nominal"]
                        else "-",
                        _cell(alone["coverage_95"], "coverage_95"),
                        _cell(other[i]["log_score"] if other else None, "log_score", sign=1.0),
                        _cell(other[i]["crps"] if other else None, "crps", sign=1.0),
                    ]
                )
            )
    return lines


def _answers(section: Mapping[str, Any]) -> list[str]:
    grouped: dict[tuple[str, str], list[str]] = {}
    for verdict in section["verdicts"]:
        grouped.setdefault((verdict["bin"], verdict["method"]), []).append(verdict["sentence"])
    return [f"- {bin_}, {method}: {'; '.join(sentences)}." for (bin_, method), sentences in grouped.items()]


def _table(section: Mapping[str, Any], by: str) -> list[str]:
    names = list(QUANTITIES)
    heads = [
        f"{QUANTITIES[n].title}{f' [{QUANTITIES[n].unit}]' if QUANTITIES[n].unit not in ('', '%') else ''}"
        for n in names
    ]
    lines = [_row(["log10 M", "model", "clusters", *heads]), "|---" * (len(names) + 3) + "|"]
    labels = [section["reference"], *section["differences"]]
    for i, entry in enumerate(section["methods"][labels[0]][by]):
        for label in labels:
            row = section["methods"][label][by][i]
            lines.append(_row([entry["bin"], label, str(row["n"]), *(_cell(row.get(n), n) for n in names)]))
        for label in labels[1:]:
            row = section["differences"][label][by][i]
            cells = (_cell(row.get(n), n, sign=1.0) for n in names)
            lines.append(_row([entry["bin"], f"Δ {label}", "", *cells]))
    return lines


def _cell(entry: Mapping[str, Any] | None, name: str, sign: float | None = None) -> str:
    """Value and error; with its sign where one is given, for differences."""
    if entry is None or entry["value"] is None:
        return "-"
    quantity = QUANTITIES[name]
    scale = 100.0 if quantity.unit == "%" else 1.0
    value = scale * (sign or 1.0) * entry["value"]
    text = (
        f"{value:+.{quantity.digits}f}"
        if sign is not None or name == "mean_residual"
        else f"{value:.{quantity.digits}f}"
    )
    return text if entry["error"] is None else f"{text} ± {scale * entry['error']:.{quantity.digits}f}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"

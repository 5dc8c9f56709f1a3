"""The comparison table of an evaluation: five rows for a terminal, all rows as plain text and as markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bayesflowmass.baselines import PUBLISHED

COLUMNS = {
    "mean_residual": "mean",
    "scatter": "scatter",
    "slope": "b",
    "scatter_over_slope": "scat/b",
    "scatter_14_15": "14-15",
    "slope_14_15": "b",
    "scatter_over_slope_14_15": "scat/b",
    "mean_abs_residual_14p8_15p2": "abs 15",
    "coverage_68": "in 68%",
    "coverage_95": "in 95%",
    "sigma_N": "s_N",
    "sigma_0": "s_0",
}
"""Keys of metrics.json and their headings."""

_DISPERSIONS = {
    "": "",
    "_gapper": "gapper",
    "_biweight": "biweight",
    "_clipped": "3 sigma",
    "_envelope": "2.7 sigma(R)",
}
POPULATIONS = {"hmf": "clusters drawn from the mass function", "flat": "clusters flat in log mass"}
PRIORS = {"hmf": "mass-function prior", "flat": "flat prior"}
NAMES = (
    {
        f"msigma_{form}{key}": ", ".join(
            filter(None, ("M-sigma", words if key == "" else words.split("+")[0], how))
        )
        for key, how in _DISPERSIONS.items()
        for form, words in (("inverse", "inverse"), ("regression", "regression"), ("evrard", "Evrard+08"))
    }
    | {
        f"{kind}_{form}": f"{kind} mass, {form}"
        for kind in ("virial", "projected")
        for form in ("formula", "inverse", "regression")
    }
    | {"richness": "galaxy count alone"}
)
"""Names of metrics.json -> how tables call the baselines."""


def comparison_rows(metrics: Mapping[str, Any]) -> list[tuple[str, dict[str, float | None]]]:
    """Name and numbers of: the model, the baselines, and published results.

    Published results belong to mass-function test sets of this kind, and stand beside no other.
    """
    rows = [("this model", _numbers(metrics))]
    rows += [(NAMES.get(name, name), _numbers(entry)) for name, entry in metrics["baselines"].items()]
    published = PUBLISHED.get(metrics.get("kind") or "", ()) if metrics["population"] == "hmf" else ()
    for result in published:
        source = result.source.split(",")[0].replace(" et al. ", "+")
        rows.append((f"[{source}: {result.name}]", _numbers(asdict(result))))
    return rows


SUMMARY_COLUMNS = {
    "scatter_14_15": "scatter",
    "slope_14_15": "slope",
    "scatter_over_slope_14_15": "scatter/slope",
}
"""Keys of metrics.json and their headings, of the summary."""

_FAMILIES = {
    "M-sigma": ("msigma_",),
    "virial and projected mass": ("virial_", "projected_"),
    "galaxy count": ("richness",),
}


def summary_rows(metrics: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Name and numbers, errors included, of: the model, the best of each simple method, the published flow.

    Best is the smallest scatter over slope for 14 <= log10 M_true <= 15: shrinking masses to the middle does not help.
    """
    rows: list[tuple[str, Mapping[str, Any]]] = [("this model", metrics)]
    for family, starts in _FAMILIES.items():
        members = {n: e for n, e in metrics["baselines"].items() if n.startswith(starts)}
        known = [n for n, e in members.items() if e.get("scatter_over_slope_14_15") is not None]
        if not known:
            continue
        best = min(known, key=lambda n: members[n]["scatter_over_slope_14_15"])
        way = NAMES.get(best, best).removeprefix(f"{family}, ")
        rows.append(
            (family if len(members) == 1 else f"{family}, best of {len(members)} ({way})", members[best])
        )
    return rows + [row for row in comparison_rows(metrics) if row[0].startswith("[")][:1]


def format_summary(metrics: Mapping[str, Any]) -> str:
    """The table of `summary_rows`, five rows for a terminal."""
    rows = summary_rows(metrics)
    lines = _columns(
        ["", *SUMMARY_COLUMNS.values()],
        [[name, *format_cells({key: row.get(key) for key in SUMMARY_COLUMNS})] for name, row in rows],
    )
    notes = ["Scatter [dex] and slope of predicted on true log10 mass, for true masses of 14-15."]
    if rows[-1][0].startswith("["):
        notes.append("[...]: published, on other mocks of the same kind.")
    return "\n".join([_heading(metrics), *lines, *notes])


def format_text(metrics: Mapping[str, Any]) -> str:
    """The table for a terminal, with what it is a table of above and what it means below."""
    rows = comparison_rows(metrics)
    lines = _columns(["", *COLUMNS.values()], [[name, *format_cells(numbers)] for name, numbers in rows])
    return "\n".join([_heading(metrics), *lines, *_notes(metrics)])


def format_markdown(metrics: Mapping[str, Any]) -> str:
    """The table in markdown, errors included."""
    lines = ["| estimator | " + " | ".join(COLUMNS.values()) + " |"]
    lines.append("|---" * (len(COLUMNS) + 1) + "|")
    entries = {"this model": metrics, **{NAMES.get(n, n): e for n, e in metrics["baselines"].items()}}
    for name, numbers in comparison_rows(metrics):
        errors = entries.get(name, {})
        cells = [
            cell if errors.get(f"{key}_se") is None or cell == "-" else f"{cell} ± {errors[f'{key}_se']:.3f}"
            for key, cell in zip(COLUMNS, format_cells(numbers), strict=True)
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join([_heading(metrics), "", *lines, "", *_notes(metrics)])


def _columns(heading: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a table, names to the left and numbers to the right, between rules."""
    cells = [heading, *rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(heading))]
    lines = [
        "  ".join(
            c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    ]
    rule = "-" * len(lines[0])
    return [rule, lines[0], rule, *lines[1:], rule]


def _heading(metrics: Mapping[str, Any]) -> str:
    kind = " ".join(str(metrics[k]) for k in ("kind", "mode") if metrics.get(k))
    population = {"hmf": "mass-function", "flat": "flat-mass"}.get(str(metrics["population"]), "unknown")
    low, high = metrics["prior_log10_mass_range"]
    return (
        f"{metrics['n_clusters']} {kind} clusters, {population} test set, {metrics['prior']} prior over"
        f" {low:g}-{high:g}; residual = log10(M_true/M_pred) [dex]"
    )


def _notes(metrics: Mapping[str, Any]) -> list[str]:
    notes = [
        "b: slope of predicted on true log mass; 14-15: scatter for 14 <= log10 M_true <= 15, "
        "then b and their ratio there; abs 15: mean |residual| for 14.8-15.2.",
        str(metrics["coverage_statement"]),
    ]
    if metrics.get("coverage_can_be_nominal") and metrics.get("calibration"):
        notes.append(str(metrics["calibration"]))
    equation = metrics.get("equation_8")
    if equation:
        low, high = equation["log10_mass_range"]
        notes.append(
            f"s_N, s_0: equation 8 with N = {metrics['n_members_definition']}, median "
            f"{equation['n_median']:.0f}, "
            f"over log10 M = {low:.2f}-{high:.2f}."
        )
    if metrics["population"] == "hmf" and PUBLISHED.get(metrics.get("kind") or ""):
        notes.append("[...]: published, on other mocks of the same kind, under a flat prior.")
    return notes


def _numbers(entry: Mapping[str, Any]) -> dict[str, float | None]:
    return {key: entry.get(key) for key in COLUMNS}


def format_cells(numbers: Mapping[str, float | None]) -> Sequence[str]:
    """The numbers of one row as text, "-" for what is not known."""
    cells = []
    for key, value in numbers.items():
        if value is None:
            cells.append("-")
        elif key.startswith("coverage"):
            cells.append(f"{100 * value:.1f}%")
        else:
            cells.append(f"{value:+.3f}" if key == "mean_residual" else f"{value:.3f}")
    return cells

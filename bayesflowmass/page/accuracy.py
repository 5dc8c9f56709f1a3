"""How accurate the masses are, beside simpler estimators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bayesflowmass.common.numbers import UNKNOWN, interval, number, percent, with_error
from bayesflowmass.evaluation.table import POPULATIONS, PRIORS, SUMMARY_COLUMNS, summary_rows
from bayesflowmass.page.document import Block, Facts, Section, Table

Numbers = Mapping[str, Any]

_COLUMNS: dict[str, str] = {
    "mean_residual": "mean residual [dex]",
    "scatter": "scatter [dex]",
    "slope": "slope",
    "scatter_over_slope": "scatter / slope [dex]",
    "scatter_14_15": "scatter at 14–15 [dex]",
    "coverage_68": "in 68 % interval",
    "coverage_95": "in 95 % interval",
    "sigma_N": "sigma_N [dex]",
    "sigma_0": "sigma_0 [dex]",
}


def accuracy_section(
    metrics: Mapping[str, Any], rows: Sequence[tuple[str, Numbers, Numbers]], figures: Sequence[Block]
) -> Section:
    """The model beside the best of each simple method, figures, bins of predicted mass, and all baselines.

    Args:
        metrics: content of metrics.json.
        rows: (name, numbers, where their errors are) of the model, the baselines and published results.
        figures: of this section.
    """
    return Section(
        "Accuracy",
        (_sample(metrics), _summary(metrics), *figures, _bins(metrics), baseline_table(metrics, rows)),
    )


def _summary(metrics: Mapping[str, Any]) -> Table:
    """The model beside the best of each simple method and the published flow."""
    rows = tuple(
        (name, *(with_error(row.get(key), row.get(f"{key}_se")) for key in SUMMARY_COLUMNS))
        for name, row in summary_rows(metrics)
    )
    return Table(
        "True masses of 14–15: scatter [dex] and slope of predicted on true log10 mass",
        ("estimator", *SUMMARY_COLUMNS.values()),
        rows,
        "Of each simple method the variant with the smallest scatter / slope; all of them are in the last table of this"
        " section.",
    )


def baseline_table(metrics: Mapping[str, Any], rows: Sequence[tuple[str, Numbers, Numbers]]) -> Table:
    """Model, baselines and published results; arguments of `accuracy_section`."""
    population = POPULATIONS.get(str(metrics.get("population")), "clusters")
    notes = [
        "Residual: log10(M_true / M_pred), M200c [Msun/h], M_pred the posterior median. Slope: of predicted on true"
        " log mass. Errors: bootstrap over haloes."
    ]
    equation = metrics.get("equation_8")
    if equation:
        notes.append(
            f"sigma_N, sigma_0: equation 8 of Kodi Ramanah et al. 2020, N = {metrics['n_members_definition']}, over"
            f" log10 M = {interval(*equation['log10_mass_range'])}."
        )
    if any(name.startswith("[") for name, _, _ in rows):
        notes.append("[...]: published, on other mocks of the same kind.")
    return Table(
        f"The same {metrics['n_clusters']} {population}, {PRIORS.get(str(metrics.get('prior')), 'prior')}",
        ("estimator", *_COLUMNS.values()),
        tuple((name, *(_cell(key, values, errors) for key in _COLUMNS)) for name, values, errors in rows),
        " ".join(notes),
    )


def _cell(key: str, values: Numbers, errors: Numbers) -> str:
    value, error = values.get(key), errors.get(f"{key}_se")
    if key.startswith("coverage"):
        return percent(value, error)
    return with_error(value, error, sign=key == "mean_residual")


def _sample(metrics: Mapping[str, Any]) -> Facts:
    kind, mode = metrics.get("kind") or "", metrics.get("mode")
    mode = f", interlopers of mode {mode}" if mode and kind != "pure" else ""
    selection = metrics.get("selection") or {}
    pairs = [
        ("Test set", f"{metrics['n_clusters']} {kind} clusters of {metrics['n_haloes']} haloes{mode}"),
        ("Population", POPULATIONS.get(str(metrics.get("population")), "unknown")),
        ("Prior", PRIORS.get(str(metrics.get("prior")), "unknown")),
        ("log10 M200c [Msun/h]", interval(*metrics["log10_mass_range"])),
        ("Galaxies in a cluster", f"median {number(metrics.get('median_n_galaxies'), 0)}"),
        ("Selection", ", ".join(f"{key} {value}" for key, value in selection.items()) or UNKNOWN),
    ]
    return Facts(tuple(pairs))


def _bins(metrics: Mapping[str, Any]) -> Table:
    bins = metrics["bins_predicted"]
    edges = bins["edges"]
    rows = []
    for i, n in enumerate(bins["n"]):
        if not n:
            continue
        rows.append(
            (
                interval(edges[i], edges[i + 1]),
                str(n),
                with_error(bins["mean_residual"][i], bins["mean_residual_se"][i], sign=True),
                with_error(bins["scatter"][i], bins["scatter_se"][i]),
                number(bins["mean_sigma"][i]),
                percent(bins["coverage_68"][i], bins["coverage_68_se"][i]),
                percent(bins["coverage_95"][i], bins["coverage_95_se"][i]),
            )
        )
    return Table(
        "By predicted mass: what to expect of a cluster that this model calls so heavy",
        (
            "log10 M_pred [Msun/h]",
            "clusters",
            "mean residual [dex]",
            "scatter [dex]",
            "claimed sigma [dex]",
            "in 68 % interval",
            "in 95 % interval",
        ),
        tuple(rows),
    )

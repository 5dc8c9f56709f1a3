"""Tables and the figure of the flagship comparison, from the predictions that its models left behind."""

from __future__ import annotations

import json
import re

import numpy as np
import pyarrow.parquet as pq

from bayesflowmass.comparison.statistics import QUANTITIES, Bin
from bayesflowmass.plots.style import column_figure, journal_style, save_figure
from benchmarks.provenance import header

__all__ = ["write_tables"]

# Bins of log10 M200c [Msun/h].
COARSE = ((14.0, 14.3), (14.3, 14.7), (14.7, 15.0), (15.0, 15.4))
FINE = [(round(14.0 + 0.1 * i, 1), round(14.1 + 0.1 * i, 1)) for i in range(14)]
LABELS = {
    "point": "point",
    "variational": "variational (default)",
    "mean_field_all": "mean field, all weights",
    "laplace": "Laplace, last layer",
    "ensemble": "ensemble of 5",
}
TITLES = {
    "flat500": "500 flat",
    "flat2000": "2 000 flat",
    "flat20000": "20 000 flat",
    "few_haloes": "2 000 flat, 50 haloes above 14.7",
    "thinned": "20 000, thinned 100 x above 14.7",
    "thinned_known": "the same, density known in training",
}
COLORS = {"point": "#000000", "variational": "#0072B2", "mean_field_all": "#E69F00", "laplace": "#009E73",
          "ensemble": "#CC79A7"}  # fmt: skip


def inside(table, low, high):
    """Statistics of the clusters of a true-mass bin, and coverage of those predicted there."""
    bin_ = Bin(low, high)
    here = bin_.holds(table["log10_mass"])
    needs = {
        "mean_residual": "median",
        "log_score": "log_density",
        "crps": "crps",
        "epistemic_share": "sigma_epistemic",
    }
    result = {
        name: QUANTITIES[name].of(table)[here].mean() for name, column in needs.items() if column in table
    }
    result |= {
        "scatter": QUANTITIES["scatter"].of(table)[here].std(ddof=1),
        "sigma": table["sigma"][here].mean(),
    }
    for name, by in (("true", table["log10_mass"]), ("predicted", table["median"])):
        rows = bin_.holds(by)
        for key in ("coverage_68", "coverage_95"):
            covered = QUANTITIES[key].of(table)[rows]
            result[f"{key}_{name}"] = covered.mean() if rows.any() else np.nan
    return {key: float(value) for key, value in result.items()}


def read(path):
    return {name: column.to_numpy() for name, column in zip(*_columns(path), strict=True)}


def _columns(path):
    table = pq.read_table(path)
    return table.column_names, table.columns


def collect(work, sets, methods, file="predictions"):
    """Statistics[set][method][seed][bin]."""
    found = {}
    for name in sets:
        for method in methods:
            for path in sorted((work / name).glob(f"{method}-*/{file}.parquet")):
                seed = int(re.search(r"-(\d+)$", path.parent.name)[1])
                table = read(path)
                bins = {
                    f"{a}-{b}": inside(table, a, b) for a, b in (*COARSE, *FINE, (14.0, 15.4), (14.7, 15.4))
                }
                found.setdefault(name, {}).setdefault(method, {})[seed] = bins
    return found


def over_seeds(runs, where, key):
    """Mean and standard error over seeds."""
    values = np.array([bins[where][key] for bins in runs.values() if key in bins[where]])
    if not len(values):
        return np.nan, np.nan
    return values.mean(), values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan


def paired(runs, points, where, key):
    """Mean and standard error over seeds of the difference from the point model of the same seed."""
    shared = sorted(set(runs) & set(points))
    values = np.array([runs[s][where][key] - points[s][where][key] for s in shared])
    if not len(values):
        return np.nan, np.nan
    return values.mean(), values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan


def cell(pair, digits=3, percent=False):
    mean, error = pair
    if not np.isfinite(mean):
        return "-"
    if percent:
        mean, error, digits = 100 * mean, 100 * error, 1
    return f"{mean:.{digits}f}" + (f" ± {error:.{digits}f}" if np.isfinite(error) else "")


def table(found, where):
    """One row per set and method, for one bin."""
    low, high = where.split("-")
    lines = [
        f"**log10 M = {low}-{high}**",
        "",
        "| training set | weights | seeds | epistemic share | coverage 68 % | coverage 95 % | log score | "
        "Δ log score | CRPS [dex] | Δ CRPS | mean residual | scatter |",
        "|---" * 12 + "|",
    ]
    for name, methods in found.items():
        for method, runs in methods.items():
            lines.append(
                f"| {TITLES[name]} | {LABELS[method]} | {len(runs)} | "
                + " | ".join(
                    [
                        "-" if method == "point" else cell(over_seeds(runs, where, "epistemic_share")),
                        cell(over_seeds(runs, where, "coverage_68_predicted"), percent=True),
                        cell(over_seeds(runs, where, "coverage_95_predicted"), percent=True),
                        cell(over_seeds(runs, where, "log_score")),
                        "-"
                        if method == "point"
                        else cell(paired(runs, methods.get("point", {}), where, "log_score")),
                        cell(over_seeds(runs, where, "crps"), 4),
                        "-"
                        if method == "point"
                        else cell(paired(runs, methods.get("point", {}), where, "crps"), 4),
                        cell(over_seeds(runs, where, "mean_residual")),
                        cell(over_seeds(runs, where, "scatter")),
                    ]
                )
                + " |"
            )
    return "\n".join([*lines, ""])


def draw(found, out):
    """Epistemic share and coverage against mass, a column for each training set."""
    names = list(found)
    figure, flat = column_figure(
        3.6, width=1.45 * len(names), rows=2, columns=len(names), sharex=True, sharey="row"
    )
    figure.set_layout_engine("constrained")
    axes = np.reshape(np.array(flat, dtype=object), (2, len(names)))
    centres = [0.5 * (a + b) for a, b in FINE]
    for column, name in enumerate(names):
        for method, runs in found[name].items():
            for row, key in enumerate(("epistemic_share", "coverage_68_predicted")):
                if row == 0 and method == "point":
                    continue
                means, errors = np.array([over_seeds(runs, f"{a}-{b}", key) for a, b in FINE]).T
                style = {"color": COLORS[method], "label": LABELS[method]}
                axes[row, column].plot(centres, means, lw=1.2, **style)
                axes[row, column].fill_between(
                    centres,
                    means - np.nan_to_num(errors),
                    means + np.nan_to_num(errors),
                    color=COLORS[method],
                    alpha=0.2,
                    lw=0,
                )
        axes[0, column].set_title(TITLES[name].replace(", ", ",\n"), fontsize=7)
        axes[1, column].axhline(0.68, color="0.5", lw=0.8, ls=":")
        axes[1, column].set_xlabel(r"$\log_{10} M_{200c}$ [M$_\odot/h$]")
    axes[0, 0].set_ylabel("epistemic share of\nthe variance (true mass)")
    axes[1, 0].set_ylabel("coverage of 68 % interval\n(predicted mass)")
    axes[1, 0].set_ylim(0.1, 1.0)
    handles, labels = axes[1, 0].get_legend_handles_labels()
    with journal_style():
        figure.legend(
            handles, labels, loc="outside lower center", ncols=len(labels), fontsize=7, frameon=False
        )
    save_figure(figure, out)


def _without_nan(value):
    """JSON has no NaN: null where a bin holds no cluster."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value


def write_tables(work, sets, methods, out, source):
    """OUT.md, OUT.json and the figure."""
    found = collect(work, sets, methods)
    raw = collect(work, ["thinned"], methods, "predictions_uncorrected")
    bins = [f"{a}-{b}" for a, b in COARSE] + ["14.7-15.4", "14.0-15.4"]
    lines = [header("Deterministic against Bayesian on massive clusters", source)]
    lines += [
        "Test set: fresh mocks, at least 500 in each 0.1 dex of 14.0-15.4. Scores, residuals and the epistemic"
        " share (variance of the means over that of the mixture) by **true** mass; coverage by **predicted**"
        " mass, where it can be nominal. Errors are standard errors over training seeds, each with clusters of"
        " its own; Δ is the paired difference from the point model of the same seed (log score: higher is"
        " better; CRPS: lower is better). The PDFs of the thinned set are divided by its known density of"
        " masses; in the next set the likelihood of training is told that density instead.",
        "",
        *(table(found, where) for where in bins),
    ]
    if raw:
        lines += ["#### Thinned, not corrected for its density of masses", ""]
        lines += [table(raw, where) for where in ("14.3-14.7", "14.7-15.4")]
        exact = work / "flat20000" / "point-0" / "predictions_thinned_prior.parquet"
        if exact.is_file():
            statistics = {
                w: inside(read(exact), *map(float, w.split("-"))) for w in ("14.3-14.7", "14.7-15.4")
            }
            lines += [
                "What an exact posterior under the thinned prior would show (20 000 flat clusters, multiplied by that "
                "prior): "
                + "; ".join(
                    f"{w}: mean residual {s['mean_residual']:.3f}, scatter {s['scatter']:.3f}, log score "
                    f"{s['log_score']:.3f}, coverage by predicted mass {100 * s['coverage_68_predicted']:.1f} %"
                    for w, s in statistics.items()
                )
                + ".",
                "",
            ]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".md").write_text("\n".join(lines), encoding="utf-8")
    out.with_suffix(".json").write_text(
        json.dumps(
            _without_nan({**source, "corrected": found, "uncorrected": raw}), indent=1, allow_nan=False
        ),
        encoding="utf-8",
    )
    draw(found, out)

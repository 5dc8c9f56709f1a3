"""The page of `real_sky.py`: tables and verdicts in words, from its numbers alone."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from astropy.table import Table

STATISTICS = {
    "median": "median of D [dex]",
    "scatter_16_84": "(q84 - q16) / 2 of D [dex]",
    "scatter": "standard deviation of D [dex]",
    "pull_median": "median of D / sigma",
    "pull_scatter_16_84": "(q84 - q16) / 2 of D / sigma",
}
OFFSET, COVERAGE = 0.1, 0.05
QUANTITIES = {
    "n": "galaxies, median",
    "dispersion": "dispersion inside 2.7 sigma(R) [km/s], median",
    "outside_envelope": "share outside 2.7 sigma(R), mean",
    "inner_share": "share within 0.5 Mpc/h, mean",
    "fast_share": "share beyond 1500 km/s, mean",
    "ours": "log10 M, ours, median",
    "virial": "log10 M, virial, median",
    "log10_dispersion_at_30_galaxies": "log10 dispersion at 30 galaxies",
    "moved_r": "centre found again, moved by [Mpc/h], median",
    "rms_moved_v": "velocity centre found again, moved by [km/s], 1.48 MAD",
}


def page(found: dict[str, Any], literature: Table) -> str:
    """Markdown below the header."""
    parts = [
        samples_page(found["samples"]),
        _table_of_masses(found["masses"], literature),
        _coma(found["masses"], found["coma"]),
        _hard(found["masses"]),
    ]
    parts += [_method(found["method"]), _trends(found["method"])]
    parts.append(_field(found["field"]))
    return "".join("\n" + part.strip("\n") + "\n" for part in parts if part)


def table(heads: list[str], rows: list[list[str]]) -> str:
    """A markdown table."""
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def _mass(row: dict[str, Any]) -> str:
    m = row["log10_mass"]
    return f"{m:.3f} +{row['q84'] - m:.3f} -{m - row['q16']:.3f}"


def _published_masses(literature: Table, cluster: str, *kinds: str) -> str:
    words = []
    for row in literature[literature["cluster"] == cluster]:
        if row["kind"] in kinds:
            low, high = row["err_low"], row["err_high"]
            error = ""
            if not getattr(low, "mask", False):
                error = f" ± {low:.2f}" if low == high else f" +{high:.2f} -{low:.2f}"
            words.append(f"{row['log10_m200c']:.2f}{error} ({row['reference']})")
    return "; ".join(words)


def _table_of_masses(masses: dict[str, Any], literature: Table) -> str:
    rows = []
    for row in masses["table"]:
        here = row["cluster"]
        cells = [here, row["source"]]
        if "log10_mass" in row:
            cells += [str(row["n_galaxies"]), _mass(row), row["flags"] or "none"]
        else:
            cells += ["", row.get("missing") or f"refused: {row['refused']}", ""]
        first = not rows or rows[-1][0] != here
        rows.append(
            [
                *cells,
                _published_masses(literature, here, "table") if first else "",
                _published_masses(literature, here, "flow", "galwcat", "other") if first else "",
            ]
        )
    heads = [
        "cluster",
        "source",
        "galaxies",
        "this model, 68 %",
        "flags",
        "literature of the paper's table",
        "others",
    ]
    return (
        "\n#### The paper's clusters\n\nlog10 M200c [Msun/h], flat prior; literature in the same definition "
        "(`benchmarks/real_sky/literature.csv`).\n\n" + table(heads, rows)
    )


def _coma(masses: dict[str, Any], verdict: dict[str, Any]) -> str:
    lines = ["\n#### Coma by several ways\n"]
    for row in masses["table"] + masses["coma_undeclared"]:
        if row["cluster"] == "Coma":
            said = (
                _mass(row) + f", {row['n_galaxies']} galaxies, flags {row['flags'] or 'none'}"
                if "log10_mass" in row
                else row.get("missing") or row.get("refused")
            )
            lines.append(f"- {row['source']}: {said}.")
    sparse = masses["coma_sparse"]
    if "log10_mass" in sparse:
        lines.append(
            f"- DESI, {100 * sparse['share']:.0f} % of its galaxies ({sparse['n_galaxies']}), {sparse['draws']} draws: "
            f"median {sparse['log10_mass']:.3f}, scatter between draws {sparse['scatter']:.3f} dex, sigma of one "
            f"{sparse['sigma']:.3f}; {sparse['lowest']:.3f} to {sparse['highest']:.3f}."
        )
    inside = ", ".join(f"{name}: {'yes' if ok else 'no'}" for name, ok in verdict["in_range"].items())
    lines.append(f"\nWithin 14.75-15.05: {inside or 'nothing to judge'}.")
    for pair in verdict["pairs"]:
        lines.append(
            f"{pair['pair']}: {pair['difference']:.3f} dex apart, combined sigma {pair['combined_sigma']:.3f}."
        )
    if verdict["agree"] is None:
        lines.append(
            f"Agreement of independent samples cannot be judged here: {', '.join(verdict['missing'])} missing."
        )
    else:
        lines.append(f"They {'agree' if verdict['agree'] else 'do not agree'} within one combined sigma.")
    return "\n".join(lines) + "\n"


def _hard(masses: dict[str, Any]) -> str:
    rows = []
    for row in masses["hard"]:
        cells = [row["source"], row["cluster"]]
        if "log10_mass" in row:
            rows.append(
                [*cells, str(row["n_galaxies"]), f"{row['redshift']:.4f}", _mass(row), row["flags"] or "none"]
            )
        else:
            rows.append([*cells, "", "", row.get("missing") or f"refused: {row['refused']}", ""])
    heads = ["data", "cluster", "galaxies", "redshift used", "this model, 68 %", "flags [and notes]"]
    return "\n#### Difficult data\n\n" + table(heads, rows)


def _pm(value: float, error: float, digits: int = 3) -> str:
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def _method(method: dict[str, Any]) -> str:
    if "missing" in method:
        return f"\n#### Mock and sky about the method\n\n{method['missing']}.\n"
    text = "\n#### Mock and sky about the method\n\n"
    text += "D = log10 M_virial - log10 M (ours); bootstrap errors over clusters.\n"
    for name, title in (
        (
            "found_again",
            "Centres found again by one function on both, richer peaks in the cylinder left out of both",
        ),
        ("given", "Centres as given (mocks: errors of 0.1 Mpc/h per axis and 150 km/s assumed)"),
    ):
        part = method[name]
        agree = [row["agrees"] for row in part["agreement"]]
        verdict = (
            "All agree within two standard errors."
            if all(agree)
            else f"{len(agree) - sum(agree)} of {len(agree)} differ by more than two standard errors."
        )
        rows = [
            [
                STATISTICS[row["statistic"]],
                _pm(row["sky"], row["sky_error"]),
                _pm(row["mock"], row["mock_error"]),
                f"{row['difference_in_errors']:+.1f}",
                "yes" if row["agrees"] else "no",
            ]
            for row in part["agreement"]
        ]
        text += (
            f"\n{title}: {part['n_sky']} clusters, {part['n_mock']} mocks (log10 M "
            f"{part['mock_mass_quantiles'][1]:.2f} to {part['mock_mass_quantiles'][3]:.2f}, 5-95 %). {verdict}\n\n"
        )
        text += table(["statistic", "sky", "mocks", "difference / error", "agree"], rows)
    text += "\nWhat the galaxies look like, centres found again, no mass involved but in the two rows that say so:\n\n"
    text += table(
        ["quantity", "sky", "mocks", "difference / error"],
        [
            [
                QUANTITIES[row["quantity"]],
                _pm(row["sky"], row["sky_error"]),
                _pm(row["mock"], row["mock_error"]),
                f"{row['difference_in_errors']:+.1f}",
            ]
            for row in method["found_again"]["looks"]
        ],
    )
    return text


def samples_page(found: dict[str, Any]) -> str:
    """What disagrees first, then every sample and estimator."""
    if "missing" in found:
        return ""
    text, wrong = "", []
    for sample in found["rows"]:
        n, prior = sample["n"], sample["prior"]
        rows = []
        for name, entry in sample["rows"].items():
            value, error = entry["value"], entry["error"]
            if name == f"this model, {prior}":
                missed = [f"median {value['median']:+.2f} dex"] if abs(value["median"]) > OFFSET else []
                for key, level in (("in_68", 0.68), ("in_95", 0.95)):
                    if abs(value[key] - level) > COVERAGE + 1e-9:
                        missed.append(f"{100 * value[key]:.0f} % within the {100 * level:.0f} % interval")
                if missed:
                    wrong.append(f"{sample['sample']} ({n} clusters): {', '.join(missed)}")
            cells = [_pm(value[key], error[key], 2) for key in ("median", "scatter", "slope")]
            cells += [f"{value['scatter_over_slope']:.2f}", _pm(value["rank"], error["rank"], 2)]
            cells += [f"{value['pull_sd']:.2f}", f"{100 * value['in_68']:.0f} / {100 * value['in_95']:.0f}"]
            paired = entry.get("ours_minus_this")
            cells.append("" if paired is None else _pm(paired["value"], paired["error"], 2))
            rows.append([name, *cells])
        heads = [
            "estimator",
            "median",
            "scatter",
            "slope",
            "scatter / slope",
            "rank correlation",
            "sd of pull",
        ]
        text += f"\n{sample['sample']}: {n} clusters, prior of the sample `{prior}`.\n\n"
        text += table([*heads, "in 68 / 95 %", "scatter, ours - this"], rows)
        if "with_error" in sample:
            both = sample["with_error"]
            text += (
                f"\nWith the reference's error beside ours (median {both['dex']:.2f} dex: {both['of']}): "
                f"{100 * both['in_68']:.0f} / {100 * both['in_95']:.0f} % of our masses under this prior "
                f"in the 68 / 95 % intervals, sd of the pull {both['pull_sd']:.2f}.\n"
            )
        if "counts" in sample:
            found_ones = sample["counts"]
            edges = ", ".join(f"{low:g}-{high:g}" for low, high in pairwise(found_ones["annuli"]))
            here = ", ".join(
                _pm(*one, 1) for one in zip(found_ones["sky"], found_ones["sky_error"], strict=True)
            )
            there = ", ".join(f"{one:.1f}" for one in found_ones["mocks"])
            text += (
                f"\nGalaxies at {edges} Mpc/h: {here} a cluster; mocks of the reference masses, as deep and as"
                f" complete: {there}.\n"
            )
    where = "; ".join(wrong) or "nowhere"
    return (
        "\n#### Samples beside other masses\n\nResiduals log10(M / M_ref), each sample under the"
        " prior that says how it was chosen, and under the flat prior and the mass function"
        " (`benchmarks/real_sky/samples.py` says what the model is told and why)."
        f" **Beyond {OFFSET:g} dex, or {100 * COVERAGE:.0f} points from nominal:"
        f" {where}.** docs/real_data.md says what was ruled out and what would explain it. An interval holds no error"
        f" of the reference; simple methods are fitted on mocks like those of training.\n{text}"
    )


def _trends(method: dict[str, Any]) -> str:
    if "missing" in method:
        return ""
    rows = [
        [
            name,
            row["against"],
            _pm(row["slope"], row["error"], 2),
            f"{row['spearman']:+.2f}",
            f"{row['p']:.3f}",
        ]
        for name, several in method["trends"].items()
        for row in several
    ]
    return "\nTrends of residuals [dex per unit]:\n\n" + table(
        ["residual", "against", "slope", "Spearman", "p"], rows
    )


def _field(field: dict[str, Any]) -> str:
    title = "\n#### The pedestal of interlopers\n\n"
    if "missing" in field:
        return f"{title}{field['missing']}.\n"
    rows = [
        [
            f"{row['magnitude_limit']:.2f}",
            *[
                f"{1e3 * row[k]['density']:.2f} ± {1e3 * row[k]['density_error']:.2f}"
                for k in ("field", "mock")
            ],
            f"{1e3 * row['schechter']:.2f}",
            _pm(row["ratio"], row["ratio_error"], 2),
            *[_pm(row[k]["fano"], row[k]["fano_error"], 2) for k in ("field", "mock")],
        ]
        for row in field["rows"]
    ]
    heads = [
        "M_r - 5 log h <",
        "GAMA, random places",
        "mocks, interlopers",
        "luminosity function",
        "mocks / GAMA",
        "variance / mean, GAMA",
        "the same, mocks",
    ]
    text = (
        f"{title}Galaxies per 10^3 (Mpc/h)^3 in R < 1.6 Mpc/h, 1500 < |v| < 2500 km/s, z = 0.06-0.17.\n\n"
        + table(heads, rows)
    )
    around = field["around_clusters"]
    if isinstance(around, str):
        return f"{text}\n{around}.\n"
    rows = [
        [
            f"{row['low']:.0f}-{row['high']:.0f}",
            *[f"{1e3 * row[k]:.1f} ± {1e3 * row[k + '_error']:.1f}" for k in ("sky", "mock")],
            f"{row['difference_in_errors']:+.1f}",
        ]
        for row in around["rows"]
    ]
    low, high = around["masses"]
    return (
        f"{text}\nThe same, all galaxies with M_r - 5 log h < -20.14 and R > 0.8 Mpc/h, around {around['n_sky']} SDSS "
        f"clusters of published log10 M {low}-{high} and {around['n_mock']} mocks of their masses (the published are "
        "0.2 dex high, so look at the shape):\n\n"
        + table(["velocities [km/s]", "SDSS", "mocks", "difference / error"], rows)
    )

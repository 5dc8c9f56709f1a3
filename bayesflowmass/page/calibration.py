"""Whether the stated probabilities come true, by bins of what is known and of what is not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bayesflowmass.page.document import Block, Paragraph, Section, Table
from bayesflowmass.page.numbers import UNKNOWN, interval, number, percent, with_error

__all__ = ["FIGURES", "calibration_section"]

_KINDS = {
    "predicted_mass": ("predicted mass", "log10 M_pred [Msun/h]", 2),
    "richness": ("richness", "galaxies", 0),
}
_KINDS["redshift"] = ("redshift", "redshift", 3)

_HEADINGS = (
    "clusters",
    "mean residual [dex]",
    "in 68 % interval",
    "in 95 % interval",
    "z² (1 where right)",
    "verdict",
)


def calibration_section(calibration: Mapping[str, Any], figures: Sequence[Block]) -> Section:
    """Figures and tables of calibration.json.

    Args:
        calibration: its content.
        figures: of this section.
    """
    tables = [_table(name, bins, calibration) for name, bins in calibration["by"].items()]
    return Section(
        "Calibration",
        (
            Paragraph(
                "A posterior is calibrated if the truth falls into its 68 % intervals in 68 % of the cases, and so at"
                " every level, among all clusters and among those of any predicted mass, richness or redshift. The"
                " grey bands of the figures hold the whole curve of a calibrated sample with 95 % probability."
            ),
            *figures,
            *tables,
            _by_true_mass(calibration),
        ),
    )


def _table(name: str, bins: Mapping[str, Any], calibration: Mapping[str, Any]) -> Table:
    title, heading, digits = _KINDS.get(name, (name.replace("_", " "), name.replace("_", " "), 2))
    edges = bins["edges"]
    rows = [
        (
            interval(edges[i], edges[i + 1], digits),
            str(n),
            with_error(bins["mean_residual"][i], bins["mean_residual_se"][i], sign=True),
            percent(bins["coverage_68"][i], bins["coverage_68_se"][i]),
            percent(bins["coverage_95"][i], bins["coverage_95_se"][i]),
            number(bins["z_square"][i], 2),
            _word(bins["tests"][i], bins["told"]),
        )
        for i, n in enumerate(bins["n"])
    ]
    if name == "predicted_mass":
        overall = calibration["overall"]
        rows.append(
            (
                "all",
                str(overall["n_clusters"]),
                with_error(overall["mean_residual"], overall["mean_residual_se"], sign=True),
                percent(overall["coverage_68"], overall["coverage_68_se"]),
                percent(overall["coverage_95"], overall["coverage_95_se"]),
                number(overall["z_square"], 2),
                _word(overall, True),
            )
        )
    note = "" if bins["told"] else f"The model is not told the {title}: these bins are shown, not judged."
    return Table(f"By {title}", (heading, *_HEADINGS), tuple(rows), note)


def _word(test: Mapping[str, Any] | None, told: bool) -> str:
    if test is None:
        return "too few"
    if not told or test.get("inside") is None:
        return "not judged"
    return "inside the band" if test["inside"] else str(test["fault"])


def _by_true_mass(calibration: Mapping[str, Any]) -> Table:
    bins = calibration["by_true_mass"]
    edges = bins["edges"]

    def beside(name: str, i: int, show: Callable[[float | None], str]) -> tuple[str, str]:
        low, high = bins[f"band_low_{name}"][i], bins[f"band_high_{name}"][i]
        if low is None or high is None:
            return show(bins[name][i]), UNKNOWN
        return show(bins[name][i]), f"{show(low)} to {show(high)}"

    rows = [
        (
            interval(edges[i], edges[i + 1]),
            str(n),
            *beside("mean_residual", i, lambda value: number(value, sign=True)),
            *beside("scatter", i, number),
            *beside("coverage_68", i, percent),
        )
        for i, n in enumerate(bins["n"])
    ]
    return Table(
        "By true mass: the sample beside what the model itself expects there (simultaneous 95 % band)",
        (
            "log10 M_true [Msun/h]",
            "clusters",
            "mean residual [dex]",
            "expected",
            "scatter [dex]",
            "expected",
            "in 68 % interval",
            "expected",
        ),
        tuple(rows),
        "A bias by true mass is no fault: even a perfect posterior pulls heavy clusters towards the common masses."
        " It is one where the sample leaves the band.",
    )


def _pit(calibration: Mapping[str, Any]) -> str:
    overall = calibration["overall"]
    off = max(overall["difference"], key=abs, default=0.0)
    return (
        f"Histogram of the PIT of {overall['n_clusters']} clusters and its cumulative function minus the uniform one,"
        f" which departs by {number(off, sign=True)} at most; p = {overall['p_value']:.2g} for a calibrated model."
    )


def _coverage(calibration: Mapping[str, Any]) -> str:
    overall = calibration["overall"]
    return (
        "Share of true masses inside central and highest-density intervals against their stated level:"
        f" {percent(overall['coverage_68'])} and {percent(overall['coverage_hpd_68'])} at 68 %,"
        f" {percent(overall['coverage_95'])} and {percent(overall['coverage_hpd_95'])} at 95 %."
    )


def _true_mass(calibration: Mapping[str, Any]) -> str:
    bins = calibration["by_true_mass"]
    heaviest = max((i for i, n in enumerate(bins["n"]) if n), default=None)
    text = "Mean residual, scatter and coverage in bins of true mass, with the band that the model expects."
    if heaviest is None:
        return text
    edges = bins["edges"][heaviest : heaviest + 2]
    return (
        f"{text} Heaviest bin, {interval(*edges)}: mean residual {number(bins['mean_residual'][heaviest], sign=True)}"
        f" dex, expected {number(bins['expected_mean_residual'][heaviest], sign=True)} dex."
    )


def _contraction(calibration: Mapping[str, Any]) -> str:
    overall = calibration["overall"]
    return (
        "z-score against contraction of each posterior: mean contraction"
        f" {number(overall['contraction'], 2)} (0: the data say nothing), mean z"
        f" {number(overall['z_mean'], 2, sign=True)}, mean z² {number(overall['z_square'], 2)}."
    )


def _by(name: str) -> Callable[[Mapping[str, Any]], str]:
    def text(calibration: Mapping[str, Any]) -> str:
        bins = calibration["by"].get(name)
        title = _KINDS[name][0]
        if bins is None:
            return f"Cumulative function of the PIT minus the uniform one, by {title}."
        tests = [test for test in bins["tests"] if test]
        lowest = min((test["p_value"] for test in tests), default=float("nan"))
        return (
            f"Cumulative function of the PIT minus the uniform one, in {len(tests)} bins of {title}, each with its"
            f" band; the smallest p-value of a bin is {lowest:.2g}, uncorrected."
        )

    return text


FIGURES: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
    "pit": (
        "PIT: a hump says that the posteriors are too wide, a bowl too narrow, a slope that they are biased.",
        _pit,
    ),
    "coverage": ("How often the intervals of each level hold the truth.", _coverage),
    "pit_by_predicted_mass": (
        "The PIT in bins of predicted mass, each with the band of a calibrated one.",
        _by("predicted_mass"),
    ),
    "pit_by_richness": ("The PIT in bins of the number of galaxies.", _by("richness")),
    "pit_by_redshift": ("The PIT in bins of redshift.", _by("redshift")),
    "calibration_by_true_mass": ("By true mass, beside what the model itself expects there.", _true_mass),
    "contraction": (
        "How much the galaxies narrow the prior, and how far the truth lies from the mean.",
        _contraction,
    ),
}
"""File name -> caption, and the text for readers who cannot see it, from calibration.json."""

"""Whether the stated probabilities come true, by bins of what is known and of what is not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bayesflowmass.common.numbers import UNKNOWN, interval, number, percent, with_error
from bayesflowmass.page.document import Block, Paragraph, Section, Table

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

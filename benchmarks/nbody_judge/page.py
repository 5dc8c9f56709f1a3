"""Page and picture of the N-body judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.plots.style import COLOURS, PAGE_WIDTH, fixed_figure, journal_style, save_figure
from benchmarks.nbody_judge.comparison import APERTURES, RADII, SPEEDS, Measured

__all__ = ["disagreements", "picture", "tables"]

Results = Sequence[tuple[str, Mapping[str, Measured]]]
"""Box and mock by turns: a mock stands behind the box that has its richness and its mode."""
_EDGES = {"radius": RADII, "aperture": APERTURES, "speed": SPEEDS}
_COUNTS = ("galaxies of a cylinder", "variance / mean", "scatter", "scatter between lines of sight")
_RATIO = {2: (0, 3), 3: (0, 2, 3)}

QUANTITIES: Mapping[str, tuple[str, str, float, str]] = {
    "infall": ("mean radial velocity [km/s], r [Mpc/h]", "radius", 30.0, ".0f"),
    "dispersion": ("radial dispersion [km/s], r [Mpc/h]", "radius", 30.0, ".0f"),
    "infall of centrals": ("mean radial velocity of centrals [km/s], r [Mpc/h]", "radius", 30.0, ".0f"),
    "dispersion of centrals": ("radial dispersion of centrals [km/s], r [Mpc/h]", "radius", 30.0, ".0f"),
    "share": ("share of galaxies beyond R200c", "", 0.03, ".3f"),
    "share 2": ("share of galaxies beyond 2 R200c", "", 0.03, ".3f"),
    "share R": ("share beyond R200c, R [Mpc/h]", "aperture", 0.05, ".3f"),
    "share v": ("share beyond R200c, \\|v\\| [km/s]", "speed", 0.05, ".3f"),
    "per member R": ("galaxies beyond 2 R200c over those inside R200c, R [Mpc/h]", "aperture", 0.03, ".3f"),
    "per member v": ("galaxies beyond 2 R200c over those inside R200c, \\|v\\| [km/s]", "speed", 0.03, ".3f"),
    "speeds": ("distribution of those beyond R200c, \\|v\\| [km/s]", "speed", 0.03, ".3f"),
    "far speeds": ("distribution of those beyond 2 R200c, \\|v\\| [km/s]", "speed", 0.03, ".3f"),
}
"""Name, bins, the least difference that is called one, and format of each quantity."""
SCATTERS: Mapping[str, str] = {
    "all": "all galaxies",
    "near": "beyond R200c, \\|v\\| < 1000 km/s",
    "middle": "beyond 2 R200c, \\|v\\| < 1000 km/s",
    "fast": "beyond R200c, \\|v\\| > 1000 km/s",
}


def _bins(kind: str) -> list[str]:
    return [f"{low:g}-{high:g}" for low, high in pairwise(_EDGES[kind])] if kind else [""]


def _differs(box: Measured, mock: Measured, least: float) -> Any:
    """Where two samples differ by more than ``least`` and twice their common error."""
    difference = np.abs(box.value - mock.value)
    return (difference > least) & (difference > 2.0 * np.hypot(box.error, mock.error))


def tables(results: Results) -> str:
    """All numbers in Markdown; where mock and box differ, the mock's is bold."""
    lines = ["| quantity | | " + " | ".join(name for name, _ in results) + " |"]
    lines.append("|---|---|" + "---|" * len(results))
    for key, (text, kind, least, form) in QUANTITIES.items():
        for index, label in enumerate(_bins(kind)[: results[0][1][key].value.size]):
            cells = _row(results, key, index, least, form)
            if cells.strip(" |"):
                lines.append(f"| {text} | {label} | {cells} |")
    for key, text in SCATTERS.items():
        for index, label in enumerate(_COUNTS):
            form = ".1f" if index == 0 else ".2f"
            cells = _row(results, key, index, 0.05 if index > 1 else np.inf, form)
            lines.append(f"| {text if index == 0 else ''} | {label} | {cells} |")
    return "\n".join(lines)


def _row(results: Results, key: str, index: int, least: float, form: str) -> str:
    cells = []
    for (_, box), (_, mock) in zip(results[::2], results[1::2], strict=True):
        bold = bool(_differs(box[key], mock[key], least)[index])
        for measured, marked in ((box[key], False), (mock[key], bold)):
            value, error = measured.value[index], measured.error[index]
            text = f"{value:{form}} +- {error:{form}}" if np.isfinite(value) else ""
            cells.append(f"**{text}**" if marked else text)
    return " | ".join(cells)


def disagreements(results: Results) -> list[str]:
    """A sentence for each quantity in which some mock differs from its box."""
    found = []
    for (_, box), (name, mock) in zip(results[::2], results[1::2], strict=True):
        for key, (text, kind, least, form) in QUANTITIES.items():
            there = np.flatnonzero(_differs(box[key], mock[key], least))
            found += _sentence(
                name, text, [_bins(kind)[index] for index in there], box[key], mock[key], there, form
            )
        for key, text in SCATTERS.items():
            there = np.flatnonzero(_differs(box[key], mock[key], 0.05))
            there = there[there > 1]
            labels = [_COUNTS[index] for index in there]
            found += _sentence(name, f"counts, {text}", labels, box[key], mock[key], there, ".2f")
    return found


def _sentence(
    name: str, text: str, labels: list[str], box: Measured, mock: Measured, there: Any, form: str
) -> list[str]:
    if not labels:
        return []
    pairs = [
        f"{label + ': ' if label else ''}{mock.value[index]:{form}} (box {box.value[index]:{form}})"
        for label, index in zip(labels, there, strict=True)
    ]
    return [f"{name}, {text}: " + "; ".join(pairs) + "."]


def picture(results: Results, unresolved: float, stem: Path) -> None:
    """Six panels: infall, dispersion, outsiders by R and |v|, their speeds, scatter of counts."""
    colours = [COLOURS[name] for name in ("blue", "vermillion")]
    with journal_style():
        figure = fixed_figure(PAGE_WIDTH, 4.6)
        figure.subplots_adjust(left=0.075, right=0.99, bottom=0.09, top=0.985, wspace=0.3, hspace=0.3)
        axes = figure.subplots(2, 3).ravel()
        panels = [
            ("infall", RADII, r"$r$ [Mpc/$h$]", r"$\langle v_r\rangle$ [km/s]"),
            ("dispersion", RADII, r"$r$ [Mpc/$h$]", r"$\sigma_r$ [km/s]"),
            ("share R", APERTURES, r"$R$ [Mpc/$h$]", r"share beyond $R_{200}$"),
            ("share v", SPEEDS, r"$|v|$ [km/s]", r"share beyond $R_{200}$"),
            ("far speeds", SPEEDS, r"$|v|$ [km/s]", r"$p(|v|)$ beyond $2R_{200}$ [s/Mm]"),
        ]
        for axis, (key, known, x_label, y_label) in zip(axes, panels, strict=False):
            edges = known[: results[0][1][key].value.size + 1]
            for index, (name, measured) in enumerate(results):
                _draw(axis, measured[key], edges, index, name, colours, key == "far speeds")
            axis.set(xlabel=x_label, ylabel=y_label, xlim=(edges[0], edges[-1]))
            if known is RADII and unresolved > edges[0]:
                axis.axvspan(edges[0], unresolved, color="0.9", lw=0)
        axes[2].set_ylim(0.0, 1.05)
        axes[3].set_ylim(0.0, 1.05)
        axes[4].set_ylim(0.0, None)
        axes[0].axhline(0.0, lw=0.5, color="0.6")
        for index, (_, measured) in enumerate(results):
            value = np.array([measured[key].value[2] for key in SCATTERS])
            error = np.array([measured[key].error[2] for key in SCATTERS])
            place = np.arange(value.size) + 0.16 * (index - 1.5)
            axes[5].errorbar(place, value, error, **_style(index, colours), ls="none")
        axes[5].set_xticks(range(len(SCATTERS)), ["all", "near", "middle", "fast"])
        axes[5].set(ylabel="scatter of counts beyond Poisson", xlim=(-0.5, len(SCATTERS) - 0.5))
        axes[5].set_ylim(0.0, None)
        axes[3].legend(loc="lower left", fontsize=6.5, frameon=False)
        save_figure(figure, stem, ("png", "pdf"))


def _style(index: int, colours: list[str]) -> dict[str, Any]:
    """Boxes are points, mocks open points; a colour for each pair."""
    colour = colours[index // 2]
    face = colour if index % 2 == 0 else "white"
    return {"color": colour, "marker": "os"[index % 2], "ms": 3.2, "mfc": face, "mew": 0.8, "elinewidth": 0.8}


def _draw(
    axis: Any, measured: Measured, edges: FloatArray, index: int, name: str, colours: list[str], density: bool
) -> None:
    middle, width = 0.5 * (edges[1:] + edges[:-1]), np.diff(edges)
    scale = 1000.0 / width if density else 1.0
    place = middle + 0.04 * width * (index - 1.5)
    axis.errorbar(
        place,
        measured.value * scale,
        measured.error * scale,
        ls="-" if index % 2 else "none",
        lw=0.9,
        label=name,
        **_style(index, colours),
    )

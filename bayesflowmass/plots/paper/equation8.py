"""Scatter with and without richness, method by method (figure 6 of Kodi Ramanah et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from bayesflowmass.diagnostics.equation8 import shot_noise_msigma
from bayesflowmass.plots.style import COLOURS, column_figure, journal_style

_MARKS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
_PAINT = ("green", "orange", "purple", "sky", "black", "grey")
_SHOT_NOISE = float(shot_noise_msigma(100))


@dataclass(frozen=True)
class ScatterPair:
    """sigma_N and sigma_0 of equation 8 [dex], with their errors where they are known.

    Attributes:
        sigma_N: richness-dependent scatter at 100 members.
        sigma_0: richness-independent scatter.
        sigma_N_se, sigma_0_se: standard errors.
        published: taken from a paper, not measured on these clusters; drawn hollow.
        mark, colour: of matplotlib and of ``style.COLOURS``; default: one of its own for each group.
        group: variants of one method share its mark and its line in the legend; default: a group of its own.
    """

    sigma_N: float
    sigma_0: float
    sigma_N_se: float | None = None
    sigma_0_se: float | None = None
    published: bool = False
    mark: str | None = None
    colour: str | None = None
    group: str | None = None


def plot_equation8(
    methods: Mapping[str, ScatterPair],
    *,
    levels: Sequence[float] = (0.1, 0.2, 0.3, 0.4),
    title: str | None = None,
) -> Figure:
    """Richness-dependent against richness-independent scatter of sigma^2 = sigma_N^2 (N / 100)^-1 + sigma_0^2.

    Quarter circles join the pairs that give one total scatter at N = 100 members. The lower left is best. A dotted line
    shows the sigma_N that a mass from the velocity dispersion cannot beat.

    Args:
        methods: name -> pair; published ones are drawn hollow.
        levels: total scatter at N = 100 [dex] of the contours; those beyond the axes are left out.
        title: names the sample.

    Raises:
        ValueError: there are no methods, or more than twelve groups.
    """
    groups = list(dict.fromkeys(pair.group or name for name, pair in methods.items()))
    if not 1 <= len(groups) <= len(_MARKS):
        raise ValueError(f"1 to {len(_MARKS)} methods can be told apart; {len(groups)} were given.")
    figure, (axis,) = column_figure(3.3 + 0.13 * ((len(groups) + 1) // 2))
    pairs = list(methods.values())
    right = 1.25 * max(p.sigma_N + (p.sigma_N_se or 0.0) for p in pairs)
    top = 1.25 * max(p.sigma_0 + (p.sigma_0_se or 0.0) for p in pairs)
    right, top = max(right, 1.15 * _SHOT_NOISE), max(top, 0.1)
    with journal_style():
        angle = np.linspace(0.0, 0.5 * np.pi, 181)
        for level in levels:
            x, y = level * np.sin(angle), level * np.cos(angle)
            axis.plot(x, y, color=COLOURS["grey"], lw=0.6, zorder=0)
            # The label sits on the contour where it is farthest from the points.
            seen = np.flatnonzero((x < 0.94 * right) & (y < 0.94 * top) & (x > 0.05 * right))
            if seen.size:
                away = [min(np.hypot((x[k] - p.sigma_N) / right, (y[k] - p.sigma_0) / top) for p in pairs)
                        for k in seen]  # fmt: skip
                place = seen[int(np.argmax(away))]
                axis.text(
                    x[place], y[place], f"{level:g}", fontsize=7, color="#555555", ha="center", va="center",
                    zorder=1, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
                )  # fmt: skip
        noise = r"$3/(\sqrt{200}\ln 10)$: shot noise of $\sigma_v$"
        axis.axvline(_SHOT_NOISE, color=COLOURS["black"], lw=0.7, ls=":", label=noise, zorder=0)
        shown: set[str] = set()
        for name, pair in methods.items():
            group = pair.group or name
            i = groups.index(group)
            label = None if group in shown else group
            shown.add(group)
            paint = COLOURS[pair.colour or _PAINT[i % len(_PAINT)]]
            mark = pair.mark or _MARKS[i % len(_MARKS)]
            # Scatters are positive: bars end at the axes, over which marks at zero reach.
            x_error, y_error = (
                None if error is None else [[min(error, value)], [error]]
                for value, error in ((pair.sigma_N, pair.sigma_N_se), (pair.sigma_0, pair.sigma_0_se))
            )
            axis.errorbar(
                pair.sigma_N, pair.sigma_0, xerr=x_error, yerr=y_error,
                fmt=mark, ms=8 if mark == "*" else 4, color=paint, mec=paint, elinewidth=0.8,
                mfc="white" if pair.published else paint, label=label, zorder=3, clip_on=False,
            )  # fmt: skip
        axis.set(
            xlim=(0, right),
            ylim=(0, top),
            xlabel=r"$\sigma_N$ at 100 members [dex]",
            ylabel=r"$\sigma_0$ [dex]",
        )
        figure.legend(loc="outside upper left", ncols=2, title=title, alignment="left", columnspacing=1.0)
    return figure

"""Everything about one cluster on one page: the cluster card."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle
from numpy.typing import ArrayLike

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.common.arrays import BoolArray, FloatArray
from bayesflowmass.cosmology import radius_delta
from bayesflowmass.estimator.memberships import Memberships
from bayesflowmass.plots.card.text import Facts, attribution_rows, draw_header, draw_numbers
from bayesflowmass.plots.style import (
    COLOURS,
    MASS_LABEL,
    PAGE_WIDTH,
    PDF_LABEL,
    R_LABEL,
    V_LABEL,
    fixed_figure,
    journal_style,
)
from bayesflowmass.posterior import MassPosterior


class _Paint(NamedTuple):
    """What the colour of a galaxy says: numbers (n,), NaN where unknown, between two ends, by a map of colours."""

    values: FloatArray
    low: float
    high: float
    colours: str
    label: str
    beyond: str


_SHOWN_DRAWS = 31

# Inches: the page without the colour bar, what the bar takes, the two columns.
_HEIGHT, _BAR = 8.75, 0.52
_LEFT, _RIGHT, _WIDTH = 0.55, 4.08, 2.75


def plot_cluster_card(
    cluster: ClusterCatalog,
    posterior: MassPosterior,
    *,
    image: ArrayLike | None = None,
    extent: tuple[float, float, float, float] = (0.0, 1.6, -2200.0, 2200.0),
    attribution: ArrayLike | None = None,
    memberships: Memberships | None = None,
    flags: str = "",
    p_novelty: float | None = None,
    model: str = "",
) -> Figure:
    """One page for one cluster: sky, phase space, PDF, velocities, attribution, numbers and flags in words.

    Works for mocks, where the true mass and the interlopers are known and shown, and for observed clusters.

    Args:
        cluster: a catalogue of one cluster.
        posterior: of that cluster, of M200c.
        image: kernel density, shape (bins in R, bins in v).
        extent: limits of the image in R [comoving Mpc/h] and v [km/s].
        attribution: change of log10 M that each galaxy makes, M(all) - M(all but this one) [dex], shape
            (n_galaxies,), NaN where unknown (:func:`bayesflowmass.saliency.leave_one_out`).
        memberships: of the galaxies; where they are given they colour the galaxies, else the attribution does.
        flags: names of `bayesflowmass.estimator.FLAGS`, joined by commas.
        p_novelty: probability that a training cluster is as strange.
        model: name of the model, for the foot of the page.

    Raises:
        ValueError: not one cluster, a posterior of another definition of mass, or an attribution of another
            length.
    """
    if len(cluster) != 1 or len(posterior) != 1:
        raise ValueError(
            f"A card holds one cluster; found {len(cluster)} in the catalogue and {len(posterior)} posteriors."
        )
    if posterior.mdef != "200c":
        raise ValueError(f"A card shows M200c, this posterior is of M{posterior.mdef}; leave it unconverted.")
    change = None if attribution is None else np.asarray(attribution, dtype=np.float64)
    if change is not None and change.shape != (cluster.n_galaxies_total,):
        raise ValueError(
            f"The attribution has shape {change.shape}; the cluster has {cluster.n_galaxies_total} galaxies."
        )
    if change is not None and not np.isfinite(change).any():
        change = None
    member = (
        np.asarray(cluster.galaxies("gal_is_member"), dtype=bool) if cluster.has("gal_is_member") else None
    )
    known = float(cluster.column("log10_mass")[0]) if cluster.has("log10_mass") else None
    true = known if known is not None and np.isfinite(known) else None
    true_name = "truth" if cluster.metadata.masses or member is not None else "in the catalogue"
    height = _HEIGHT + (_BAR if change is not None or memberships is not None else 0.0)
    figure = fixed_figure(PAGE_WIDTH, height)

    def panel(left: float, bottom: float, width: float, tall: float) -> Axes:
        """Axes at inches from the lower left."""
        return figure.add_axes((left / PAGE_WIDTH, bottom / height, width / PAGE_WIDTH, tall / height))

    with journal_style():
        draw_header(panel(0.12, height - 0.62, PAGE_WIDTH - 0.24, 0.54), cluster, posterior)
        low = height - 1.02 - _WIDTH
        sky, phase = panel(_LEFT, low, _WIDTH, _WIDTH), panel(_RIGHT, low, _WIDTH, _WIDTH)
        paint = _paint(change, memberships)
        radius = float(
            radius_delta(posterior.median[0], cluster.column("redshift")[0], cosmology=posterior.cosmology)
        )
        if cluster.metadata.radial:
            _draw_radii(sky, cluster, member, radius)
        else:
            _draw_sky(sky, cluster, member, paint, radius)
        painted = _draw_phase(phase, cluster, member, paint, radius, image, extent)
        if paint is not None:
            figure.colorbar(
                painted, cax=panel(1.2, low - 0.58, PAGE_WIDTH - 2.4, 0.09), orientation="horizontal",
                extend=paint.beyond, label=paint.label,
            )  # fmt: skip
        low -= (_BAR if paint is not None else 0.0) + 0.82 + 1.45
        _draw_pdf(panel(_LEFT, low, _WIDTH, 1.45), posterior, true, true_name)
        _draw_velocities(panel(_RIGHT, low, _WIDTH, 1.45), cluster, member, memberships)
        low -= 0.66
        if change is not None:
            _draw_attribution(panel(1.72, 0.4, _LEFT + _WIDTH - 1.72, low - 0.4), cluster, member, change)
        start = _RIGHT if change is not None else _LEFT
        numbers = panel(start - 0.35, 0.08, PAGE_WIDTH - start + 0.27, low + 0.1)
        facts = Facts(cluster, posterior, memberships, radius, true, true_name, flags, p_novelty, model)
        draw_numbers(numbers, facts, height=low + 0.1, wide=change is None)
    return figure


def _paint(change: FloatArray | None, memberships: Memberships | None) -> _Paint | None:
    if memberships is not None:
        return _Paint(
            memberships.probability, 0.0, 1.0, "cividis", "probability that the galaxy is a member", "neither"
        )
    if change is None:
        return None
    scale = max(1e-4, float(np.nanquantile(np.abs(change), 0.98)))
    label = (
        "what the galaxy adds to its cluster: "
        r"$\log_{10} M(\mathrm{all}) - \log_{10} M(\mathrm{without\ it})$ [dex]"
    )
    return _Paint(change, -scale, scale, "RdBu_r", label, "both")


def _draw_points(
    axis: Axes,
    x: FloatArray,
    y: FloatArray,
    member: BoolArray | None,
    paint: _Paint | None,
) -> Any:
    """Galaxies by kind (shape) and by the paint (colour), the largest numbers on top."""
    kinds: list[tuple[BoolArray, str, str, str]] = []
    if member is None:
        kinds.append((np.ones(x.size, dtype=bool), "o", "blue", ""))
    else:
        kinds.append((member, "o", "blue", f"{int(member.sum())} members"))
        kinds.append((~member, "X", "vermillion", f"{int((~member).sum())} interlopers"))
    size = float(np.interp(x.size, (20, 200, 1500), (24, 13, 6)))
    last = None
    for chosen, mark, colour, label in kinds:
        area = 1.4 * size if mark == "X" else size
        if paint is None:
            axis.scatter(
                x[chosen], y[chosen], s=area, marker=mark, color=COLOURS[colour], lw=0.2, ec="white",
                label=label or None, zorder=3,
            )  # fmt: skip
            continue
        value = np.where(np.isfinite(paint.values[chosen]), paint.values[chosen], 0.0)
        order = np.argsort(np.abs(value))
        last = axis.scatter(
            x[chosen][order], y[chosen][order], c=value[order], s=area, marker=mark, cmap=paint.colours,
            vmin=paint.low, vmax=paint.high, lw=0.35, ec="#444444", label=label or None, zorder=3,
        )  # fmt: skip
    return last


def _draw_sky(
    axis: Axes,
    cluster: ClusterCatalog,
    member: BoolArray | None,
    paint: _Paint | None,
    radius: float,
) -> None:
    x, y = (np.asarray(cluster.galaxies(name), dtype=np.float64) for name in ("x", "y"))
    _draw_points(axis, x, y, member, paint)
    aperture = cluster.metadata.selection.get("r_max")
    limit = max(float(np.hypot(x, y).max(initial=0.1)), radius, float(aperture or 0.0))
    rings: list[tuple[float, dict[str, Any], str]] = [
        (radius, {"color": COLOURS["black"], "ls": "--", "lw": 0.9}, r"$R_{200\mathrm{c}}$ of the median"),
        (float(aperture or 0.0), {"color": COLOURS["grey"], "lw": 0.8}, "aperture"),
    ]
    rings = [ring for ring in rings if ring[0] > 0]
    for size, style, _ in rings:
        axis.add_patch(Circle((0, 0), size, fill=False, zorder=2, **style))
    axis.plot(0, 0, "+", color=COLOURS["black"], ms=6, mew=0.8, zorder=4)
    axis.set(xlim=(-1.06 * limit, 1.06 * limit), ylim=(-1.06 * limit, 1.06 * limit), aspect="equal")
    axis.set(xlabel=r"$x$ [comoving $h^{-1}$ Mpc]", ylabel=r"$y$ [comoving $h^{-1}$ Mpc]")
    handles, labels = axis.get_legend_handles_labels()
    if paint is not None:
        # Shapes alone: the colour of a galaxy says something else.
        handles = [Line2D([], [], ls="", marker=mark, ms=4, mfc="#CCCCCC", mec="#444444", mew=0.4)
                   for mark, _ in zip("oX", labels, strict=False)]  # fmt: skip
    handles += [Line2D([], [], **style) for _, style, _ in rings]
    labels += [name for *_, name in rings]
    axis.legend(handles, labels, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2,
                columnspacing=0.9, handlelength=1.5)  # fmt: skip


def _draw_radii(axis: Axes, cluster: ClusterCatalog, member: BoolArray | None, radius: float) -> None:
    """What is known of the sky where directions are not: how many galaxies lie at which distance."""
    r = np.asarray(cluster.r_proj, dtype=np.float64)
    edges = np.linspace(0.0, max(float(r.max(initial=0.1)), radius), 21).tolist()
    kinds = [r] if member is None else [r[member], r[~member]]
    names = ["all"] if member is None else ["members", "interlopers"]
    axis.hist(kinds, edges, stacked=True, color=[COLOURS["blue"], COLOURS["vermillion"]][: len(kinds)], alpha=0.65,
              hatch=["", "////"][: len(kinds)], label=names)  # fmt: skip
    axis.axvline(radius, color=COLOURS["black"], ls="--", lw=0.9, label=r"$R_{200\mathrm{c}}$ of the median")
    axis.set(xlabel=R_LABEL, ylabel="galaxies (directions not known)")
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2, columnspacing=0.9)


def _draw_phase(
    axis: Axes,
    cluster: ClusterCatalog,
    member: BoolArray | None,
    paint: _Paint | None,
    radius: float,
    image: ArrayLike | None,
    extent: tuple[float, float, float, float],
) -> Any:
    """The map of colours of the galaxies; None without a paint."""
    r = np.asarray(cluster.r_proj, dtype=np.float64)
    v = np.asarray(cluster.galaxies("v_los"), dtype=np.float64)
    if image is not None:
        pixels = np.asarray(image, dtype=np.float64)
        axis.imshow(pixels.T, origin="lower", extent=extent, aspect="auto", cmap="Greys", vmin=0.0,
                    vmax=1.6 * float(pixels.max()), zorder=0)  # fmt: skip
    painted = _draw_points(axis, r, v, member, paint)
    axis.axvline(radius, color=COLOURS["black"], ls="--", lw=0.9, zorder=2)
    axis.axhline(0.0, color=COLOURS["black"], lw=0.5, zorder=1)
    right = max(extent[1], float(r.max(initial=0.0)), radius)
    top = max(extent[3], float(np.abs(v).max(initial=0.0)))
    axis.set(xlim=(0.0, 1.03 * right), ylim=(-1.05 * top, 1.05 * top), xlabel=R_LABEL, ylabel=V_LABEL)
    return painted


def _draw_pdf(axis: Axes, posterior: MassPosterior, true: float | None, true_name: str) -> None:
    low, high = (float(posterior.quantile(p)[0]) for p in (5e-4, 1.0 - 5e-4))
    if true is not None:
        low, high = min(low, true - 0.05), max(high, true + 0.05)
    x = np.linspace(low, high, 401)
    p = posterior.pdf(x[:, None])[:, 0]
    axis.plot(x, p, color=COLOURS["blue"], lw=1.4, zorder=3)
    for level, alpha in ((0.95, 0.18), (0.68, 0.3)):
        start, end = posterior.interval(level)[:, 0]
        inside = ((x >= start) & (x <= end)).tolist()
        axis.fill_between(x, p, where=inside, color=COLOURS["blue"], alpha=alpha, lw=0,
                          label=rf"{100 * level:.0f} %")  # fmt: skip
    peak = float(p.max())
    if posterior.n_draws is not None:
        table = posterior.of_draws().table
        some = np.unique(np.linspace(0, len(table.x) - 1, _SHOWN_DRAWS).astype(int))
        for k, i in enumerate(some):
            axis.plot(table.x[i], table.pdf[i], color=COLOURS["orange"], lw=0.4, alpha=0.6, zorder=2,
                      label="draws of the weights" if k == 0 else None)  # fmt: skip
        peak = max(peak, float(table.pdf[some].max()))
    axis.axvline(float(posterior.median[0]), color=COLOURS["blue"], lw=0.8, zorder=1, label="median")
    if true is not None:
        axis.axvline(true, color=COLOURS["vermillion"], ls="--", lw=1.1, zorder=4, label=true_name)
    for edge in posterior.training_prior.log10_mass_range:
        if low < edge < high:
            axis.axvline(edge, color=COLOURS["black"], ls=":", lw=0.9, label="edge of training")
    axis.set(xlim=(low, high), ylim=(0, 1.06 * peak), xlabel=MASS_LABEL, ylabel=PDF_LABEL)
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2, columnspacing=0.9,
                handlelength=1.3)  # fmt: skip


def _draw_velocities(
    axis: Axes, cluster: ClusterCatalog, member: BoolArray | None, memberships: Memberships | None
) -> None:
    v = np.asarray(cluster.galaxies("v_los"), dtype=np.float64)
    top = max(2200.0, float(np.abs(v).max(initial=0.0)))
    spread = float(np.subtract(*np.quantile(v, (0.75, 0.25))))
    # Freedman and Diaconis (1981), in steps of 50 km/s.
    width = float(np.clip(np.round(2.0 * spread / np.cbrt(v.size) / 50.0), 2, 6)) * 50.0
    edges = np.arange(-np.ceil(top / width), np.ceil(top / width) + 1) * width
    if member is None:
        axis.hist(v, edges.tolist(), color=COLOURS["blue"], alpha=0.55)
    else:
        # Hatched, not only coloured: members and interlopers must differ in print.
        axis.hist([v[member], v[~member]], edges.tolist(), stacked=True, color=[COLOURS["blue"], COLOURS["vermillion"]],
                  alpha=0.65, hatch=["", "////"], label=["members", "interlopers"])  # fmt: skip
    if memberships is not None:
        axis.hist(v, edges.tolist(), weights=memberships.probability, histtype="step", color=COLOURS["black"], lw=1.0,
                  label="expected")  # fmt: skip
    axis.axvline(0.0, color=COLOURS["black"], lw=0.6)
    axis.axvline(float(np.median(v)), color=COLOURS["black"], ls="--", lw=1.0, label="median")
    axis.set(xlim=(-1.05 * top, 1.05 * top), xlabel=V_LABEL, ylabel=f"galaxies per {width:.0f} km s$^{{-1}}$")
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0.2, columnspacing=0.9,
                handlelength=1.3)  # fmt: skip


def _draw_attribution(
    axis: Axes, cluster: ClusterCatalog, member: BoolArray | None, change: FloatArray
) -> None:
    """The galaxies that raise and that lower the mass most, with names, places and numbers."""
    rows = attribution_rows(cluster, member, change)
    values = np.array([value for _, value in rows])
    place = np.arange(len(rows))[::-1]
    colours = [COLOURS["vermillion"] if value > 0 else COLOURS["blue"] for value in values]
    axis.barh(place, values, height=0.7, color=colours, alpha=0.75)
    axis.axvline(0.0, color=COLOURS["black"], lw=0.6)
    axis.set_yticks(place, [text for text, _ in rows], fontsize=6.5)
    axis.tick_params(axis="y", which="both", length=0)
    axis.yaxis.minorticks_off()
    axis.set(ylim=(-0.6, len(rows) - 0.4), xlabel="what the galaxy adds [dex]")
    axis.set_title(
        r"galaxy: $R$ [$h^{-1}$ Mpc], $v$ [km s$^{-1}$]", fontsize=7.5, loc="right", x=-0.02, pad=3
    )

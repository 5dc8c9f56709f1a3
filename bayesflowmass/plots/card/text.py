"""The words and numbers of a cluster card."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from bayesflowmass.baselines.dispersion import gapper, standard_deviation
from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.common.arrays import BoolArray, FloatArray
from bayesflowmass.cosmology import velocity_dispersion_evrard
from bayesflowmass.estimator import FLAGS
from bayesflowmass.estimator.memberships import Memberships
from bayesflowmass.plots.style import text_extent
from bayesflowmass.posterior import MassPosterior

_LISTED = 5


@dataclass(frozen=True)
class Facts:
    """What a card says of a cluster in numbers.

    Attributes:
        radius: R200c of the median [comoving Mpc/h].
        true: log10 mass that is known from elsewhere, and ``true_name`` from where.
        flags, p_novelty, model: see `bayesflowmass.plots.card.page.plot_cluster_card`.
    """

    cluster: ClusterCatalog
    posterior: MassPosterior
    memberships: Memberships | None
    radius: float
    true: float | None
    true_name: str
    flags: str
    p_novelty: float | None
    model: str


def draw_header(axis: Axes, cluster: ClusterCatalog, posterior: MassPosterior) -> None:
    """The name of the cluster, its redshift, its galaxies, and its mass in one line."""
    axis.axis("off")
    name = f"{cluster.column('cluster_id')[0]}"
    title = axis.text(0.0, 1.0, name, fontsize=14, weight="bold", va="top", transform=axis.transAxes,
                      parse_math=False)  # fmt: skip
    room = 0.94 * axis.figure.bbox.width
    share = text_extent(title).width / room
    if share > 1.0:
        title.set_fontsize(max(9.0, 14.0 / share))
        kept = int(len(name) / max(1.0, text_extent(title).width / room)) - 4
        if kept < len(name) - 4:
            # The end of a name tells clusters apart as well as its beginning.
            title.set_text(f"{name[: kept // 2]} ... {name[len(name) - kept // 2 :]}")
    m = float(posterior.median[0])
    q16, q84 = posterior.quantile([0.16, 0.84])[:, 0]
    q025, q975 = posterior.quantile([0.025, 0.975])[:, 0]
    n, z = int(cluster.n_galaxies[0]), float(cluster.column("redshift")[0])
    text = (
        rf"$\log_{{10}} M_{{200\mathrm{{c}}}} = {m:.2f}^{{+{q84 - m:.2f}}}_{{-{m - q16:.2f}}}$ (68 %), "
        rf"{q025:.2f} to {q975:.2f} (95 %) [$h^{{-1}}M_\odot$], {posterior.prior.name} prior;   "
        rf"$z = {z:.4g}$,   {n} galaxies"
    )
    axis.text(0.0, 0.0, text, fontsize=9.5, va="bottom", transform=axis.transAxes)


def attribution_rows(
    cluster: ClusterCatalog, member: BoolArray | None, change: FloatArray
) -> list[tuple[str, float]]:
    """The galaxies that add most and that take most, each with its name and place; largest first.

    Args:
        cluster: one cluster.
        member: where it is known, shape (n,).
        change: what each galaxy adds [dex], shape (n,), NaN where unknown.
    """
    known = np.flatnonzero(np.isfinite(change))
    order = known[np.argsort(-change[known], kind="stable")]
    # At most half of the galaxies at each end.
    listed = max(1, min(_LISTED, order.size // 2))
    chosen = [*order[:listed], *order[-listed:]] if order.size > 1 else list(order)
    r, v = cluster.r_proj, cluster.galaxies("v_los")
    names = cluster.galaxies("gal_galaxy_id") if cluster.has("gal_galaxy_id") else np.arange(1, r.size + 1)
    rows = []
    for i in chosen:
        kind = "" if member is None or member[i] else " (interloper)"
        name = textwrap.shorten(str(names[i]), 18, placeholder="...")
        name = name if len(str(names[i])) <= 18 else f"{str(names[i])[:7]}...{str(names[i])[-7:]}"
        rows.append(
            (f"{name}: {r[i]:.2f}, {v[i]:+.0f}{kind}".replace("-", "\N{MINUS SIGN}"), float(change[i]))
        )
    return rows


def draw_numbers(axis: Axes, facts: Facts, height: float, wide: bool) -> None:
    """Key numbers as a list, and what the flags mean in words; `height` of the axes in inches."""
    axis.set(xlim=(0.0, 1.0), ylim=(0.0, height))
    axis.axis("off")
    size, step, y = 8.0, 0.138, height - 0.1
    for name, value in _numbers(facts):
        axis.text(0.0, y, name, fontsize=size, va="baseline")
        axis.text(0.25 if wide else 0.46, y, value, fontsize=size, va="baseline")
        y -= step
    y -= 0.3 * step
    names = [name for name in facts.flags.split(",") if name]
    head = "No flags." if not names else f"{len(names)} flag{'s' * (len(names) > 1)}"
    axis.text(0.0, y, head, fontsize=size, weight="bold", va="baseline")
    y -= step
    width = 125 if wide else 62
    room = int((y - (step if facts.model else 0.0)) / 0.118) + 1
    text: list[str] = []
    for k, name in enumerate(names):
        words = textwrap.wrap(f"{name}: {FLAGS.get(name, '')}", width)
        rest = textwrap.wrap(f"also {', '.join(names[k:])} (docs/flags.md)", width)
        if len(text) + len(words) + (len(rest) if k + 1 < len(names) else 0) > room:
            text += rest
            break
        text += words
    for line in text:
        axis.text(0.0, y, line, fontsize=7.0, va="baseline")
        y -= 0.118
    if facts.model:
        short = textwrap.shorten(facts.model, width, placeholder=" ...")
        axis.text(0.0, 0.02, f"model {short}", fontsize=7.0, color="#555555", parse_math=False)


def _numbers(facts: Facts) -> list[tuple[str, str]]:
    cluster, posterior, memberships = facts.cluster, facts.posterior, facts.memberships
    v, n = np.asarray(cluster.galaxies("v_los"), dtype=np.float64), cluster.n_galaxies
    z = np.asarray(cluster.column("redshift"), dtype=np.float64)
    exponent, rest = divmod(float(posterior.median[0]), 1.0)
    rows = [
        (
            r"$M_{200\mathrm{c}}$ (median)",
            rf"${10.0**rest:.2f}\times 10^{{{exponent:.0f}}}\,h^{{-1}}M_\odot$",
        ),
        (r"$R_{200\mathrm{c}}$", rf"{facts.radius:.2f} comoving $h^{{-1}}$ Mpc"),
        ("mean, mode", f"{float(posterior.mean[0]):.2f}, {float(posterior.map[0]):.2f}"),
        ("width", f"{float(posterior.sigma[0]):.3f} dex"),
    ]
    aleatoric, epistemic = posterior.sigma_aleatoric, posterior.sigma_epistemic
    if aleatoric is not None and epistemic is not None:
        rows.append(("  of data, of weights", f"{float(aleatoric[0]):.3f}, {float(epistemic[0]):.3f} dex"))
    if facts.true is not None:
        below = float(posterior.cdf(np.array([facts.true]))[0])
        rows.append((f"mass, {facts.true_name}", f"{facts.true:.2f} ({100 * below:.0f} % of the PDF below)"))
    if int(n[0]) > 1:
        deviation, gap = float(standard_deviation(v, n)[0]), float(gapper(v, n)[0])
        rows.append(("dispersion, gapper", f"{deviation:.0f}, {gap:.0f} km s$^{{-1}}$"))
        expected = float(velocity_dispersion_evrard(posterior.median[0], z[0], posterior.cosmology))
        rows.append(("  of that mass, Evrard+08", f"{expected:.0f} km s$^{{-1}}$"))
    if memberships is not None:
        number, error = float(memberships.number[0]), float(memberships.error[0])
        about = rf"${number:.0f} \pm {error:.0f}$" if np.isfinite(error) else f"{number:.0f}"
        rows.append(("expected members", f"{about} of {int(n[0])}"))
    rows.append(("median velocity", rf"${float(np.median(v)):+.0f}$ km s$^{{-1}}$"))
    if facts.p_novelty is not None and np.isfinite(facts.p_novelty):
        rows.append(("as strange in training", f"{100 * facts.p_novelty:.2g} %"))
    return rows

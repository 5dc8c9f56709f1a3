"""The figures of the paper: what is drawn is what was given, and it can be told apart and read."""

from __future__ import annotations

import numpy as np
import pytest
from figure_checks import drawn_texts, off_the_page, overlapping
from scipy import stats

from bayesflowmass.plots.checks.epistemic import (
    Widths,
    plot_epistemic_by_mass,
)
from bayesflowmass.plots.paper.equation8 import ScatterPair, plot_equation8
from bayesflowmass.plots.paper.masses import plot_masses
from bayesflowmass.plots.paper.pdfs import ClusterPdfs, plot_pdfs
from bayesflowmass.plots.paper.perturbed_pdfs import plot_perturbed_pdfs
from bayesflowmass.plots.paper.phase_space import plot_phase_space
from bayesflowmass.plots.paper.predicted_vs_true import plot_predicted_vs_true
from bayesflowmass.plots.paper.real_clusters import Masses, plot_real_clusters
from bayesflowmass.plots.style import COLUMN_WIDTH, PAGE_WIDTH

NAMES = ["Coma", "A1689", "A85", "A119", "A576", "A1651", "A2142", "A2670"]
# Kodi Ramanah et al. 2020, table 1.
PAPER = Masses([14.84, 14.88, 14.78, 14.60, 14.72, 14.85, 14.83, 14.60], *([0.11] * 8 for _ in range(2)))
LITERATURE = Masses(
    [14.91, 15.05, 14.88, 14.61, 14.69, 14.81, 14.95, 14.72],
    [0.11, 0.12, 0.07, 0.11, 0.08, 0.11, 0.14, 0.10],
    [0.11, 0.12, 0.07, 0.11, 0.08, 0.11, 0.04, 0.10],
)
PAIRS = {
    "this model": ScatterPair(0.09, 0.06, 0.01, 0.004, mark="*", colour="blue"),
    "paper": ScatterPair(0.07, 0.05, published=True, mark="*", colour="blue"),
    "M-sigma": ScatterPair(0.24, 0.18, 0.02, 0.01),
    "richness": ScatterPair(0.03, 0.14, 0.01, 0.01),
}


def pdfs(centres=(13.8, 14.3, 14.9), width=0.1, labels=("low", "middle", "high")):
    grid = np.linspace(13.2, 15.6, 801)
    pdf, cdf = (np.stack([f(grid, m, width) for m in centres]) for f in (stats.norm.pdf, stats.norm.cdf))
    return ClusterPdfs(grid, pdf, cdf, np.array(centres) + 0.05, labels)


def galaxies(n=40):
    rng = np.random.default_rng(2)
    r, v = rng.uniform(0.0, 1.6, n), rng.uniform(-2400.0, 2400.0, n)
    return r, v, rng.random(n) < 0.6


def errorbar_points(axis):
    """Label -> x and y of the markers of each error bar of an axis."""
    return {
        c.get_label(): np.stack(c.lines[0].get_data()).astype(float)
        for c in axis.containers
        if c.lines[0] is not None
    }


def every_figure():
    rng = np.random.default_rng(5)
    r, v, member = galaxies()
    mass = rng.uniform(13.5, 15.0, 600)
    quantiles = mass[:, None] + 0.1 * np.array([-2, -1, 0, 1, 2])
    widths = Widths(mass, np.full(600, 0.12), np.full(600, 0.05))
    return {
        "phase space": plot_phase_space(r, v, np.ones((50, 50)), is_member=member, title="z = 0.1"),
        "masses": plot_masses({"training": mass, "test": mass[:60]}, curve=([13.5, 15.0], [500.0, 5.0])),
        "pdfs": plot_pdfs({"pure": pdfs(width=0.08), "contaminated": pdfs()}),
        "perturbed": plot_perturbed_pdfs(
            {"all": pdfs(), "less": pdfs(width=0.13), "noise": pdfs(width=0.11)}
        ),
        "samples": plot_predicted_vs_true({"pure": (mass, quantiles), "all": (mass, quantiles)}),
        "equation 8": plot_equation8(PAIRS, title="flat prior"),
        "real clusters": plot_real_clusters(
            NAMES, LITERATURE, {"here": PAPER, "paper": PAPER}, highlight="Coma"
        ),
        "epistemic by mass": plot_epistemic_by_mass({"a": widths, "b": widths}),
    }


def test_every_figure_can_be_read_at_its_printed_width_and_labels_its_axes():
    for name, figure in every_figure().items():
        texts = drawn_texts(figure)
        assert overlapping(texts) == [], name
        assert off_the_page(figure, texts) == [], name
        assert min(float(text.get_fontsize()) for text, _ in texts) >= 6.0, name
        assert figure.get_size_inches()[0] in (COLUMN_WIDTH, PAGE_WIDTH), name
        shared = {axis.get_shared_x_axes() for axis in figure.axes}
        assert any(axis.get_xlabel() for axis in figure.axes), (name, shared)


def test_phase_space_draws_each_galaxy_once_by_kind_and_the_image_over_its_limits():
    r, v, member = galaxies()
    image = np.arange(2500.0).reshape(50, 50)
    figure = plot_phase_space(r, v, image, is_member=member, image_label="density [x]")
    top, bottom, bar = figure.axes
    lines = {line.get_label(): line for line in top.lines}
    dots, crosses = (
        next(x for k, x in lines.items() if k.endswith(kind)) for kind in (" members", "interlopers")
    )
    np.testing.assert_array_equal(dots.get_xydata(), np.stack([r[member], v[member]], 1))
    np.testing.assert_array_equal(crosses.get_xydata(), np.stack([r[~member], v[~member]], 1))
    assert dots.get_marker() != crosses.get_marker()
    (drawn,) = bottom.images
    np.testing.assert_array_equal(drawn.get_array(), image.T)
    assert list(drawn.get_extent()) == [0.0, 1.6, -2200.0, 2200.0]
    assert bar.get_ylabel() == "density [x]"
    assert top.get_ylim()[1] > 2500.0
    said = [text.get_text() for text in top.get_legend().get_texts()]
    assert said[2:] == ["cylinder", "limits of the image"]
    limits = [line for line in bottom.lines if line.get_linestyle() == "--"]
    assert any(2500.0 in np.abs(line.get_ydata()) and 1.6 in line.get_xdata() for line in limits)


def test_an_image_without_a_unit_is_drawn_relative_to_its_peak():
    r, v, _ = galaxies()
    (image,) = plot_phase_space(r, v, np.full((4, 5), 7.0)).axes[1].images
    np.testing.assert_allclose(image.get_array(), 1.0)


def test_mass_histogram_counts_per_dex_and_the_curve_goes_where_it_was_told():
    masses = np.array([13.55, 13.56, 13.65, 14.05])
    figure = plot_masses({"a": masses}, bin_width=0.1, curve=([13.5, 14.1], [30.0, 3.0]))
    (axis,) = figure.axes
    values, edges, _ = axis.patches[0].get_data()
    assert (values * np.diff(edges)).sum() == pytest.approx(len(masses))
    assert values[0] == pytest.approx(2 / 0.1)
    np.testing.assert_array_equal(axis.lines[-1].get_xydata(), [[13.5, 30.0], [14.1, 3.0]])


def test_panels_of_pdfs_share_one_axis_of_mass_that_holds_all_of_them():
    figure = plot_pdfs({"pure": pdfs((13.5, 14.0), 0.05, None), "contaminated": pdfs((14.5,), 0.2, None)})
    top, bottom = figure.axes
    assert top.get_xlim() == bottom.get_xlim()
    assert bottom.get_xlim()[0] < 13.4
    assert bottom.get_xlim()[1] > 15.0
    assert [axis.get_legend().get_title().get_text() for axis in figure.axes] == ["pure", "contaminated"]
    assert [text.get_text() for text in top.get_legend().get_texts()] == ["truth"]
    np.testing.assert_allclose(top.lines[0].get_ydata(), pdfs((13.5,), 0.05, None).pdf[0])


def test_perturbed_pdfs_keep_the_colour_of_the_cluster_and_change_the_line():
    figure = plot_perturbed_pdfs({"all": pdfs(), "less": pdfs(width=0.13)})
    curves = [line for line in figure.axes[0].lines if len(line.get_xdata()) > 2]
    assert len(curves) == 6
    assert [line.get_linestyle() for line in curves] == ["-"] * 3 + ["--"] * 3
    assert [line.get_color() for line in curves[:3]] == [line.get_color() for line in curves[3:]]
    np.testing.assert_allclose(curves[4].get_ydata(), pdfs(width=0.13).pdf[1])
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"all", "less", "truth", "low", "middle", "high"} <= set(words)


def test_equation_8_draws_the_pairs_their_errors_and_circles_of_equal_scatter():
    figure = plot_equation8(PAIRS, levels=(0.1, 0.2, 5.0))
    (axis,) = figure.axes
    points = errorbar_points(axis)
    for name, pair in PAIRS.items():
        np.testing.assert_allclose(points[name].reshape(-1), [pair.sigma_N, pair.sigma_0])
    # Published: hollow, without error bars; ours: filled, with them.
    for container in axis.containers:
        marker, _, bars = container.lines
        assert (marker.get_markerfacecolor() == "white") == (container.get_label() == "paper")
        assert bool(bars) == (container.get_label() != "paper")
    circles = [line.get_xydata() for line in axis.lines if len(line.get_xdata()) > 100]
    for circle, level in zip(circles, (0.1, 0.2, 5.0), strict=True):
        np.testing.assert_allclose(np.hypot(*circle.T), level)
    assert {"0.1", "0.2"} == {text.get_text() for text in axis.texts}
    (line,) = [line for line in axis.lines if "shot noise" in str(line.get_label())]
    assert line.get_xdata()[0] == pytest.approx(3.0 / (np.sqrt(2 * 100.0) * np.log(10.0)))


def test_variants_of_a_method_share_its_mark_and_its_line_in_the_legend():
    variants = {f"M-sigma, {k}": ScatterPair(0.2 + 0.01 * k, 0.1, group="M-sigma") for k in range(20)}
    figure = plot_equation8(PAIRS | variants)
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words.count("M-sigma") == 1
    assert len(words) == 5
    marks = [c.lines[0] for c in figure.axes[0].containers[-20:]]
    assert {(m.get_marker(), m.get_color()) for m in marks} == {(marks[0].get_marker(), marks[0].get_color())}
    np.testing.assert_allclose(
        [float(m.get_xdata()[0]) for m in marks], [p.sigma_N for p in variants.values()]
    )


def test_real_clusters_stand_where_the_table_says_with_asymmetric_errors():
    figure = plot_real_clusters(NAMES, LITERATURE, {"here": PAPER}, highlight="Coma")
    top, bottom = figure.axes
    points = errorbar_points(top)["here"]
    np.testing.assert_allclose(points, [LITERATURE.log10_mass[1:], PAPER.log10_mass[1:]])
    container = next(c for c in bottom.containers if c.get_label() == "literature")
    segments = np.array(container.lines[2][0].get_segments())
    row = NAMES.index("A2142")
    np.testing.assert_allclose(segments[row][:, 0], [14.95 - 0.14, 14.95 + 0.04])
    names = [text.get_text() for text in bottom.get_yticklabels()]
    assert names == [NAMES[k] for k in np.argsort(LITERATURE.log10_mass)]
    assert top.get_aspect() == 1.0


def test_epistemic_share_is_the_ratio_of_variances_in_each_bin():
    rng = np.random.default_rng(0)
    mass = rng.uniform(14.0, 14.4, 400)
    data, own = rng.uniform(0.1, 0.2, 400), rng.uniform(0.01, 0.1, 400)
    top, bottom = plot_epistemic_by_mass({"a": Widths(mass, data, own)}, bin_width=0.2).axes
    inside = mass < 14.2
    expected = (own[inside] ** 2).mean() / (own[inside] ** 2 + data[inside] ** 2).mean()
    assert bottom.lines[0].get_ydata()[0] == pytest.approx(expected)
    assert top.lines[1].get_ydata()[0] == pytest.approx(np.sqrt((own[inside] ** 2).mean()))
    assert len(bottom.lines[0].get_xdata()) == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plot_phase_space([0.1], [1.0, 2.0]), "one shape"),
        (lambda: plot_phase_space([0.1], [1.0], np.ones(3)), "bins in R"),
        (lambda: plot_masses({"a": []}), "no masses"),
        (lambda: plot_pdfs({}), "no PDFs"),
        (lambda: plot_perturbed_pdfs({str(i): pdfs() for i in range(5)}), "variants"),
        (lambda: plot_perturbed_pdfs({"a": pdfs(), "b": pdfs((14.0,), 0.1, None)}), "same clusters"),
        (lambda: plot_equation8({}), "methods"),
        (lambda: plot_real_clusters(NAMES, LITERATURE, {}), "estimates"),
        (lambda: plot_real_clusters(NAMES[:3], LITERATURE, {"a": PAPER}), "shape"),
        (
            lambda: plot_real_clusters(["A"], Masses([14.0], [-0.1], [0.1]), {"a": Masses([14.0], [0], [0])}),
            "negative",
        ),
        (
            lambda: plot_real_clusters(NAMES, LITERATURE, {"a": PAPER}, highlight="Virgo"),
            "no cluster 'Virgo'",
        ),
        (lambda: plot_epistemic_by_mass({"a": Widths([14.0], [0.1, 0.1], [0.1])}), "one shape"),
        (lambda: plot_predicted_vs_true({}), "samples"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_the_reason(call, message):
    with pytest.raises(ValueError, match=message):
        call()

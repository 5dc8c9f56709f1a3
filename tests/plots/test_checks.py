"""Figures: drawn without warnings, labelled with units, showing the numbers they were given."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from scipy import stats

from bayesflowmass.diagnostics import central_level, summarise, uniformity
from bayesflowmass.plots.checks.calibration_by_mass import plot_calibration_by_mass
from bayesflowmass.plots.checks.coverage import plot_coverage
from bayesflowmass.plots.checks.pit import plot_pit
from bayesflowmass.plots.checks.residuals import plot_residuals
from bayesflowmass.plots.paper.masses import plot_masses
from bayesflowmass.plots.paper.pdfs import ClusterPdfs, plot_pdfs
from bayesflowmass.plots.paper.phase_space import plot_phase_space
from bayesflowmass.plots.paper.predicted_vs_true import plot_predicted_vs_true
from bayesflowmass.plots.style import COLUMN_WIDTH, save_figure


@pytest.fixture(scope="module")
def sample():
    rng = np.random.default_rng(0)
    true = rng.uniform(13.5, 15.0, 400)
    median = true + 0.1 * rng.normal(size=400)
    quantiles = median[:, None] + 0.1 * np.array([-1.96, -1.0, 0.0, 1.0, 1.96])
    return true, median, quantiles, stats.norm.cdf((true - median) / 0.1)


def _figures(sample):
    true, median, quantiles, pit = sample
    grid = np.linspace(13, 16, 301)
    pdf, cdf = (np.stack([f(grid, m, 0.1) for m in (14.0, 14.8)]) for f in (stats.norm.pdf, stats.norm.cdf))
    summary = summarise(true, median, halo_id=np.arange(400), pit=pit, n_resamples=10)
    rng = np.random.default_rng(1)
    return {
        "predicted": plot_predicted_vs_true({"test": (true, quantiles)}),
        "residuals": plot_residuals({"a": true - median, "b": 2 * (true - median)}),
        "pit": plot_pit(pit),
        "coverage": plot_coverage({"a": asdict(uniformity(central_level(pit)))}),
        "pdfs": plot_pdfs({"": ClusterPdfs(grid, pdf, cdf, np.array([14.1, 14.8]), ["A", "B"])}),
        "phase space": plot_phase_space(
            rng.uniform(0, 1.6, 30),
            rng.normal(size=30) * 500,
            np.ones((50, 50)),
            is_member=rng.random(30) < 0.7,
        ),
        "by mass": plot_calibration_by_mass(summary["bins_true"], summary["bins_predicted"]),
        "masses": plot_masses({"training": true, "test": true[:50]}),
    }


def test_every_figure_is_one_column_wide_and_labels_its_axes(sample):
    for name, figure in _figures(sample).items():
        figure.canvas.draw()
        assert figure.get_size_inches()[0] == pytest.approx(COLUMN_WIDTH), name
        # A colour bar is an axis too, with its label along y.
        assert any(axis.get_xlabel() for axis in figure.axes), name
        assert all(axis.get_ylabel() for axis in figure.axes), name


def test_axes_carry_their_units(sample):
    figures = _figures(sample)
    assert "M_\\odot" in figures["predicted"].axes[-1].get_xlabel()
    assert "[dex]" in figures["residuals"].axes[0].get_xlabel()
    assert "comoving" in figures["phase space"].axes[1].get_xlabel()
    assert "km s" in figures["phase space"].axes[0].get_ylabel()


def test_a_figure_is_saved_as_vector_pdf_and_png_and_the_same_bytes_twice(sample, tmp_path):
    first = save_figure(plot_pit(sample[3]), tmp_path / "one" / "pit")
    second = save_figure(plot_pit(sample[3]), tmp_path / "two" / "pit")
    assert [p.name for p in first] == ["pit.pdf", "pit.png"]
    assert first[0].read_bytes().startswith(b"%PDF")
    assert b"/Subtype /Image" not in first[0].read_bytes()
    assert first[1].read_bytes().startswith(b"\x89PNG")
    for a, b in zip(first, second, strict=True):
        assert a.read_bytes() == b.read_bytes()
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == ["pit.pdf", "pit.png"]


def test_predicted_against_true_draws_the_widths_it_was_given(sample):
    true, _, quantiles, _ = sample
    figure = plot_predicted_vs_true({"": (true, quantiles)}, bin_width=0.5)
    two_sigma, one_sigma = figure.axes[1].lines[:2]
    np.testing.assert_allclose(one_sigma.get_ydata(), 0.1, rtol=1e-6)
    np.testing.assert_allclose(two_sigma.get_ydata(), 0.196, rtol=1e-6)
    assert len(one_sigma.get_xdata()) == 3


def test_residual_legend_states_mean_scatter_and_what_lies_beyond_the_axis():
    figure = plot_residuals({"flow": [0.1, -0.1, 0.0, 3.0]}, limit=1.0)
    text = figure.axes[0].get_legend().get_texts()[0].get_text()
    assert "+0.750" in text
    assert "25.0 % beyond" in text


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plot_predicted_vs_true({"": ([14.0], np.zeros((1, 3)))}), "quantiles must have shape"),
        (lambda: plot_residuals({}), "no residuals"),
        (lambda: plot_coverage({}), "no coverage curves"),
        (lambda: plot_masses({}), "no masses"),
        (lambda: ClusterPdfs(np.arange(5), np.ones((7, 5)), np.ones((7, 5))), "At most 6 PDFs"),
        (
            lambda: ClusterPdfs(np.arange(5), np.ones((2, 4)), np.ones((2, 4))),
            "pdf and cdf must have shape",
        ),
    ],
    ids=["quantiles", "residuals", "pit", "masses", "too many", "shape"],
)
def test_figures_refuse_what_they_cannot_draw(call, message):
    with pytest.raises(ValueError, match=message):
        call()

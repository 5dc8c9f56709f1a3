"""Figures of an evaluation: found, drawn and told in words, each from its own file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from bayesflowmass.diagnostics import PosteriorSummary, assess_calibration, summarise
from bayesflowmass.plots.evaluated import Evaluated, evaluation_figures
from bayesflowmass.posterior import MassPosterior


@pytest.fixture(scope="module")
def evaluated():
    rng = np.random.default_rng(0)
    n, sigma = 300, 0.1
    mean = rng.uniform(14.0, 15.0, n)
    truth = mean + sigma * rng.normal(size=n)
    summary = PosteriorSummary.gaussian(truth, mean, sigma, 0.5)
    groups = {"richness": rng.integers(20, 200, n), "redshift": rng.uniform(0.05, 0.2, n)}
    calibration = assess_calibration(
        summary, halo_id=np.arange(n), groups=groups, n_resamples=5, n_simulations=99, n_sets=20
    )
    metrics = summarise(
        truth, mean, halo_id=np.arange(n), pit=summary.pit, sigma=summary.sigma, n_resamples=5
    )
    normal = torch.distributions.Normal(torch.tensor([14.1, 14.5, 14.9], dtype=torch.float64), sigma)
    return Evaluated(
        metrics={**metrics, "baselines": {"richness": {"scatter": 0.2}}},
        calibration=calibration,
        summary=summary,
        judged=summary,
        halo_id=np.arange(n),
        residuals={"this model": truth - mean, "richness": 2 * (truth - mean)},
        three=MassPosterior(normal, log10_mass_range=(13.5, 15.5), redshift=0.117),
        three_truths=np.array([14.0, 14.5, 15.0]),
        three_labels=("poor", "middling", "rich"),
        title="flat set, flat prior",
        judged_title="flat set, flat prior",
    )


def test_the_report_shows_these_figures_in_this_order():
    shown = {
        section: [f.name for f in evaluation_figures() if f.section == section]
        for section in ("accuracy", "calibration")
    }
    assert shown == {
        "accuracy": ["predicted_vs_true", "residuals", "pdfs", "calibration_by_mass"],
        "calibration": [
            *("pit", "coverage", "pit_by_predicted_mass", "pit_by_richness", "pit_by_redshift"),
            *("calibration_by_true_mass", "contraction"),
        ],
    }
    assert len({(f.section, f.place) for f in evaluation_figures()}) == len(evaluation_figures())


@pytest.mark.parametrize("figure", evaluation_figures(), ids=lambda figure: figure.name)
def test_each_figure_is_drawn_and_says_what_it_shows(figure, evaluated):
    drawn = figure.draw(evaluated)
    assert isinstance(drawn, Figure)
    drawn.canvas.draw()
    assert figure.caption.endswith(".")
    alt = figure.alt(evaluated.metrics, evaluated.calibration)
    assert alt.endswith(".")
    assert "nan" not in alt


def test_what_was_not_measured_is_not_drawn(evaluated):
    from dataclasses import replace

    nothing = replace(evaluated, calibration={**evaluated.calibration, "by": {}})
    by = [figure for figure in evaluation_figures() if figure.name.startswith("pit_by_")]
    assert [figure.draw(nothing) for figure in by] == [None, None, None]
    assert all("PIT" in figure.alt(nothing.metrics, nothing.calibration) for figure in by)

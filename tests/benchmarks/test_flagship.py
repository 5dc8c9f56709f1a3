"""The controls of the flagship comparison do what their names say."""

from __future__ import annotations

import numpy as np
import pyro.distributions as dist
import pytest
import torch

from bayesflowmass.posterior import MassPosterior
from benchmarks.flagship.controls import widened
from benchmarks.flagship.outcomes import area


def test_the_area_under_the_curve_counts_pairs_in_order_and_ties_half():
    rng = np.random.default_rng(0)
    score, event = rng.integers(0, 5, 60).astype(float), rng.random(60) < 0.3
    pairs = [(a > b) + 0.5 * (a == b) for a in score[event] for b in score[~event]]
    assert area(score, event) == pytest.approx(np.mean(pairs), rel=1e-12)
    assert np.isnan(area(score, np.zeros(60, dtype=bool)))


def test_a_temperature_multiplies_the_width_of_a_normal_pdf_and_keeps_its_median():
    normal = dist.Normal(torch.tensor([14.2, 14.8], dtype=torch.float64), 0.05)
    posterior = MassPosterior(normal, log10_mass_range=(13.2, 15.6), redshift=0.1)
    wide = widened(posterior, np.log([1.0, 1.5]))
    # Both are moments of tables, whose steps in probability leave 1e-5.
    np.testing.assert_allclose(wide.sigma / posterior.sigma, [1.0, 1.5], rtol=1e-4)
    np.testing.assert_allclose(wide.median, posterior.median, atol=1e-6)
    exact = dist.Normal(normal.loc, torch.tensor([0.05, 0.075], dtype=torch.float64))
    truth = torch.tensor([14.25, 14.9], dtype=torch.float64)
    np.testing.assert_allclose(wide.log_pdf(truth.numpy()), exact.log_prob(truth).numpy(), atol=1e-9)

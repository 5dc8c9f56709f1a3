"""The committed draws of the gold standard: converged, of the right density, and a row of the table from them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from pyro.ops.stats import effective_sample_size, split_gelman_rubin

from bayesflowmass.estimator.weight_draws import condition_draws
from benchmarks.gold_standard import __main__ as gold_standard


@pytest.fixture(scope="module")
def gold():
    return gold_standard


@pytest.fixture(scope="module")
def table(gold):
    return json.loads(gold.OUT.with_suffix(".json").read_text(encoding="utf-8"))


def test_the_network_has_at_most_a_hundred_weights(gold):
    assert sum(p.numel() for p in gold.flow_of(0).parameters()) == 34


@pytest.mark.parametrize("seed", [0, 1])
def test_the_whole_run_converged(gold, seed):
    _, _, found = gold.load_reference(seed)
    assert found["r_hat"] < 1.01
    assert found["effective_draws"] > 400


@pytest.mark.parametrize("seed", [0, 1])
def test_the_committed_draws_converged(gold, seed):
    """A thinned run carries less: R-hat within its scatter of 1.01, effective draws above the same 400."""
    samples, _, _ = gold.load_reference(seed)
    with torch.no_grad():
        found = condition_draws(gold.flow_of(0), gold.as_draws(samples), gold.CONTEXTS[:, None])
    values = torch.cat([found.mean, 0.5 * found.variance.log()], -1).reshape(*samples.shape[:2], -1)
    assert split_gelman_rubin(values, 0, 1).max() < 1.015
    assert effective_sample_size(values, 0, 1).min() > 400


def test_the_reference_sampled_the_density_of_flow_and_prior(gold):
    samples, density, _ = gold.load_reference(0)
    found = gold.log_joint(gold.as_draws(samples[:, :50]))
    torch.testing.assert_close(found, density[:, :50].flatten(), rtol=0, atol=1e-9)


def test_the_fan_in_prior_is_that_of_the_reference(gold):
    from benchmarks.gold_standard import problem

    scales = [
        np.full(p.numel(), gold.PRIOR.scale_of(name, p.shape))
        for name, p in gold.flow_of(0).named_parameters()
    ]
    np.testing.assert_allclose(np.concatenate(scales), problem.prior_scales(), rtol=1e-12)


@pytest.mark.parametrize("name", ["Laplace, last layer", "NUTS, another seed"])
def test_a_row_of_the_table_comes_out_again(gold, table, name):
    samples, _, _ = gold.load_reference(0)
    flow = gold.flow_of(0)
    reference = gold.summarise(flow, gold.as_draws(samples))
    if name.startswith("NUTS"):
        draws = gold.as_draws(gold.load_reference(1)[0])
    else:
        with torch.no_grad():
            for parameter, value in table["point"].items():
                flow.get_parameter(parameter).copy_(torch.tensor(value, dtype=torch.float64))
        flow, posterior = gold.fit_row(name, flow, seed=0, updates=0)
        draws = gold.drawn(posterior)
    row = gold.compare(flow, draws, reference)
    assert row == pytest.approx(table["rows"][name], rel=1e-6, abs=1e-9)

"""The committed reference of the gold standard: converged, of the right density, and rows of the table from it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from benchmarks.gold_standard import __main__ as gold
from benchmarks.gold_standard.methods import PRIOR, Cell
from benchmarks.gold_standard.problems import NETWORKS, PROBLEMS, prior_scales

CELLS = [f"{problem}, {network}" for problem in PROBLEMS for network in NETWORKS]


@pytest.fixture(scope="module")
def table():
    return json.loads(gold.OUT.with_suffix(".json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", CELLS)
def test_the_chains_agree_where_predictions_are_judged(name):
    _, found = gold.reference(name)
    assert found[name]["r_hat"] < 1.04
    assert found[name]["effective_draws"] > 150


@pytest.mark.parametrize("name", CELLS)
def test_the_reference_sampled_the_density_of_flow_and_prior(name):
    arrays, _ = gold.reference(name)
    cell = Cell(name, 1)
    found = gold.log_joint(cell, gold.as_draws(cell.flow(0), arrays["weights"]))
    torch.testing.assert_close(found, torch.from_numpy(arrays["log_joint"]), rtol=0, atol=1e-9)


def test_the_fan_in_prior_is_that_of_the_reference():
    for name in CELLS:
        cell = Cell(name, 1)
        scales = [
            np.full(p.numel(), PRIOR.scale_of(key, p.shape)) for key, p in cell.flow(0).named_parameters()
        ]
        expected = prior_scales(cell.problem, name.partition(", ")[2])
        np.testing.assert_allclose(np.concatenate(scales), expected, rtol=1e-12)


def test_the_noise_of_the_reference_is_far_below_the_goals(table):
    for rows in table["cells"].values():
        noise = rows["NUTS, half against half"]
        assert noise["w1_inside"] < gold.INSIDE / 2
        assert abs(noise["ratio_gap"] - 1) < gold.GAP / 2


def test_one_draw_of_the_reference_is_compared_by_its_normal():
    """Against a reference that is the same normal moved by a tenth of its width: W1 is that tenth."""
    cell = Cell(CELLS[0], 1)

    def at(shift):
        return lambda x: (
            torch.full((2, len(x)), 14.3 + shift).double(),
            torch.full((2, len(x)), 0.2).double(),
        )

    row = gold.compare(cell, gold.summary(cell, at(0.02)), gold.summary(cell, at(0.0)) | _some_epistemic())
    # The cdf is summed on a grid of a seventh of the width: errors of a smooth integrand are far below a percent.
    assert row["w1_inside"] == pytest.approx(0.1, rel=0.01)
    assert row["ratio_gap"] == 0.0


def _some_epistemic():
    return {f"epistemic_{region}": np.ones((2, gold.N_CONTEXTS)) for region in gold.REGIONS}

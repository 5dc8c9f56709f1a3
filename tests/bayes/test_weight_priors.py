"""Priors of weights, against scipy."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from scipy import stats

from bayesflowmass.bayes.priors import NormalPrior, ScaleMixturePrior, WeightPrior

SHAPES = {"a.weight": (3, 4), "a.bias": (3,), "b.weight": (2, 3, 5)}


def weights(*lead):
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(*lead, *shape, generator=generator, dtype=torch.float64)
        for name, shape in SHAPES.items()
    }


def test_fan_in_keeps_the_variance_of_a_layer_and_biases_have_scale_one():
    prior = NormalPrior(gain=2.0)
    assert prior.scale_of("a.weight", (3, 4)) == 1.0
    assert prior.scale_of("a.bias", (3,)) == 1.0
    assert prior.scale_of("b.weight", (2, 3, 5)) == pytest.approx(2.0 / math.sqrt(15))


def test_overrides_by_pattern():
    prior = NormalPrior(0.5, overrides={"a.*": 3.0, "*.weight": "fan_in"})
    assert prior.scale_of("a.weight", (3, 4)) == 3.0
    assert prior.scale_of("b.weight", (2, 3, 5)) == pytest.approx(1 / math.sqrt(15))
    assert prior.scale_of("b.bias", (2,)) == 0.5


def test_normal_log_density_is_that_of_scipy():
    drawn = weights(6)
    expected = sum(
        stats.norm(0, NormalPrior().scale_of(name, SHAPES[name])).logpdf(value.numpy()).reshape(6, -1).sum(1)
        for name, value in drawn.items()
    )
    found = NormalPrior().log_prob(drawn, SHAPES)
    assert np.allclose(found, expected, rtol=1e-12)
    assert float(NormalPrior().log_prob({n: v[0] for n, v in drawn.items()})) == pytest.approx(expected[0])


def test_scale_mixture_log_density_is_that_of_scipy():
    value = weights()["a.bias"]
    prior = ScaleMixturePrior(0.7, wide=0.3, ratio=0.05)
    expected = np.log(
        0.3 * stats.norm(0, 0.7).pdf(value.numpy()) + 0.7 * stats.norm(0, 0.035).pdf(value.numpy())
    )
    assert np.allclose(prior.elementwise_log_prob(value, 0.7), expected, rtol=1e-10)
    assert np.allclose(prior.distribution(0.7, value).log_prob(value), expected, rtol=1e-10)


@pytest.mark.parametrize("prior", [NormalPrior(0.2), ScaleMixturePrior(overrides={"a.*": 2.0}, wide=0.9)])
def test_a_prior_survives_json(prior):
    again = WeightPrior.from_description(json.loads(json.dumps(prior.describe())))
    assert repr(again) == repr(prior)
    assert type(again) is type(prior)


def test_unusable_priors_are_refused():
    with pytest.raises(ValueError, match="expected a positive number or 'fan_in'"):
        NormalPrior(-1.0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        ScaleMixturePrior(wide=1.5)
    with pytest.raises(ValueError, match="Unknown kind of prior 'flat'"):
        WeightPrior.from_description({"kind": "flat"})

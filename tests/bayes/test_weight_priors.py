"""Priors of weights, against scipy."""

from __future__ import annotations

import json
import math

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch.distributions import MultivariateNormal, kl_divergence

from bayesflowmass.bayes.guides import Eigenbasis, FullCovariance, MeanField
from bayesflowmass.bayes.priors import NormalPrior, WeightPrior, as_prior

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


MIXTURE = dist.MixtureSameFamily(
    dist.Categorical(torch.tensor([0.3, 0.7])), dist.Normal(torch.zeros(2), torch.tensor([0.7, 0.035]))
)
MATRIX = dist.Normal(torch.zeros(3, 4), torch.arange(1.0, 13.0).reshape(3, 4)).to_event(1)


@pytest.mark.parametrize(
    ("prior", "reference"),
    [
        (dist.Laplace(0.0, 0.1), lambda x: stats.laplace(0, 0.1).logpdf(x)),
        (dist.StudentT(2.0, 0.5), lambda x: stats.t(2.0, 0.5).logpdf(x)),
        (dist.Cauchy(0.0, 2.0), lambda x: stats.cauchy(0, 2.0).logpdf(x)),
        (MIXTURE, lambda x: np.log(0.3 * stats.norm(0, 0.7).pdf(x) + 0.7 * stats.norm(0, 0.035).pdf(x))),
        (
            {"a.weight": MATRIX, "*": dist.Normal(0.0, 1.0)},
            lambda x: stats.norm(0, np.arange(1.0, 13.0).reshape(3, 4)).logpdf(x),
        ),
    ],
    ids=["laplace", "student", "cauchy", "mixture", "one scale per weight"],
)
def test_any_distribution_of_pyro_is_a_prior_and_survives_json(prior, reference):
    prior = as_prior(prior)
    value = weights(5)["a.weight"]
    # Parameters such as 0.1 are floats in Pyro: as exact as single precision is.
    expected = reference(value.numpy()).reshape(5, -1).sum(1)
    again = WeightPrior.from_description(json.loads(json.dumps(prior.describe())))
    assert repr(again) == repr(prior)
    for each in (prior, again):
        found = each.tensor_log_prob("a.weight", value, (3, 4))
        assert found.dtype == torch.float64
        assert np.allclose(found, expected, rtol=1e-5, atol=1e-4)
        drawn = each.distribution("a.weight", (3, 4), value).sample()
        assert drawn.shape == (3, 4)
        assert drawn.dtype == torch.float64


def test_guides_count_in_the_standard_deviation_of_a_prior():
    assert as_prior(dist.Laplace(0.0, 0.5)).scale_of("a", (2,)) == pytest.approx(0.5 * math.sqrt(2))
    assert as_prior(dist.Cauchy(0.0, 2.0)).scale_of("a", (2,)) == 2.0


def test_the_divergence_from_any_normal_prior_is_in_closed_form():
    """Whatever the means, scales and shapes, for every guide."""
    module = torch.nn.Linear(3, 2).double()
    means, scales = torch.randn(2, 3, dtype=torch.float64), 0.1 + torch.rand(2, 3, dtype=torch.float64)
    prior = as_prior({"weight": dist.Normal(means, scales).to_event(2), "bias": dist.Normal(0.3, 0.7)})
    for kind in (MeanField, FullCovariance, Eigenbasis):
        guide = kind(module, prior, init_scale=0.4)
        q = guide.distribution()
        p = MultivariateNormal(
            torch.cat([means.flatten(), torch.full((2,), 0.3, dtype=torch.float64)]),
            torch.cat([scales.flatten(), torch.full((2,), 0.7, dtype=torch.float64)]).square().diag(),
        )
        expected = kl_divergence(MultivariateNormal(q.mean, q.covariance_matrix), p)
        torch.testing.assert_close(guide.kl(), expected, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(guide.sample_with_kl()[1], guide.kl())


def test_a_joint_normal_prior_of_which_all_forms_were_asked_survives_json():
    normal = dist.MultivariateNormal(torch.zeros(2), precision_matrix=torch.tensor([[2.0, 0.5], [0.5, 1.0]]))
    assert normal.covariance_matrix.shape == normal.scale_tril.shape
    prior = WeightPrior.from_description(json.loads(json.dumps(as_prior(normal).describe())))
    value = torch.tensor([0.3, -0.2])
    torch.testing.assert_close(prior.tensor_log_prob("bias", value, (2,)), normal.log_prob(value))


def test_a_normal_prior_survives_json():
    prior = NormalPrior(0.2, overrides={"a.*": 2.0})
    assert repr(WeightPrior.from_description(json.loads(json.dumps(prior.describe())))) == repr(prior)
    assert repr(as_prior(prior.describe())) == repr(prior)
    assert repr(as_prior(0.2)) == repr(NormalPrior(0.2))


def test_unusable_priors_are_refused():
    with pytest.raises(ValueError, match="expected a positive number or 'fan_in'"):
        NormalPrior(-1.0)
    with pytest.raises(ValueError, match="a HalfNormal, is not one of all real numbers"):
        as_prior(dist.HalfNormal(1.0))
    with pytest.raises(ValueError, match=r"has the shape \(5,\); expected \(\) or \(3,\)"):
        as_prior(dist.Normal(torch.zeros(5), 1.0)).scale_of("a", (3,))
    with pytest.raises(ValueError, match="no distribution of 'b'"):
        as_prior({"a": dist.Normal(0.0, 1.0)}).scale_of("b", (3,))
    with pytest.raises(ValueError, match="a MaskedDistribution, does not follow from its parameters"):
        as_prior(dist.Normal(0.0, 1.0).mask(True))
    with pytest.raises(ValueError, match="Unknown kind of prior 'flat'"):
        WeightPrior.from_description({"kind": "flat"})

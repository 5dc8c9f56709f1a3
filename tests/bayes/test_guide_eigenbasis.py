"""The eigenbasis guide: exact where it should be, a density like any other."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from bayesflowmass.bayes.guides.base import WeightGuide
from bayesflowmass.bayes.guides.eigenbasis import SCALE_RATE, Eigenbasis, _second_moments
from bayesflowmass.bayes.priors import DistributionPrior, NormalPrior

NOISE = 0.3


def correlated(n=40, width=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator, dtype=torch.float64)
    x = torch.randn(n, width, generator=generator, dtype=torch.float64) @ mixing + 0.7
    y = x @ torch.randn(width, generator=generator, dtype=torch.float64)
    return x, y + NOISE * torch.randn(n, generator=generator, dtype=torch.float64)


def aligned(prior=None, width=5, outputs=1, **options):
    layer = nn.Linear(width, outputs).double()
    guide = Eigenbasis(layer, prior or NormalPrior(), **options)
    x, y = correlated(width=width)
    guide.align(layer, lambda: layer(x))
    return guide, x, y


def test_the_posterior_of_linear_regression_is_in_the_family():
    guide, x, y = aligned(NormalPrior("fan_in", overrides={"bias": 0.8}))
    design = torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], 1)
    prior = guide.prior_scale()
    precision = design.T @ design / NOISE**2 + torch.diag(prior**-2)
    covariance = torch.linalg.inv(precision)
    mean = covariance @ design.T @ y / NOISE**2
    relative = guide.basis0.T @ (precision * prior.unsqueeze(1) * prior) @ guide.basis0
    with torch.no_grad():
        guide.shift.copy_(guide.basis0.T @ ((mean - guide.start) / prior))
        guide.slow_log_scale.copy_(-0.5 * relative.diagonal().log() / SCALE_RATE)
    # In float64 the covariance, and with it the ELBO, are those of the exact posterior.
    assert torch.allclose(guide.distribution().covariance_matrix, covariance, rtol=1e-9, atol=1e-12)
    expected_square = ((y - design @ mean) ** 2).sum() + (design @ covariance * design).sum()
    log_norm = torch.log(torch.tensor(2 * torch.pi * NOISE**2, dtype=torch.float64))
    elbo = -0.5 * expected_square / NOISE**2 - 0.5 * len(y) * log_norm - guide.kl()
    evidence = MultivariateNormal(
        torch.zeros(len(y), dtype=torch.float64),
        NOISE**2 * torch.eye(len(y), dtype=torch.float64) + (design * prior**2) @ design.T,
    ).log_prob(y)
    assert float(elbo.detach()) == pytest.approx(float(evidence), abs=1e-8)


@pytest.mark.parametrize("outputs", [1, 3])
def test_densities_variances_and_draws_agree_with_the_normal_it_is(outputs):
    guide, _, _ = aligned(outputs=outputs, init_scale=0.5)
    with torch.no_grad():
        spread = torch.linspace(-1.0, 1.0, guide.layout.n_weights, dtype=torch.float64)
        guide.slow_log_scale.add_(spread / SCALE_RATE)
    exact = MultivariateNormal(guide.loc, guide.distribution().covariance_matrix)
    draws = guide.rsample(20000, torch.Generator().manual_seed(1))
    assert torch.allclose(guide.distribution().log_prob(draws[:50]), exact.log_prob(draws[:50]), atol=1e-9)
    assert torch.allclose(guide.flat_variance(), exact.covariance_matrix.diagonal(), rtol=1e-10)
    # 20 000 draws: a variance has a relative standard error of 1 %, so that 5 % is five of them.
    assert torch.allclose(draws.var(0), guide.flat_variance(), rtol=0.05)
    target = MultivariateNormal(torch.zeros_like(guide.loc), torch.diag(guide.prior_scale() ** 2))
    exact_kl = torch.distributions.kl_divergence(exact, target)
    assert float(guide.kl().detach()) == pytest.approx(float(exact_kl.detach()), rel=1e-10)


def test_local_outputs_have_the_moments_of_shared_draws():
    guide, x, _ = aligned(outputs=2, init_scale=0.5)
    mean, variance, _ = guide.local_linear("", x[:7])
    draws = guide.draw(40000, seed=3)
    outputs = x[:7] @ draws["weight"].mT + draws["bias"].unsqueeze(1)
    # 40 000 draws: means are within five standard errors, variances (0.7 % each) within 4 %.
    assert ((outputs.mean(0) - mean).abs() < 5.0 * (variance / 40000).sqrt()).all()
    assert torch.allclose(outputs.var(0), variance, rtol=0.04)


def test_before_it_is_aligned_it_is_the_mean_field():
    layer = nn.Linear(4, 2).double()
    covariance = Eigenbasis(layer, NormalPrior()).distribution().covariance_matrix
    assert torch.allclose(covariance, torch.diag(covariance.diagonal()))


def test_a_fresh_guide_takes_the_state_of_a_fitted_one():
    guide, _, _ = aligned(outputs=2)
    layer = nn.Linear(5, 2).double()
    again = WeightGuide.from_description(layer, guide.describe())
    again.load_state_dict(guide.state_dict())
    for name, value in guide.draw(3, seed=4).items():
        assert torch.equal(value, again.draw(3, seed=4)[name])


def test_parameters_that_belong_to_no_linear_layer_are_mean_field():
    module = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)).double()
    guide = Eigenbasis(module, NormalPrior())
    x = torch.randn(30, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    guide.align(module, lambda: module(x))
    covariance = guide.distribution().covariance_matrix
    assert torch.equal(covariance[-8:, -8:], torch.diag(covariance[-8:, -8:].diagonal()))
    assert covariance[:3, :3].abs().min() > 0


def test_a_prior_without_closed_form_is_allowed():
    guide, _, _ = aligned(DistributionPrior(dist.Laplace(0.0, 0.5)))
    assert torch.isfinite(guide.kl())


def test_a_layer_too_wide_for_its_axes_is_refused():
    with pytest.raises(ValueError, match="at most 2048"):
        Eigenbasis(nn.Linear(3000, 1), NormalPrior())


def test_a_layer_that_is_never_called_stays_mean_field():
    """Torch's attention reads the weights of its output layer."""
    attention, x = nn.MultiheadAttention(4, 2), torch.randn(3, 5, 4)
    guide = Eigenbasis(attention, NormalPrior())
    guide.align(attention, lambda: attention(x, x, x))
    assert guide.layers == ["out_proj"]
    assert torch.equal(guide.basis0, torch.eye(5))


@pytest.mark.parametrize("shape", [(7, 3), (2, 7, 3)])
def test_second_moments_are_of_all_inputs_and_a_one_summed_over_calls(shape):
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(shape, generator=generator) for _ in range(2)]
    with _second_moments(net, ["0", "2"]) as found:
        for x in batches:
            net(x)
    net(batches[0])
    for name, before in (("0", nn.Identity()), ("2", net[:2])):
        inputs = torch.cat([before(x).detach().double().flatten(0, -2) for x in batches])
        inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], 1)
        torch.testing.assert_close(found[name], inputs.T @ inputs)

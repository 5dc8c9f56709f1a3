"""Guides: densities, entropies and divergences against torch.distributions, states, one contract for all."""

from __future__ import annotations

import json

import pyro.distributions as dist
import pytest
import torch
from scipy.stats import kstest
from torch import nn
from torch.distributions import MultivariateNormal, kl_divergence

from bayesflowmass.bayes.guides import FullCovariance, MeanField, WeightGuide
from bayesflowmass.bayes.guides.fused import NormalDraw, draw_normals
from bayesflowmass.bayes.guides.noise import standard_normal
from bayesflowmass.bayes.priors import DistributionPrior, NormalPrior

GUIDES = [MeanField, FullCovariance]


def network():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def scrambled(kind, prior=None, **options):
    """A guide away from its start: all its numbers moved, so that no term of a formula vanishes."""
    guide = kind(network(), prior, **options)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return guide


def covariance(guide):
    if isinstance(guide, MeanField):
        return torch.diag((2 * guide.log_scale).exp())
    lower = guide.scale_tril()
    return lower @ lower.mT


@pytest.mark.parametrize("kind", GUIDES)
def test_density_and_divergence_are_those_of_the_normal_distribution(kind):
    guide = scrambled(kind)
    exact = MultivariateNormal(guide.loc, covariance(guide))
    prior = MultivariateNormal(torch.zeros_like(guide.loc), torch.diag(guide.prior_scale() ** 2))
    draws = guide.draw(5, seed=0)
    flat = guide.layout.flatten(draws)
    assert torch.allclose(guide.log_prob(draws), exact.log_prob(flat), rtol=0, atol=1e-9)
    assert torch.allclose(guide.distribution().log_prob(flat), exact.log_prob(flat), rtol=0, atol=1e-9)
    assert torch.allclose(guide.kl(), kl_divergence(exact, prior), rtol=1e-12)
    assert torch.allclose(guide.flat_variance(), exact.variance, rtol=1e-12)
    assert torch.allclose(guide.prior.log_prob(draws, guide.layout.shapes), prior.log_prob(flat), atol=1e-9)


@pytest.mark.parametrize(
    "prior", [NormalPrior(), DistributionPrior(dist.Laplace(0.0, 0.5))], ids=["normal", "Laplace"]
)
@pytest.mark.parametrize("kind", GUIDES)
def test_divergence_is_the_mean_of_log_q_over_p(kind, prior):
    guide = scrambled(kind, prior)
    torch.manual_seed(4)
    with torch.no_grad():
        draws = guide.draw(20_000, seed=3)
        ratio = guide.log_prob(draws) - prior.log_prob(draws, guide.layout.shapes)
        found = float(guide.kl(guide.rsample(20_000)))
    # The closed form has no error; the estimate has that of as many draws. Five sigma.
    assert abs(found - float(ratio.mean())) < 5 * float(ratio.std()) * (2 / 20_000) ** 0.5


@pytest.mark.parametrize("kind", GUIDES)
def test_draws_have_the_moments_of_the_guide(kind):
    guide = scrambled(kind)
    flat = guide.rsample(20_000, torch.Generator().manual_seed(5)).detach()
    variance = guide.flat_variance().detach()
    # Five standard errors of each of 26 means and variances: one false alarm in 30 000.
    assert (flat.mean(0) - guide.loc).abs().lt(5 * (variance / 20_000).sqrt()).all()
    assert (flat.var(0) / variance - 1).abs().max() < 5 * (2 / 20_000) ** 0.5
    exact = covariance(guide).detach() / (variance.sqrt().unsqueeze(1) * variance.sqrt())
    assert (torch.corrcoef(flat.mT) - exact).abs().max() < 5 / 20_000**0.5


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("kind", GUIDES)
def test_a_draw_with_its_divergence_has_the_gradients_of_autograd(kind, sign):
    guide = scrambled(kind)
    direction = torch.linspace(-1, 1, guide.layout.n_weights, dtype=torch.float64)
    parameters = list(guide.parameters())
    noise = torch.randn(guide.n_noise, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    weights, kl = guide.sample_with_kl(noise=noise, sign=sign)
    fused = torch.autograd.grad(
        (guide.layout.flatten(weights).sin() * direction).sum() + 0.7 * kl, parameters
    )
    # The same noise through plain operations.
    flat = guide.transform(sign * noise)
    assert torch.allclose(flat, guide.layout.flatten(weights), rtol=1e-12)
    assert torch.allclose(kl, guide.kl(), rtol=1e-12)
    if sign == 1.0:
        unsigned = guide.sample_with_kl(noise=noise)[0]
        assert all(torch.equal(unsigned[name], weights[name]) for name in weights)
    plain = torch.autograd.grad((flat.sin() * direction).sum() + 0.7 * guide.kl(), parameters)
    for found, expected in zip(fused, plain, strict=True):
        assert torch.allclose(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", GUIDES)
def test_a_fresh_guide_takes_the_state_of_a_fitted_one_before_its_first_call(kind):
    guide = scrambled(kind, which="last", init_scale=0.02)
    again = WeightGuide.from_description(network(), json.loads(json.dumps(guide.describe())))
    again.load_state_dict(guide.state_dict())
    assert type(again) is kind
    for name, value in guide.draw(2, seed=7).items():
        assert torch.equal(again.draw(2, seed=7)[name], value)


@pytest.mark.parametrize("kind", GUIDES)
def test_means_begin_at_the_trained_weights_and_scales_at_a_share_of_the_prior(kind):
    module = network()
    guide = kind(module, NormalPrior(0.5), "last", init_scale=0.01)
    assert torch.equal(guide.mean["2.weight"], module[2].weight)
    assert torch.allclose(guide.standard_deviation["2.bias"], torch.full((2,), 0.005).double(), rtol=0.15)
    assert all(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize("bias", [True, False])
def test_local_outputs_their_divergence_and_gradients_are_those_of_autograd(bias):
    generator = torch.Generator().manual_seed(3)
    layer = nn.Linear(4, 3, bias=bias).double()
    guide = MeanField(layer, NormalPrior("fan_in", overrides={"bias": 0.8}), init_scale=0.5)
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    x = torch.randn(5, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    means, variances = guide.layout.split(guide.loc), guide.layout.split(guide.flat_variance())
    mean, variance = x @ means["weight"].mT, x.square() @ variances["weight"].mT
    if bias:
        mean, variance = mean + means["bias"], variance + variances["bias"]
    pull = torch.linspace(-1.0, 2.0, 15, dtype=torch.float64).reshape(5, 3)
    of = [x, *guide.parameters()]
    found = guide.local_linear("", x)
    for one, plain in zip(found, (mean, variance, guide.kl()), strict=True):
        torch.testing.assert_close(one, plain, rtol=1e-12, atol=1e-12)
    gradients = [
        torch.autograd.grad((a.sin() * pull).sum() + (b.sqrt() * pull).sum() + 0.7 * c, of)
        for a, b, c in (found, (mean, variance, guide.kl()))
    ]
    for one, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(one, plain, rtol=1e-10, atol=1e-12)


def test_a_layer_knows_the_divergence_of_its_own_weights_where_the_prior_is_normal():
    x = torch.ones(2, 4, dtype=torch.float64)
    guide = scrambled(MeanField)
    layers = [guide.local_linear(layer, x[:, : 3 + k])[2] for k, layer in enumerate(("0", "2"))]
    assert torch.allclose(sum(layers), guide.kl(), rtol=1e-12)
    assert scrambled(MeanField, DistributionPrior(dist.Laplace(0.0, 0.5))).local_linear("2", x)[2] is None


def test_a_normal_draw_has_the_gradients_of_autograd_and_survives_a_variance_of_zero():
    mean, variance = torch.tensor([[1.0, -2.0], [0.3, 0.0]], dtype=torch.float64, requires_grad=True)
    torch.manual_seed(0)
    drawn = NormalDraw.apply(mean, variance)
    torch.manual_seed(0)
    plain = mean + variance.sqrt() * torch.randn(2, dtype=torch.float64)
    torch.testing.assert_close(drawn, plain)
    found, exact = (torch.autograd.grad((one**3).sum(), (mean, variance)) for one in (drawn, plain))
    torch.testing.assert_close(found[0], exact[0])
    torch.testing.assert_close(found[1][0], exact[1][0])
    assert bool(torch.isfinite(found[1]).all())


def test_the_factor_of_a_full_covariance_has_its_rows_in_units_of_where_they_began():
    guide = FullCovariance(nn.Linear(2, 1).double(), NormalPrior(0.5), init_scale=0.1)
    with torch.no_grad():
        guide.lower.copy_(torch.tensor([[9.0, 9.0, 9.0], [1.0, 9.0, 9.0], [2.0, -3.0, 9.0]]))
        guide.log_diagonal.copy_(torch.tensor([0.1, 0.2, 0.4]).log())
    expected = torch.tensor([[0.1, 0.0, 0.0], [0.05, 0.2, 0.0], [0.1, -0.15, 0.4]], dtype=torch.float64)
    torch.testing.assert_close(guide.scale_tril(), expected, rtol=1e-6, atol=0)


def test_a_state_holds_what_is_fitted_and_nothing_of_the_prior():
    assert set(MeanField(network()).state_dict()) == {
        f"{part}.{k}" for part in ("locs", "log_scales") for k in range(4)
    }
    assert set(FullCovariance(network()).state_dict()) == {"loc", "lower", "log_diagonal"}


def test_share_at_the_prior_counts_what_nothing_was_learned_about():
    guide = MeanField(nn.Linear(3, 1), NormalPrior(1.0), init_scale=1.0)
    with torch.no_grad():
        guide.locs[0].copy_(torch.tensor([0.0, 0.05, 0.5]))
        guide.locs[1].zero_()
        guide.log_scales[1].fill_(-3.0)
    assert guide.share_at_prior() == 0.5


def test_long_noise_does_not_depend_on_the_number_of_threads():
    like = torch.zeros(())
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(standard_normal((600_000,), like, torch.Generator().manual_seed(1)))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)
    # Standard error of the mean 0.0013, of the variance 0.0018.
    assert abs(float(found[0].mean())) < 0.007
    assert abs(float(found[0].var()) - 1) < 0.01
    # A Kolmogorov-Smirnov distance above 0.003 in 600 000 numbers: p < 1e-4.
    assert kstest(found[0].double().numpy(), "norm").statistic < 0.003


def test_guides_refuse_what_they_cannot_do():
    with pytest.raises(ValueError, match="init_scale is 0"):
        MeanField(network(), init_scale=0.0)
    with pytest.raises(ValueError, match="choose at most 4000 weights"):
        FullCovariance(nn.Linear(4000, 1))
    assert FullCovariance(nn.Linear(4000, 1, bias=False)).n_noise == 4000
    with pytest.raises(ValueError, match="Unknown kind of guide 'flow'"):
        WeightGuide.from_description(network(), {"kind": "flow", "names": []})


def test_draws_of_many_weights_are_their_parts_and_do_not_depend_on_the_number_of_threads():
    locs = [torch.linspace(-1.0, 1.0, n) for n in (70_000, 3, 150_000)]
    log_scales = [torch.linspace(-4.0, -1.0, len(loc)) for loc in locs]
    noise = standard_normal((220_003,), locs[0], torch.Generator().manual_seed(4))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append([draw_normals(locs, log_scales, noise, sign) for sign in (1.0, -1.0)])
    finally:
        torch.set_num_threads(before)
    for one, two, image, loc, log_scale in zip(
        found[0][0], found[1][0], found[1][1], locs, log_scales, strict=True
    ):
        assert all(torch.equal(a, b) for a, b in zip(one[:3], two[:3], strict=True))
        assert torch.allclose(one.scale, log_scale.exp())
        assert torch.allclose(one.square, loc.square().sum() + (2.0 * log_scale).exp().sum())
        assert torch.allclose(one.log_scale_sum, log_scale.sum())
        assert torch.allclose(one.weight, loc + one.scale * one.noise, atol=1e-6)
        assert torch.allclose(image.weight, loc - one.scale * one.noise, atol=1e-6)

"""Guides at their limits: what counts as at the prior, how wide a layer may be, axes, copies; seeds of training."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.distributions import kl_divergence

from bayesflowmass.bayes.guides import Eigenbasis, FullCovariance, MeanField
from bayesflowmass.bayes.guides.eigenbasis import WIDEST
from bayesflowmass.bayes.guides.noise import standard_normal
from bayesflowmass.bayes.latents import fit_with_latents
from bayesflowmass.bayes.loop import Loop
from bayesflowmass.bayes.priors import DistributionPrior, NormalPrior

KINDS = [MeanField, FullCovariance, Eigenbasis]


def line(n=4):
    return nn.Linear(n, 1, bias=False).double()


@pytest.mark.parametrize(("scale", "mean", "at_prior"), [
    (1.049, 0.0, True), (1.051, 0.0, False), (0.951, 0.0, True), (0.949, 0.0, False),
    (1.0, 0.099, True), (1.0, -0.099, True), (1.0, 0.101, False), (1.0, -0.101, False),
])  # fmt: skip
@pytest.mark.parametrize("kind", [MeanField, Eigenbasis])
def test_weights_within_a_twentieth_and_a_tenth_of_the_prior_have_learnt_nothing(kind, scale, mean, at_prior):
    module = line()
    with torch.no_grad():
        # In units of the prior, whose scale is not 1.
        module.weight.copy_(torch.tensor([[3.0, 3.0, 3.0, 0.5 * mean]]))
    guide = kind(module, NormalPrior(0.5), init_scale=scale)
    assert guide.share_at_prior() == (0.25 if at_prior else 0.0)


def test_axes_are_at_the_prior_where_weights_are_not():
    layer = line(2)
    guide = Eigenbasis(layer, NormalPrior(0.5), init_scale=1.0)
    x = torch.tensor([[1.0, 1.0], [1.0, 1.2]]).double()
    guide.align(layer, lambda: layer(x))
    with torch.no_grad():
        guide.start.zero_()
        guide.shift.copy_(torch.tensor([0.0, 0.5]))
    assert guide.share_at_prior() == 0.5
    # Eigenvectors have no sign of their own: the largest component of each is positive.
    largest = guide.basis0.gather(0, guide.basis0.abs().argmax(0, keepdim=True))
    assert bool((largest > 0).all())
    moments = (x.T @ x) / 2
    turned = guide.basis0.T @ moments @ guide.basis0
    torch.testing.assert_close(turned, torch.diag(turned.diagonal()), atol=1e-12, rtol=0)


def test_axes_are_those_of_all_that_a_layer_was_given_and_of_the_scales_of_its_prior():
    x = torch.randn(30, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    layer = nn.Linear(3, 2).double()
    prior = NormalPrior("fan_in", overrides={"bias": 2.0})
    found = []
    for parts in ([x], [x[:7], x[7:]], [x.reshape(5, 6, 3)]):
        guide = Eigenbasis(layer, prior)
        guide.align(layer, lambda parts=parts: [layer(part) for part in parts])
        found.append(guide.basis0.clone())
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], atol=1e-9, rtol=0)
    scales = torch.tensor([3.0**-0.5] * 3 + [2.0], dtype=torch.float64)
    h = torch.cat([x, torch.ones(30, 1, dtype=torch.float64)], 1) * scales
    turned = found[0].T @ (h.T @ h) @ found[0]
    torch.testing.assert_close(turned, torch.diag(turned.diagonal()), atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("inputs", "bias", "fits"), [(WIDEST, True, True), (WIDEST + 1, False, True), (WIDEST + 1, True, False)]
)
def test_a_layer_may_have_2048_inputs_and_a_bias(inputs, bias, fits):
    assert WIDEST == 2048
    if fits:
        Eigenbasis(nn.Linear(inputs, 1, bias=bias))
    else:
        with pytest.raises(ValueError, match="has 2049 inputs and the eigenbasis guide takes at most 2048"):
            Eigenbasis(nn.Linear(inputs, 1, bias=bias))


def test_one_rate_suits_means_and_scales_of_the_eigenbasis():
    guide = Eigenbasis(line(), init_scale=0.01)
    # What is stored are thirtieths.
    assert 30.0 * guide.slow_log_scale[0].item() == pytest.approx(math.log(0.01))
    assert guide.log_scale[0].item() == pytest.approx(math.log(0.01))
    assert guide.shift.abs().max() == 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_a_guide_is_a_distribution_whose_copies_are_independent(kind):
    guide = kind(line(), NormalPrior(0.7), init_scale=0.3)
    q, p = guide.distribution(), guide.prior_distribution()
    assert (q.batch_shape, q.event_shape) == ((), (4,))
    many = q.expand((2, 3))
    drawn = many.rsample((5,))
    assert many.has_rsample
    assert drawn.requires_grad
    assert drawn.shape == (5, 2, 3, 4)
    assert not torch.equal(drawn[0, 0, 0], drawn[0, 0, 1])
    assert many.log_prob(drawn).shape == (5, 2, 3)
    assert many.log_prob(drawn[0, 0, 0]).shape == (2, 3)
    torch.testing.assert_close(many.mean, guide.loc.expand(2, 3, 4))
    torch.testing.assert_close(many.variance, guide.flat_variance().expand(2, 3, 4))
    torch.testing.assert_close(q.covariance_matrix.diagonal(), guide.flat_variance())
    assert p.expand((2,)).sample((3,)).shape == (3, 2, 4)
    exact = torch.distributions.Normal(0.0, 0.7).log_prob(drawn[0, 0]).sum(-1)
    torch.testing.assert_close(p.log_prob(drawn[0, 0]), exact)
    torch.testing.assert_close(kl_divergence(many, p.expand((2, 3))), guide.kl().expand(2, 3))
    with pytest.raises(NotImplementedError, match="its own prior alone"):
        kl_divergence(q, kind(line(), NormalPrior(0.8)).prior_distribution())


@pytest.mark.parametrize("kind", KINDS)
def test_a_divergence_without_closed_form_is_a_mean_over_draws(kind):
    guide = kind(line(), DistributionPrior(dist.Laplace(0.0, 0.5)), init_scale=0.3)
    draws = guide.rsample(7, torch.Generator().manual_seed(0))
    prior = torch.distributions.Laplace(0.0, 0.5).log_prob(draws).sum(-1)
    entropy = 0.5 * torch.logdet(2 * math.pi * math.e * guide.distribution().covariance_matrix)
    torch.testing.assert_close(guide.kl(draws), -entropy - prior.mean())
    torch.manual_seed(1)
    first = guide.kl()
    torch.manual_seed(1)
    torch.testing.assert_close(first, guide.kl(guide.rsample(32)))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_wanted_of_a_draw_is_what_is_given(kind):
    module = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1)).double()
    guide = kind(module, init_scale=0.3, name="net")
    weights, kl = guide.sample_with_kl(["1.weight", "1.bias"])
    assert set(weights) == {"1.weight", "1.bias"}
    assert weights["1.weight"].shape == (1, 2)
    whole, all_kl = guide.sample_with_kl()
    assert set(whole) == set(guide.names)
    assert bool(kl < all_kl) if kind is MeanField else bool(kl == all_kl)
    assert guide.describe()["name"] == "net"
    assert "name" not in kind(module).describe()


def test_long_noise_is_made_block_by_block_each_with_a_seed_of_its_own():
    like = torch.zeros((), dtype=torch.float64)
    # The draws of a seed that was noted stay those of the seed.
    block = 65536
    short, long = (standard_normal((n,), like, torch.Generator().manual_seed(3)) for n in (block, 3 * block))
    assert torch.equal(
        short, torch.empty(block, dtype=torch.float64).normal_(generator=torch.Generator().manual_seed(3))
    )
    parts = long.split(block)
    assert not torch.equal(parts[0], parts[1])
    assert not torch.equal(parts[1], parts[2])
    seeds = torch.randint(1 << 62, (3,), generator=torch.Generator().manual_seed(3)).tolist()
    for part, seed in zip(parts, seeds, strict=True):
        assert torch.equal(
            part, torch.empty_like(part).normal_(generator=torch.Generator().manual_seed(seed))
        )
    assert standard_normal((3, block), like).shape == (3, block)


# Training


class Noisy(nn.Module):
    """Its likelihood is noise about a parabola, and knows how many examples it is shown."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.sizes = []

    def log_prob(self, y, x):
        self.sizes.append(len(y))
        return -((self.weight - y) ** 2) + 0.1 * torch.randn(())


def losses(seed, before=0, **options):
    y = torch.linspace(0.0, 1.0, 10)
    objective = Noisy()
    torch.manual_seed(before)
    loop = Loop((y[:, None], y), **{"steps": 6, "batch_size": 10} | options)
    loop(objective, seed=seed, name="a")
    return loop.losses["a"], objective


def test_noise_of_a_training_is_that_of_its_seed():
    first, objective = losses(3)
    assert objective.sizes == [10] * 6
    assert torch.equal(first, losses(3, before=1)[0])
    assert not torch.equal(first, losses(4)[0])
    # No batch is incomplete, and no more examples are taken than there are.
    assert losses(0, batch_size=4, steps=5)[1].sizes == [4] * 5
    assert losses(0, batch_size=40, steps=1)[1].sizes == [10]


def test_the_rate_of_a_training_falls_in_its_second_half_to_a_fiftieth():
    steps, seen = 20, []

    class Straight(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def log_prob(self, y, x):
            seen.append(float(self.weight.detach()))
            return self.weight + 0.0 * y

    loop = Loop((torch.zeros(4, 1), torch.zeros(4)), steps=steps, learning_rate=0.1, batch_size=4)
    loop(Straight(), seed=0, name="a")
    # Adam on a constant slope moves by its rate.
    rate = torch.tensor(seen).diff() / 0.1
    expected = torch.tensor([min(1.0, 2.02 - 2.0 * k / steps) for k in range(steps - 1)])
    torch.testing.assert_close(rate, expected, atol=1e-4, rtol=0)
    for name, value in (("steps", 0), ("learning_rate", 0.0), ("batch_size", math.inf)):
        with pytest.raises(ValueError, match=f"{name} is {value}; expected a positive number"):
            Loop((torch.zeros(1, 1), torch.zeros(1)), **{name: value})


def with_offset(outputs, y=None):
    offset = pyro.sample("offset", dist.Normal(0.0, 1.0))
    with pyro.plate("examples", len(outputs)):
        return pyro.sample("y", dist.Normal(outputs[:, 0] + offset, 0.3), obs=y)


def fitted(seed, before=0):
    x = torch.linspace(-1.0, 1.0, 12)[:, None]
    net = nn.Linear(1, 1)
    with torch.no_grad():
        net.weight.fill_(0.5)
        net.bias.zero_()
    torch.manual_seed(before)
    options = {"prior": NormalPrior(), "which": "all", "steps": 4, "learning_rate": 0.01, "progress": False}
    return fit_with_latents(net, x, 2.0 * x[:, 0], with_offset, seed=seed, **options), x


def test_weights_and_latent_variables_are_those_of_a_seed():
    found, x = fitted(1)
    assert torch.equal(found.losses, fitted(1, before=5)[0].losses)
    assert not torch.equal(found.losses, fitted(2)[0].losses)
    for ask in (found.predict, lambda x, **how: found.log_prob(2.0 * x[:, 0], x, **how)):
        torch.manual_seed(5)
        first = ask(x, n_draws=5, seed=1)
        assert torch.equal(first, ask(x, n_draws=5, seed=1))
        assert not torch.equal(first, ask(x, n_draws=5, seed=2))
        assert torch.equal(ask(x, n_draws=3), ask(x, n_draws=3, seed=0))
    assert found.predict(x, n_draws=5).shape == (5, 12)
    assert found.predict(x).shape[0] == 100
    assert torch.equal(found.draw(2)["weight"], found.draw(2, seed=0)["weight"])

"""What each weight posterior computes, against independent references."""

from __future__ import annotations

import math
from copy import deepcopy

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.func import functional_call, hessian

from bayesflowmass.bayes import (
    NormalPrior,
    PenalisedLikelihood,
    as_prior,
    choose,
)
from bayesflowmass.bayes.curvature import summed_hessian
from bayesflowmass.bayes.ensemble import EnsemblePosterior
from bayesflowmass.bayes.initialisation import fresh_copy
from bayesflowmass.bayes.laplace import LaplacePosterior, choose_precision
from bayesflowmass.bayes.layout import WeightLayout
from bayesflowmass.bayes.nuts import NUTSPosterior
from bayesflowmass.bayes.point import PointPosterior
from bayesflowmass.bayes.sghmc import SGHMCPosterior
from bayesflowmass.bayes.traced import traced_gradient
from bayesflowmass.flows import build_flow

NOISE = 0.3


class LinearRegression(nn.Module):
    """m ~ N(w d + b, NOISE^2): its posterior under a normal prior is normal."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layer = nn.Linear(2, 1).double()

    def forward(self, log10_mass, context):
        z = (log10_mass - self.layer(context)[:, 0]) / NOISE
        return -0.5 * z**2 - math.log(NOISE) - 0.5 * math.log(2 * math.pi)

    log_prob = forward


def regression(n=30):
    generator = torch.Generator().manual_seed(2)
    context = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, generator=generator, dtype=torch.float64)
    return context, 1.0 + context @ torch.tensor([0.5, -0.2], dtype=torch.float64) + NOISE * noise


def exact_posterior(context, log10_mass, scales):
    """Mean and covariance of (w, b) by the normal equations."""
    design = torch.cat([context, torch.ones_like(context[:, :1])], 1)
    covariance = torch.linalg.inv(design.T @ design / NOISE**2 + torch.diag(scales**-2.0))
    return covariance @ design.T @ log10_mass / NOISE**2, covariance


def at_exact_mean(prior):
    module, data = LinearRegression(), regression()
    scales = torch.tensor([prior.scale_of("layer.weight", (1, 2))] * 2 + [1.0], dtype=torch.float64)
    mean, covariance = exact_posterior(*data, scales)
    with torch.no_grad():
        module.layer.weight.copy_(mean[None, :2])
        module.layer.bias.copy_(mean[2:])
    return module, data, mean, covariance


def never(objective, **options):
    raise AssertionError("trained weights are not to be trained again")


def test_laplace_is_exact_for_linear_regression():
    prior = NormalPrior()
    module, data, mean, covariance = at_exact_mean(prior)
    options = {"maximise": never, "trained": True, "relative_precision": 1.0}
    found = LaplacePosterior.fit(module, data, prior=prior, **options)
    torch.testing.assert_close(found.mean, mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.scale_tril @ found.scale_tril.T, covariance, rtol=1e-10, atol=1e-14)
    assert found.describe()["negative_eigenvalues"] == 0


def test_a_point_with_a_prior_is_the_maximum_of_the_posterior_density():
    prior = NormalPrior()
    _, data, mean, _ = at_exact_mean(prior)
    module = LinearRegression()

    def maximise(objective, *, seed, name):
        optimizer = torch.optim.LBFGS(
            objective.parameters(), max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe"
        )

        def closure():
            optimizer.zero_grad()
            loss = -objective.log_prob(data[1], data[0]).mean()
            loss.backward()
            return loss

        optimizer.step(closure)

    PointPosterior.fit(module, data, maximise=maximise, prior=prior)
    weights = torch.cat([module.layer.weight[0], module.layer.bias]).detach()
    torch.testing.assert_close(weights, mean, rtol=0, atol=1e-6)


def test_validation_judges_the_likelihood_alone():
    module, data = LinearRegression(), regression()
    objective = PenalisedLikelihood(module, NormalPrior(), 30)
    with_prior = objective.train().log_prob(data[1], data[0])
    alone = objective.eval().log_prob(data[1], data[0])
    prior = NormalPrior().log_prob(dict(module.named_parameters())) / 30
    torch.testing.assert_close(with_prior - alone, prior.expand(30))
    torch.testing.assert_close(alone, module.log_prob(data[1], data[0]))


@pytest.mark.parametrize("which", ["last", "last:2"])
@pytest.mark.parametrize("shared", [False, True])
def test_the_hessian_by_outputs_is_the_second_derivative(shared, which):
    kind = "affine+spline+mixture" if shared else "affine"
    flow = build_flow(kind, 3, 14.3, 0.3, hidden=(5, 4), shared=shared, count_bins=4, seed=1).double()
    generator = torch.Generator().manual_seed(6)
    context = torch.randn(11, 3, generator=generator, dtype=torch.float64)
    mass = 14.3 + 0.3 * torch.randn(11, generator=generator, dtype=torch.float64)
    names = choose(flow, which)
    layout = WeightLayout(flow, names)
    at = layout.flatten(dict(flow.named_parameters())).detach()
    expected = hessian(lambda w: -functional_call(flow, layout.split(w), (mass, context)).sum())(at).detach()
    found = summed_hessian(flow, names, (context, mass), chunk=4)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10 * float(expected.abs().max()))


def test_the_hessian_of_a_bias_alone_is_that_block():
    flow = build_flow("affine", 3, 14.3, 0.3, hidden=(5,), affine_blocks=1, seed=1).double()
    data = (torch.randn(8, 3, dtype=torch.float64), 14.3 + 0.3 * torch.randn(8, dtype=torch.float64))
    names = choose(flow, "last")
    whole, part = summed_hessian(flow, names, data), summed_hessian(flow, names[1:], data)
    torch.testing.assert_close(part, whole[-2:, -2:])


def test_the_prior_precision_maximises_the_marginal_likelihood():
    eigenvalues = torch.tensor([100.0, 30.0, 5.0, 0.5, 0.0, -0.1], dtype=torch.float64)
    found = choose_precision(eigenvalues, square=4.0)
    grid = np.exp(np.linspace(np.log(1e-4), np.log(1e4), 200_001))
    positive = np.maximum(eigenvalues.numpy(), 0)
    evidence = 3 * np.log(grid) - 2 * grid - 0.5 * np.log(positive[:, None] + grid).sum(0)
    assert found == pytest.approx(grid[evidence.argmax()], rel=1e-3)


def test_laplace_refuses_more_weights_than_a_hessian_can_hold():
    flow = build_flow("affine", 3, 14.3, 0.3, hidden=(1200,))
    with pytest.raises(ValueError, match="7206 weights needs a Hessian of as many rows; choose at most 4000"):
        LaplacePosterior.fit(flow, (torch.zeros(4, 3), torch.zeros(4)), maximise=never, trained=True)


def test_nuts_samples_the_exact_posterior_of_linear_regression():
    """Means within 5 standard errors of 100 draws, variances within a factor 1.7 (5 standard errors)."""
    prior = NormalPrior()
    module, data, mean, covariance = at_exact_mean(prior)
    found = NUTSPosterior.fit(
        module, data, maximise=never, prior=prior, chains=2, warmup=60, samples=100, max_tree_depth=3
    )
    flat = found.samples.flatten(0, 1)
    error = covariance.diagonal().sqrt() / math.sqrt(100)
    assert ((flat.mean(0) - mean) / error).abs().max() < 5
    assert (flat.var(0) / covariance.diagonal() - 1).abs().max() < 0.7
    assert found.describe()["largest_r_hat"] < 1.1
    assert found.describe()["smallest_effective_draws"] > 50


def test_stochastic_gradient_hmc_samples_the_exact_posterior_of_linear_regression():
    """Means within 5 standard errors of 100 draws, variances within a factor 1.7 (5 standard errors)."""
    prior = NormalPrior()
    module, data, mean, covariance = at_exact_mean(prior)
    found = SGHMCPosterior.fit(
        module,
        data,
        maximise=never,
        prior=prior,
        trained=True,
        chains=4,
        warmup=10,
        samples=50,
        path_steps=30,
    )
    flat = found.samples.flatten(0, 1)
    error = covariance.diagonal().sqrt() / math.sqrt(100)
    assert ((flat.mean(0) - mean) / error).abs().max() < 5
    assert (flat.var(0) / covariance.diagonal() - 1).abs().max() < 0.7


def test_paths_of_too_long_steps_fly_away_and_say_so():
    options = {"maximise": never, "trained": True, "step_size": 10.0, "path_steps": 500, "samples": 4}
    with pytest.raises(ValueError, match="flew away after 1 draws: lower step_size, which is 10"):
        SGHMCPosterior.fit(LinearRegression(), regression(), **options)


def test_members_start_apart_and_share_everything_else():
    flow = build_flow("affine", 2, 14.3, 0.3, hidden=(4,), seed=5)
    seen = []

    def note(objective, *, seed, name):
        seen.append((name, seed, next(objective.parameters()).detach().clone()))

    data = (torch.zeros(4, 2), torch.zeros(4))
    found = EnsemblePosterior.fit(flow, data, maximise=note, members=3, seed=1)
    assert [name for name, _, _ in seen] == ["member0", "member1", "member2"]
    assert len({seed for _, seed, _ in seen}) == 3
    assert not torch.equal(seen[1][2], seen[2][2])
    first = found.layout.split(found.members[0])
    assert all(torch.equal(first[name], value) for name, value in flow.named_parameters())
    with pytest.raises(ValueError, match="members is 1; an ensemble needs at least 2"):
        EnsemblePosterior.fit(flow, data, maximise=note, members=1)


def test_a_trained_network_is_the_first_member():
    flow = build_flow("affine", 2, 14.3, 0.3, hidden=(4,), seed=5)
    before = torch.cat([p.detach().flatten() for p in flow.parameters()])
    names = []
    data = (torch.zeros(4, 2), torch.zeros(4))
    found = EnsemblePosterior.fit(
        flow, data, maximise=lambda o, *, seed, name: names.append(name), members=3, trained=True
    )
    assert names == ["member1", "member2"]
    assert torch.equal(found.members[0], before)


class Density(nn.Module):
    """m ~ N(net(d), 1)."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, log10_mass, context):
        return -0.5 * (log10_mass - self.net(context)[:, 0]) ** 2

    log_prob = forward


def test_members_of_an_ensemble_keep_their_batch_normalisation():
    module = Density(nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1))).double()
    context, log10_mass = regression()
    trained = []

    def maximise(objective, *, seed, name):
        # Contexts far from zero: the running means move by much.
        objective.train()
        for _ in range(20):
            objective.log_prob(log10_mass, context + 10.0)
        trained.append(objective.eval().log_prob(log10_mass, context).detach())

    found = EnsemblePosterior.fit(module, (context, log10_mass), maximise=maximise, members=3)
    assert set(found.buffer_names) == {"net.1.running_mean", "net.1.running_var"}
    loaded = EnsemblePosterior.from_description(deepcopy(module), found.describe())
    loaded.load_state_dict(found.state_dict())
    for posterior in (found, loaded):
        draws = posterior.draw(3, seed=0)
        for k in range(3):
            weights = {name: value[k] for name, value in draws.items()}
            with torch.no_grad():
                drawn = functional_call(module.eval(), weights, (log10_mass, context))
            torch.testing.assert_close(drawn, trained[k])
    torch.testing.assert_close(module.log_prob(log10_mass, context), trained[0])


class Learned(nn.Module):
    """A parameter that nobody can draw anew."""

    def __init__(self):
        super().__init__()
        self.centre = nn.Parameter(torch.zeros(2))

    def forward(self, x):
        return x - self.centre


def test_any_module_whose_parts_can_begin_anew_has_an_ensemble():
    module = Density(nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)))
    state = torch.get_rng_state()
    copies = [fresh_copy(module, seed) for seed in (1, 1, 2)]
    weights = [copy.net[0].weight for copy in copies]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ValueError, match=r"The part 'net\.0' of the module, a Learned, cannot draw"):
        fresh_copy(Density(nn.Sequential(Learned(), nn.Linear(2, 1))), 1)


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("inf")])
def test_a_prior_precision_that_is_no_precision_is_refused(alpha):
    with pytest.raises(ValueError, match=r"relative_precision is .*; expected a positive number"):
        LaplacePosterior.fit(
            LinearRegression(), regression(), maximise=never, trained=True, relative_precision=alpha
        )


def test_laplace_refuses_a_prior_that_is_not_normal():
    prior = as_prior(dist.Laplace(0.0, 1.0))
    with pytest.raises(ValueError, match="needs a NormalPrior"):
        LaplacePosterior.fit(LinearRegression(), regression(), maximise=never, trained=True, prior=prior)


def test_nuts_follows_a_function_whose_operations_depend_on_its_numbers():
    example = torch.tensor([1.0, 0.0], dtype=torch.float64)
    traced = traced_gradient(lambda x: x.square().sum() if x[0] > 0 else x.sum(), example)
    gradient, value = traced(-example)
    assert float(value) == -1.0
    assert gradient.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("option", [{"chains": 0}, {"samples": 3}, {"warmup": -1}])
def test_nuts_refuses_too_few_draws(option):
    (name,) = option
    with pytest.raises(ValueError, match=f"{name} is .*; NUTS needs at least"):
        NUTSPosterior.fit(LinearRegression(), regression(), maximise=never, **option)

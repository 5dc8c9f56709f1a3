"""Estimators of E_q[log p(y | x, w)] over modules that use their weights in every way: unbiased, or refused."""

from __future__ import annotations

import math
from copy import deepcopy

import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn.functional as F
from module_zoo import AS_ROWS, ZOO, make
from torch import nn
from torch.func import functional_call, hessian
from torch.nn.attention import SDPBackend, sdpa_kernel

from bayesflowmass.bayes.curvature import summed_hessian
from bayesflowmass.bayes.elbo import WeightELBO
from bayesflowmass.bayes.examination import examine, tensors_of
from bayesflowmass.bayes.guides import MeanField
from bayesflowmass.bayes.handlers import SharedDraw
from bayesflowmass.bayes.layout import WeightLayout
from bayesflowmass.bayes.module import BayesianModule
from bayesflowmass.bayes.per_example import ESTIMATORS, LocalReparameterisation
from bayesflowmass.bayes.priors import NormalPrior

DRAWS = 300


def log_likelihood(output):
    """Of y = 1 under unit noise in each output: a mean over examples, whose curvature tells a bias of the variance."""
    return -0.5 * sum(((value - 1.0) ** 2).sum(-1).mean() for value in tensors_of(output))


def log_likelihoods(module, draws, x):
    """Of each draw, its weights written into a copy of the module: no machinery that could miss a use of them."""
    copy, found = deepcopy(module), []
    with torch.no_grad():
        for i in range(DRAWS):
            for name, value in draws.items():
                copy.get_parameter(name).copy_(value[i])
            found.append(log_likelihood(copy(x)))
    return torch.stack(found)


@pytest.fixture(scope="module", params=sorted(ZOO))
def animal(request):
    """Name, module, inputs, guide and the log likelihoods of draws of weights."""
    module, x = make(request.param)
    guide = MeanField(module, NormalPrior(), init_scale=1.0)
    return request.param, module, x, guide, log_likelihoods(module, guide.draw(DRAWS, seed=1), x)


@pytest.mark.parametrize("estimator", sorted(ESTIMATORS))
def test_every_estimator_is_unbiased_for_every_module(animal, estimator):
    """Within five standard errors of two times 300 draws; the outputs of pairs count as one."""
    name, module, x, guide, expected = animal
    network, handler = BayesianModule(module), ESTIMATORS[estimator](guide)
    torch.manual_seed(2)
    found = []
    with torch.no_grad():
        for _ in range(DRAWS):
            with handler:
                found.append(log_likelihood(network(x)))
    values = torch.stack(found).view(-1, 2).mean(-1)
    error = math.sqrt(float(values.var() / len(values) + expected.var() / len(expected)))
    assert abs(float(values.mean() - expected.mean())) < 5 * error
    if estimator == "local":
        assert set(network.layers) - set(handler.shared_layers) == AS_ROWS[name]


def test_layers_that_share_their_draw_say_why(animal):
    name, module, x, _, _ = animal
    reasons, n_examples = examine(BayesianModule(module), (x,), {})
    assert n_examples == 5
    assert ("read otherwise" in reasons.get("a", "")) == (
        name in ("tied decoder", "read past the call", "penalised")
    )


def test_examining_a_module_changes_nothing_and_takes_no_random_numbers():
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 2))
    network = BayesianModule(module, which="3.*")
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = torch.get_rng_state()
    reasons, _ = examine(network, (torch.randn(6, 3, generator=torch.Generator().manual_seed(0)),), {})
    assert reasons == {}
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert [value.requires_grad for value in module.parameters()] == [True] * 4 + [False] * 2


class Changing(nn.Module):
    """Uses its layer in another way from the second run on."""

    def __init__(self, way):
        super().__init__()
        self.layer, self.way, self.runs = nn.Linear(3, 3), way, 0

    def forward(self, x):
        self.runs += 1
        if self.runs <= 3:
            return self.layer(x)
        return {
            "twice": lambda: self.layer(self.layer(x)),
            "read": lambda: self.layer(x) + self.layer.weight.sum(),
            "set": lambda: self.layer(torch.stack([x, x], 1)).mean(1),
            "pooled": lambda: self.layer(torch.cat([x, x])).unflatten(0, (2, -1)).mean(0),
        }[self.way]()


@pytest.mark.parametrize(
    ("way", "found"),
    [
        ("twice", "is called twice"),
        ("read", "is read past its call"),
        ("set", r"is given inputs of shape \(4, 2, 3\)"),
        ("pooled", r"has 8 rows where the module returns \[4\]"),
    ],
)
def test_a_module_that_changes_its_ways_is_refused(way, found):
    module = Changing(way)
    network, estimator = BayesianModule(module), LocalReparameterisation(MeanField(module))
    x = torch.randn(4, 3)
    with estimator:
        network(x)
    with (
        pytest.raises(ValueError, match=rf"The layer 'layer' {found}, .* use the estimator 'shared'"),
        estimator,
    ):
        network(x)


def test_two_runs_in_one_block_would_have_other_weights_and_are_refused():
    module = nn.Linear(3, 2)
    network, estimator = BayesianModule(module), LocalReparameterisation(MeanField(module))
    with estimator:
        network(torch.randn(4, 3))
        with pytest.raises(ValueError, match="The network ran twice within one block"):
            network(torch.randn(4, 3))


def test_a_likelihood_that_pools_the_rows_of_the_network_is_refused():
    module = nn.Linear(3, 1)
    network, x = BayesianModule(module), torch.randn(6, 3)
    models = {
        "has 2 examples where the network returns 6 rows": lambda f: f.unflatten(0, (2, 3)).mean(1),
        "depends in one example on rows of others": lambda f: f - f.mean(0),
    }
    for found, pool in models.items():
        pyro.clear_param_store()

        def model(x, pool=pool):
            mean = pool(network(x)).squeeze(-1)
            with pyro.plate("data", len(mean)):
                pyro.sample("y", dist.Normal(mean, 1.0), obs=torch.zeros(len(mean)))

        with pytest.raises(ValueError, match=f"The site 'y' {found}, .* use the estimator 'shared'"):
            WeightELBO("local").loss(model, MeanField(module), x)


class Hoarder(nn.Module):
    """Keeps a weight in a list of its own."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2, bias=False)
        self.kept = [self.layer.weight]

    def forward(self, x):
        return F.linear(x, self.kept[0])


@pytest.mark.parametrize("estimator", sorted(ESTIMATORS))
def test_a_weight_that_no_draw_reaches_is_refused(estimator):
    module = Hoarder()
    network = BayesianModule(module)
    with (
        pytest.raises(ValueError, match=r"reference of its own to the random weight 'layer\.weight'"),
        ESTIMATORS[estimator](MeanField(module)),
    ):
        network(torch.randn(4, 3))


def test_one_example_is_not_proof_of_what_a_layer_does_with_several():
    module = nn.Sequential(nn.Linear(3, 3), nn.Softmax(0))
    network, estimator = BayesianModule(module), LocalReparameterisation(MeanField(module))
    with estimator:
        network(torch.randn(1, 3))
    with estimator:
        network(torch.randn(4, 3))
    assert estimator.shared_layers == {"0": "what the module returns for one row depends on other rows"}


class Density(nn.Module):
    """A module of the zoo as log p(y | x) of each example."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, y, x):
        return -0.5 * sum(((value - y.unsqueeze(-1)) ** 2).sum(-1) for value in tensors_of(self.module(x)))

    log_prob = forward


def second_derivative(density, layout, at, y, x):
    # A copy: functional_call does not give back the weights of a layer that has two names.
    copy = deepcopy(density)
    with sdpa_kernel(SDPBackend.MATH):
        return hessian(lambda w: -functional_call(copy, layout.split(w), (y, x)).sum())(at).detach()


@pytest.mark.parametrize("name", sorted(ZOO))
def test_the_curvature_is_the_second_derivative_for_every_module(name):
    module, x = make(name)
    density = Density(module).eval()
    y = torch.linspace(0.0, 1.0, 5, dtype=torch.float64)
    names = [key for key, _ in density.named_parameters()]
    layout = WeightLayout(density, names)
    at = layout.flatten(dict(density.named_parameters())).detach()
    expected = second_derivative(density, layout, at, y, x)
    found = summed_hessian(density, names, (x, y), chunk=1000)
    # Two ways through at most a hundred operations, each with a relative error of 1e-16.
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10 * float(expected.abs().max()))


@pytest.mark.parametrize("name", sorted(ZOO))
def test_the_curvature_of_each_layer_alone_is_the_second_derivative(name):
    """The choice of one linear layer, where the way by its outputs may be taken."""
    module, x = make(name)
    density = Density(module).eval()
    y = torch.linspace(0.0, 1.0, 5, dtype=torch.float64)
    for layer, part in density.named_modules():
        if not isinstance(part, nn.Linear):
            continue
        names = [f"{layer}.{key}" for key, _ in part.named_parameters()]
        names = [key for key in names if key in dict(density.named_parameters())]
        layout = WeightLayout(density, names)
        at = layout.flatten(dict(density.named_parameters())).detach()
        expected = second_derivative(density, layout, at, y, x)
        found = summed_hessian(density, names, (x, y))
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10 * float(expected.abs().max() + 1))


def test_a_shared_draw_serves_several_runs_of_one_block():
    module = nn.Linear(3, 2)
    network = BayesianModule(module)
    x = torch.randn(4, 3)
    with SharedDraw(MeanField(module)):
        assert torch.equal(network(x), network(x))

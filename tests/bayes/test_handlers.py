"""Effect handlers: who draws what, once or per example, and what divergence is counted."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import nn

from bayesflowmass.bayes.elbo import WeightELBO
from bayesflowmass.bayes.guides import Eigenbasis, FullCovariance, MeanField
from bayesflowmass.bayes.handlers import MirroredDraw, SharedDraw
from bayesflowmass.bayes.module import BayesianModule
from bayesflowmass.bayes.per_example import LocalReparameterisation
from bayesflowmass.bayes.priors import NormalPrior


class Twice(nn.Module):
    """One layer that acts twice, one that never does."""

    def __init__(self):
        super().__init__()
        self.used, self.idle = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x):
        return self.used(torch.tanh(self.used(x)))


def dense():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def inputs(n=5):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture(autouse=True)
def _fresh_store():
    pyro.clear_param_store()


def test_a_shared_draw_is_the_same_for_all_calls_of_a_block_and_all_examples():
    module = dense()
    network, guide = BayesianModule(module), MeanField(module)
    x = inputs(1).expand(4, 3)
    with SharedDraw(guide) as estimator:
        first, second = network(x), network(x)
    assert torch.equal(first, second)
    assert torch.allclose(first, first[:1].expand(4, 2))
    assert torch.allclose(estimator.kl(), guide.kl())
    with estimator:
        assert not torch.equal(network(x), first)


@pytest.mark.parametrize("kind", [MeanField, FullCovariance, Eigenbasis])
def test_every_other_mirrored_draw_is_the_image_about_the_mean_of_the_one_before(kind):
    module = dense()
    network, guide = BayesianModule(module), kind(module, init_scale=0.7)
    draws = []
    handler = MirroredDraw(guide)
    for _ in range(4):
        with handler:
            network(inputs())
        draws.append(guide.layout.flatten(handler._weights).detach())
        assert torch.allclose(handler.kl(), guide.kl())
    assert torch.allclose(draws[0] + draws[1], 2 * guide.loc, atol=1e-12)
    assert torch.allclose(draws[2] + draws[3], 2 * guide.loc, atol=1e-12)
    assert not torch.isclose(draws[0], draws[2]).any()


def test_a_pair_of_mirrored_draws_goes_on_from_its_seed():
    module = dense()
    network, guide = BayesianModule(module), MeanField(module, init_scale=0.7)
    first = MirroredDraw(guide)
    with first:
        network(inputs())
    second = MirroredDraw(guide, first.seed)
    outputs = []
    for handler in (first, second):
        with handler:
            outputs.append(network(inputs()))
        assert handler.seed is None
    assert torch.equal(*outputs)


def test_decorrelated_estimators_draw_other_weights_for_each_example():
    module = dense()
    network, guide = BayesianModule(module), MeanField(module, init_scale=0.5)
    with LocalReparameterisation(guide) as estimator:
        output = network(inputs(1).expand(4, 3))
    assert len({float(value) for value in output[:, 0].detach()}) > 1
    assert torch.allclose(estimator.kl(), guide.kl())


def test_outputs_of_a_layer_have_the_same_law_whoever_draws_them():
    layer = nn.Linear(3, 2).double()
    network, guide = BayesianModule(layer), MeanField(layer, init_scale=0.7)
    x = inputs(2)
    moments = {}
    torch.manual_seed(2)
    with torch.no_grad():
        exact_mean = x @ guide.mean["weight"].T + guide.mean["bias"]
        variance = guide.standard_deviation["weight"].square(), guide.standard_deviation["bias"].square()
        exact_variance = x.square() @ variance[0].T + variance[1]
        for kind in (SharedDraw, LocalReparameterisation):
            drawn = []
            handler = kind(guide)
            for _ in range(600):
                with handler:
                    drawn.append(network(x))
            moments[kind] = torch.stack(drawn).mean(0), torch.stack(drawn).var(0)
    for mean, spread in moments.values():
        # Five standard errors of 600 draws.
        assert ((mean - exact_mean).abs() < 5 * (exact_variance / 600).sqrt()).all()
        assert ((spread / exact_variance - 1).abs() < 5 * (2 / 600) ** 0.5).all()


@pytest.mark.parametrize("handler", [SharedDraw, MirroredDraw, LocalReparameterisation])
def test_each_weight_is_counted_once_however_often_it_acts(handler):
    module = Twice()
    network, guide = BayesianModule(module), MeanField(module)
    with handler(guide) as estimator:
        network(torch.randn(3, 2))
    assert float(estimator.kl().detach()) == pytest.approx(float(guide.kl().detach()), rel=1e-5)


@pytest.mark.parametrize("which", ["*weight", "*bias", "0.*", "all"])
def test_local_reparameterisation_of_any_choice_and_of_convolutions(which):
    module = nn.Sequential(nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(4, 2))
    network, guide = BayesianModule(module, which=which), MeanField(module, which=which)
    with LocalReparameterisation(guide) as estimator:
        output = network(torch.randn(3, 1, 4))
    (output.square().sum() + estimator.kl()).backward()
    assert all(parameter.grad is not None for parameter in guide.parameters())
    assert float(estimator.kl().detach()) == pytest.approx(float(guide.kl().detach()), rel=1e-5)


def test_a_module_is_itself_again_after_the_block_whatever_happened_in_it():
    module = dense()
    network, guide = BayesianModule(module), MeanField(module)
    with pytest.raises(RuntimeError), SharedDraw(guide):
        network(torch.zeros(2, 7, dtype=torch.float64))
    assert "forward" not in module[0].__dict__
    plain = module(inputs())
    with SharedDraw(guide):
        network(inputs())
    assert torch.equal(module(inputs()), plain)


def test_handlers_refuse_what_would_be_biased():
    module = dense()
    network = BayesianModule(module)
    with (
        pytest.raises(ValueError, match="no local reparameterisation"),
        LocalReparameterisation(FullCovariance(module)),
    ):
        network(inputs())
    with (
        pytest.raises(ValueError, match="build both with the same choice"),
        SharedDraw(MeanField(module, which="last")),
    ):
        network(inputs())
    with pytest.raises(ValueError, match="none was drawn"):
        SharedDraw(MeanField(module)).kl()


def regression(which="all", guide_kind=MeanField, n_data=5):
    module = dense()
    network, guide = BayesianModule(module, NormalPrior(), which), guide_kind(module, NormalPrior(), which)

    def model(x, y):
        mean = network(x)
        with pyro.plate("data", n_data, subsample=torch.arange(len(x)), dim=-2):
            pyro.sample("y", dist.Normal(mean, 0.5), obs=y)

    return model, guide, module


@pytest.mark.parametrize("kind", [MeanField, FullCovariance])
def test_the_bound_agrees_with_that_of_pyro_on_the_same_model(kind):
    model, guide, _ = regression(guide_kind=kind)
    x, y = inputs(), torch.ones(5, 2, dtype=torch.float64)
    torch.manual_seed(3)
    ours = torch.tensor([WeightELBO().loss(model, guide, x, y) for _ in range(150)])
    pyros = torch.tensor([Trace_ELBO().loss(model, guide, x, y) for _ in range(150)])
    error = (ours.var() / 150 + pyros.var() / 150).sqrt()
    assert abs(float(ours.mean() - pyros.mean())) < 5 * float(error)
    # The divergence in closed form has no noise.
    assert ours.var() < pyros.var()


@pytest.mark.parametrize("estimator", ["shared", "mirrored", "local"])
def test_svi_fits_random_and_other_parameters(estimator):
    model, guide, module = regression("last")
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.02}), WeightELBO(estimator))
    x, y = inputs(), torch.ones(5, 2, dtype=torch.float64)
    torch.manual_seed(4)
    before = [value.detach().clone() for value in (*guide.parameters(), module[0].weight)]
    losses = [svi.step(x, y) for _ in range(40)]
    assert sum(losses[-10:]) < sum(losses[:10])
    after = (*guide.parameters(), module[0].weight)
    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_two_mirrored_particles_are_one_pair():
    model, guide, _ = regression()
    x, y = inputs(), torch.ones(5, 2, dtype=torch.float64)
    torch.manual_seed(6)
    together = WeightELBO("mirrored", num_particles=2).loss(model, guide, x, y)
    torch.manual_seed(6)
    bound = WeightELBO("mirrored")
    assert together == pytest.approx((bound.loss(model, guide, x, y) + bound.loss(model, guide, x, y)) / 2)


def test_a_plate_scales_the_likelihood_and_not_the_divergence():
    x, y = inputs(), torch.ones(5, 2, dtype=torch.float64)
    found = {}
    for n_data in (5, 10):
        pyro.clear_param_store()
        model, guide, _ = regression(n_data=n_data)
        torch.manual_seed(5)
        found[n_data] = WeightELBO().loss(model, guide, x, y)
    kl = float(guide.kl().detach())
    assert found[10] - kl == pytest.approx(2 * (found[5] - kl), rel=1e-10)
    torch.manual_seed(5)
    assert WeightELBO(tempering=0.1).loss(model, guide, x, y) == pytest.approx(found[10] - 0.9 * kl)


def test_the_bound_refuses_models_and_guides_that_are_not_its_own():
    model, guide, module = regression()
    x, y = inputs(), torch.ones(5, 2, dtype=torch.float64)

    def with_latent(x, y):
        pyro.sample("noise", dist.Normal(0.0, 1.0))
        model(x, y)

    with pytest.raises(ValueError, match="latent site 'noise'"):
        WeightELBO().loss(with_latent, guide, x, y)
    with pytest.raises(ValueError, match="needs a WeightGuide"):
        WeightELBO().loss(model, pyro.infer.autoguide.AutoNormal(model), x, y)
    with pytest.raises(ValueError, match="Unknown estimator 'exact'"):
        WeightELBO("exact")
    with pytest.raises(ValueError, match="already holds another"):
        WeightELBO().loss(model, MeanField(module), x, y)


def test_without_a_handler_weights_are_sites_drawn_from_the_prior():
    module = dense()
    network = BayesianModule(module, NormalPrior(2.0), "last")
    trace = pyro.poutine.trace(network).get_trace(inputs())
    assert list(trace.stochastic_nodes) == ["2.weight", "2.bias"]
    assert trace.nodes["2.weight"]["fn"].base_dist.scale.eq(2.0).all()


def test_tied_weights_are_one_draw_in_both_places():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.second(self.first(x))

    network = BayesianModule(Tied(), NormalPrior())
    guide = MeanField(network.module, NormalPrior(), init_scale=1.0)
    x = torch.rand(4, 3)
    with SharedDraw(guide) as estimator:
        output = network(x)
        (weight,) = estimator._weights.values()
    assert torch.allclose(output, x @ weight.mT @ weight.mT, atol=1e-6)
    assert not torch.allclose(weight, network.module.first.weight)

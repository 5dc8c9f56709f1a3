"""The tools of Pyro on models with random weights: linear regression, whose posterior and evidence are exact."""

from __future__ import annotations

import gc

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import (
    SVI,
    JitTrace_ELBO,
    Predictive,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceMeanField_ELBO,
    config_enumerate,
)
from pyro.infer.autoguide import AutoDelta, AutoGuideList, AutoNormal
from torch import nn
from torch.distributions import MultivariateNormal, kl_divergence

from bayesflowmass.bayes.elbo import WeightELBO
from bayesflowmass.bayes.guides import Eigenbasis, FullCovariance, MeanField
from bayesflowmass.bayes.handlers import MirroredDraw, SharedDraw
from bayesflowmass.bayes.module import BayesianModule
from bayesflowmass.bayes.per_example import LocalReparameterisation
from bayesflowmass.bayes.priors import NormalPrior

NOISE, N = 0.4, 12
GUIDES = [MeanField, FullCovariance, Eigenbasis]
HANDLERS = [SharedDraw, MirroredDraw, LocalReparameterisation]


@pytest.fixture(autouse=True)
def _fresh_store():
    pyro.clear_param_store()


def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(N, 3, generator=generator, dtype=torch.float64) + 0.5
    return x, x.sum(-1) - 0.3 + NOISE * torch.randn(N, generator=generator, dtype=torch.float64)


def layer():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(3, 1).double()


def regression(network, sigma=NOISE):
    def model(x, y=None):
        mean = network(x).squeeze(-1)
        with pyro.plate("data", len(x), dim=-1):
            return pyro.sample("y", dist.Normal(mean, sigma), obs=y)

    return model


def exact(x, y):
    """Mean and covariance of (w, b), and the evidence."""
    design = torch.cat([x, torch.ones(N, 1, dtype=torch.float64)], 1)
    scale = torch.tensor([3**-0.5] * 3 + [1.0], dtype=torch.float64)
    covariance = torch.linalg.inv(design.T @ design / NOISE**2 + torch.diag(scale**-2))
    marginal = NOISE**2 * torch.eye(N, dtype=torch.float64) + (design * scale**2) @ design.T
    evidence = MultivariateNormal(torch.zeros_like(y), marginal).log_prob(y)
    return covariance @ design.T @ y / NOISE**2, covariance, evidence


def exact_guide(bayesian):
    """The posterior as a guide: log p(y, w) - log q(w) is the evidence for each w."""
    guide = FullCovariance(bayesian)
    mean, covariance, evidence = exact(*data())
    lower = torch.linalg.cholesky(covariance)
    with torch.no_grad():
        guide.loc.copy_(mean)
        guide.log_diagonal.copy_(lower.diagonal().log())
        guide.lower.copy_(lower / (guide.init_scale * guide.prior_scale()).unsqueeze(1))
    return guide, float(evidence)


BOUNDS = {
    "trace": Trace_ELBO(num_particles=2),
    "trace, vectorised": Trace_ELBO(num_particles=5, vectorize_particles=True, max_plate_nesting=1),
    "trace, vectorised, three plates": Trace_ELBO(
        num_particles=5, vectorize_particles=True, max_plate_nesting=3
    ),
    "mean field": TraceMeanField_ELBO(),
    "mean field, vectorised": TraceMeanField_ELBO(
        num_particles=3, vectorize_particles=True, max_plate_nesting=1
    ),
    "enumerating": TraceEnum_ELBO(max_plate_nesting=1),
    "compiled": JitTrace_ELBO(ignore_jit_warnings=True),
}


@pytest.mark.parametrize("bound", list(BOUNDS))
@pytest.mark.filterwarnings("ignore")
def test_every_bound_of_pyro_gives_the_evidence_at_the_exact_posterior(bound):
    network = BayesianModule(layer(), NormalPrior())
    guide, evidence = exact_guide(network)
    loss = BOUNDS[bound].loss(regression(network), guide, *data())
    # Sums of a few dozen numbers below 100: 1e-12 with a large margin.
    assert loss == pytest.approx(-evidence, abs=1e-9)


@pytest.mark.parametrize("kind", GUIDES)
def test_draws_of_a_predictive_are_the_same_in_parallel_and_one_by_one(kind):
    network = BayesianModule(layer(), NormalPrior())
    guide, (x, _) = kind(network, init_scale=0.5), data()
    draws = guide.draw(6, seed=0)
    means = torch.einsum("bi,doi->dbo", x, draws["weight"]).squeeze(-1) + draws["bias"]
    for parallel in (False, True):
        found = Predictive(regression(network, 1e-12), draws, parallel=parallel, num_samples=6)(x)["y"]
        assert torch.allclose(found, means, atol=1e-9)
    torch.manual_seed(0)
    found = Predictive(regression(network), guide=guide, num_samples=400, parallel=True)(x)["y"]
    assert found.shape == (400, N)
    variance = guide.distribution().covariance_matrix.detach()
    design = torch.cat([x, torch.ones(N, 1, dtype=torch.float64)], 1)
    expected = ((design @ variance) * design).sum(-1) + NOISE**2
    # 400 draws: a variance is known to 7 %, five standard errors.
    assert (found.var(0) / expected - 1).abs().max() < 5 * (2 / 400) ** 0.5


@pytest.mark.parametrize("kind", GUIDES)
def test_pyro_knows_the_divergence_in_closed_form(kind):
    guide = kind(layer(), NormalPrior(), init_scale=0.3)
    found = kl_divergence(guide.distribution(), guide.prior_distribution())
    normal = MultivariateNormal(guide.loc, guide.distribution().covariance_matrix)
    prior = MultivariateNormal(torch.zeros_like(guide.loc), torch.diag(guide.prior_scale() ** 2))
    assert torch.allclose(found, kl_divergence(normal, prior), rtol=1e-10)
    draws = guide.distribution().expand((7, 1)).rsample((2,))
    assert draws.shape == (2, 7, 1, 4)
    assert torch.allclose(guide.prior_distribution().log_prob(draws), prior.log_prob(draws))
    assert torch.allclose(guide.distribution().log_prob(draws), normal.log_prob(draws))


def test_a_mean_field_guide_leaves_the_divergence_to_pyros_mean_field_bound():
    network = BayesianModule(layer(), NormalPrior())
    guide, (x, y) = MeanField(network, init_scale=0.3), data()
    torch.manual_seed(1)
    loss = TraceMeanField_ELBO().loss(regression(network), guide, x, y)
    torch.manual_seed(1)
    weights = {
        name: site["value"] for name, site in poutine.trace(guide).get_trace(x).iter_stochastic_nodes()
    }
    mean = (x @ weights["weight"].mT + weights["bias"]).squeeze(-1)
    expected = guide.kl() - dist.Normal(mean, NOISE).log_prob(y).sum()
    assert loss == pytest.approx(float(expected.detach()), rel=1e-12)


@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize("bound", [Trace_ELBO(), TraceMeanField_ELBO()], ids=["trace", "mean field"])
def test_a_handler_around_a_model_puts_the_divergence_into_its_trace(handler, bound):
    """Of a model without data the bound is the divergence alone, with the gradient of its closed form."""
    network = BayesianModule(layer(), NormalPrior())
    guide = MeanField(network, init_scale=0.3)

    def model(x):
        network(x)

    x, _ = data()
    loss = bound.differentiable_loss(handler(guide)(model), lambda x: None, x)
    assert torch.allclose(loss, guide.kl(), rtol=1e-12)
    found = torch.autograd.grad(loss, list(guide.parameters()))
    expected = torch.autograd.grad(guide.kl(), list(guide.parameters()))
    assert all(torch.allclose(a, b, rtol=1e-10, atol=1e-14) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("handler", HANDLERS)
def test_pyros_own_svi_finds_the_posterior_under_each_handler(handler):
    network = BayesianModule(layer(), NormalPrior())
    guide, (x, y) = MeanField(network, init_scale=0.1), data()
    model = handler(guide)(regression(network))
    svi = SVI(model, lambda x, y: None, pyro.optim.ClippedAdam({"lr": 0.1, "lrd": 0.99}), Trace_ELBO())
    torch.manual_seed(0)
    for _ in range(500):
        svi.step(x, y)
    mean, covariance, _ = exact(x, y)
    # The mean field of a normal posterior has its means and the diagonal of its precision; what is left is the
    # noise of a rate that ends at 0.1 * 0.99^500 = 7e-4 in steps.
    precision = torch.linalg.inv(covariance)
    assert ((guide.loc - mean).abs() * precision.diagonal().sqrt()).max() < 0.25
    assert ((-2 * guide.log_scale).exp() / precision.diagonal()).log().abs().max() < 0.5


def test_weights_stand_beside_other_latent_variables():
    """Noise unknown: the bound of guide and handler together is above that of the noise fixed far off."""
    x, y = data()

    def model(x, y=None):
        sigma = pyro.sample("sigma", dist.LogNormal(torch.tensor(0.0).double(), 1.0))
        return regression(network, sigma)(x, y)

    network = BayesianModule(layer(), NormalPrior())
    weights = MeanField(network, init_scale=0.1)
    handled = LocalReparameterisation(weights)(model)
    other = AutoNormal(handled, init_scale=0.1)
    svi = SVI(handled, other, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
    torch.manual_seed(0)
    for _ in range(400):
        svi.step(x, y)
    assert 0.25 < float(other.median(x, y)["sigma"]) < 0.7
    found = weights.loc.detach()
    assert ((found - exact(x, y)[0]).abs() < 0.3).all()
    # The same as one list of guides, through the sites of the weights.
    pyro.clear_param_store()
    guide = AutoGuideList(model)
    guide.append(MeanField(network, init_scale=0.1))
    guide.append(AutoDelta(poutine.block(model, expose=["sigma"])))
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
    first = [svi.step(x, y) for _ in range(200)]
    assert sum(first[-20:]) < sum(first[:20])
    assert set(guide(x, y)) == {"sigma", "weight", "bias"}


@pytest.mark.filterwarnings("ignore")
def test_a_discrete_latent_variable_is_summed_over():
    """Outliers with probability 0.3, enumerated: the evidence of a mixture, weights held by a narrow guide."""
    network = BayesianModule(layer(), NormalPrior())
    guide, (x, y) = MeanField(network, init_scale=1e-6), data()

    @config_enumerate
    def model(x, y):
        mean = network(x).squeeze(-1)
        with pyro.plate("data", N, dim=-1):
            outlier = pyro.sample("outlier", dist.Bernoulli(torch.tensor(0.3).double()))
            pyro.sample("y", dist.Normal(mean, torch.where(outlier > 0, 3.0, NOISE).double()), obs=y)

    loss = TraceEnum_ELBO(max_plate_nesting=1).loss(model, guide, x, y)
    mean = (x @ guide.mean["weight"].mT + guide.mean["bias"]).squeeze(-1)
    each = [
        torch.tensor(share).double().log() + dist.Normal(mean, sd).log_prob(y)
        for share, sd in ((0.7, NOISE), (0.3, 3.0))
    ]
    expected = float(guide.kl().detach() - torch.logaddexp(*each).sum())
    # The divergence is that of one draw: sqrt(4 / 2) nats of noise, five of them.
    assert loss == pytest.approx(expected, abs=8)
    handled = SharedDraw(guide)(model)
    loss = TraceEnum_ELBO(max_plate_nesting=1).loss(handled, lambda x, y: None, x, y)
    assert loss == pytest.approx(expected, rel=1e-3)


def two_networks(names=("first", "second")):
    first, second = (
        BayesianModule(nn.Linear(1, 1, bias=False).double(), NormalPrior(), name=name) for name in names
    )

    def model(x, y=None):
        f, g = first(x).squeeze(-1), second(x).squeeze(-1)
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(f + g, 1.0), obs=y)
        return f, g

    return model, first, second


def test_two_networks_with_names_have_their_own_sites_parameters_and_draws():
    model, first, second = two_networks()
    x = torch.ones(3, 1, dtype=torch.float64)
    assert list(poutine.trace(model).get_trace(x).stochastic_nodes)[:2] == ["first.weight", "second.weight"]
    guides = [MeanField(first, init_scale=1.0), MeanField(second, init_scale=1.0)]
    with SharedDraw(guides[0]), SharedDraw(guides[1]):
        f, g = model(x)
    assert not torch.allclose(f, g)
    handled = SharedDraw(guides[0])(LocalReparameterisation(guides[1])(model))
    trace = poutine.trace(handled).get_trace(x, x[:, 0])
    assert {"first.weights.divergence", "second.weights.divergence"} <= set(trace.nodes)
    svi = SVI(handled, lambda x, y: None, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    svi.step(x, x[:, 0])
    assert set(pyro.get_param_store().keys()) == {
        f"{name}.weight_guide.{kind}.0" for name in ("first", "second") for kind in ("locs", "log_scales")
    }
    loaded = type(guides[0]).from_description(first.module, guides[0].describe())
    assert loaded.site("weight") == "first.weight"


def test_two_networks_of_one_name_are_refused():
    model, first, _ = two_networks((None, None))
    x = torch.ones(3, 1, dtype=torch.float64)
    with (
        pytest.raises(ValueError, match="Two networks answer to the name None"),
        SharedDraw(MeanField(first)),
    ):
        model(x)


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_weight_that_is_held_is_refused_and_not_ignored(handler):
    network = BayesianModule(layer(), NormalPrior())
    guide, (x, y) = MeanField(network), data()
    held = {"weight": torch.zeros(1, 3, dtype=torch.float64)}
    for hold in (poutine.condition, poutine.do):
        with pytest.raises(ValueError, match=r"gives the site 'weight', and .* draws it"):
            handler(guide)(hold(regression(network), data=held))(x, y)
    with pytest.raises(ValueError, match="ConditionMessenger gives the site 'weight'"):
        WeightELBO().loss(poutine.condition(regression(network), data=held), guide, x, y)


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_handler_and_a_guide_of_the_same_weights_are_refused(handler):
    network = BayesianModule(layer(), NormalPrior())
    guide, (x, y) = MeanField(network), data()
    model = regression(network)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    with pytest.raises(ValueError, match="is sampled within"), handler(guide):
        svi.step(x, y)
    svi = SVI(handler(guide)(model), guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    with pytest.raises(ValueError, match="ReplayMessenger gives the site"):
        svi.step(x, y)


def test_the_divergence_is_not_given_twice():
    network = BayesianModule(layer(), NormalPrior())
    handler, (x, y) = SharedDraw(MeanField(network)), data()
    with handler:
        poutine.trace(regression(network)).get_trace(x, y)
    with pytest.raises(ValueError, match="holds the divergence already"):
        handler.kl()


def test_a_network_inside_a_plate_is_refused():
    network = BayesianModule(layer(), NormalPrior())
    guide, (x, y) = MeanField(network), data()

    def model(x, y):
        with pyro.plate("data", N):
            pyro.sample("y", dist.Normal(network(x).squeeze(-1), NOISE), obs=y)

    with pytest.raises(ValueError, match=r"inside the plate 'data', .* call it before the plate"):
        poutine.trace(model).get_trace(x, y)
    with pytest.raises(ValueError, match=r"inside the plate 'data', .* call it before the plate"):
        Trace_ELBO().loss(SharedDraw(guide)(model), lambda x, y: None, x, y)


def test_a_scale_around_the_model_scales_the_divergence_too():
    network = BayesianModule(layer(), NormalPrior())
    guide, (x, y) = MeanField(network), data()
    model = regression(network)
    losses = []
    for scaled in (model, poutine.scale(model, 0.5)):
        torch.manual_seed(1)
        losses.append(WeightELBO().loss(scaled, guide, x, y))
        torch.manual_seed(1)
        losses.append(Trace_ELBO().loss(SharedDraw(guide)(scaled), lambda x, y: None, x, y))
    assert losses == pytest.approx([losses[0], losses[0], losses[0] / 2, losses[0] / 2], rel=1e-12)


def test_a_guide_of_a_bayesian_module_says_nothing_again():
    network = BayesianModule(layer(), NormalPrior(0.3), "weight", name="net")
    guide = MeanField(network)
    assert guide.names == ("weight",)
    assert guide.prior is network.prior
    assert guide.site("weight") == "net.weight"
    with pytest.raises(ValueError, match="give the guide nothing but it"):
        MeanField(network, NormalPrior())


def test_the_parameter_store_goes_to_disk_and_back(tmp_path):
    x, y = data()
    network = BayesianModule(layer(), NormalPrior())
    guide = MeanField(network)
    svi = SVI(regression(network), guide, pyro.optim.Adam({"lr": 0.01}), WeightELBO())
    svi.step(x, y)
    fitted = guide.loc.detach().clone()
    pyro.get_param_store().save(str(tmp_path / "store"))
    pyro.clear_param_store()
    pyro.get_param_store().load(str(tmp_path / "store"))
    again = MeanField(network)
    with torch.no_grad():
        again.locs[0].zero_()
    WeightELBO().loss(regression(network), again, x, y)
    assert torch.equal(again.loc, fitted)
    # From there on the store holds the module's own parameters.
    assert pyro.get_param_store()["weight_guide.locs.0"] is again.locs[0]
    wider = BayesianModule(nn.Linear(5, 1).double(), NormalPrior())
    with pytest.raises(ValueError, match="already holds another"):
        MeanField(wider)()


def test_a_cell_of_a_notebook_runs_again():
    x, y = data()
    losses = []
    for _ in range(2):
        torch.manual_seed(0)
        network = BayesianModule(layer(), NormalPrior(), "weight")
        guide = MeanField(network)
        svi = SVI(regression(network), guide, pyro.optim.Adam({"lr": 0.01}), WeightELBO())
        losses.append([svi.step(x, y) for _ in range(3)])
        assert pyro.get_param_store()["weight_guide.locs.0"] is guide.locs[0]
        del network, guide, svi
        gc.collect()
    assert losses[0] == losses[1]

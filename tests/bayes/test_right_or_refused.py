"""Modules and models that draws of weights used to miss in silence: right, or refused in a sentence."""

from __future__ import annotations

import inspect

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
import torch.nn.functional as F
from pyro.infer import SVI, JitTrace_ELBO, Predictive, Trace_ELBO
from pyro.nn import PyroModule, PyroSample
from torch import nn

from bayesflowmass import bayes
from bayesflowmass.bayes.guides import Eigenbasis, FullCovariance, MeanField
from bayesflowmass.bayes.handlers import MirroredDraw, SharedDraw
from bayesflowmass.bayes.module import BayesianModule
from bayesflowmass.bayes.per_example import LocalReparameterisation
from bayesflowmass.bayes.protocol import WEIGHT_POSTERIORS

N = 12
SHORT = {
    "nuts": {"chains": 1, "warmup": 2, "samples": 4, "max_tree_depth": 2},
    "sghmc": {"chains": 2, "warmup": 1, "samples": 4, "path_steps": 5, "path_batch_size": 8},
    "ensemble": {"members": 2},
}


@pytest.fixture(autouse=True)
def _fresh_store():
    pyro.clear_param_store()


def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(N, 3, generator=generator)
    return x, x[:, 0] + 0.1 * torch.randn(N, generator=generator)


def gaussian(f):
    return dist.Normal(f.squeeze(-1), 0.3)


def fit(net, method, **options):
    given = {"steps": 3} | SHORT.get(method, {}) | options
    return bayes.fit(net, data(), likelihood=gaussian, method=method, **given)


def chooses(method):
    """Whether a method takes which weights are random."""
    return "which" in inspect.signature(WEIGHT_POSTERIORS[method].fit).parameters


def layer():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(3, 1)


def mlp():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


class Hoarder(nn.Module):
    """Keeps a weight in a list of its own."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 1)
        self.kept = [self.a.weight]

    def forward(self, x):
        return self.b(torch.tanh(F.linear(x, self.kept[0], self.a.bias)))


@pytest.mark.parametrize("method", sorted(set(WEIGHT_POSTERIORS) - {"point"}))
def test_every_method_refuses_a_weight_that_no_draw_reaches(method):
    options = {"which": "a.*"} if chooses(method) else {}
    with pytest.raises(ValueError, match=r"reference of its own to the random weight 'net\.a\.weight'"):
        fit(Hoarder(), method, **options)
    fit(Hoarder(), "point")


@pytest.mark.parametrize("method", sorted(WEIGHT_POSTERIORS))
def test_frozen_weights_stay_as_they_are(method):
    net = mlp()
    net[0].requires_grad_(False)
    before = net[0].weight.clone()
    options = {"which": "2.*"} if chooses(method) else {}
    posterior = fit(net, method, **options)
    assert torch.equal(net[0].weight, before)
    assert not [name for name in posterior.draw(2) if name.startswith("net.0")]
    assert [weight.requires_grad for weight in net.parameters()] == [False, False, True, True]


def test_an_ensemble_beside_frozen_weights_comes_back_from_disk(tmp_path):
    net = mlp()
    net[0].requires_grad_(False)
    posterior = fit(net, "ensemble")
    posterior.save(tmp_path)
    loaded = bayes.load(tmp_path, mlp(), gaussian)
    x, y = data()
    assert torch.equal(loaded.log_prob(y, x), posterior.log_prob(y, x))


@pytest.mark.parametrize("method", ["nuts", "sghmc", "linearised", "function_space"])
def test_a_frozen_weight_is_not_made_random(method):
    net = mlp()
    net[0].requires_grad_(False)
    with pytest.raises(ValueError, match=r"The weight '0\.weight' is frozen .* which='all' makes it random"):
        fit(net, method)
    with pytest.raises(ValueError, match="requires a gradient, so that there is nothing to fit"):
        fit(net.requires_grad_(False), method)


def test_a_network_that_draws_its_weights_itself_is_refused():
    net = mlp()
    net[0] = PyroModule[nn.Linear](3, 4)
    net[0].weight = PyroSample(dist.Normal(0.0, 1.0).expand([4, 3]).to_event(2))
    with pytest.raises(ValueError, match=r"The network draws '0\.weight' itself \(PyroSample\)"):
        fit(net, "variational")


def test_a_network_can_be_fitted_again_after_its_model_was_used():
    net = mlp()
    posterior = fit(net, "variational")
    SVI(posterior.model, posterior.guide, pyro.optim.Adam({}), posterior.elbo).step(*data())
    before = net[2].weight.detach().clone()
    fit(net, "variational")
    assert not torch.equal(net[2].weight, before)


class HeadAlone(nn.Module):
    """Its method draws one of its two layers."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 1)

    def reset_parameters(self):
        self.b.reset_parameters()

    def forward(self, x):
        return self.b(self.a(x).tanh())


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.MultiheadAttention(3, 1, batch_first=True), nn.Linear(3, 1)

    def forward(self, x):
        rows = x.unsqueeze(1)
        return self.b(self.a(rows, rows, rows, need_weights=False)[0].squeeze(1))


def test_members_whose_weights_are_not_drawn_anew_are_refused():
    with pytest.raises(ValueError, match=r"The part 'a' .* \('a\.weight' stays as it is\)"):
        fit(HeadAlone(), "ensemble")
    norm = nn.Sequential(torch.nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), nn.Linear(4, 1))
    with pytest.raises(ValueError, match=r"'0\.parametrizations\.weight\.original0' stays as it is"):
        fit(norm, "ensemble")
    members = fit(Attention(), "ensemble", learning_rate=1e-6).draw(2)
    assert all(float((w[0] - w[1]).abs().max()) > 0.01 for name, w in members.items() if w.dim() > 2)


def test_attention_of_torch_has_a_variational_posterior():
    assert float(fit(Attention(), "variational", which="all").outputs(data()[0], 4).std(0).min()) > 0


@pytest.mark.parametrize("method", ["laplace", "ensemble", "sghmc"])
def test_parallel_predictions_have_a_draw_each(method):
    posterior = fit(mlp(), method)
    found = Predictive(posterior.model, guide=posterior.guide, num_samples=40, parallel=True)(data()[0])
    assert found["y"].shape == (40, N)
    assert float(found["net.2.weight"].std(0).min()) > 0


def test_predictions_of_a_handled_model_have_a_draw_each():
    """Their variance is that of q: 400 draws know it to 7 %, five standard errors."""
    network = BayesianModule(layer())
    guide, (x, _) = MeanField(network, init_scale=1.0), data()

    def model(x):
        mean = network(x).squeeze(-1)
        with pyro.plate("data", len(x), dim=-1):
            return pyro.sample("y", dist.Normal(mean, 1e-6))

    expected = x.square() @ guide.standard_deviation["weight"][0] ** 2 + guide.standard_deviation["bias"] ** 2
    torch.manual_seed(0)
    for handler in (SharedDraw, MirroredDraw):
        for parallel in (False, True):
            found = Predictive(handler(guide)(model), num_samples=400, parallel=parallel, return_sites=["y"])
            found = found(x)["y"]
            assert ((found.var(0) / expected).log().abs() < 5 * (2 / 400) ** 0.5).all()
    with pytest.raises(ValueError, match="which predictions do not have; predict with SharedDraw"):
        Predictive(LocalReparameterisation(guide)(model), num_samples=4, parallel=True)(x)


def regression(network, around=None):
    def model(x, y):
        with around or poutine.scale(scale=1.0):
            mean = network(x).squeeze(-1)
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(mean, 0.3), obs=y)

    return model


@pytest.mark.parametrize(
    ("around", "sentence"),
    [
        (poutine.mask(mask=False), "under poutine.mask, and WeightELBO would count its divergence"),
        (poutine.scale(scale=torch.ones(N)), r"under a scale of shape \(12,\), one number for each example"),
        (poutine.block(), "A poutine.block hides the network from SharedDraw"),
    ],
)
def test_effects_around_a_network_that_the_divergence_cannot_follow_are_refused(around, sentence):
    network = BayesianModule(layer())
    with pytest.raises(ValueError, match=sentence):
        bayes.WeightELBO().loss(regression(network, around), MeanField(network), *data())


def test_a_plate_of_a_subsample_does_not_multiply_the_divergence():
    network = BayesianModule(layer())
    guide, (x, y) = MeanField(network), data()

    def inside(x, y):
        for i in pyro.plate("data", 10 * N, subsample=torch.arange(N)):
            pyro.sample(f"y{i}", dist.Normal(network(x[i : i + 1]).squeeze(), 0.3), obs=y[i])

    def outside(x, y):
        mean = network(x).squeeze(-1)
        for i in pyro.plate("data", 10 * N, subsample=torch.arange(N)):
            pyro.sample(f"y{i}", dist.Normal(mean[i], 0.3), obs=y[i])

    losses = []
    for model in (inside, outside):
        torch.manual_seed(1)
        losses.append(bayes.WeightELBO().loss(model, guide, x, y))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    with pytest.raises(ValueError, match="would count for each of 120 members; call it before the plate"):
        poutine.trace(SharedDraw(guide)(inside)).get_trace(x, y)


def test_a_weight_is_random_in_one_module_alone():
    part = BayesianModule(layer(), name="part")
    with pytest.raises(ValueError, match=r"'0\.module\.weight' is random in the BayesianModule '0' already"):
        BayesianModule(nn.Sequential(part, nn.Linear(1, 1)))
    BayesianModule(nn.Sequential(part, nn.Linear(1, 1)), which="1.*")


@pytest.mark.parametrize(
    ("prior", "sentence"),
    [
        ({"2.wieght": dist.Normal(0.0, 1.0), "*": dist.Normal(0.0, 0.1)}, "'2.wieght' of the prior matches none"),
        ({"*": dist.Normal(0.0, 0.1), "*bias": dist.Normal(0.0, 1.0)}, r"'\*bias' of the prior is never reached"),
        (bayes.NormalPrior(overrides={"3.*": 1.0}), r"'3\.\*' of the prior matches none"),
    ],
)  # fmt: skip
def test_a_pattern_of_the_prior_that_says_nothing_is_refused(prior, sentence):
    with pytest.raises(ValueError, match=sentence):
        fit(mlp(), "variational", prior=prior)
    fit(mlp(), "variational", prior={"*weight": dist.Normal(0.0, 1.0), "*": dist.Normal(0.0, 0.1)})


def test_weights_that_are_no_real_numbers_are_refused_unless_frozen():
    net = mlp()
    net.register_parameter("order", nn.Parameter(torch.tensor([2, 0, 1]), requires_grad=False))
    for method, which in (("variational", "2.*"), ("laplace", "2.*"), ("ensemble", None)):
        fit(net, method, which=which)
    net.register_parameter("phase", nn.Parameter(torch.zeros(2, dtype=torch.complex64)))
    with pytest.raises(ValueError, match=r"The weight 'phase' holds torch\.complex64"):
        fit(net, "point")


def test_no_examples_have_no_densities():
    posterior, (x, y) = fit(mlp(), "variational"), data()
    assert posterior.log_prob(y[:0], x[:0], 3).shape == (0,)
    assert posterior.predict(x[:0], 3).shape == (3, 0)


@pytest.mark.parametrize("kind", [MeanField, FullCovariance, Eigenbasis])
@pytest.mark.parametrize("handler", [None, SharedDraw])
@pytest.mark.filterwarnings("ignore")
def test_compiled_bounds_have_the_gradients_of_the_others(kind, handler):
    """The means of 200 steps, within five standard errors: a compiled function draws noise in an order of its own."""
    network, (x, y) = BayesianModule(layer()), data()
    guide = kind(network, init_scale=0.3)

    def steps(bound, handler):
        model = regression(network) if handler is None else handler(guide)(regression(network))

        def step():
            guide.zero_grad()
            loss = bound.loss_and_grads(model, guide if handler is None else lambda x, y: None, x, y)
            return torch.cat([torch.tensor([loss]), *(p.grad.flatten() for p in guide.parameters())])

        return step

    compiled = steps(JitTrace_ELBO(ignore_jit_warnings=True), handler)
    plain = steps(Trace_ELBO(), handler)
    torch.manual_seed(0)
    found, expected = (torch.stack([step() for _ in range(200)]) for step in (compiled, plain))
    assert (found[:, 0].std() / expected[:, 0].std()).log().abs() < 0.7
    error = ((found.var(0) + expected.var(0)) / 200).sqrt()
    assert ((found.mean(0) - expected.mean(0)).abs() <= 5 * error).all()


@pytest.mark.parametrize("handler", [SharedDraw, MirroredDraw])
@pytest.mark.filterwarnings("ignore")
def test_compiled_bounds_draw_in_every_step_weights_of_any_number(handler):
    """Noise of more than 65536 weights is made in blocks."""
    network = BayesianModule(nn.Linear(300, 300, bias=False))
    guide = Eigenbasis(network, init_scale=1.0)

    def model(x):
        pyro.factor("y", network(x).sum())

    compiled, handled = JitTrace_ELBO(ignore_jit_warnings=True), handler(guide)(model)
    losses = [compiled.loss_and_grads(handled, lambda x: None, torch.ones(4, 300)) for _ in range(8)]
    assert len(set(losses)) == 8


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_bound_refuses_draws_for_each_example():
    network = BayesianModule(layer())
    model = LocalReparameterisation(MeanField(network))(regression(network))
    with pytest.raises(ValueError, match="does not trace the gradients of LocalReparameterisation"):
        JitTrace_ELBO().loss_and_grads(model, lambda x, y: None, *data())

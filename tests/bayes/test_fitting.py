"""The framework of five lines: any network, any likelihood, every method; linear regression has exact answers."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Predictive
from torch import nn
from torch.distributions import MultivariateNormal, Normal

from bayesflowmass import bayes
from bayesflowmass.flows import build_flow

NOISE, N = 0.4, 40


@pytest.fixture(autouse=True)
def _fresh_store():
    pyro.clear_param_store()


def data(n=N, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=generator, dtype=torch.float64) + 0.5
    return x, x.sum(-1) - 0.3 + NOISE * torch.randn(n, generator=generator, dtype=torch.float64)


def linear():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(3, 1).double()


def gaussian(f):
    return dist.Normal(f.squeeze(-1), NOISE)


def design(x):
    return torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], 1)


def exact(x, y):
    """Mean and covariance of (w, b) under the default prior."""
    scale = torch.tensor([3**-0.5] * 3 + [1.0], dtype=torch.float64)
    covariance = torch.linalg.inv(design(x).T @ design(x) / NOISE**2 + torch.diag(scale**-2))
    return covariance @ design(x).T @ y / NOISE**2, covariance


def exact_log_prob(x_new, y_new):
    mean, covariance = exact(*data())
    variance = ((design(x_new) @ covariance) * design(x_new)).sum(-1) + NOISE**2
    return Normal(design(x_new) @ mean, variance.sqrt()).log_prob(y_new)


METHODS = {
    "variational": {"guide": "full_covariance", "guide_options": {"init_scale": 0.1}},
    "laplace": {"relative_precision": 1.0},
    "nuts:100": {"chains": 2, "warmup": 60, "max_tree_depth": 3},
}


@pytest.mark.parametrize("method", list(METHODS))
def test_methods_that_are_exact_for_linear_regression_find_its_posterior(method):
    net, (x, y) = linear(), data()
    posterior = bayes.fit(
        net,
        (x, y),
        likelihood=gaussian,
        method=method,
        steps=600,
        learning_rate=0.03,
        batch_size=N,
        **METHODS[method],
    )
    mean, covariance = exact(x, y)
    draws = posterior.draw(400 if "nuts" not in method else 200, seed=1)
    flat = torch.cat([draws["net.weight"][:, 0], draws["net.bias"]], -1)
    sd = covariance.diagonal().sqrt()
    # Two hundred draws of NUTS count as fifty at least: five standard errors.
    assert ((flat.mean(0) - mean) / sd).abs().max() < 5 / math.sqrt(50)
    assert (flat.std(0) / sd).log().abs().max() < 5 / math.sqrt(2 * 50)
    x_new, y_new = data(8, seed=3)
    found = posterior.log_prob(y_new, x_new, n_draws=200, seed=2)
    assert found.shape == (8,)
    assert (found - exact_log_prob(x_new, y_new)).abs().max() < 0.2
    drawn = posterior.predict(x_new, n_draws=200, seed=2)
    assert drawn.shape == (200, 8)
    assert torch.equal(drawn, posterior.predict(x_new, n_draws=200, seed=2))
    centre = torch.cat([net.weight[0], net.bias]).detach()
    if method != "nuts:100":
        # The network itself ends at the centre.
        assert ((centre - mean) / sd).abs().max() < 0.5
        assert torch.equal(posterior.net(x), net(x))


def classes(f):
    return dist.Categorical(logits=f)


class LearnedNoise(nn.Module):
    """A likelihood with a parameter."""

    def __init__(self):
        super().__init__()
        self.log_noise = nn.Parameter(torch.zeros(()))

    def forward(self, f):
        return dist.Normal(f, self.log_noise.exp()).to_event(1)


def mlp(outputs=1):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, outputs))


PROBLEMS = {
    "normal": (lambda: mlp(), lambda f: dist.Normal(f.squeeze(-1), 0.3), lambda x: x.sum(-1)),
    "classes": (lambda: mlp(4), classes, lambda x: (x.sum(-1) > 0).long()),
    "two targets": (lambda: mlp(2), lambda f: dist.StudentT(4.0, f, 0.3), lambda x: x[:, :2]),
    "learned noise": (lambda: mlp(2), LearnedNoise(), lambda x: x[:, :2]),
    "counts": (lambda: mlp(), lambda f: dist.Poisson(f.squeeze(-1).exp()), lambda x: x[:, 0].abs().round()),
    "a flow": (lambda: build_flow("affine", 3, 0.0, 1.0, hidden=(6,)), None, lambda x: x.sum(-1)),
}
EVERY = ["point", "variational", "variational:all", "laplace", "function_space", "ensemble:2", "nuts:4"]


@pytest.mark.parametrize("method", EVERY)
@pytest.mark.parametrize("problem", list(PROBLEMS))
def test_every_method_takes_every_likelihood_and_comes_back_from_disk(problem, method, tmp_path):
    build, likelihood, target = PROBLEMS[problem]
    x = torch.randn(30, 3, generator=torch.Generator().manual_seed(1))
    y = target(x)
    options = {"chains": 1, "warmup": 3, "max_tree_depth": 2} if "nuts" in method else {}
    posterior = bayes.fit(build(), (x, y), likelihood=likelihood, method=method, steps=20, **options)
    n_draws = {"point": 1, "ensemble:2": 2, "nuts:4": 4}.get(method, 100)
    predicted = posterior.predict(x[:5])
    assert predicted.shape == (n_draws, 5, *y.shape[1:])
    log_prob = posterior.log_prob(y[:5], x[:5], n_draws=6)
    assert log_prob.shape == (5,)
    assert bool(log_prob.isfinite().all())
    posterior.save(tmp_path / "run")
    again = bayes.load(tmp_path / "run", build(), likelihood)
    assert torch.equal(again.predict(x[:5]), predicted)
    assert torch.equal(again.log_prob(y[:5], x[:5], n_draws=6), log_prob)


def test_the_parts_for_pyro_go_on_where_the_fit_ended():
    x, y = data()
    posterior = bayes.fit(linear(), (x, y), likelihood=gaussian, guide="mean_field", steps=30, seed=1)
    svi = SVI(posterior.model, posterior.guide, pyro.optim.Adam({"lr": 0.02}), posterior.elbo)
    losses = [svi.step(x, y) for _ in range(200)]
    assert sum(losses[-50:]) < sum(losses[:50])
    for parallel in (False, True):
        found = Predictive(posterior.model, guide=posterior.guide, num_samples=7, parallel=parallel)(x)
        assert found["y"].shape == (7, N)
    batch = [svi.evaluate_loss(x[rows], y[rows]) for rows in torch.arange(N).split(N // 4)]
    # A batch of a quarter counts four times; the divergence counts once.
    whole = svi.evaluate_loss(x, y)
    assert sum(batch) / 4 == pytest.approx(whole, rel=0.5)


@pytest.mark.parametrize("method", ["laplace", "ensemble:3", "nuts:4"])
def test_a_posterior_that_is_no_guide_draws_for_predictive(method):
    x, y = data()
    options = {"chains": 1, "warmup": 3, "max_tree_depth": 2} if "nuts" in method else {}
    posterior = bayes.fit(linear(), (x, y), likelihood=gaussian, method=method, steps=20, **options)
    found = Predictive(posterior.model, guide=posterior.guide, num_samples=9)(x)
    assert found["y"].shape == (9, N)
    assert set(found) == {"y", "net.weight", "net.bias"}


def test_prior_and_choice_are_said_in_the_names_of_the_network():
    x, y = (part.float() for part in data())
    prior = {"0.*": dist.Laplace(0.0, 1.0), "*": dist.Normal(0.0, 0.5)}
    posterior = bayes.fit(mlp(), (x, y), likelihood=gaussian, which=["0.*", "4.bias"], prior=prior, steps=5)
    assert posterior.weights.names == ("net.0.weight", "net.0.bias", "net.4.bias")
    assert posterior.prior.scale_of("net.0.weight", (8, 3)) == pytest.approx(math.sqrt(2))
    assert posterior.prior.scale_of("net.4.bias", (1,)) == 0.5


def test_a_posterior_is_the_prior_of_further_data():
    """Half of the data, then the other half, are all data: one weight, whose posterior is normal."""
    (x, y), halves = data(), [slice(0, N // 2), slice(N // 2, N)]
    x, net, prior = x[:, :1], nn.Linear(1, 1, bias=False).double(), 0.7
    for half in halves:
        options = {"guide": "mean_field", "steps": 800, "learning_rate": 0.02, "batch_size": N}
        posterior = bayes.fit(
            net, (x[half], y[half]), likelihood=gaussian, which="all", prior=prior, **options
        )
        prior = posterior.as_prior()
    precision = float(x.square().sum()) / NOISE**2 + 0.7**-2
    (mean, sd), expected = posterior.weights.moments(), float((x[:, 0] @ y) / NOISE**2 / precision)
    # Noise of the last steps, at a fiftieth of the rate: a tenth of the width.
    assert float(mean["net.weight"]) == pytest.approx(expected, abs=0.1 * precision**-0.5)
    assert float(sd["net.weight"]) == pytest.approx(precision**-0.5, rel=0.1)


def test_weights_that_are_not_random_keep_their_prior():
    x, y = (part.float() for part in data())
    posterior = bayes.fit(
        mlp(),
        (x, y),
        likelihood=gaussian,
        which="0.*",
        prior={"0.*": dist.Normal(0.0, 1.0), "*": dist.Laplace(0.0, 0.2)},
        steps=20,
    )
    prior, (mean, sd) = posterior.as_prior(), posterior.weights.moments()
    found = prior.distribution("0.weight", (8, 3), mean["net.0.weight"])
    assert torch.equal(found.base_dist.loc, mean["net.0.weight"])
    assert torch.equal(found.base_dist.scale, sd["net.0.weight"])
    assert prior.scale_of("4.bias", (1,)) == pytest.approx(0.2 * math.sqrt(2))
    bayes.fit(mlp(), (x, y), likelihood=gaussian, which="0.*", prior=prior, steps=2)
    laplace = bayes.fit(mlp(), (x, y), likelihood=gaussian, method="laplace", steps=2)
    assert float(laplace.as_prior().scale_of("4.bias", (1,))) == pytest.approx(
        float(laplace.draw(4000)["net.4.bias"].std()), rel=0.1
    )
    for method in ("linearised", "ensemble:2"):
        with pytest.raises(ValueError, match="is no normal distribution of the weights"):
            bayes.fit(mlp(), (x, y), likelihood=gaussian, method=method, steps=2).as_prior()


def test_the_same_seed_gives_the_same_posterior_and_leaves_the_global_generator_alone():
    x, y = (part.float() for part in data())
    state = torch.get_rng_state()
    found = [bayes.fit(mlp(), (x, y), likelihood=gaussian, steps=10, seed=3).draw(2) for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    other = bayes.fit(mlp(), (x, y), likelihood=gaussian, steps=10, seed=4).draw(2)
    assert not any(torch.equal(found[0][name], other[name]) for name in other)


def test_the_evidence_of_linear_regression_is_the_best_bound():
    x, y = data(12)
    posterior = bayes.fit(
        linear(),
        (x, y),
        likelihood=gaussian,
        guide="full_covariance",
        steps=600,
        learning_rate=0.03,
        batch_size=12,
    )
    scale = torch.tensor([3**-0.5] * 3 + [1.0], dtype=torch.float64)
    marginal = NOISE**2 * torch.eye(12, dtype=torch.float64) + (design(x) * scale**2) @ design(x).T
    evidence = float(MultivariateNormal(torch.zeros_like(y), marginal).log_prob(y))
    torch.manual_seed(0)
    bound = -sum(posterior.elbo.loss(posterior.model, posterior.guide, x, y) for _ in range(200)) / 200
    # Of 200 draws whose log likelihood varies by sqrt(4 / 2) nats; the bound lies below the evidence.
    assert evidence - 0.5 < bound < evidence + 0.35


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"likelihood": None}, "Linear has no log_prob"),
        ({"likelihood": lambda f: dist.Normal(f, 1.0)}, r"of shape \(2, 1\) and y has the shape \(2,\)"),
        ({"likelihood": lambda f: f}, "returned a Tensor; expected a distribution"),
        ({"method": "vi"}, "Unknown weight posterior 'vi'"),
        ({"members": 3}, "'variational' has no option 'members'; it takes guide, guide_options"),
        ({"method": "ensemble", "which": "last"}, "'ensemble' does not choose among the weights"),
        ({"method": "laplace:last", "which": "all"}, "says which weights are random, and so does"),
        ({"steps": 0}, "steps is 0"),
        ({"which": "head.*"}, "matches no parameter"),
        ({"guide": "flow"}, "Unknown guide 'flow'"),
    ],
)
def test_what_makes_no_sense_is_refused_before_the_training(arguments, sentence):
    net = linear()
    before = net.weight.detach().clone()
    with pytest.raises(ValueError, match=sentence):
        bayes.fit(net, data(), **({"likelihood": gaussian} | arguments))
    assert torch.equal(net.weight, before)


def test_data_that_do_not_fit_are_refused():
    x, y = data()
    with pytest.raises(ValueError, match="are 40 inputs and 39 targets"):
        bayes.fit(linear(), (x, y[1:]), likelihood=gaussian)
    with pytest.raises(ValueError, match=r"The data are \['ndarray', 'Tensor'\]; expected two tensors"):
        bayes.fit(linear(), (x.numpy(), y), likelihood=gaussian)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y))
    with pytest.raises(ValueError, match="The data are DataLoader; expected two tensors"):
        bayes.fit(linear(), loader, likelihood=gaussian)
    x[3] = math.nan
    with pytest.raises(ValueError, match="numbers in x that are not finite"):
        bayes.fit(linear(), (x, y), likelihood=gaussian)


def test_a_loss_that_is_no_number_says_what_to_look_at():
    with pytest.raises(
        ValueError, match=r"loss of the phase 'point' is nan at step \d+: .* lower learning_rate"
    ):
        bayes.fit(
            linear(),
            data(),
            likelihood=lambda f: dist.Normal(f.squeeze(-1), f.squeeze(-1) * 0 - 1, validate_args=False),
        )


def test_a_folder_without_a_posterior_and_another_network_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no posterior\.json"):
        bayes.load(tmp_path, linear(), gaussian)
    bayes.fit(linear(), data(), likelihood=gaussian, steps=3).save(tmp_path)
    with pytest.raises(ValueError, match="is of another network than this Linear"):
        bayes.load(tmp_path, nn.Linear(4, 1).double(), gaussian)


def unknown_noise(f, y=None):
    """A program with a latent variable of its own."""
    sigma = pyro.sample("sigma", dist.LogNormal(torch.tensor(0.0, dtype=torch.float64), 1.0))
    with pyro.plate("data", len(f)):
        return pyro.sample("y", dist.Normal(f.squeeze(-1), sigma), obs=y)


def test_a_likelihood_may_have_latent_variables_of_its_own():
    """The noise is unknown: with 40 data its posterior is near the truth, and the weights are near theirs."""
    net, (x, y) = linear(), data()
    state, store = torch.get_rng_state(), dict(pyro.get_param_store())
    posterior = bayes.fit(
        net, (x, y), likelihood=unknown_noise, steps=400, learning_rate=0.05, estimator="local"
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert dict(pyro.get_param_store()) == store
    mean, covariance = exact(x, y)
    centre = torch.cat([net.weight[0], net.bias]).detach()
    assert ((centre - mean) / covariance.diagonal().sqrt()).abs().max() < 1.0
    drawn = posterior.predict(x, n_draws=60, seed=1)
    assert drawn.shape == (60, N)
    assert torch.equal(drawn, posterior.predict(x, n_draws=60, seed=1))
    # The noise and what is unknown of the weights; 2400 numbers, of which the noise is common to each draw.
    assert 0.3 < float((drawn - net(x).squeeze(-1).detach()).std()) < 0.6
    assert net.weight.requires_grad


def offset(f, y=None):
    """A mean that is known up to an offset."""
    b = pyro.sample("b", dist.Normal(torch.tensor(0.0, dtype=torch.float64), 1.0))
    with pyro.plate("data", len(f)):
        return pyro.sample("y", dist.Normal(f.squeeze(-1) + b, NOISE), obs=y)


def test_densities_average_over_weights_and_latent_variables():
    """Of y = w.x + c + b + noise under normal q of w, c and b the predictive density is normal, its width known."""
    x, y = data()
    posterior = bayes.fit(linear(), (x, y), likelihood=offset, steps=60, learning_rate=0.05)
    w, scale = posterior.guide.mean, posterior.guide.standard_deviation
    b, b_scale = posterior.latents.locs.b, posterior.latents.scales.b
    mean = (x @ w["weight"][0] + w["bias"] + b).detach()
    unknown = (x**2 @ scale["weight"][0] ** 2 + scale["bias"] ** 2 + b_scale**2).detach()
    exact_density = Normal(mean, (unknown + NOISE**2).sqrt()).log_prob(y).exp()
    draws = 1000
    found = posterior.log_prob(y, x, n_draws=draws, seed=2).exp()
    # E[p^2] of the density of a draw: N(y; m, s)^2 = N(y; m, s / sqrt 2) / (2 s sqrt pi).
    square = Normal(mean, (unknown + NOISE**2 / 2).sqrt()).log_prob(y).exp() / (
        2 * NOISE * math.sqrt(math.pi)
    )
    error = ((square - exact_density**2) / draws).sqrt()
    assert ((found - exact_density).abs() < 6.0 * error).all()
    assert float(error.max() / exact_density.max()) < 0.05


def test_latent_variables_need_the_variational_method():
    for arguments, sentence in (
        ({"method": "laplace"}, "needs the method 'variational', not 'laplace'"),
        ({"members": 3}, "With latent variables there is no option 'members'"),
        ({"guide": "flow"}, "Unknown guide 'flow'"),
    ):
        with pytest.raises(ValueError, match=sentence):
            bayes.fit(linear(), data(), likelihood=unknown_noise, **arguments)

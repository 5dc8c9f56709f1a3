"""The likelihood of a mass in other people's models: brute force, Bayes' theorem, Pyro."""

from __future__ import annotations

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from numpy.testing import assert_allclose
from pyro.infer import MCMC, NUTS, Predictive
from scipy import integrate, stats

from bayesflowmass.cosmology import mass_function
from bayesflowmass.flows import build_flow
from bayesflowmass.hierarchical import MassLikelihood
from bayesflowmass.hierarchical.mass_function import simpson_weights
from bayesflowmass.posterior import MassPosterior, PredictiveMass

RANGE = (13.2, 15.6)
GRID = torch.linspace(*RANGE, 61, dtype=torch.float64)


def normal(loc, scale, **options):
    distribution = torch.distributions.Normal(
        torch.tensor(loc, dtype=torch.float64), torch.tensor(scale, dtype=torch.float64)
    )
    return MassPosterior(distribution, **({"log10_mass_range": RANGE, "redshift": 0.117} | options))


def spline_flow(n=3, seed=0, kind="affine+spline"):
    flow = build_flow(kind, 4, 14.4, 0.6, hidden=(8,), seed=seed)
    context = torch.from_numpy(np.random.default_rng(seed).normal(size=(n, 4))).float()
    return flow, context


def test_under_a_flat_prior_it_is_the_pdf_itself():
    flow, context = spline_flow()
    posterior = MassPosterior(flow.condition(context), log10_mass_range=RANGE)
    likelihood = MassLikelihood(posterior)
    assert_allclose(likelihood.on_grid(GRID).T, posterior.log_pdf(GRID.numpy()[:, None]), atol=1e-12)
    mass = torch.tensor([13.5, 14.0, 15.0], dtype=torch.float64)
    assert_allclose(likelihood(mass).detach(), posterior.log_pdf(mass.numpy()), atol=1e-12)


@pytest.mark.parametrize("redshift", [0.05, 0.3])
def test_a_training_population_is_divided_out(redshift):
    posterior = normal([14.0, 14.8], [0.2, 0.1], training_prior="hmf", redshift=[redshift, 0.117])
    found = MassLikelihood(posterior).on_grid(GRID)
    for row, (loc, scale, z) in enumerate([(14.0, 0.2, redshift), (14.8, 0.1, 0.117)]):
        exact = stats.norm(loc, scale).logpdf(GRID) - np.log(mass_function(GRID.numpy(), z))
        difference = found[row].numpy() - exact
        assert_allclose(difference - difference[30], 0.0, atol=3e-3)  # its interpolation in redshift


def test_it_gives_back_the_likelihood_that_made_the_posterior():
    # x | m normal about m; p(m | x) under the mass function by quadrature, then divided by it.
    fine = torch.linspace(*RANGE, 48001, dtype=torch.float64)
    prior = np.asarray(mass_function(fine.numpy(), 0.117))
    x, scale = 14.3, 0.25
    joint = stats.norm(fine.numpy(), scale).pdf(x) * prior
    log_posterior = np.log(joint / np.trapezoid(joint, fine.numpy()))
    cdf = integrate.cumulative_trapezoid(np.exp(log_posterior), fine.numpy(), initial=0.0)

    class Tabulated(torch.distributions.Normal):
        def log_prob(self, value):
            return torch.from_numpy(np.interp(value.numpy(), fine.numpy(), log_posterior))

        def cdf(self, value):
            return torch.from_numpy(np.interp(value.numpy(), fine.numpy(), cdf))

    posterior = MassPosterior(
        Tabulated(torch.zeros(1), torch.ones(1)), log10_mass_range=RANGE, training_prior="hmf", redshift=0.117
    )
    found = MassLikelihood(posterior).on_grid(GRID)[0].numpy()
    expected = stats.norm(GRID.numpy(), scale).logpdf(x)
    assert_allclose(found - found[30], expected - expected[30], atol=2e-4)


def test_a_change_of_prior_after_training_does_not_touch_it():
    posterior = normal([14.0], [0.2])
    expected = MassLikelihood(posterior).on_grid(GRID)
    assert_allclose(MassLikelihood(posterior.with_prior("hmf")).on_grid(GRID), expected, atol=0)


def test_draws_of_the_weights_come_one_by_one_with_a_common_constant():
    flows = [spline_flow(seed=s)[0] for s in (1, 2)]
    context = spline_flow()[1]
    single = [
        MassLikelihood(
            MassPosterior(f.condition(context), log10_mass_range=RANGE, training_prior="hmf", redshift=0.117)
        )
        for f in flows
    ]

    class Draws(torch.distributions.Normal):
        def log_prob(self, value):
            return self.of_each("log_prob", value)

        def cdf(self, value):
            return self.of_each("cdf", value)

        def of_each(self, method, value):
            parts = [getattr(f.condition(context), method)(value[..., d, :]) for d, f in enumerate(flows)]
            return torch.stack(parts, dim=-2)

    posterior = MassPosterior(
        Draws(torch.zeros(2, 3), torch.ones(2, 3)),
        log10_mass_range=RANGE,
        training_prior="hmf",
        redshift=0.117,
    )
    together = MassLikelihood(posterior)
    assert together.on_grid(GRID).shape == (2, 3, 61)
    assert together(GRID[:5, None]).shape == (5, 2, 3)
    for d in range(2):
        assert_allclose(together.on_grid(GRID)[d], single[d].on_grid(GRID), atol=1e-12)


def test_clusters_in_blocks_are_those_of_one_batch():
    flow, context = spline_flow(n=7)
    flow, context = flow.double(), context.double()
    one = MassPosterior(flow.condition(context), log10_mass_range=RANGE)
    blocks = [flow.condition(context[:4]), flow.condition(context[4:])]
    several = MassPosterior(blocks, log10_mass_range=RANGE)
    assert_allclose(MassLikelihood(several).on_grid(GRID), MassLikelihood(one).on_grid(GRID), atol=1e-12)


def test_its_slope_in_mass_is_that_of_finite_differences():
    flow, context = spline_flow()
    with torch.no_grad():
        posterior = MassPosterior(
            flow.condition(context), log10_mass_range=RANGE, training_prior="hmf", redshift=0.117
        )
    likelihood = MassLikelihood(posterior)
    mass = torch.tensor([13.7, 14.2, 14.9], dtype=torch.float64, requires_grad=True)
    likelihood(mass).sum().backward()
    step = 1e-5
    difference = (likelihood(mass.detach() + step) - likelihood(mass.detach() - step)) / (2 * step)
    assert_allclose(mass.grad, difference, rtol=1e-6)


@pytest.mark.parametrize("offset", [0.0, 0.01, 0.02])
@pytest.mark.parametrize("draws", [1, 3])
def test_a_pdf_too_narrow_for_the_grid_is_refused(offset, draws):
    """Simpson's sum over nodes 0.04 dex apart misses a PDF of 0.008 dex, wherever between them it lies."""
    loc = [[14.0, 14.4 + offset, 15.0]] * draws
    scale = [[0.2, 0.008 if d == draws - 1 else 0.2, 0.2] for d in range(draws)]
    loc, scale = (loc, scale) if draws > 1 else (loc[0], scale[0])
    likelihood = MassLikelihood(normal(loc, scale, cluster_id=["A", "B", "C"]))
    with pytest.raises(ValueError, match=r"The PDF of cluster B is too narrow .* take at least 121 nodes"):
        likelihood.on_grid(GRID)
    finer = torch.linspace(*RANGE, 601, dtype=torch.float64)
    total = likelihood.on_grid(finer).exp() @ simpson_weights(finer)
    expected = stats.norm(loc, scale).cdf(RANGE[1]) - stats.norm(loc, scale).cdf(RANGE[0])
    # 2/3 exp(-pi^2 sigma^2 / (2 h^2)) at sigma = 2 h; half-way between nodes, where it is largest, for B.
    assert_allclose(total, expected, atol=1e-6)


def test_a_grid_that_is_resolved_gives_the_values_of_single_masses():
    likelihood = MassLikelihood(normal([14.0, 14.5], [0.05, 0.3], training_prior="hmf"))
    assert_allclose(likelihood.on_grid(GRID).T, likelihood(GRID[:, None]), atol=0)
    # Nobody integrates over nodes that are not evenly spaced, so anything may be asked there.
    narrow = MassLikelihood(normal([14.0], [1e-3]))
    assert narrow.on_grid(torch.tensor([13.9, 14.0, 14.3], dtype=torch.float64)).shape == (1, 3)


@pytest.mark.parametrize("outside", [13.1, 15.7, math.nan])
def test_outside_the_training_range_it_refuses(outside):
    likelihood = MassLikelihood(normal([14.0], [0.2]))
    with pytest.raises(ValueError, match=r"trained on 13.2 to 15.6 and knows nothing beyond"):
        likelihood(torch.tensor([outside], dtype=torch.float64))


def test_it_names_what_it_lacks():
    with pytest.raises(ValueError, match="needs the redshift"):
        MassLikelihood(normal([14.0], [0.2], training_prior="hmf", redshift=None))
    with pytest.raises(ValueError, match=r"is a vector; found shape \(61, 1\)"):
        MassLikelihood(normal([14.0], [0.2])).on_grid(GRID[:, None])


def run_nuts(model, n_samples=80, seed=3):
    pyro.clear_param_store()
    with torch.random.fork_rng(devices=[]):
        pyro.set_rng_seed(seed)
        sampler = MCMC(
            NUTS(model, max_tree_depth=4), num_samples=n_samples, warmup_steps=40, disable_progbar=True
        )
        sampler.run()
        return sampler.get_samples()


@pytest.mark.parametrize("kind", ["affine", pytest.param("affine+spline", marks=pytest.mark.slow)])
def test_a_conditioned_flow_is_a_site_of_a_pyro_model_under_nuts(kind):
    flow, context = spline_flow(kind=kind)
    with torch.no_grad():
        conditioned = PredictiveMass(flow.condition(context))

    def model():
        with pyro.plate("clusters", 3):
            pyro.sample("log10_mass", conditioned)

    samples = run_nuts(model)["log10_mass"].double()
    error = 5.0 * conditioned.variance.sqrt() / math.sqrt(20)  # effective draws: 20 at the very least
    assert (samples.mean(0) - conditioned.mean).abs().lt(error).all()
    trace = pyro.poutine.trace(model).get_trace()
    assert trace.nodes["log10_mass"]["value"].shape == (3,)
    assert Predictive(model, num_samples=5)()["log10_mass"].shape == (5, 3)


def test_the_factor_finds_the_mean_of_a_tiny_population_under_nuts():
    # m_i ~ N(mu, 0.3), x_i | m_i ~ N(m_i, 0.2): mu given x is normal with known moments.
    x, scatter, noise = torch.tensor([14.1, 14.3, 14.6, 14.4], dtype=torch.float64), 0.3, 0.2
    likelihood = MassLikelihood(normal(x.tolist(), [noise] * 4, log10_mass_range=(12.0, 17.0)))
    ends = torch.tensor([12.0, 17.0], dtype=torch.float64)  # masses confined to the training range

    def model():
        mean = pyro.sample("mean", dist.Normal(torch.tensor(14.0, dtype=torch.float64), 1.0))
        with pyro.plate("clusters", 4):
            mass = pyro.sample("mass", dist.Uniform(*ends).mask(False))
        pyro.factor("masses", dist.Normal(mean, scatter).log_prob(mass).sum())
        pyro.factor("galaxies", likelihood(mass).sum())

    samples = run_nuts(model)["mean"]
    precision = 1.0 + 4 / (scatter**2 + noise**2)
    exact_mean = (14.0 + x.sum() / (scatter**2 + noise**2)) / precision
    assert abs(samples.mean() - exact_mean) < 5.0 * precision**-0.5 / math.sqrt(20)
    assert 0.6 < samples.std() * precision**0.5 < 1.5

"""The hierarchical model of the mass function: brute force, coverage, selection, shared draws of the weights."""

from __future__ import annotations

import math

import numpy as np
import pyro
import pytest
import torch
from numpy.testing import assert_allclose
from pyro.infer import MCMC, NUTS
from scipy import integrate, stats

from bayesflowmass.hierarchical.mass_function import MassFunctionModel, selection_seen, simpson_weights
from bayesflowmass.selection.probability import SelectionProbability

LOW, HIGH, PIVOT = 13.2, 15.6, 13.8
GRID = torch.linspace(LOW, HIGH, 241, dtype=torch.float64)
LN_AMPLITUDES = torch.linspace(-1.35, 1.35, 181, dtype=torch.float64)[:, None]
SLOPES = torch.linspace(-1.1, 1.1, 161, dtype=torch.float64)


def log_reference(mass, total=300.0):
    """ln dN/dm of an exponential of 2 per dex, `total` clusters in all."""
    rate = 2.0
    norm = rate / (1.0 - math.exp(-rate * (HIGH - LOW)))
    return math.log(total * norm) - rate * (mass - LOW)


def probability(mass):
    """P(select | m): half at 13.5."""
    return 1.0 / (1.0 + np.exp(-(np.asarray(mass) - 13.5) / 0.1))


def model(selection=True):
    seen = torch.from_numpy(probability(GRID.numpy())) if selection else torch.ones_like(GRID)
    return MassFunctionModel(GRID, log_reference(GRID), seen, pivot=PIVOT)


def gaussian_likelihoods(x, scale=0.2):
    """ln p(x | m), (n, g)."""
    return -0.5 * ((GRID - torch.as_tensor(x)[:, None]) / scale) ** 2


def selected_likelihoods(x):
    """ln p(x, selected | m): what a flow learns that was trained on selected clusters."""
    return gaussian_likelihoods(x) + torch.from_numpy(probability(GRID.numpy())).log()


def simulate(rng, scale=0.2):
    """ln A and b of their prior, and noisy masses x of the clusters that were selected."""
    ln_amplitude, slope = 0.3 * rng.standard_normal(), 0.25 * rng.standard_normal()
    mass = np.linspace(LOW, HIGH, 4801)
    rate = np.exp(ln_amplitude + log_reference(mass)) * 10.0 ** (slope * (mass - PIVOT))
    cdf = integrate.cumulative_trapezoid(rate, mass, initial=0.0)
    truth = np.interp(rng.random(rng.poisson(cdf[-1])), cdf / cdf[-1], mass)
    truth = truth[rng.random(truth.size) < probability(truth)]
    return (ln_amplitude, slope), truth + scale * rng.standard_normal(truth.size)


def marginal_ranks(log_posterior, truth):
    """P(parameter < truth) under the posterior on the grid of amplitudes and slopes."""
    p = (log_posterior - log_posterior.max()).exp().numpy()
    ranks = []
    for axis, nodes, value in ((1, LN_AMPLITUDES[:, 0], truth[0]), (0, SLOPES, truth[1])):
        cdf = integrate.cumulative_trapezoid(p.sum(axis), nodes, initial=0.0)
        ranks.append(np.interp(value, nodes, cdf / cdf[-1]))
    return ranks


def test_the_likelihood_is_that_of_adaptive_quadrature():
    x, ln_amplitude, slope = np.array([13.4, 14.0, 14.9]), 0.2, -0.3

    def rate(m):
        return math.exp(ln_amplitude + log_reference(m)) * 10.0 ** (slope * (m - PIVOT))

    def integral(f, *points):
        return integrate.quad(f, LOW, HIGH, points=points or None, epsabs=1e-13, epsrel=1e-12, limit=400)[0]

    exact = -integral(lambda m: rate(m) * probability(m))
    for value in x:
        exact += math.log(integral(lambda m, v=value: rate(m) * math.exp(-0.5 * ((m - v) / 0.2) ** 2), value))
    found = model().log_likelihood(
        gaussian_likelihoods(x),
        torch.tensor(ln_amplitude, dtype=torch.float64),
        torch.tensor(slope, dtype=torch.float64),
    )
    assert abs(float(found) - exact) < 1e-6


def test_shapes_broadcast_over_draws_amplitudes_and_slopes():
    likelihoods = torch.stack([gaussian_likelihoods([13.5, 14.0]), gaussian_likelihoods([13.6, 14.1])])
    found = model().log_likelihood(likelihoods, LN_AMPLITUDES, SLOPES)
    assert found.shape == (2, 181, 161)
    one = model().log_likelihood(likelihoods[1], LN_AMPLITUDES[7, 0], SLOPES[11])
    assert_allclose(found[1, 7, 11], one, rtol=1e-12)
    pairs = model().log_likelihood(likelihoods, LN_AMPLITUDES[:5, 0], SLOPES[:5])
    assert_allclose(pairs, found[:, range(5), range(5)], rtol=1e-12)


def test_constants_of_the_clusters_do_not_matter():
    likelihoods = gaussian_likelihoods([13.5, 14.0])
    shifted = likelihoods + torch.tensor([[700.0], [-900.0]], dtype=torch.float64)
    difference = model().log_likelihood(shifted, LN_AMPLITUDES, SLOPES) - model().log_likelihood(
        likelihoods, LN_AMPLITUDES, SLOPES
    )
    assert_allclose(difference, -200.0, atol=1e-8)


def test_truth_is_recovered_with_nominal_coverage_and_not_without_the_selection():
    # 150 populations of about 140 selected clusters. A bias of half a standard deviation fails the first test
    # with probability 0.99; without the selection the amplitude comes out low by several.
    rng = np.random.default_rng(11)
    with_selection, without = [], []
    for _ in range(150):
        truth, x = simulate(rng)
        likelihoods = selected_likelihoods(x)
        for ranks, selection in ((with_selection, True), (without, False)):
            grid = model(selection).log_posterior(likelihoods, LN_AMPLITUDES, SLOPES)
            ranks.append(marginal_ranks(grid, truth))
    for ranks in np.array(with_selection).T:
        assert stats.kstest(ranks, "uniform").pvalue > 1e-3
        assert abs(np.mean(np.abs(ranks - 0.5) < 0.34) - 0.68) < 3.5 * math.sqrt(0.68 * 0.32 / 150)
    assert stats.kstest(np.array(without)[:, 0], "uniform").pvalue < 1e-6


def test_draws_that_are_shared_widen_the_population_and_draws_of_their_own_do_not():
    # All masses of a draw are off together by 0.1 dex times a standard normal.
    rng = np.random.default_rng(4)
    _, x = simulate(rng)
    offsets = 0.1 * rng.standard_normal(24)
    draws = torch.stack([selected_likelihoods(x + offset) for offset in offsets])
    each = model().log_posterior(draws, LN_AMPLITUDES, SLOPES)
    each = (each - each.logsumexp((1, 2), keepdim=True)).exp()

    def slope_sd(density):
        p = density.sum(0) / density.sum()
        mean = (p * SLOPES).sum()
        return float((p * (SLOPES - mean) ** 2).sum().sqrt())

    blurred = draws.logsumexp(0) - math.log(24)
    own = model().log_posterior(blurred, LN_AMPLITUDES, SLOPES)
    own_sd = slope_sd((own - own.max()).exp())
    assert slope_sd(each.mean(0)) > 1.3 * own_sd
    assert slope_sd(each[0]) < 1.3 * own_sd


@pytest.mark.parametrize("draws", [None, 3])
def test_the_pyro_model_under_nuts_agrees_with_the_grid(draws):
    _, x = simulate(np.random.default_rng(2))
    likelihoods = selected_likelihoods(x[:40])
    if draws is not None:
        likelihoods = torch.stack([likelihoods] * draws)
    population = MassFunctionModel(
        GRID, log_reference(GRID, 60.0), torch.from_numpy(probability(GRID.numpy())), pivot=PIVOT
    )
    grid = population.log_posterior(likelihoods, LN_AMPLITUDES, SLOPES)
    if draws is not None:
        grid = grid.logsumexp(0)
    p = (grid - grid.logsumexp((0, 1))).exp()
    with torch.random.fork_rng(devices=[]):
        pyro.set_rng_seed(5)
        sampler = MCMC(
            NUTS(population, max_tree_depth=4), num_samples=80, warmup_steps=40, disable_progbar=True
        )
        sampler.run(likelihoods)
    for name, nodes in (("ln_amplitude", LN_AMPLITUDES), ("slope", SLOPES)):
        mean = (p * nodes).sum()
        sd = (p * (nodes - mean) ** 2).sum().sqrt()
        samples = sampler.get_samples()[name]
        assert abs(samples.mean() - mean) < 5.0 * sd / math.sqrt(20)
        assert 0.6 < samples.std() / sd < 1.5


def test_the_selection_that_an_exact_model_sees_is_the_selection():
    # Flat masses, Gaussian data; the exact PDF of a selected cluster is p(x | m) P(select | m), normalised. 200 000
    # mocks give P to 1 % where the grid's ends, beyond which there are none, are far.
    rng = np.random.default_rng(8)
    mass = rng.uniform(LOW, HIGH, 200_000)
    mass = mass[rng.random(mass.size) < probability(mass)]
    blocks = []
    for x in np.array_split(mass + 0.2 * rng.standard_normal(mass.size), 100):
        joint = selected_likelihoods(x)
        blocks.append(joint - (joint.exp() @ simpson_weights(GRID)).log()[:, None])
    seen = selection_seen(blocks, 200_000, (LOW, HIGH))
    assert_allclose(seen, probability(GRID.numpy()), atol=0.02)
    both = selection_seen([torch.stack([b, b]) for b in blocks[:3]], 200_000, (LOW, HIGH))
    assert both.shape == (2, 241)
    with pytest.raises(ValueError, match="at least one mock cluster"):
        selection_seen([], 5, (LOW, HIGH))


def test_evidence_favours_light_masses_unless_each_draw_has_the_selection_it_sees():
    # Draws whose PDFs are shifted by -0.1, 0 and 0.1 dex; the second is right. Where haloes get rarer with mass, light
    # PDFs raise the likelihood of every population; normalised, a common shift is all but absorbed by ln A and b.
    rng = np.random.default_rng(15)
    shifts = (-0.1, 0.0, 0.1)

    def likelihoods(x, shift):
        joint = selected_likelihoods(x + shift)
        return joint - (joint.exp() @ simpson_weights(GRID)).log()[:, None]

    mass = rng.uniform(LOW, HIGH, 40_000)
    mass = mass[rng.random(mass.size) < probability(mass)]
    mocks = np.array_split(mass + 0.2 * rng.standard_normal(mass.size), 50)
    seen = [selection_seen((likelihoods(x, shift) for x in mocks), 40_000, (LOW, HIGH)) for shift in shifts]
    own = MassFunctionModel(GRID, log_reference(GRID), torch.stack(seen), pivot=PIVOT)
    evidence = torch.zeros(2, 3, dtype=torch.float64)
    for _ in range(6):
        _, x = simulate(rng)
        draws = torch.stack([likelihoods(x, shift) for shift in shifts])
        for row, population in enumerate((model(), own)):
            evidence[row] += population.log_posterior(draws, LN_AMPLITUDES, SLOPES).logsumexp((1, 2))
    assert evidence[0, 0] > evidence[0, 1] + 100.0
    assert evidence[1, 1] > evidence[1].max() - 3.0


def test_each_draw_can_have_its_own_selection():
    likelihoods = torch.stack([selected_likelihoods([13.5, 14.0]), selected_likelihoods([13.6, 14.1])])
    own = torch.from_numpy(np.stack([probability(GRID.numpy()), np.ones(241)]))
    population = MassFunctionModel(GRID, log_reference(GRID), own, pivot=PIVOT)
    found = population.log_likelihood(likelihoods, LN_AMPLITUDES, SLOPES)
    for draw, selection in enumerate((True, False)):
        alone = model(selection).log_likelihood(likelihoods[draw], LN_AMPLITUDES, SLOPES)
        assert_allclose(found[draw], alone, rtol=1e-12)
    one = population.log_likelihood(likelihoods, LN_AMPLITUDES[3, 0], SLOPES[5])
    assert_allclose(one, found[:, 3, 5], rtol=1e-12)


def test_simpson_integrates_cubics_exactly():
    weights = simpson_weights(GRID)
    assert_allclose((weights * GRID**3).sum(), (HIGH**4 - LOW**4) / 4, rtol=1e-13)


@pytest.mark.parametrize("nodes", [torch.linspace(0, 1, 4), torch.tensor([0.0, 0.1, 1.0]), torch.zeros(1)])
def test_a_grid_that_simpson_cannot_take_is_refused(nodes):
    with pytest.raises(ValueError, match="odd number of evenly spaced nodes"):
        simpson_weights(nodes)


def test_the_model_names_what_is_wrong_with_its_input():
    with pytest.raises(ValueError, match=r"selection has shape \(240,\)"):
        MassFunctionModel(GRID, log_reference(GRID), torch.ones(240))
    with pytest.raises(ValueError, match="must be a probability"):
        MassFunctionModel(GRID, log_reference(GRID), 1.5 * torch.ones_like(GRID))


def mocks(n, redshift_range=(0.1, 0.1), seed=0):
    rng = np.random.default_rng(seed)
    mass, z = rng.uniform(12.6, 15.6, n), rng.uniform(*redshift_range, n)
    exact = probability(mass - 3.0 * (z - 0.1))
    return mass, z, rng.random(n) < exact


def test_the_probability_of_selection_is_found_within_its_statistical_error():
    fitted = SelectionProbability(*mocks(40000))
    at = np.linspace(12.6, 15.6, 61)
    # 1333 mocks in each 0.1 dex: 0.014 where P is a half.
    assert_allclose(fitted(at, 0.1), probability(at), atol=0.045)
    assert np.abs(fitted(at, 0.1) - probability(at)).mean() < 0.006


def test_the_probability_of_selection_follows_the_redshift():
    fitted = SelectionProbability(*mocks(100000, (0.05, 0.25)))
    for z in (0.06, 0.15, 0.24):
        at = np.linspace(12.7, 15.5, 29)
        assert_allclose(fitted(at, z), probability(at - 3.0 * (z - 0.1)), atol=0.05)


def test_where_all_or_none_are_selected_the_probability_is_one_or_nought():
    mass = np.random.default_rng(0).uniform(13.2, 15.6, 500)
    assert SelectionProbability(mass, 0.1, np.ones(500, bool))(14.0, 0.1) > 0.999
    assert SelectionProbability(mass, 0.1, np.zeros(500, bool))(14.0, 0.1) < 0.001


def test_the_probability_of_selection_refuses_what_it_was_not_shown():
    fitted = SelectionProbability(*mocks(2000))
    with pytest.raises(ValueError, match=r"log10 mass 12 to 12 leaves the range of the mocks"):
        fitted(12.0, 0.1)
    with pytest.raises(ValueError, match=r"redshift 0.3 to 0.3 leaves the range"):
        fitted(14.0, 0.3)
    with pytest.raises(ValueError, match="one of each per mock cluster"):
        SelectionProbability(np.ones(5), 0.1, np.ones(4, bool))
    with pytest.raises(ValueError, match="5 mock clusters are too few"):
        SelectionProbability(np.linspace(13, 14, 5), 0.1, np.ones(5, bool))

"""What draws of the weights disagree about: mutual information against closed forms and quadrature."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import integrate, stats

from bayesflowmass.posterior import MassPosterior, monte_carlo_error, number_of_draws

RANGE = (13.2, 15.6)


def draws(means, sds, **options):
    """Normal draws (D, n) of each of n clusters."""
    distribution = torch.distributions.Normal(
        torch.tensor(means, dtype=torch.float64), torch.tensor(sds, dtype=torch.float64)
    )
    return MassPosterior(distribution, **({"log10_mass_range": RANGE, "redshift": 0.117} | options))


def exact_information(means, sds, weight=lambda m: 1.0, limits=(12.0, 17.0)):
    """sum_d s_d int q_d ln(q_d / q) by scipy's quadrature, q_d the reweighted draws."""
    parts = [stats.norm(mean, sd) for mean, sd in zip(means, sds, strict=True)]
    points = sorted(np.clip(means, *limits))

    def integral(function):
        return integrate.quad(function, *limits, points=points, limit=400, epsabs=1e-12)[0]

    evidence = np.array([integral(lambda m, p=p: p.pdf(m) * weight(m)) for p in parts])
    share = evidence / evidence.sum()

    def pooled(m):
        return sum(p.pdf(m) for p in parts) * weight(m) / evidence.sum()

    def term(m, p, z):
        own = p.pdf(m) * weight(m) / z
        return 0.0 if own < 1e-300 else own * np.log(own / pooled(m))

    each = [integral(lambda m, p=p, z=z: term(m, p, z)) for p, z in zip(parts, evidence, strict=True)]
    return float(share @ each)


def test_equal_draws_share_no_information_with_the_mass():
    posterior = draws([[14.0], [14.0], [14.0]], [[0.1], [0.1], [0.1]])
    assert_allclose(posterior.mutual_information, 0.0, atol=1e-10)
    assert_allclose(posterior.sigma_epistemic, 0.0, atol=1e-7)


def test_draws_that_do_not_overlap_share_all_the_information_there_is():
    posterior = draws([[13.6], [14.2], [14.8], [15.4]], [[0.01]] * 4)
    assert_allclose(posterior.mutual_information, np.log(4.0), atol=1e-6)


@pytest.mark.parametrize(
    ("means", "sds"),
    [([14.0, 14.1], [0.1, 0.1]), ([14.0, 14.3, 14.1], [0.1, 0.2, 0.05]), ([14.4, 14.401], [0.15, 0.15])],
)
def test_mutual_information_is_that_of_quadrature(means, sds):
    posterior = draws([[m] for m in means], [[s] for s in sds])
    assert_allclose(posterior.mutual_information[0], exact_information(means, sds), rtol=1e-4, atol=1e-9)


def test_small_disagreements_follow_the_closed_form():
    # To leading order normal draws of one width have I = var(means) / (2 sigma^2).
    rng = np.random.default_rng(1)
    means = 14.0 + 0.002 * rng.normal(size=(31, 1))
    posterior = draws(means.tolist(), [[0.1]] * 31)
    assert_allclose(posterior.mutual_information, means.var(0) / (2 * 0.1**2), rtol=1e-3)


def test_under_another_prior_the_draws_weigh_as_much_as_they_predict():
    means, sds = [13.9, 14.3], [0.1, 0.2]
    posterior = draws([[m] for m in means], [[s] for s in sds]).with_prior("hmf")
    density = posterior.prior.log_density(np.array([0.117]))

    def weight(m):
        return float(density(torch.tensor([[m]], dtype=torch.float64)).exp())

    scale = weight(14.0)
    expected = exact_information(means, sds, lambda m: weight(m) / scale, RANGE)
    assert_allclose(posterior.mutual_information[0], expected, rtol=1e-4)


@pytest.mark.parametrize("prior", ["flat", "hmf"])
def test_each_draw_is_the_posterior_of_a_model_with_those_weights(prior):
    means, sds = [[13.9, 14.6], [14.3, 15.0]], [[0.1, 0.2], [0.2, 0.05]]
    posterior = draws(means, sds).with_prior(prior)
    at = np.array([14.0, 14.9])
    found = posterior.of_draws(torch.from_numpy(at))
    assert found.table.x.shape[0] == 4
    for d in range(2):
        alone = MassPosterior(
            torch.distributions.Normal(torch.tensor(means[d]).double(), torch.tensor(sds[d]).double()),
            log10_mass_range=RANGE,
            redshift=0.117,
        ).with_prior(prior)
        rows = slice(2 * d, 2 * d + 2)
        x = found.table.x[rows].numpy().T
        # Nodes are those of the mixture: between them the cubic of a draw is of fourth order.
        assert_allclose(found.table.cdf[rows].T, alone.cdf(x), atol=1e-5)
        assert_allclose(found.table.pdf[rows].T, alone.pdf(x), atol=1e-4 * alone.pdf(x).max())
        assert_allclose(found.log_pdf_at[d], alone.log_pdf(at), atol=1e-5)


def test_a_change_of_mass_definition_keeps_the_information():
    posterior = draws([[14.0], [14.2]], [[0.1], [0.1]])
    converted = posterior.with_mass_definition("500c")
    assert_allclose(converted.mutual_information, posterior.mutual_information, rtol=1e-12)


def test_a_point_model_has_no_information_to_share():
    posterior = MassPosterior(
        torch.distributions.Normal(torch.tensor([14.0]).double(), 0.1), log10_mass_range=RANGE
    )
    assert posterior.mutual_information is None
    assert posterior.n_draws is None


@pytest.mark.parametrize("error", [0.0, 1.0, -0.1])
def test_impossible_errors_are_refused(error):
    with pytest.raises(ValueError, match="between 0 and 1"):
        number_of_draws(error)


@pytest.mark.parametrize("error", [0.9, 0.5, 0.13, 0.05])
def test_the_fewest_draws_are_those_that_are_just_enough(error):
    n = number_of_draws(error)
    assert monte_carlo_error(n) <= error < (monte_carlo_error(n - 1) if n > 2 else math.inf)
    # A whole number of draws that leaves exactly the error asked for is not one too many.
    assert number_of_draws(monte_carlo_error(n)) == n


def test_errors_of_a_spread_follow_from_the_number_of_draws():
    assert number_of_draws() == 31
    assert [monte_carlo_error(n) for n in (2, 3, 33)] == pytest.approx([2**-0.5, 0.5, 0.125])
    rng = np.random.default_rng(0)
    spreads = rng.normal(size=(20_000, 31)).std(1, ddof=1)
    # To leading order in 1 / D; 20 000 of them know it to half a per cent.
    assert spreads.std() / spreads.mean() == pytest.approx(monte_carlo_error(31), rel=0.03)


def test_one_draw_has_no_spread():
    with pytest.raises(ValueError, match="at least 2"):
        monte_carlo_error(1)

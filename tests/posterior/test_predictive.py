"""Predictive distributions: samples and densities are of one distribution, cluster by cluster and together."""

from __future__ import annotations

import math

import numpy as np
import pyro
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import integrate, stats
from torch.distributions import Normal

from bayesflowmass.posterior import JointPredictiveMass, PredictiveMass

MEANS, SDS = (
    np.array([[13.9, 14.6], [14.3, 14.9], [14.0, 14.4]]),
    np.array([[0.1, 0.2], [0.15, 0.1], [0.1, 0.3]]),
)


def draws():
    return Normal(torch.from_numpy(MEANS), torch.from_numpy(SDS))


def joint_density(x, y):
    """1/3 sum_d N(x) N(y) by scipy."""
    return float(
        np.mean(
            [
                stats.norm(m[0], s[0]).pdf(x) * stats.norm(m[1], s[1]).pdf(y)
                for m, s in zip(MEANS, SDS, strict=True)
            ]
        )
    )


def test_densities_are_mixtures_over_the_draws():
    value = torch.tensor([14.1, 14.7], dtype=torch.float64)
    margins = stats.norm(MEANS, SDS).pdf(value.numpy()).mean(0)
    assert_allclose(PredictiveMass(draws()).log_prob(value).exp(), margins, rtol=1e-12)
    together = PredictiveMass(draws()).joint().log_prob(value).exp()
    assert_allclose(together, joint_density(14.1, 14.7), rtol=1e-12)
    assert abs(float(together) / margins.prod() - 1.0) > 0.05


def test_probabilities_are_mixtures_over_the_draws_and_those_of_one_network_are_its_own():
    value = torch.tensor([14.1, 14.7], dtype=torch.float64)
    assert_allclose(
        PredictiveMass(draws()).cdf(value), stats.norm(MEANS, SDS).cdf(value.numpy()).mean(0), rtol=1e-12
    )
    one = PredictiveMass(Normal(torch.from_numpy(MEANS[0]), torch.from_numpy(SDS[0])))
    assert_allclose(one.cdf(value), stats.norm(MEANS[0], SDS[0]).cdf(value.numpy()), rtol=1e-12)


def test_the_margins_of_the_joint_density_are_those_of_single_clusters():
    joint = JointPredictiveMass(draws())
    y = torch.linspace(12.0, 17.0, 5001, dtype=torch.float64)
    at = torch.stack([torch.full_like(y, 14.05), y], dim=-1)
    margin = integrate.trapezoid(joint.log_prob(at).exp(), y)
    expected = PredictiveMass(draws()).log_prob(torch.tensor([14.05, 14.0], dtype=torch.float64)).exp()[0]
    assert margin == pytest.approx(float(expected), rel=1e-9)


def test_moments_of_the_joint_are_those_of_quadrature():
    joint = JointPredictiveMass(draws())
    x = np.linspace(12.5, 16.5, 801)
    grid = torch.from_numpy(np.stack(np.meshgrid(x, x, indexing="ij"), axis=-1))
    density = joint.log_prob(grid).exp().numpy() * (x[1] - x[0]) ** 2
    mean = np.array([(density * grid[..., i].numpy()).sum() for i in range(2)])
    assert_allclose(joint.mean, mean, atol=1e-9)
    centred = [grid[..., i].numpy() - mean[i] for i in range(2)]
    covariance = [[(density * a * b).sum() for a in centred] for b in centred]
    assert_allclose(joint.covariance_matrix, covariance, atol=1e-9)
    assert_allclose(joint.variance, np.diag(covariance), atol=1e-9)
    assert_allclose(PredictiveMass(draws()).variance, np.diag(covariance), atol=1e-9)


@pytest.mark.parametrize("together", [False, True])
def test_samples_follow_the_density_and_its_correlations(together):
    """Chi-squared of a two-dimensional histogram against the density: 5 sigma, and the other kind fails it."""
    predictive = PredictiveMass(draws())
    n = 40_000
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        samples = (predictive.joint() if together else predictive).sample((n,)).numpy()
    edges = np.linspace(13.5, 15.5, 9)
    counts = np.histogramdd(samples, [edges, edges])[0]
    cdf = stats.norm(MEANS[:, :, None], SDS[:, :, None]).cdf(edges)
    cells = np.diff(cdf, axis=-1)
    joint = np.einsum("di,dj->dij", cells[:, 0], cells[:, 1]).mean(0)
    apart = np.outer(cells[:, 0].mean(0), cells[:, 1].mean(0))

    def distance(expected):
        kept = expected * n > 10
        chi2 = ((counts - expected * n) ** 2 / (expected * n))[kept].sum()
        return (chi2 - kept.sum()) / math.sqrt(2.0 * kept.sum())

    assert abs(distance(joint if together else apart)) < 5.0
    assert distance(apart if together else joint) > 20.0


def test_a_point_model_has_no_correlations():
    point = PredictiveMass(Normal(torch.from_numpy(MEANS[0]), torch.from_numpy(SDS[0])))
    value = torch.tensor([14.1, 14.7], dtype=torch.float64)
    assert_allclose(point.joint().log_prob(value), point.log_prob(value).sum())
    assert_allclose(point.joint().covariance_matrix, np.diag(SDS[0] ** 2))
    assert point.joint().sample((3,)).shape == point.sample((3,)).shape == (3, 2)


def test_both_are_sites_of_pyro_models():
    predictive = PredictiveMass(draws())

    def apart():
        with pyro.plate("clusters", 2):
            return pyro.sample("m", predictive)

    def together():
        return pyro.sample("m", predictive.joint())

    for model, distribution in ((apart, predictive), (together, predictive.joint())):
        trace = pyro.poutine.trace(model).get_trace()
        value = trace.nodes["m"]["value"]
        assert value.shape == (2,)
        assert float(trace.log_prob_sum()) == pytest.approx(float(distribution.log_prob(value).sum()))


def test_draws_of_another_shape_are_refused():
    for kind in (PredictiveMass, JointPredictiveMass):
        with pytest.raises(ValueError, match=r"batch shape \(draws, clusters\); found \(2, 3, 4\)"):
            kind(Normal(torch.zeros(2, 3, 4), 1.0))

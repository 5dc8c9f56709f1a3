"""What a survey says of its sky: quadrature, a toy world whose answer is known, a wrong selection, both samplers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import integrate, stats

from bayesflowmass.hierarchical import SummaryLikelihood, SurveyModel, survey
from bayesflowmass.posterior.priors import FlatPrior, SelectedPrior

RANGE, PRIORS = (13.2, 15.6), {"bias": (-0.2, 0.2)}
POPULATION = FlatPrior(RANGE)


def chosen(mass, redshift):
    """P of being in the sample: half at 14.3."""
    return stats.norm.cdf((np.asarray(mass) - 14.3) / 0.1)


def toy_world(n, rng, *, bias=None, keep=None):
    """Galaxies N of a cluster, and an estimate that is off by a bias common to all: t (n, 2), masses, theta (n, 1)."""
    mass = rng.uniform(*RANGE, n)
    mass = mass if keep is None else mass[rng.random(n) < keep(mass, None)]
    theta = rng.uniform(*PRIORS["bias"], len(mass)) if bias is None else np.full(len(mass), bias)
    # The number says little of the mass, so that the bias shows in where the estimates lie.
    count = rng.poisson(20.0 * np.exp(0.7 * (mass - 14.0) + 0.8 * rng.standard_normal(len(mass)))).clip(1)
    estimate = mass + theta + 0.15 * rng.standard_normal(len(mass))
    t = np.stack([np.log(count), np.where(count >= 10, estimate, np.nan)], axis=1)
    return t, mass, theta[:, None]


@pytest.fixture(scope="module")
def learnt():
    t, mass, theta = map(torch.from_numpy, toy_world(8000, np.random.default_rng(1)))
    return SummaryLikelihood.fit(
        t,
        torch.full_like(mass, 0.1),
        mass,
        theta,
        priors=PRIORS,
        least=10,
        log10_mass_range=RANGE,
        n_updates=500,
    )


def posterior_of(likelihood, t, prior):
    """Mean and standard deviation of the bias, on a grid."""
    model = SurveyModel(likelihood, t, np.full(len(t), 0.1), prior)
    nodes = torch.linspace(*PRIORS["bias"], 41, dtype=torch.float64)
    with torch.no_grad():
        weight = torch.stack([model.log_evidence(node[None]).sum() for node in nodes]).softmax(0)
    mean = float(weight @ nodes)
    return mean, math.sqrt(float(weight @ (nodes - mean) ** 2))


def seen(n, bias, seed):
    t = toy_world(8 * n, np.random.default_rng(seed), bias=bias, keep=chosen)[0]
    return t[np.isfinite(t).all(axis=1)][:n]


def test_the_evidence_of_a_cluster_is_that_of_a_fine_grid(learnt):
    t = seen(3, 0.1, 4)
    prior = SelectedPrior(POPULATION, chosen)
    theta = torch.tensor([0.07], dtype=torch.float64)
    found = SurveyModel(learnt, t, np.full(3, 0.1), prior).log_evidence(theta).detach()
    mass = np.linspace(*RANGE, 2401)
    for row, value in zip(torch.from_numpy(t), found, strict=True):
        z = torch.full((len(mass),), 0.1, dtype=torch.float64)
        with torch.no_grad():
            curves = [
                x.exp().numpy() * chosen(mass, None) for x in learnt(row, z, torch.from_numpy(mass), theta)
            ]
        one, norm = (integrate.simpson(curve, x=mass) for curve in curves)
        # Simpson's rule with 0.06 dex between nodes, for curves 0.1 dex wide.
        assert_allclose(float(value), math.log(one / norm), atol=5e-3)


def test_a_common_bias_is_found_and_shrinks_with_the_number_of_clusters(learnt):
    prior = SelectedPrior(POPULATION, chosen)
    mean, sd = posterior_of(learnt, seen(400, 0.12, 2), prior)
    # The estimate alone: 0.15 dex and the width of the population, about 0.4 dex, over the root of 400.
    assert abs(mean - 0.12) < 4 * sd
    assert sd < 0.6 * posterior_of(learnt, seen(100, 0.12, 3), prior)[1]


def test_a_wrong_selection_is_a_wrong_answer(learnt):
    """The test above can fail: what lies above 14.3 dex is taken for all there is."""
    mean, sd = posterior_of(learnt, seen(400, -0.1, 2), POPULATION)
    assert abs(mean + 0.1) > 3 * sd


def test_masses_are_corrected_by_what_all_clusters_say(learnt):
    rng = np.random.default_rng(6)
    t, mass, _ = toy_world(2000, rng, bias=0.15, keep=chosen)
    enough = np.isfinite(t).all(axis=1)
    t, mass = t[enough][:300], mass[enough][:300]
    model = SurveyModel(learnt, t, np.full(300, 0.1), SelectedPrior(POPULATION, chosen))
    density, means, draws = model.masses(torch.full((5, 1), 0.15, dtype=torch.float64))
    mean, variance = (values.numpy() for values in density.moments())
    error = math.sqrt(variance.mean() / 300)
    assert abs(np.mean(mean - mass)) < 5 * error < 0.15
    assert_allclose(means.mean(axis=0), mean, atol=5e-3)
    assert draws.shape == (5, 300)
    assert abs(np.mean(draws - mean)) < 5 * math.sqrt(variance.mean() / 1500)
    ranks = density.cdf_at(torch.from_numpy(mass)[:, None])[:, 0].numpy()
    assert abs(np.mean(np.abs(ranks - 0.5) < 0.34) - 0.68) < 5 * math.sqrt(0.68 * 0.32 / 300)


def test_both_samplers_find_the_posterior_of_the_grid(learnt, monkeypatch):
    monkeypatch.setattr(survey, "_SVI_STEPS", 400)
    prior, t = SelectedPrior(POPULATION, chosen), seen(60, 0.05, 8)
    mean, sd = posterior_of(learnt, t, prior)
    model = SurveyModel(learnt, t, np.full(60, 0.1), prior)
    for draws in (model.sample(n_samples=60, warmup=30, chains=1), model.sample_svi(n_samples=60)):
        assert draws.shape == (1, 60, 1)
        # Sixty draws, of which a chain makes some twenty independent ones.
        assert abs(float(draws.mean()) - mean) < 1.2 * sd
        assert 0.5 < float(draws.std()) / sd < 1.6


def test_a_chain_that_begins_beside_the_maximum_finds_the_same_posterior(learnt, monkeypatch):
    def no_maximum(guide):
        raise torch.linalg.LinAlgError("not positive-definite")

    monkeypatch.setattr(survey.AutoLaplaceApproximation, "laplace_approximation", no_maximum)
    prior, t = SelectedPrior(POPULATION, chosen), seen(60, 0.05, 8)
    mean, sd = posterior_of(learnt, t, prior)
    draws = SurveyModel(learnt, t, np.full(60, 0.1), prior).sample(n_samples=60, warmup=30, chains=1)
    # As above.
    assert abs(float(draws.mean()) - mean) < 1.2 * sd
    assert 0.5 < float(draws.std()) / sd < 1.6


def test_a_cluster_with_too_few_galaxies_is_refused(learnt):
    with pytest.raises(ValueError, match="fewer than 10 galaxies"):
        SurveyModel(learnt, np.array([[math.log(9), 14.0]]), np.array([0.1]), POPULATION)


def test_the_description_makes_the_likelihood_again(learnt):
    again = SummaryLikelihood(**learnt.describe())
    again.load_state_dict(learnt.state_dict())
    arguments = [
        torch.rand(4, 2, dtype=torch.float64) + 14.0,
        *torch.rand(2, 4, dtype=torch.float64),
        torch.zeros(1),
    ]
    for one, other in zip(learnt(*arguments), again.eval()(*arguments), strict=True):
        assert torch.equal(one, other)

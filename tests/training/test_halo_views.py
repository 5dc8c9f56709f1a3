"""A halo seen from several sides counts once where the posterior of the weights counts clusters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from small_model import toy_catalog
from torch import nn

from bayesflowmass.bayes import NormalPrior, VariationalPosterior
from bayesflowmass.encoders import ContextEncoder, KDEEncoder
from bayesflowmass.flows import TrainingPopulation
from bayesflowmass.train import train
from bayesflowmass.training.fit import fit
from bayesflowmass.training.known_population import population_of_halos
from bayesflowmass.training.sources import EachHaloOnce, FixedSource, halo_numbers, one_view_of_each

HALO = torch.tensor([7, 3, 3, 9, 3, 7])


def test_one_row_of_each_halo_is_taken():
    rows = one_view_of_each(HALO, 0, 0)
    assert sorted(HALO[rows].tolist()) == [3, 7, 9]
    assert (rows.diff() > 0).all()


def test_every_view_is_as_likely():
    taken = torch.zeros(6)
    for index in range(3000):
        taken[one_view_of_each(HALO, 5, index)] += 1
    # Five standard deviations of a binomial; a view that is never taken misses by more than thirty.
    expected = torch.tensor([1 / 2, 1 / 3, 1 / 3, 1.0, 1 / 3, 1 / 2])
    error = (expected * (1 - expected) / 3000).sqrt()
    assert ((taken / 3000 - expected).abs() <= 5 * error).all()


def test_clusters_without_halos_have_no_numbers():
    assert halo_numbers(toy_catalog(5)) is None


def test_numbers_of_halos_are_equal_for_equal_names():
    catalog = toy_catalog(4).with_columns(halo_id=np.array(["b", "a", "b", "c"]))
    assert halo_numbers(catalog).tolist() == [1, 0, 1, 2]


def of_views(copies: int, halo_is_known: bool):
    """Each of 60 clusters several times."""
    rows = np.tile(np.arange(60), copies)
    catalog = toy_catalog(60, seed=1)[rows]
    halo = rows if halo_is_known else np.arange(len(rows))
    return catalog.with_columns(cluster_id=np.arange(len(rows)), halo_id=halo)


@pytest.mark.parametrize("method", ["variational", "laplace"])
def test_copies_of_a_cluster_teach_nothing_where_their_halo_is_known(method, tmp_path):
    found = {}
    for name, copies, known in (("once", 1, True), ("copies", 10, True), ("unknown", 10, False)):
        model = train(
            of_views(copies, known),
            out=tmp_path / name,
            encoder=ContextEncoder(KDEEncoder(grid=(8, 8)), constant=1.0),
            flow={"kind": "affine", "shared": True, "hidden": (16, 8)},
            options={"max_updates": 60, "validate_every": 20, "batch_size": 32, "patience_updates": None},
            weights={"method": method, "which": "last", "fit": {"max_updates": 400, "validate_every": 200}},
            device="cpu",
            progress=False,
        )
        found[name] = float(np.mean(model.posterior(toy_catalog(40, seed=2), n_draws=64).sigma_epistemic))
    # Ten times the data would make it smaller by about the root of ten.
    assert found["copies"] == pytest.approx(found["once"], rel=0.4)
    assert found["unknown"] < 0.6 * found["copies"]


class TwoMeans(nn.Module):
    """y ~ N(mean of its group, 1), without a density of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.means = nn.Linear(2, 1, bias=False).double()

    def forward(self, y, group):
        return torch.distributions.Normal(self.means(group)[:, 0], 1.0).log_prob(y)

    log_prob = forward


def test_a_halo_counts_once_however_many_views_it_has():
    """Singles, 20 halos of 2 views and 30 of 15: the posterior is that of as many independent numbers as halos."""
    torch.manual_seed(0)
    views = torch.cat([torch.ones(150), torch.full((20,), 2), torch.full((30,), 15)]).long()
    halo = torch.repeat_interleave(torch.arange(200), views)
    group = (halo >= 150).long()
    x = nn.functional.one_hot(group, 2).double()
    y = torch.randn(200, dtype=torch.float64)[halo] + 0.5 * torch.randn(len(halo), dtype=torch.float64)
    source = EachHaloOnce(FixedSource(x, y, halo))
    weight = source.epoch(0).weight
    assert float(weight.mean()) == pytest.approx(1.0, rel=1e-12)
    assert weight[group == 1].sum() / weight.sum() == pytest.approx(50 / 200, rel=1e-12)

    def maximise(objective, *, seed, name):
        fit(
            objective, source, (x, y), learning_rate=0.05, betas=(0.9, 0.99), schedule="cosine", final_fraction=0.0,
            batch_size=len(y), max_updates=600, validate_every=300, patience_updates=None, keep="last", device="cpu",
            progress=False,
        )  # fmt: skip

    rows = one_view_of_each(halo, 0, 0)
    posterior = VariationalPosterior.fit(
        TwoMeans(), (x[rows], y[rows]), maximise=maximise, which="all", guide="mean_field", estimator="local",
        prior=NormalPrior(10.0), trained=True, guide_options={"init_scale": 0.01},
    )  # fmt: skip
    # Conjugate: precision 1 / 10^2 and one for each halo; the mean is that of the means of halos.
    means = torch.stack([y[halo == i].mean() for i in range(200)])
    precision = torch.tensor([150.0, 50.0]).double() + 0.01
    exact = torch.stack([means[:150].sum(), means[150:].sum()]) / precision
    found = posterior.guide.standard_deviation["means.weight"][0]
    # Counted view by view, the second group would have 490^-1/2 / 50^-1/2 = 0.32 of its width. What is left is the
    # noise of the last steps.
    assert_allclose(found, precision.rsqrt(), rtol=0.1)
    assert ((posterior.guide.mean["means.weight"][0] - exact) * precision.sqrt()).abs().max() < 0.3


@pytest.mark.parametrize(
    "known", [None, TrainingPopulation.of(torch.tensor([13.0, 14.3, 16.0]), torch.tensor([0.0, -2.0]))]
)
def test_the_density_stays_that_of_the_population_of_the_views(known):
    """Masses are flat because massive halos are shown often; weights by halo may not make them look rare."""
    rng = np.random.default_rng(1)
    n = 40000
    mass = rng.uniform(13.2, 15.6, n)
    if known is not None:
        mass = mass[(mass < 14.3) | (rng.random(n) < np.exp(-2.0))]
    observed = torch.from_numpy(mass + 0.3 * rng.normal(size=len(mass)))
    mass, weight = torch.from_numpy(mass), torch.from_numpy(np.where(mass > 14.7, 0.1, 1.0))
    weight = weight / weight.mean()
    location = torch.zeros((), dtype=torch.float64, requires_grad=True)

    def gradient(population):
        # The right density for flat masses, away from the ends, is N(observed, 0.3); its location is moved.
        q = torch.distributions.Normal(observed + location, 0.3)
        log_prob = q.log_prob(mass)
        if population is not None:
            ends = torch.cat([torch.tensor([-1e9]), population.edges, torch.tensor([1e9])]).double()
            probabilities = q.cdf(ends[:, None]).diff(dim=0)
            log_prob = population.log_likelihood(mass, log_prob, probabilities)
        inside = (observed > 14.0) & (observed < 15.0)
        terms = torch.autograd.grad((weight * log_prob)[inside].mean(), location)[0]
        return float(terms)

    naive = gradient(known)
    told = gradient(population_of_halos(known, mass, weight))
    # A gradient of 1 / sigma^2 = 11 for each dex: the naive one asks for a shift of hundredths of a dex.
    assert abs(naive) > 0.3
    assert abs(told) < 0.15 * abs(naive)

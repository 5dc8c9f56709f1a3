"""Every density of a posterior is the slope of its cdf, integrates to one, and knows its own quantiles and moments."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from bayesflowmass.cosmology import concentration_median, convert_mass
from bayesflowmass.flows import GaussianMixture, build_flow
from bayesflowmass.posterior import FlatPrior, MassPosterior, PiecewisePrior, SelectedPrior
from bayesflowmass.posterior.converted import CONCENTRATION_SCATTER
from bayesflowmass.recalibration.maps import DEGREE, StagedMap

RANGE = (13.2, 15.6)
REDSHIFT = np.array([0.05, 0.117, 0.3])
N = len(REDSHIFT)
THINNED = PiecewisePrior((13.2, 14.35, 15.6), (1.0, 0.2))


def gaussians():
    return torch.distributions.Normal(
        torch.tensor([14.0, 14.6, 15.1], dtype=torch.float64),
        torch.tensor([0.1, 0.25, 0.02], dtype=torch.float64),
    )


def mixture():
    raw = torch.tensor([[0.3, 0.7], [0.5, 0.5], [0.9, 0.1]], dtype=torch.float64)
    locs = torch.tensor([[13.9, 14.5], [14.0, 14.1], [14.8, 15.2]], dtype=torch.float64)
    scales = torch.tensor([[0.06, 0.12], [0.2, 0.05], [0.1, 0.3]], dtype=torch.float64)
    return GaussianMixture(raw.log(), locs, scales.log())


def draws():
    generator = torch.Generator().manual_seed(0)
    loc = 14.4 + 0.15 * torch.randn(4, N, generator=generator, dtype=torch.float64)
    return torch.distributions.Normal(loc, torch.full_like(loc, 0.12))


def spline_flow():
    flow = build_flow("affine+spline+mixture", 4, 14.4, 0.3, hidden=(8,), seed=1).double()
    with torch.no_grad():
        return flow.condition(
            torch.randn(N, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        )


def of_a_linear_chance(mass, redshift):
    return np.clip((mass - 13.0) / 2.6, 0.0, 1.0) + 0.0 * redshift


def shifted_and_bent():
    """A recalibration that moves, widens and bends."""
    weights = np.random.default_rng(4).dirichlet(4.0 * np.ones(DEGREE))
    coefficients = torch.from_numpy(np.concatenate([[0.0], np.cumsum(weights)])).expand(1, N, -1)
    ones = torch.ones(1, N, dtype=torch.float64)
    return StagedMap(
        0.3 * ones, 0.2 * ones, coefficients, torch.zeros(N, 0), torch.zeros(N, dtype=torch.int64), "test"
    )


DISTRIBUTIONS = (gaussians, mixture, draws, spline_flow)
PRIORS = {
    "training": None,
    "hmf": "hmf",
    "narrower": FlatPrior((13.5, 15.3)),
    "selected": SelectedPrior(FlatPrior(RANGE), of_a_linear_chance),
    "from thinned": "flat",
}
# Not everything with everything, which would take minutes: each step of the way after each kind of step before it.
CASES = [
    *itertools.product(DISTRIBUTIONS, PRIORS, [False], ["200c"]),
    *itertools.product([gaussians, draws], ["training", "hmf"], [True], ["200c", "500c"]),
    *itertools.product([gaussians, mixture, draws], ["training", "hmf"], [False], ["500c", "vir", "200m"]),
]


def name_of(case):
    make, prior, mapped, mdef = case
    return f"{make.__name__}-{prior}-{'recalibrated-' if mapped else ''}{mdef}"


@pytest.fixture(scope="module", params=CASES, ids=name_of)
def posterior(request):
    make, prior, mapped, mdef = request.param
    trained_on = THINNED if prior == "from thinned" else "flat"
    found = MassPosterior(make(), log10_mass_range=RANGE, training_prior=trained_on, redshift=REDSHIFT)
    if PRIORS[prior] is not None:
        found = found.with_prior(PRIORS[prior])
    if mapped:
        found = found.recalibrated(shifted_and_bent())
    return found.with_mass_definition(mdef)


def bends(posterior):
    """Whether it is a spline under another prior: its slope jumps where no node of the table stands."""
    return (
        hasattr(posterior.flow_density.blocks[0], "bends") and posterior.prior is not posterior.training_prior
    )


def jumps(posterior):
    """log10 masses within which an integral must be split: where a density may jump, in any definition of mass."""
    if posterior.mdef != "200c":
        return []
    return [*posterior.prior.log10_mass_range, *getattr(posterior.training_prior, "breaks", ())]


def panels(posterior, n=3000):
    """Edges of panels (k, n) over all that has probability, none of them across a jump."""
    low, high = posterior.quantile([1e-10, 1 - 1e-10])
    inner = np.stack([np.clip(np.full(N, jump), low, high) for jump in jumps(posterior)] or [low])
    even = low + (high - low) * np.linspace(0.0, 1.0, n + 1)[:, None]
    return np.sort(np.concatenate([even, inner]), axis=0)


def integrals(posterior, function):
    """int p f dm (n,) by Gauss-Legendre in panels."""
    edges = panels(posterior)
    nodes, weights = np.polynomial.legendre.leggauss(4)
    half, middle = 0.5 * np.diff(edges, axis=0), 0.5 * (edges[1:] + edges[:-1])
    total = np.zeros(N)
    for node, weight in zip(nodes, weights, strict=True):
        x = middle + node * half
        total += (weight * half * posterior.pdf(x) * function(x)).sum(0)
    return total


def test_the_pdf_is_the_slope_of_the_cdf(posterior):
    p = np.linspace(0.002, 0.998, 120)
    x = posterior.quantile(p)
    step = 2e-4
    away = np.min([np.abs(x - jump) for jump in jumps(posterior) or [np.inf]], axis=0) > 2 * step
    slope = (posterior.cdf(x + step) - posterior.cdf(x - step)) / (2 * step)
    pdf = posterior.pdf(x)
    # The slope of a cubic cdf is of third order in the spacing of its nodes.
    error = np.abs(slope - pdf) / pdf.max(0)
    assert error[away].max() < (1e-2 if bends(posterior) else 2e-4)


def test_it_integrates_to_one_and_its_moments_are_those_of_quadrature(posterior):
    assert_allclose(integrals(posterior, lambda x: 1.0), 1.0, atol=5e-6)
    mean = integrals(posterior, lambda x: x)
    assert_allclose(posterior.mean, mean, atol=1e-4 if bends(posterior) else 2e-5)
    assert_allclose(posterior.sigma**2, integrals(posterior, lambda x: (x - mean) ** 2), rtol=5e-4)


def test_quantiles_invert_the_cdf(posterior):
    p = np.array([1e-8, 1e-6, 0.025, 0.5, 0.84, 0.975, 1 - 1e-6, 1 - 1e-8])
    x = posterior.quantile(p)
    assert_allclose(
        posterior.cdf(x),
        np.repeat(p[:, None], N, 1),
        rtol=0,
        atol=1e-10 if posterior.mdef == "200c" else 1e-8,
    )
    assert np.all(np.diff(x, axis=0) > 0)
    assert_allclose(posterior.median, x[3], rtol=1e-12)


def test_the_peak_is_the_highest_point(posterior):
    x = panels(posterior)
    assert np.all(
        posterior.pdf(posterior.map) >= posterior.pdf(x).max(0) * (1 - (5e-3 if bends(posterior) else 1e-7))
    )


@pytest.mark.parametrize("rows", [slice(1, None), np.array([2, 0]), np.array([False, True, False])])
def test_a_slice_is_the_posterior_of_those_clusters(posterior, rows):
    part = posterior[rows]
    assert len(part) == len(posterior.median[rows]) == len(part.raw)
    assert part.cluster_id.tolist() == posterior.cluster_id[rows].tolist()
    levels = [0.025, 0.5, 0.975]
    # The mass function is interpolated over the redshifts of the clusters at hand, masses over those of the haloes.
    rtol = 1e-3 if posterior.prior.name == "hmf" or posterior.mdef != "200c" else 1e-9
    assert_allclose(part.quantile(levels), posterior.quantile(levels)[:, rows], rtol=0, atol=0.1 * rtol)
    assert_allclose(part.pdf(posterior.mean[rows]), posterior.pdf(posterior.mean)[rows], rtol=rtol)
    assert_allclose(part.sigma, posterior.sigma[rows], rtol=rtol)


def test_a_slice_of_blocks_and_of_a_slice():
    blocks = [gaussians(), gaussians(), gaussians()]
    whole = MassPosterior(blocks, log10_mass_range=RANGE)
    part = whole[np.array([7, 1, 2, 3])][1:]
    assert part.cluster_id.tolist() == [1, 2, 3]
    assert_allclose(part.median, [14.6, 15.1, 14.0], atol=1e-12)
    with pytest.raises(ValueError, match="one cluster at least"):
        whole[3:3]


def test_quantiles_of_a_map_with_flat_ends_are_finite():
    class Flat(StagedMap):
        def inverse(self, p):
            return p.round()

    raw = MassPosterior(mixture(), log10_mass_range=RANGE)
    low, high = raw.recalibrated(Flat(**vars(shifted_and_bent()))).quantile([0.1, 0.9])
    assert np.all((low < raw.quantile(1e-100)) & np.isfinite(low))
    assert np.all((high > raw.quantile(1.0 - 1e-12)) & np.isfinite(high))


def test_parts_of_the_variance_add_up(posterior):
    if posterior.n_draws is None:
        assert posterior.sigma_epistemic is None
        return
    total = posterior.sigma_aleatoric**2 + posterior.sigma_epistemic**2
    assert_allclose(total, posterior.sigma**2, rtol=1e-3)
    assert np.all(
        (posterior.mutual_information >= 0) & (posterior.mutual_information <= np.log(posterior.n_draws))
    )


@pytest.mark.parametrize("mdef", ["500c", "vir", "200m"])
def test_a_converted_cdf_is_that_of_haloes_with_scattered_concentrations(mdef):
    """P(m_X < x) = E_c[P(m < m_c(x))], by bisection of colossus's own conversion at 41 concentrations."""
    base = MassPosterior(gaussians(), log10_mass_range=RANGE, redshift=REDSHIFT)
    found = base.with_mass_definition(mdef)
    offsets, weights = np.polynomial.hermite_e.hermegauss(15)
    weights = weights / weights.sum()
    x = np.array([13.95, 14.5, 15.07])
    expected = np.zeros(N)
    for i, z in enumerate(REDSHIFT):
        grid = np.linspace(x[i] - 0.4, x[i] + 0.4, 161)
        for offset, weight in zip(offsets, weights, strict=True):
            c = concentration_median(grid, float(z)) * 10.0 ** (CONCENTRATION_SCATTER * offset)
            converted = convert_mass(grid, float(z), "200c", mdef, concentration=c)
            m = np.interp(x[i], converted, grid)
            expected[i] += weight * base.cdf(np.full(N, m))[i]
    assert_allclose(found.cdf(x), expected, atol=2e-3)

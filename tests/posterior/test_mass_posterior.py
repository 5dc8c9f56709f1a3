"""MassPosterior against closed forms, scipy quadrature and its own definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import integrate, optimize, stats

from bayesflowmass.cosmology import mass_function
from bayesflowmass.flows import GaussianMixture, build_flow
from bayesflowmass.posterior import FlatPrior, MassFunctionPrior, MassPosterior, PiecewisePrior, make_prior
from bayesflowmass.posterior.draws import uniform

RANGE = (13.2, 15.6)
few = settings(deadline=None, max_examples=15)


def normal(loc, scale, **options):
    distribution = torch.distributions.Normal(
        torch.tensor(loc, dtype=torch.float64), torch.tensor(scale, dtype=torch.float64)
    )
    return MassPosterior(distribution, **({"log10_mass_range": RANGE, "redshift": 0.117} | options))


def mixture(weights, locs, scales, **options):
    """The same mixture of Gaussians for each of two clusters, the second 0.3 dex more massive."""
    offsets = torch.tensor([[0.0], [0.3]], dtype=torch.float64)
    distribution = GaussianMixture(
        torch.tensor(weights, dtype=torch.float64).log().expand(2, -1),
        torch.tensor(locs, dtype=torch.float64) + offsets,
        torch.tensor(scales, dtype=torch.float64).log().expand(2, -1),
    )
    return MassPosterior(distribution, **({"log10_mass_range": RANGE, "redshift": 0.117} | options))


BIMODAL = {"weights": [0.3, 0.7], "locs": [13.9, 14.5], "scales": [0.06, 0.12]}


@few
@given(
    loc=st.floats(13.4, 15.4),
    scale=st.floats(0.005, 0.6),
    p=st.floats(1e-6, 1 - 1e-6),
)
def test_a_gaussian_posterior_is_that_of_scipy(loc, scale, p):
    posterior, exact = normal([loc, 14.0], [scale, 0.1]), stats.norm(loc, scale)
    assert_allclose(posterior.mean[0], loc, atol=1e-9)
    assert_allclose(posterior.sigma[0], scale, rtol=1e-6)
    assert_allclose(posterior.median[0], loc, atol=1e-12)
    assert_allclose(posterior.map[0], loc, atol=1e-6)
    assert_allclose(posterior.quantile(p)[0], exact.ppf(p), atol=1e-9)
    assert_allclose(posterior.cdf(exact.ppf(p))[0], p, rtol=1e-9)
    assert_allclose(posterior.pdf(loc + scale)[0], exact.pdf(loc + scale), rtol=1e-9)
    for level in (0.68, 0.95):
        for kind in ("central", "hpd"):
            assert_allclose(posterior.interval(level, kind)[:, 0], exact.interval(level), atol=2e-4 * scale)


def test_moments_and_peak_of_a_bimodal_posterior():
    posterior = mixture(**BIMODAL)
    mean = 0.3 * 13.9 + 0.7 * 14.5
    variance = 0.3 * (0.06**2 + (13.9 - mean) ** 2) + 0.7 * (0.12**2 + (14.5 - mean) ** 2)
    assert_allclose(posterior.mean, [mean, mean + 0.3], atol=1e-7)
    assert_allclose(posterior.sigma, np.sqrt(variance), rtol=1e-6)
    peak = optimize.minimize_scalar(
        lambda m: -posterior.pdf(m)[0], bounds=(14.3, 14.7), method="bounded", options={"xatol": 1e-9}
    )
    assert_allclose(posterior.map[0], peak.x, atol=1e-6)


@pytest.mark.parametrize("prior", ["flat", "hmf"])
def test_quantiles_invert_the_cdf(prior):
    posterior = mixture(**BIMODAL).with_prior(prior)
    p = np.array([1e-8, 1e-4, 0.025, 0.16, 0.5, 0.84, 0.975, 1 - 1e-4, 1 - 1e-8])
    assert_allclose(posterior.cdf(posterior.quantile(p)), np.repeat(p[:, None], 2, 1), rtol=0, atol=1e-10)


@pytest.mark.parametrize("level", [0.5, 0.68, 0.95])
def test_the_shortest_interval_is_the_shortest(level):
    posterior = mixture([0.5, 0.5], [14.0, 14.2], [0.05, 0.25])
    low, high = posterior.interval(level, "hpd")
    assert_allclose(posterior.cdf(high) - posterior.cdf(low), level, atol=1e-6)
    below = np.linspace(1e-4, 1 - level - 1e-4, 400)
    widths = posterior.quantile(below + level) - posterior.quantile(below)
    assert np.all(high - low <= widths.min(0) + 1e-6)


def reweighted_by_quadrature(posterior, cluster, redshift, low, high):
    """Density, norm, mean and median of the reweighted PDF from scipy alone."""
    flow = posterior.flow_density.blocks[0]

    def integrand(m):
        value = torch.full((1, len(posterior)), float(m), dtype=torch.float64)
        return float(flow.log_prob(value)[0, cluster].exp()) * float(mass_function(m, redshift))

    def integral(f, a, b):
        return integrate.quad(f, a, b, limit=400, points=np.linspace(a, b, 9)[1:-1], epsabs=0, epsrel=1e-8)[0]

    norm = integral(integrand, low, high)
    mean = integral(lambda m: m * integrand(m), low, high) / norm
    middle = 0.5 * (low + high)
    return integrand(middle) / norm, mean, integral(integrand, low, middle) / norm, middle


@pytest.mark.parametrize("redshift", [0.02, 0.117, 0.4])
@pytest.mark.parametrize("cluster", [0, 1])
def test_the_mass_function_prior_is_a_reweighting(redshift, cluster):
    posterior = mixture(**BIMODAL, redshift=redshift)
    hmf = posterior.with_prior("hmf")
    pdf, mean, cdf, middle = reweighted_by_quadrature(posterior, cluster, redshift, *RANGE)
    assert_allclose(hmf.pdf(middle)[cluster], pdf, rtol=5e-3)
    assert_allclose(hmf.mean[cluster], mean, atol=2e-4)
    assert_allclose(hmf.cdf(middle)[cluster], cdf, atol=5e-4)
    assert hmf.mean[cluster] < posterior.mean[cluster]
    assert posterior.prior.name == "flat"


def test_reweighting_a_gaussian_by_an_exponential_shifts_it():
    class Exponential(FlatPrior):
        def log_density(self, redshift):
            return lambda m: -4.0 * m

    wide = (12.0, 17.0)
    trained = normal([14.0, 14.6, 15.0], [0.1, 0.05, 0.02], log10_mass_range=wide)
    posterior = trained.with_prior(Exponential(wide, "exponential"))
    sigma = np.array([0.1, 0.05, 0.02])
    shifted = stats.norm(np.array([14.0, 14.6, 15.0]) - 4.0 * sigma**2, sigma)
    assert_allclose(posterior.mean, shifted.mean(), atol=1e-7)
    assert_allclose(posterior.sigma, sigma, rtol=1e-5)
    assert_allclose(posterior.median, shifted.mean(), atol=1e-6)
    for p in (1e-3, 0.16, 0.84, 0.999):
        assert_allclose(posterior.quantile(p), shifted.ppf(p), atol=1e-6)


def test_reweighting_there_and_back_is_the_identity_inside_the_range():
    trained_on_hmf = normal([14.2, 14.6], [0.1, 0.2], training_prior="hmf")
    trained_flat = normal([14.2, 14.6], [0.1, 0.2])
    x = np.linspace(13.6, 15.2, 7)[:, None]
    ratio = trained_on_hmf.with_prior("flat").pdf(x) * trained_flat.with_prior("hmf").pdf(x)
    product = ratio / trained_flat.pdf(x) ** 2
    assert_allclose(product / product[0], 1.0, rtol=1e-9)


def test_flat_on_flat_changes_nothing_and_keeps_what_leaks():
    posterior = normal([13.25, 14.5], [0.2, 0.2])
    assert_allclose(posterior.with_prior("flat").pdf(13.0), posterior.pdf(13.0), rtol=0)
    assert posterior.cdf(13.2)[0] == pytest.approx(stats.norm.cdf(13.2, 13.25, 0.2))


def test_a_new_prior_is_zero_outside_the_training_range():
    hmf = normal([13.25, 14.5], [0.2, 0.2]).with_prior("hmf")
    assert np.all(hmf.pdf([[13.1], [15.7]]) == 0.0)
    assert_allclose(hmf.cdf([[13.2 - 1e-9], [15.6 + 1e-9]]), [[0.0, 0.0], [1.0, 1.0]])
    low, high = hmf.quantile([1e-8, 1 - 1e-8])
    assert np.all((low >= 13.2) & (high <= 15.6))


def test_a_new_prior_survives_a_pdf_that_left_the_training_range():
    hmf = normal([11.0, 18.0], [0.05, 0.05]).with_prior("hmf")
    assert np.all(np.isfinite(hmf.mean))
    assert_allclose(hmf.mean, RANGE, atol=0.01)


@pytest.mark.parametrize(
    ("low", "high", "kept"), [(13.2, 15.6, True), (13.1, 15.6, False), (13.2, 15.7, False)]
)
def test_a_prior_may_reach_the_ends_of_training_and_no_further(low, high, kept):
    posterior = normal([14.0], [0.2])
    if kept:
        assert posterior.with_prior("hmf", (low, high)).prior.log10_mass_range == (low, high)
    else:
        with pytest.raises(ValueError, match="cannot leave the training range"):
            posterior.with_prior("hmf", (low, high))


def test_the_range_of_a_prior_can_be_narrowed_but_not_widened():
    posterior = normal([13.6], [0.2])
    narrow = posterior.with_prior("hmf", (13.5, 15.6))
    assert narrow.cdf(13.5)[0] == 0.0
    assert narrow.mean[0] > posterior.with_prior("hmf").mean[0]
    with pytest.raises(ValueError, match="cannot leave the training range"):
        posterior.with_prior("hmf", (13.0, 15.6))


def test_narrow_peaks_are_resolved():
    hmf = normal([14.0, 14.3], [0.002, 0.5]).with_prior("hmf")
    slope = np.log(mass_function(14.001, 0.117) / mass_function(13.999, 0.117)) / 0.002
    assert_allclose(hmf.mean[0], 14.0 + slope * 0.002**2, atol=1e-7)
    assert_allclose(hmf.sigma[0], 0.002, rtol=1e-3)


def test_densities_integrate_to_one_per_dex():
    for posterior in (mixture(**BIMODAL), mixture(**BIMODAL).with_prior("hmf")):
        x = np.linspace(13.2, 15.6, 4001)[:, None]
        assert_allclose(np.trapezoid(posterior.pdf(x), x, axis=0), 1.0, atol=1e-4)


@pytest.mark.parametrize("prior", ["flat", "hmf"])
def test_samples_follow_the_density_and_the_seed(prior):
    posterior = mixture(**BIMODAL).with_prior(prior)
    draws = posterior.sample(4000, seed=3)
    assert draws.shape == (4000, 2)
    assert np.array_equal(draws, posterior.sample(4000, seed=3))
    assert not np.array_equal(draws, posterior.sample(4000, seed=4))
    assert stats.kstest(posterior.cdf(draws)[:, 0], "uniform").pvalue > 1e-3


def test_the_pit_of_truths_drawn_from_the_posterior_is_uniform():
    rng = np.random.default_rng(1)
    loc = rng.uniform(13.8, 15.0, 3000)
    truth = rng.normal(loc, 0.1)
    assert stats.kstest(normal(loc.tolist(), [0.1] * 3000).cdf(truth), "uniform").pvalue > 1e-3


def draws_of_gaussians(n_draws=5, n=3, **options):
    generator = torch.Generator().manual_seed(0)
    loc = 14.0 + 0.2 * torch.randn(n_draws, n, generator=generator, dtype=torch.float64)
    scale = 0.05 + 0.2 * torch.rand(n_draws, n, generator=generator, dtype=torch.float64)
    distribution = torch.distributions.Normal(loc, scale)
    options = {"log10_mass_range": RANGE, "redshift": 0.117} | options
    return MassPosterior(distribution, **options), loc.numpy(), scale.numpy()


def test_a_mixture_over_draws_averages_densities_and_splits_the_variance():
    posterior, loc, scale = draws_of_gaussians()
    x = 14.1
    assert_allclose(posterior.pdf(x), stats.norm(loc, scale).pdf(x).mean(0), rtol=1e-12)
    assert_allclose(posterior.cdf(x), stats.norm(loc, scale).cdf(x).mean(0), rtol=1e-12)
    assert_allclose(posterior.sigma_aleatoric, np.sqrt((scale**2).mean(0)), rtol=1e-4)
    assert_allclose(posterior.sigma_epistemic, loc.std(0), rtol=1e-4)
    total = posterior.sigma_aleatoric**2 + posterior.sigma_epistemic**2
    assert_allclose(np.sqrt(total), posterior.sigma, rtol=1e-4)
    p = [1e-6, 0.3, 0.5, 1 - 1e-6]
    assert_allclose(posterior.cdf(posterior.quantile(p)), np.array(p)[:, None] * np.ones(3), atol=1e-10)


def test_the_split_of_a_reweighted_mixture_is_that_of_its_draws():
    posterior, loc, scale = draws_of_gaussians()
    prior = posterior.with_prior("hmf")
    m = np.linspace(*RANGE, 20_001)
    new = prior.prior.log_density(np.array([0.117]))(torch.tensor(m)[:, None])[:, 0].numpy()
    # The prior of training is flat, and its densities are cut to its range.
    densities = stats.norm(loc[..., None], scale[..., None]).pdf(m) * np.exp(new)

    def integral(values):
        return np.trapezoid(values, m)

    evidence = integral(densities)
    mean = integral(densities * m) / evidence
    variance = integral(densities * (m - mean[..., None]) ** 2) / evidence
    share = evidence / evidence.sum(0)
    assert_allclose(prior.sigma_aleatoric, np.sqrt((share * variance).sum(0)), rtol=2e-5)
    between = (share * (mean - (share * mean).sum(0)) ** 2).sum(0)
    assert_allclose(prior.sigma_epistemic, np.sqrt(between), rtol=2e-5)


def test_the_split_of_a_reweighted_mixture_adds_up():
    posterior = draws_of_gaussians()[0].with_prior("hmf")
    total = posterior.sigma_aleatoric**2 + posterior.sigma_epistemic**2
    assert_allclose(np.sqrt(total), posterior.sigma, rtol=1e-3)


def test_a_point_model_has_no_epistemic_part():
    posterior = normal([14.0], [0.1])
    assert posterior.sigma_epistemic is None
    assert posterior.sigma_aleatoric is None


def test_blocks_of_clusters_are_one_posterior():
    whole = normal([13.9, 14.1, 14.6], [0.1, 0.2, 0.3])
    blocks = [
        torch.distributions.Normal(
            torch.tensor(loc, dtype=torch.float64), torch.tensor(scale, dtype=torch.float64)
        )
        for loc, scale in (([13.9, 14.1], [0.1, 0.2]), ([14.6], [0.3]))
    ]
    parts = MassPosterior(blocks, log10_mass_range=RANGE, redshift=[0.117] * 3)
    for prior in ("flat", "hmf"):
        a, b = whole.with_prior(prior), parts.with_prior(prior)
        assert_allclose(a.mean, b.mean, rtol=1e-12)
        assert_allclose(a.quantile([0.1, 0.9]), b.quantile([0.1, 0.9]), rtol=1e-12)


@pytest.mark.parametrize("kind", ["affine", "spline", "affine+spline+mixture"])
def test_every_flow_has_a_posterior_whose_mean_is_its_own(kind):
    flow = build_flow(kind, 4, 14.3, 0.4, hidden=(8,), seed=1).double()
    context = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    distribution = flow.condition(context)
    posterior = MassPosterior(distribution, log10_mass_range=(12.0, 17.0))
    assert_allclose(posterior.mean, distribution.mean.detach().numpy(), atol=2e-5)
    assert_allclose(posterior.sigma**2, distribution.variance.detach().numpy(), rtol=1e-3)
    assert_allclose(posterior.cdf(posterior.median), 0.5, atol=1e-10)


def test_a_range_holds_its_ends_and_a_piece_its_lower_edge():
    narrower = normal([14.0], [0.3]).with_prior("flat", (13.8, 14.4))
    ends = np.array([[13.8], [14.4]])
    assert_allclose(narrower.pdf(ends)[:, 0] / stats.norm(14.0, 0.3).pdf(ends[:, 0]), 1 / 0.6563, rtol=1e-3)
    pieces = PiecewisePrior((13.2, 14.0, 15.6), (1.0, 0.25)).log_density(np.array([0.1]))
    at = torch.tensor([[12.0], [14.0 - 1e-12], [14.0], [16.0]], dtype=torch.float64)
    assert_allclose(pieces(at)[:, 0].exp(), [1.0, 1.0, 0.25, 0.25])
    # A jump at the end of a range is none inside it.
    thinned = normal([14.3], [0.3], training_prior=PiecewisePrior((13.2, 14.0, 15.6), (1.0, 0.25)))
    table = thinned.with_prior("flat", (14.0, 15.6)).table
    assert float(table.x.min()) >= 14.0


def test_an_exact_zero_among_uniform_values_has_a_quantile():
    class Zeros:
        def random(self, shape):
            return np.zeros(shape)

    assert_allclose(uniform(Zeros(), (2, 3)), 1e-16)
    assert np.all(uniform(np.random.default_rng(0), (50, 2)) == np.random.default_rng(0).random((50, 2)))


def test_the_mass_function_prior_is_the_mass_function():
    z = np.array([0.01, 0.117, 0.3, 0.5])
    log_density = MassFunctionPrior(RANGE).log_density(z)
    m = torch.linspace(*RANGE, 60, dtype=torch.float64)[:, None].expand(-1, 4)
    expected = np.stack([np.log(mass_function(m[:, 0].numpy(), float(value))) for value in z], axis=1)
    assert_allclose(log_density(m).numpy(), expected, atol=0.005)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: make_prior("gaussian", RANGE),
            "Unknown prior 'gaussian'; the priors are 'flat', 'hmf', and samples .* 'richness:20'",
        ),
        (lambda: make_prior("flat", (15.0, 14.0)), "two increasing finite values"),
        (lambda: make_prior("flat", (15.0, 15.0)), "two increasing finite values"),
        (lambda: normal([14.0], [0.1]).quantile(0.0), "between 0 and 1, both excluded"),
        (lambda: normal([14.0], [0.1]).quantile(1.0), "between 0 and 1, both excluded"),
        (lambda: normal([14.0], [0.1]).interval(0.0), "cannot hold a probability of 0.0"),
        (lambda: normal([14.0], [0.1]).interval(0.9, "conformal"), "of a recalibrated model"),
        (lambda: normal([14.0], [0.1]).interval(1.5), "cannot hold a probability of 1.5"),
        (lambda: normal([14.0], [0.1]).interval(0.5, "widest"), "Unknown kind of interval 'widest'"),
        (
            lambda: normal([14.0], [0.1], redshift=None).with_prior("hmf"),
            "needs the redshift of each cluster",
        ),
        (lambda: normal([14.0], [0.1], n_galaxies=[3, 4]), "n_galaxies has shape"),
        (lambda: normal([[[14.0]]], [[[0.1]]]), "batch shape"),
        (lambda: normal([14.0], [0.1]).with_mass_definition("180b"), "Unknown mass definition '180b'"),
        (
            lambda: normal([14.0], [0.1]).with_mass_definition("500c").with_prior("hmf"),
            "before the mass definition",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_sample_thinned_above_a_mass_is_corrected_by_its_known_density():
    thinned = PiecewisePrior((13.2, 14.7, 15.6), (1.0, 0.01))
    posterior = normal([14.6, 15.2], [0.15, 0.1], training_prior=thinned)
    corrected = posterior.with_prior("flat")
    x = np.linspace(13.21, 15.59, 1001)
    for i, gaussian in enumerate((stats.norm(14.6, 0.15), stats.norm(15.2, 0.1))):

        def weighted(m, gaussian=gaussian):
            return gaussian.pdf(m) * (100.0 if m > 14.7 else 1.0)

        total = sum(
            integrate.quad(weighted, *limits, epsabs=1e-12)[0] for limits in ((13.2, 14.7), (14.7, 15.6))
        )
        expected = np.array([weighted(m) for m in x]) / total
        assert_allclose(corrected.pdf(x[:, None])[:, i], expected, rtol=1e-6, atol=1e-9)
        mean = sum(
            integrate.quad(lambda m, w=weighted: m * w(m), *limits)[0]
            for limits in ((13.2, 14.7), (14.7, 15.6))
        )
        assert_allclose(corrected.mean[i], mean / total, atol=1e-7)
    assert corrected.mean[0] > posterior.mean[0] + 0.1


@pytest.mark.parametrize(
    ("edges", "densities", "message"),
    [
        ((14.0,), (), "at least two"),
        ((14.0, 13.0), (1.0,), "increasing"),
        ((13.0, 14.0), (1.0, 2.0), "1 positive values"),
        ((13.0, 14.0), (0.0,), "positive"),
        ((13.0, 13.0), (1.0,), "increasing"),
    ],
)
def test_an_impossible_piecewise_prior_is_refused(edges, densities, message):
    with pytest.raises(ValueError, match=message):
        PiecewisePrior(edges, densities)

"""The blocks of a flow against independent references."""

from __future__ import annotations

import doctest
import importlib

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro.distributions.transforms.spline import _monotonic_rational_spline
from scipy import optimize, stats
from torch.autograd import gradcheck

from bayesflowmass.command import load_yaml
from bayesflowmass.flows import (
    ConditionalAffine,
    ConditionalGaussianMixture,
    ConditionedAffine,
    ConditionedMonotoneSpline,
    GaussianMixture,
    StandardNormal,
    build_flow,
    conditional_affine,
    conditional_monotone_spline,
)
from bayesflowmass.flows.root_finding import bracketed_root
from bayesflowmass.networks.convolutional import ConvNetwork

DOUBLE = torch.float64


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


class TestConditionalAffine:
    def test_formula(self):
        loc, log_scale, x = normal(5), normal(5, seed=1), normal(3, 5, seed=2)
        transform = ConditionedAffine(loc, log_scale)
        torch.testing.assert_close(transform(x), loc + log_scale.exp() * x)
        torch.testing.assert_close(transform.inv(transform(x)), x)
        assert transform.sign == 1
        assert transform.bijective
        assert transform.forward_shape((3, 1)) == transform.inverse_shape((3, 1)) == (3, 5)

    @pytest.mark.parametrize("event_dim", [0, 1])
    def test_vector_events_sum_the_log_determinant(self, event_dim):
        transform = ConditionedAffine(normal(4, 3), normal(4, 3, seed=1), event_dim=event_dim)
        x = normal(4, 3, seed=2)
        log_det = transform.log_abs_det_jacobian(x, transform(x))
        expected = transform.log_scale.sum(-1) if event_dim else transform.log_scale
        torch.testing.assert_close(log_det, expected)
        torch.testing.assert_close(transform.inverse_and_log_det(x)[1], -expected)
        assert transform.domain.event_dim == transform.codomain.event_dim == event_dim

    def test_cached_copy_gives_the_same_and_keeps_its_event(self):
        transform = ConditionedAffine(normal(4, 3), normal(4, 3, seed=1), event_dim=1)
        cached = transform.with_cache(1)
        x = normal(4, 3, seed=2)
        assert cached.inv(cached(x)) is x
        assert cached.domain.event_dim == 1
        assert transform.with_cache(0) is transform

    @pytest.mark.parametrize("log_scale", [-300.0, -80.0, 80.0, 300.0])
    def test_no_hidden_clamp_of_the_scale(self, log_scale):
        transform = ConditionedAffine(torch.zeros((), dtype=DOUBLE), torch.tensor(log_scale, dtype=DOUBLE))
        x = torch.tensor(1.5, dtype=DOUBLE)
        torch.testing.assert_close(transform(x).log(), x.log() + log_scale, rtol=1e-14, atol=1e-12)
        torch.testing.assert_close(transform.inv(transform(x)), x)

    @pytest.mark.parametrize("input_dim", [None, 1, 3])
    def test_in_a_pyro_distribution(self, input_dim):
        transform = conditional_affine(4, [6], input_dim=input_dim).double()
        assert isinstance(transform, dist.conditional.ConditionalTransformModule)
        event = () if input_dim is None else (input_dim,)
        base = dist.Normal(torch.zeros(event, dtype=DOUBLE), 1.0).to_event(len(event))
        flow = dist.ConditionalTransformedDistribution(base, [transform])
        context = normal(10, 4)
        conditioned = flow.condition(context)
        assert conditioned.batch_shape == (10,)
        assert conditioned.event_shape == event
        assert conditioned.sample((7,)).shape == (7, 10, *event)
        loc, log_scale = transform.nn(context).chunk(2, -1)
        expected = dist.Normal(loc, log_scale.exp()).to_event(1)
        value = normal(10, *event, seed=2)
        torch.testing.assert_close(
            conditioned.log_prob(value), expected.log_prob(value.reshape(10, -1)), rtol=1e-12, atol=1e-12
        )

    def test_inverse_module(self):
        transform = conditional_affine(4).double()
        context, x = normal(3, 4), normal(3)
        torch.testing.assert_close(transform.inv.condition(context)(transform.condition(context)(x)), x)
        assert isinstance(transform.inv.inv, ConditionalAffine)


class TestConditionalMonotoneSpline:
    def test_zero_parameters_give_the_identity(self):
        spline = conditional_monotone_spline(2, count_bins=7, bound=3.0).conditioned(
            torch.zeros(20, dtype=DOUBLE)
        )
        y = torch.linspace(-4, 4, 101, dtype=DOUBLE)
        x, log_det = spline.inverse_and_log_det(y)
        torch.testing.assert_close(x, y, rtol=0, atol=1e-14)
        torch.testing.assert_close(log_det, torch.zeros_like(y), rtol=0, atol=1e-13)

    def test_equals_pyro_in_the_bins_whose_slopes_agree(self):
        # Pyro's first and last slopes are 0.999 instead of 1, which touches the first and the last bin only.
        bins, bound = 6, 4.0
        raw = normal(30, 3 * bins - 1)
        spline = conditional_monotone_spline(2, count_bins=bins, bound=bound).conditioned(raw)
        widths, heights, _ = raw.split([bins, bins, bins - 1], -1)
        y = (2 * bound * torch.rand(30, dtype=DOUBLE) - bound).unsqueeze(-1)
        x, log_det = _monotonic_rational_spline(
            y,
            widths.softmax(-1).unsqueeze(-2),
            heights.softmax(-1).unsqueeze(-2),
            spline.slopes[:, 1:-1].unsqueeze(-2) - 1e-3,
            bound=bound,
        )
        y, x, log_det = (value.squeeze(-1) for value in (y, x, log_det))
        interior = (y > spline.data_knots[:, 1]) & (y < spline.data_knots[:, -2])
        assert interior.sum() > 15
        ours = spline.inverse_and_log_det(y)
        torch.testing.assert_close(ours[0][interior], x[interior], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(ours[1][interior], log_det[interior], rtol=1e-9, atol=1e-9)

    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 10**6), spread=st.floats(0.1, 12.0), bins=st.integers(2, 20))
    def test_bijection_of_the_line_whatever_the_parameters(self, seed, spread, bins):
        raw = spread * normal(3, 3 * bins - 1, seed=seed)
        spline = conditional_monotone_spline(2, count_bins=bins, bound=3.0).conditioned(raw)
        y = torch.linspace(-4, 4, 4001, dtype=DOUBLE).unsqueeze(-1).expand(-1, 3)
        x, log_det = spline.inverse_and_log_det(y)
        assert (x.diff(dim=0) >= 0).all()
        assert log_det.isfinite().all()
        outside = y.abs() > 3
        assert torch.equal(x[outside], y[outside])
        # Slopes down to about 1e-7 at the largest spread amplify rounding on the way back.
        torch.testing.assert_close(spline(x), y, rtol=0, atol=1e-7)
        torch.testing.assert_close(spline.inverse_and_log_det(spline(y))[0], y, rtol=0, atol=1e-7)

    def test_knots_and_bound_map_onto_knots_and_bound(self):
        spline = conditional_monotone_spline(2, count_bins=5, bound=3.0).conditioned(normal(4, 14))
        torch.testing.assert_close(
            spline.inverse_and_log_det(spline.data_knots.T)[0], spline.base_knots.T, rtol=0, atol=1e-13
        )
        torch.testing.assert_close(spline(spline.base_knots.T), spline.data_knots.T, rtol=0, atol=1e-13)

    def test_density_is_continuous_at_the_bound(self):
        spline = conditional_monotone_spline(2, count_bins=5, bound=3.0).conditioned(normal(4, 14))
        just_inside = torch.tensor([[-3 + 1e-10], [3 - 1e-10]], dtype=DOUBLE)
        assert spline.inverse_and_log_det(just_inside)[1].abs().max() < 1e-6

    def test_gradients_of_both_directions(self):
        module = conditional_monotone_spline(2, count_bins=4, bound=3.0)
        raw = normal(5, 11).requires_grad_()
        value = torch.tensor([-5.0, -2.1, 0.3, 2.7, 80.0], dtype=DOUBLE, requires_grad=True)
        assert gradcheck(lambda v, r: module.conditioned(r).inverse_and_log_det(v), (value, raw))
        assert gradcheck(lambda v, r: module.conditioned(r)(v), (value, raw))

    def test_nan_and_infinite_inputs_stay_themselves(self):
        spline = conditional_monotone_spline(2, count_bins=4).conditioned(normal(11))
        x, _ = spline.inverse_and_log_det(torch.tensor([torch.nan, torch.inf, -torch.inf], dtype=DOUBLE))
        assert x[0].isnan()
        assert x[1:].tolist() == [float("inf"), float("-inf")]

    def test_pyro_interface(self):
        spline = conditional_monotone_spline(3, [5], count_bins=4).double().condition(normal(6, 3))
        x = normal(6, seed=4)
        y = spline(x)
        torch.testing.assert_close(
            spline.log_abs_det_jacobian(x, y), -spline.inverse_and_log_det(y)[1], rtol=0, atol=0
        )
        cached = spline.with_cache(1)
        assert isinstance(cached, ConditionedMonotoneSpline)
        assert cached.inv(cached(x)) is x
        assert spline.forward_shape((2, 1)) == spline.inverse_shape((2, 1)) == (2, 6)


class TestGaussianMixture:
    def mixture(self):
        return GaussianMixture(2 * normal(6, 4), normal(6, 4, seed=1), 1.5 * normal(6, 4, seed=2) - 1)

    def test_equals_torch_where_torch_has_it(self):
        mixture = self.mixture()
        reference = torch.distributions.MixtureSameFamily(
            torch.distributions.Categorical(logits=mixture.logits),
            torch.distributions.Normal(mixture.locs, mixture.log_scales.exp()),
        )
        x = torch.linspace(-6, 6, 200, dtype=DOUBLE).unsqueeze(-1)
        torch.testing.assert_close(mixture.log_prob(x), reference.log_prob(x), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(mixture.cdf(x), reference.cdf(x), rtol=0, atol=1e-14)
        torch.testing.assert_close(mixture.mean, reference.mean)
        torch.testing.assert_close(mixture.variance, reference.variance)

    def test_tails_against_scipy(self):
        mixture = self.mixture()
        x = torch.tensor([[-40.0], [-9.0], [9.0], [40.0]], dtype=DOUBLE)
        weights, locs, scales = (t.numpy() for t in mixture.components)
        terms = stats.norm.logcdf(x.unsqueeze(-1).numpy(), locs, scales) + weights
        np.testing.assert_allclose(mixture.log_cdf(x), np.logaddexp.reduce(terms, -1), rtol=1e-12, atol=1e-15)
        terms = stats.norm.logsf(x.unsqueeze(-1).numpy(), locs, scales) + weights
        np.testing.assert_allclose(mixture.log_sf(x), np.logaddexp.reduce(terms, -1), rtol=1e-12, atol=1e-15)

    @settings(max_examples=25, deadline=None)
    @given(
        seed=st.integers(0, 10**6),
        distance=st.floats(0.0, 1e3),
        log_scale=st.floats(-12.0, 2.0),
        exponent=st.floats(-250.0, -0.31),
    )
    def test_quantiles_of_far_and_narrow_components(self, seed, distance, log_scale, exponent):
        raw = normal(3, 20, 3, seed=seed)
        mixture = GaussianMixture(3 * raw[0], distance * raw[1], raw[2] + log_scale)
        p = torch.full((20,), 10.0**exponent, dtype=DOUBLE)
        x = mixture.icdf(p)
        # The density times the spacing of x is how exactly a cdf can be met at all.
        spacing = mixture.log_prob(x).exp() * x.abs() * 2**-50
        assert ((mixture.cdf(x) - p).abs() <= 1e-12 * p + spacing).all()
        upper = 1 - torch.clamp(p, min=1e-16)
        x = mixture.icdf(upper)
        spacing = mixture.log_prob(x).exp() * x.abs() * 2**-50
        assert ((mixture.cdf(x) - upper).abs() <= 1e-15 + spacing).all()

    def test_reparameterised_samples_have_the_implicit_gradient(self):
        # d E[x] / d loc_k = w_k and d E[x^2] / d log_scale_k = 2 w_k sigma_k^2.
        logits, locs, log_scales = (normal(3, seed=s).requires_grad_() for s in range(3))
        mixture = GaussianMixture(logits, locs, log_scales)
        torch.manual_seed(0)
        draws = mixture.rsample((40_000,))
        weights = logits.softmax(-1).detach()
        (gradient,) = torch.autograd.grad(draws.mean(), locs, retain_graph=True)
        torch.testing.assert_close(gradient, weights, rtol=0.05, atol=0.02)
        (gradient,) = torch.autograd.grad((draws**2).mean(), log_scales)
        torch.testing.assert_close(
            gradient, 2 * weights * (2 * log_scales.detach()).exp(), rtol=0.08, atol=0.03
        )

    def test_expand_and_shapes(self):
        mixture = self.mixture().expand((3, 6))
        assert mixture.sample((2,)).shape == (2, 3, 6)
        assert mixture.icdf(torch.tensor(0.3, dtype=DOUBLE)).shape == (3, 6)

    def test_components_start_apart(self):
        for components, locs in ((3, [-1.0, 0.0, 1.0]), (1, [0.0])):
            base = ConditionalGaussianMixture(torch.nn.Identity(), components=components)
            assert base.conditioned(torch.zeros(3 * components, dtype=DOUBLE)).locs.tolist() == locs


class TestStandardNormal:
    def test_tails_against_scipy(self):
        base = StandardNormal(torch.zeros((), dtype=DOUBLE))
        x = torch.tensor([-30.0, -8.0, -1.0, 0.0, 2.0, 9.0, 30.0], dtype=DOUBLE)
        for ours, scipy in (
            (base.log_prob, stats.norm.logpdf),
            (base.cdf, stats.norm.cdf),
            (base.log_cdf, stats.norm.logcdf),
            (base.log_sf, stats.norm.logsf),
        ):
            np.testing.assert_allclose(ours(x), scipy(x), rtol=1e-12)
        p = torch.tensor([1e-300, 1e-8, 0.2, 1 - 1e-8], dtype=DOUBLE)
        np.testing.assert_allclose(base.icdf(p), stats.norm.ppf(p), rtol=1e-12)

    def test_expand(self):
        assert StandardNormal(torch.zeros(())).expand((4, 2)).sample((3,)).shape == (3, 4, 2)


class TestBracketedRoot:
    @settings(max_examples=40, deadline=None)
    @given(
        root=st.floats(-50, 50),
        power=st.sampled_from([1, 3, 7]),
        below=st.floats(1e-3, 1e3),
        above=st.floats(1e-3, 1e3),
    )
    def test_flat_and_steep_powers(self, root, power, below, above):
        def function(x):
            return (x - root) ** power, power * (x - root) ** (power - 1)

        lower, upper = torch.tensor([root - below], dtype=DOUBLE), torch.tensor([root + above], dtype=DOUBLE)
        found = bracketed_root(function, lower, upper)
        assert found.item() == pytest.approx(root, rel=1e-13, abs=1e-13 * (below + above))

    def test_many_at_once_against_brentq(self):
        shift = np.linspace(-3, 3, 11)

        def value(x, s):
            return np.arctan(20 * (x - s)) + 0.01 * x

        tensor = torch.from_numpy(shift)
        found = bracketed_root(
            lambda x: (
                torch.atan(20 * (x - tensor)) + 0.01 * x,
                20 / (1 + (20 * (x - tensor)) ** 2) + 0.01,
            ),
            torch.full((11,), -500.0, dtype=DOUBLE),
            torch.full((11,), 900.0, dtype=DOUBLE),
        )
        expected = [optimize.brentq(value, -500, 900, args=(s,), xtol=1e-15) for s in shift]
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)

    def test_useless_derivatives_fall_back_on_bisection(self):
        lower, upper = torch.zeros(1, dtype=DOUBLE), torch.full((1,), 7.0, dtype=DOUBLE)
        found = bracketed_root(lambda x: (x - 2.5, torch.full_like(x, torch.nan)), lower, upper)
        assert found.item() == pytest.approx(2.5, rel=1e-15)

    def test_nan_is_an_error(self):
        lower, upper = torch.zeros(2), torch.ones(2)
        with pytest.raises(RuntimeError, match="2 of 2 roots were not found"):
            bracketed_root(lambda x: (x * torch.nan, x), lower, upper, max_iterations=20)


class TestConvNetwork:
    def test_reads_image_channels_and_extras(self):
        network = ConvNetwork(2 * 6 * 5 + 3, (2, 6, 5), (4, 8), (7,), 2).double()
        context = normal(2, 4, 63).requires_grad_()
        out = network(context)
        assert out.shape == (2, 4, 2)
        (gradient,) = torch.autograd.grad(out.sum(), context)
        assert ((gradient != 0).sum((0, 1)) > 0).all()

    def test_batches_do_not_mix(self):
        network = ConvNetwork(33, (6, 5), (4,), (7,), 2).double()
        context = normal(5, 33)
        torch.testing.assert_close(network(context)[2], network(context[2]), rtol=1e-12, atol=1e-12)

    def test_a_kernel_over_all_of_an_axis_is_a_convolution_along_the_other_with_its_pixels_as_channels(self):
        # Independent: one-dimensional convolutions, pooling and dense layers, as the published network has them.
        network = ConvNetwork(
            50 * 48, (50, 48), (24, 10), (128, 64), 1,
            kernels=(("all", 5), (1, 3)), pooling=(1, (1, 4)),
        ).double()  # fmt: skip
        image = normal(7, 50, 48)
        first, second = (layer for layer in network.features if isinstance(layer, torch.nn.Conv2d))
        maps = torch.nn.functional.conv1d(image, first.weight[:, 0], first.bias, padding=2).relu()
        maps = torch.nn.functional.conv1d(maps, second.weight[:, :, 0], second.bias, padding=1).relu()
        maps = torch.nn.functional.max_pool1d(maps, 4)
        expected = network.head(maps.flatten(1))
        assert maps.shape == (7, 10, 12)
        torch.testing.assert_close(network(image.flatten(1)), expected, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("pooling", [None, (2, 2), ((1, 2), 3)], ids=str)
    def test_sizes_of_the_dense_layers_follow_from_the_image(self, pooling):
        network = ConvNetwork(
            2 * 11 * 13 + 1, (2, 11, 13), (3, 4), (7,), 2, kernels=(5, (3, 1)), pooling=pooling
        )
        assert network(normal(4, 287).float()).shape == (4, 2)

    def test_the_configuration_has_the_published_size(self):
        # Two convolutions, dense layers of 128, 64 and 1 (Ho et al. 2019, their code); here 50 radii, not 48, and a
        # second output.
        flow = load_yaml("cnn.yaml")["flow"]
        built = build_flow(flow["kind"], 2500, **flow["options"], image_shape=(1, 50, 50))
        published = 48 * 5 * 24 + 24 + 24 * 3 * 10 + 10 + 121 * 128 + 129 * 64 + 65
        assert published == 30323
        assert sum(p.numel() for p in built.parameters()) == published + 2 * 5 * 24 + 65


@pytest.mark.parametrize("module", ["conditional_affine", "root_finding"])
def test_examples_of_docstrings(module):
    result = doctest.testmod(importlib.import_module(f"bayesflowmass.flows.{module}"))
    assert result.attempted > 0
    assert result.failed == 0

"""Pyro's own conditional transforms in our flows, and what a flow asks of any transform."""

from __future__ import annotations

import numpy as np
import pyro.distributions as dist
import pyro.distributions.transforms as transforms
import pytest
import torch
from numpy.testing import assert_allclose
from pyro.distributions.conditional import ConditionalTransformModule
from scipy import integrate, stats
from torch import nn
from torch.distributions import AffineTransform, Transform

from bayesflowmass.estimator.weight_draws import condition_draws
from bayesflowmass.flows import (
    ConditionalAffine,
    ConditionalFlow,
    ConditionalGaussianMixture,
    ConditionalStandardNormal,
    ConditionedAffine,
    GaussianMixture,
    MassDistribution,
    PyroBlock,
    ScalarTransform,
    TrainingPopulation,
)
from bayesflowmass.networks.dense import DenseNetwork

DOUBLE = torch.float64
C, LOC, SCALE = 4, 14.3, 0.5


def normal(*shape, seed=0, dtype=DOUBLE):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class Reflection(ConditionalTransformModule):
    """y = a(d) - exp(b(d)) x, as a Pyro user writes it: it falls."""

    domain = dist.constraints.real
    codomain = dist.constraints.real
    bijective = True

    def __init__(self, network):
        super().__init__()
        self.nn = network

    def condition(self, context):
        shift, log_scale = self.nn(context).chunk(2, -1)
        return AffineTransform(shift, -log_scale.exp())


def pyro_block(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        if name == "falling":
            return Reflection(DenseNetwork(C, (5,), 2))
        return transforms.conditional_spline(1, C, hidden_dims=[6], count_bins=5, order=name)


def flow_of(name, base="normal", dtype=DOUBLE):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        affine = ConditionalAffine(DenseNetwork(C, (5,), 2))
        base_dist = (
            ConditionalStandardNormal()
            if base == "normal"
            else ConditionalGaussianMixture(DenseNetwork(C, (5,), 6), components=2)
        )
    block = pyro_block(name)
    flow = ConditionalFlow(
        nn.Identity(), base_dist, [block, affine], context_dim=C, loc=LOC, scale=SCALE, description={}
    )
    return flow.to(dtype)


@pytest.mark.parametrize("base", ["normal", "mixture"])
@pytest.mark.parametrize("name", ["linear", "quadratic", "falling"])
class TestPyrosTransforms:
    def test_the_density_is_that_of_pyros_own_composition(self, name, base):
        flow = flow_of(name, base)
        context, mass = normal(7, C), LOC + SCALE * normal(7, seed=3)
        block = pyro_block(name).double()
        given = flow.base_dist.condition(context)
        affine = flow.transforms[1].condition(context)
        # By hand, from the data to the base: standardise, our affine block, Pyro's block on vectors of one element.
        y = (mass - LOC) / SCALE
        u = affine.inv(y).unsqueeze(-1)
        theirs = block.condition(context)
        x = theirs.inv(u)
        expected = (
            given.log_prob(x.squeeze(-1))
            - theirs.log_abs_det_jacobian(x, u).squeeze(-1)
            - affine.log_abs_det_jacobian(y, y)
            - np.log(SCALE)
        )
        torch.testing.assert_close(flow.log_prob(mass, context), expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(
            flow.condition(context).log_prob(mass), flow.log_prob(mass, context), rtol=1e-13, atol=1e-13
        )

    def test_density_is_the_slope_of_the_cdf_which_rises_from_nothing_to_all(self, name, base):
        with torch.no_grad():
            distribution = flow_of(name, base).condition(normal(5, C))
        ends = distribution.icdf(torch.tensor([[1e-10], [1 - 1e-10]], dtype=DOUBLE))
        mass = ends[0] + (ends[1] - ends[0]) * torch.linspace(0, 1, 4001, dtype=DOUBLE)[:, None]
        cdf = distribution.cdf(mass)
        assert (cdf.diff(dim=0) >= -1e-12).all()
        assert_allclose(cdf[[0, -1]], [[1e-10] * 5, [1 - 1e-10] * 5], atol=1e-12)
        step = 1e-6
        slope = (distribution.cdf(mass + step) - distribution.cdf(mass - step)) / (2 * step)
        # Rounding of the cdf over the step, and the bends, where the second derivative jumps.
        assert_allclose(slope, distribution.log_prob(mass).exp(), rtol=1e-4, atol=1e-8)
        assert_allclose(distribution.log_cdf(mass).exp() + distribution.log_sf(mass).exp(), 1.0, atol=1e-12)

    def test_quantiles_samples_and_moments_agree(self, name, base):
        with torch.no_grad():
            distribution = flow_of(name, base).condition(normal(3, C))
            p = torch.tensor([[1e-8], [0.2], [0.5], [1 - 1e-8]], dtype=DOUBLE)
            assert_allclose(distribution.cdf(distribution.icdf(p)), p.expand(-1, 3), atol=1e-10)
            torch.manual_seed(0)
            draws = distribution.sample((2000,))
            assert draws.shape == (2000, 3)
            assert stats.kstest(distribution.cdf(draws)[:, 1].numpy(), "uniform").pvalue > 1e-4
            ends = distribution.icdf(torch.tensor([[1e-15], [1 - 1e-15]], dtype=DOUBLE))
            mass = ends[0] + torch.linspace(0, 1, 20_001, dtype=DOUBLE)[:, None] * (ends[1] - ends[0])
            density = distribution.log_prob(mass).exp()
        mean = torch.trapezoid(density * mass, mass, dim=0)
        assert_allclose(distribution.mean, mean, atol=2e-5)
        variance = torch.trapezoid(density * (mass - mean) ** 2, mass, dim=0)
        assert_allclose(distribution.variance, variance, rtol=1e-4)

    def test_gradients_reach_every_parameter_and_grids_broadcast(self, name, base):
        flow = flow_of(name, base, torch.float32)
        context = normal(6, C, dtype=torch.float32)
        flow.log_prob(torch.full((6,), 14.2), context).sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in flow.parameters())
        distribution = flow.condition(context)
        assert distribution.dtype == torch.float64
        assert distribution.cdf(torch.linspace(13, 15, 9)[:, None]).shape == (9, 6)
        assert flow.condition(context, torch.float32).sample((2,)).dtype == torch.float32

    def test_draws_of_its_weights_are_flows_of_their_own(self, name, base):
        flow = flow_of(name, base).eval()
        context = normal(6, C)
        names = [key for key, _ in flow.named_parameters() if key.startswith("transforms.0.nn")]
        assert names
        draws = {key: torch.stack([v, 1.1 * v]) for key, v in flow.named_parameters() if key in names}
        mass = torch.full((6,), 14.2, dtype=DOUBLE)
        found = condition_draws(flow, draws, context).log_prob(mass)
        torch.testing.assert_close(found[0], flow.log_prob(mass, context), rtol=1e-12, atol=1e-12)
        flow.load_state_dict(flow.state_dict() | {key: value[1] for key, value in draws.items()})
        torch.testing.assert_close(found[1], flow.log_prob(mass, context), rtol=1e-12, atol=1e-12)

    def test_a_known_population_is_integrated_whichever_way_it_goes(self, name, base):
        flow = flow_of(name, base)
        context, mass = normal(4, C), LOC + SCALE * normal(4, seed=3)
        plain = flow.log_prob(mass, context)
        edges = torch.tensor([13.0, 14.2, 14.5, 16.0], dtype=DOUBLE)
        log_q = torch.tensor([0.0, -1.0, -3.0], dtype=DOUBLE)
        flow.population = TrainingPopulation.of(edges, log_q)
        cdf = flow.condition(context).cdf(edges[1:-1, None])
        pieces = torch.cat([cdf[:1], cdf[1:] - cdf[:1], 1 - cdf[1:]])
        here = log_q[torch.bucketize(mass, edges[1:-1], right=True)]
        expected = plain + here - (log_q.exp() @ pieces).log()
        torch.testing.assert_close(flow.log_prob(mass, context), expected, rtol=1e-10, atol=1e-10)


class TestWhatAFlowAsksOfATransform:
    def mixture(self, n=3):
        return GaussianMixture(normal(n, 2), normal(n, 2, seed=1), 0.3 * normal(n, 2, seed=2))

    def falling(self, base):
        return MassDistribution(base, [AffineTransform(14.0, -0.5)])

    def test_the_cdf_of_a_falling_transform_is_that_of_quadrature(self):
        distribution = self.falling(self.mixture())

        def density(m, i):
            return float(distribution.log_prob(torch.full((3,), m, dtype=DOUBLE)).exp()[i])

        for i in range(3):
            expected = integrate.quad(density, 5.0, 14.1, args=(i,), epsabs=1e-12, limit=200)[0]
            at = torch.full((3,), 14.1, dtype=DOUBLE)
            assert float(distribution.cdf(at)[i]) == pytest.approx(expected, abs=1e-9)
            assert float(distribution.log_prob_and_cdf(at)[1][i]) == pytest.approx(expected, abs=1e-9)
            assert float(distribution.log_cdf(at).exp()[i]) == pytest.approx(expected, abs=1e-9)
            assert float(distribution.log_sf(at).exp()[i]) == pytest.approx(1 - expected, abs=1e-9)
        p = torch.tensor([[0.01], [0.5], [0.99]], dtype=DOUBLE)
        assert_allclose(distribution.cdf(distribution.icdf(p)), p.expand(-1, 3), atol=1e-12)

    def test_clusters_may_rise_and_fall_beside_each_other(self):
        slope = torch.tensor([0.5, -0.5, -0.2], dtype=DOUBLE)
        base = self.mixture()
        both = MassDistribution(base, [AffineTransform(14.0, slope)])
        at = torch.full((3,), 14.1, dtype=DOUBLE)
        for i, one in enumerate(slope.tolist()):
            alone = MassDistribution(base, [AffineTransform(14.0, one)])
            for method in ("cdf", "log_cdf", "log_sf", "log_prob"):
                expected = getattr(alone, method)(at)[i]
                torch.testing.assert_close(getattr(both, method)(at)[i], expected, rtol=1e-12, atol=1e-12)
            p = torch.full((3,), 0.3, dtype=DOUBLE)
            torch.testing.assert_close(both.icdf(p)[i], alone.icdf(p)[i], rtol=1e-12, atol=0)
        assert both.expand((2, 3)).cdf(at).shape == (2, 3)

    def test_a_transform_that_does_not_say_where_it_goes_is_refused(self):
        class Silent(Transform):
            domain = codomain = dist.constraints.real
            bijective = True

        with pytest.raises(ValueError, match="Silent declares no `sign`"):
            MassDistribution(self.mixture(), [Silent()])

    def test_transforms_of_vectors_are_refused(self):
        vectors = ConditionedAffine(normal(3), normal(3), event_dim=1)
        with pytest.raises(ValueError, match="of single numbers"):
            MassDistribution(self.mixture(), [vectors])

    def test_a_block_without_a_network_is_refused(self):
        class Constant(Reflection):
            def __init__(self):
                ConditionalTransformModule.__init__(self)

        with pytest.raises(ValueError, match="has no network `nn`"):
            PyroBlock(Constant())

    def test_a_scalar_transform_looks_which_way_it_goes(self):
        like = torch.zeros(2, dtype=DOUBLE)
        scale = torch.tensor([[2.0], [-3.0]], dtype=DOUBLE)
        scalar = ScalarTransform(AffineTransform(torch.zeros(2, 1, dtype=DOUBLE), scale), like)
        assert scalar.sign.tolist() == [1.0, -1.0]
        x = normal(5, 2)
        y = scalar(x)
        torch.testing.assert_close(y, x * scale[:, 0])
        torch.testing.assert_close(scalar.inv(y), x)
        torch.testing.assert_close(scalar.log_abs_det_jacobian(x, y), scale[:, 0].abs().log().expand(5, 2))
        assert scalar.forward_shape((5, 1)) == scalar.inverse_shape((5, 1)) == (5, 2)


@pytest.mark.parametrize("loc_shape", [(), (3,), (4, 3), (4, 1)], ids=str)
@pytest.mark.parametrize("scale_shape", [(), (1,), (3,), (4, 1), (4, 3)], ids=str)
@pytest.mark.parametrize("event_dim", [0, 1])
def test_shared_scales_count_once_for_each_element(event_dim, scale_shape, loc_shape):
    """log|dy/dx| of the dense Jacobian, whatever broadcasts with what."""
    transform = ConditionedAffine(normal(*loc_shape), normal(*scale_shape, seed=1), event_dim=event_dim)
    x = normal(4, 3, seed=2)
    y = transform(x)
    jacobian = torch.autograd.functional.jacobian(transform, x).reshape(12, 12).diagonal().reshape(4, 3)
    expected = jacobian.log().sum(-1) if event_dim else jacobian.log()
    torch.testing.assert_close(transform.log_abs_det_jacobian(x, y), expected)
    back, log_det = transform.inverse_and_log_det(y)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(log_det, -expected)


@pytest.mark.parametrize("default", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", ["linear", "quadratic", "falling"])
def test_precision_follows_the_inputs_and_not_the_default(name, dtype, default):
    before = torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        flow = flow_of(name, "mixture", dtype)
        context, mass = normal(3, C).to(dtype), torch.full((3,), 14.2, dtype=dtype)
        assert flow.log_prob(mass, context).dtype == dtype
        distribution = flow.condition(context, dtype)
        values = [distribution.sample(), distribution.rsample((2,)), distribution.mean, distribution.variance]
        values += [getattr(distribution, m)(mass) for m in ("log_prob", "cdf", "log_cdf", "log_sf")]
        values += [distribution.icdf(torch.full_like(mass, 0.3)), *distribution.log_prob_and_cdf(mass)]
        assert {value.dtype for value in values} == {dtype}
        assert flow.condition(context).cdf(mass).dtype == torch.float64
    finally:
        torch.set_default_dtype(before)

"""Contracts that every conditional flow keeps."""

from __future__ import annotations

import json

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro import poutine
from safetensors.torch import load_file, save_file
from scipy import integrate, stats

from bayesflowmass.flows import FLOW_KINDS, ConditionalFlow, MassDistribution, build_flow
from bayesflowmass.flows.distribution import pull_back
from bayesflowmass.flows.endings import condition_endings

CONTEXT_DIM, LOC, SCALE = 26, 14.37, 0.613
SMALL = {"hidden": (9, 5), "context_dim": CONTEXT_DIM, "loc": LOC, "scale": SCALE, "seed": 5}
CASES = {
    **{kind: {"kind": kind} for kind in FLOW_KINDS},
    "two splines": {"kind": "affine+spline", "spline_blocks": 2, "bound": 3.0},
    "shared": {"kind": "affine+spline", "shared": True, "activation": "gelu"},
    "conv": {"kind": "affine", "trunk": "conv", "image_shape": (5, 5), "channels": (3, 4)},
    "shared conv": {
        "kind": "affine+mixture",
        "trunk": "conv",
        "image_shape": (2, 3, 4),
        "channels": (3,),
        "shared": True,
    },
    "conv over all of an axis, pooled": {
        "kind": "affine",
        "affine_blocks": 1,
        "trunk": "conv",
        "image_shape": (5, 5),
        "channels": (3, 4),
        "kernels": (("all", 3), (1, 3)),
        "pooling": (1, (1, 2)),
    },
}


def make(case, **changes):
    return build_flow(**{**SMALL, **CASES[case], **changes})


def contexts(*batch, seed=1, dtype=torch.float64):
    return 2 * torch.randn(*batch, CONTEXT_DIM, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def detached(flow, context):
    with torch.no_grad():
        return flow.double().condition(context)


@pytest.fixture(params=CASES)
def case(request):
    return request.param


class TestEveryFlow:
    def test_transforms_and_their_inverse_agree(self, case):
        distribution = make(case).double().condition(contexts(6))
        base = torch.linspace(-9, 9, 181, dtype=torch.float64).unsqueeze(-1).expand(-1, 6)
        value = base
        for transform in distribution.transforms:
            value = transform(value)
        back, _ = pull_back(distribution.transforms, value)
        assert (value.diff(dim=0) > 0).all()
        # Relative to the local stretch: one part in 10^12 of the mass.
        torch.testing.assert_close(back, base, rtol=1e-10, atol=1e-10)

    def test_log_determinant_is_that_of_the_autograd_jacobian(self, case):
        distribution = make(case).double().condition(contexts(6))
        value = torch.linspace(8, 21, 160, dtype=torch.float64).unsqueeze(-1).repeat(1, 6).requires_grad_()
        base, log_det = pull_back(distribution.transforms, value)
        (jacobian,) = torch.autograd.grad(base.sum(), value)
        torch.testing.assert_close(log_det.expand_as(jacobian), jacobian.log(), rtol=0, atol=1e-10)

    @pytest.mark.parametrize("far", [0.0, 40.0], ids=["near", "far outside the bound"])
    def test_gradients_reach_every_parameter_and_are_finite(self, case, far):
        flow = make(case)
        mass = LOC + far + SCALE * torch.linspace(-1.5, 1.5, 40)
        flow.log_prob(mass, contexts(40, dtype=torch.float32)).sum().backward()
        for name, parameter in flow.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert far or (parameter.grad != 0).any(), name

    def test_log_prob_is_that_of_pyro(self, case):
        flow = make(case).double()
        context, mass = contexts(7), LOC + SCALE * torch.randn(7, dtype=torch.float64)
        generic = dist.ConditionalTransformedDistribution(flow.base_dist, list(flow.transforms))
        expected = generic.condition(flow.trunk(context)).log_prob(mass)
        torch.testing.assert_close(flow.log_prob(mass, context), expected, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(flow.condition(context).log_prob(mass), expected, rtol=1e-13, atol=1e-13)

    def test_samples_follow_the_density(self, case):
        # Kolmogorov-Smirnov at level 1e-4 (D > 0.035 with 4000 draws); the last line is its negative control:
        # draws shifted by a quarter of a standard deviation (D of about 0.1) are rejected, power > 0.999.
        distribution = detached(make(case), contexts(2))
        torch.manual_seed(2)
        draws = distribution.sample((4000,))
        for i in range(2):
            assert stats.kstest(distribution.cdf(draws)[:, i].numpy(), "uniform").pvalue > 1e-4
        shifted = distribution.cdf(draws + 0.25 * distribution.stddev)
        assert stats.kstest(shifted[:, 0].numpy(), "uniform").pvalue < 1e-4

    def test_quantiles_invert_the_cdf(self, case):
        distribution = detached(make(case), contexts(20))
        lower = torch.logspace(-8, np.log10(0.5), 60, dtype=torch.float64)
        p = torch.cat([lower, 1 - lower]).unsqueeze(-1)
        mass = distribution.icdf(p)
        assert mass.shape == (120, 20)
        assert (distribution.cdf(mass) - p).abs().max() < 1e-10

    def test_quantiles_of_the_ends(self, case):
        distribution = make(case).double().condition(contexts(3))
        ends = distribution.icdf(torch.tensor([[0.0], [1.0], [-0.1], [1.1]], dtype=torch.float64))
        assert (ends[0] == -torch.inf).all()
        assert (ends[1] == torch.inf).all()
        assert ends[2:].isnan().all()

    def test_cdf_is_monotone_and_tails_are_finite_in_log_space(self, case):
        distribution = make(case).double().condition(contexts(4))
        mass = torch.linspace(LOC - 12, LOC + 12, 4001, dtype=torch.float64).unsqueeze(-1)
        assert (distribution.cdf(mass).diff(dim=0) >= -1e-15).all()
        log_cdf, log_sf = distribution.log_cdf(mass), distribution.log_sf(mass)
        assert log_cdf.isfinite().all()
        assert log_sf.isfinite().all()
        assert (log_cdf.diff(dim=0) >= -1e-14).all()
        assert (log_sf.diff(dim=0) <= 1e-14).all()
        torch.testing.assert_close(log_cdf.exp() + log_sf.exp(), torch.ones_like(log_cdf), rtol=0, atol=1e-14)

    def test_density_is_the_derivative_of_the_cdf(self, case):
        distribution = make(case).double().condition(contexts(4))
        mass = distribution.icdf(torch.linspace(0.01, 0.99, 50, dtype=torch.float64).unsqueeze(-1))
        mass = mass.detach().requires_grad_()
        (density,) = torch.autograd.grad(distribution.cdf(mass).sum(), mass)
        torch.testing.assert_close(density, distribution.log_prob(mass).exp(), rtol=1e-9, atol=1e-12)

    def test_density_integrates_to_one_per_dex(self, case):
        distribution = detached(make(case), contexts(3)[2])
        p = torch.tensor([1e-12, 0.01, 0.2, 0.5, 0.8, 0.99, 1 - 1e-12], dtype=torch.float64)
        edges = distribution.icdf(p)
        bends = distribution.bends()
        points = edges[1:-1] if bends is None else torch.cat([edges[1:-1], bends])
        points = points[(points > edges[0]) & (points < edges[-1])].sort().values

        def density(mass):
            return distribution.log_prob(torch.tensor(mass, dtype=torch.float64)).exp().item()

        total = integrate.quad(
            density, edges[0].item(), edges[-1].item(), points=points.numpy(), epsabs=2e-9, limit=400
        )[0]
        assert abs(total - 1) < 1e-8

    def test_mean_and_variance_are_those_of_quadrature(self, case):
        distribution = detached(make(case), contexts(3))
        ends = distribution.icdf(torch.tensor([[1e-15], [1 - 1e-15]], dtype=torch.float64))
        mass = ends[0] + torch.linspace(0, 1, 100_001, dtype=torch.float64).unsqueeze(-1) * (
            ends[1] - ends[0]
        )
        density = distribution.log_prob(mass).exp()
        mean = torch.trapezoid(density * mass, mass, dim=0)
        variance = torch.trapezoid(density * (mass - mean) ** 2, mass, dim=0)
        torch.testing.assert_close(distribution.mean, mean, rtol=0, atol=5e-6)
        torch.testing.assert_close(distribution.variance, variance, rtol=2e-6, atol=0)

    @pytest.mark.parametrize("batch", [(), (5,), (2, 3)], ids=str)
    def test_batch_shapes(self, case, batch):
        flow = make(case)
        context = contexts(*batch, dtype=torch.float32)
        distribution = flow.condition(context)
        assert isinstance(flow, dist.conditional.ConditionalTransformedDistribution)
        assert isinstance(distribution, MassDistribution)
        assert distribution.batch_shape == batch
        assert distribution.event_shape == ()
        assert distribution.mean.shape == distribution.variance.shape == batch
        assert distribution.sample().shape == batch
        assert distribution.sample((4,)).shape == (4, *batch)
        assert distribution.rsample((4, 2)).shape == (4, 2, *batch)
        grid = torch.linspace(13, 16, 7).reshape(7, *(1,) * len(batch))
        for method in (distribution.log_prob, distribution.cdf, distribution.log_cdf, distribution.log_sf):
            assert method(grid).shape == (7, *batch)
        assert distribution.icdf(torch.linspace(0.1, 0.9, 7).reshape(grid.shape)).shape == (7, *batch)
        expanded = distribution.expand((6, *batch))
        assert isinstance(expanded, MassDistribution)
        assert expanded.batch_shape == (6, *batch)
        assert expanded.sample((2,)).shape == (2, 6, *batch)
        assert expanded.mean.shape == (6, *batch)
        value = distribution.sample()
        assert torch.equal(expanded.log_prob(value), distribution.log_prob(value).expand(6, *batch))
        assert flow.log_prob(value.float(), context).shape == batch

    def test_save_and_load_without_pickle(self, case, tmp_path):
        flow = make(case)
        save_file(flow.state_dict(), tmp_path / "weights.safetensors")
        (tmp_path / "flow.json").write_text(json.dumps(flow.describe()), encoding="utf-8")
        description = json.loads((tmp_path / "flow.json").read_text(encoding="utf-8"))
        loaded = ConditionalFlow.from_description({**description, "seed": 99})
        loaded.load_state_dict(load_file(tmp_path / "weights.safetensors"))
        context, mass = contexts(5, dtype=torch.float32), torch.linspace(13.5, 15, 5)
        assert torch.equal(loaded.log_prob(mass, context), flow.log_prob(mass, context))
        assert loaded.describe() == {**flow.describe(), "seed": 99}

    def test_precision_is_that_of_the_target_in_training_and_double_in_distributions(self, case):
        flow = make(case)
        context, mass = contexts(5, dtype=torch.float32), torch.linspace(13.5, 15, 5)
        assert flow.log_prob(mass, context).dtype == torch.float32
        distribution = flow.condition(context)
        assert distribution.dtype == torch.float64
        assert distribution.sample().dtype == torch.float64
        assert flow.condition(context, dtype=torch.float32).sample().dtype == torch.float32
        torch.testing.assert_close(
            distribution.log_prob(mass.double()).float(), flow.log_prob(mass, context), rtol=1e-4, atol=1e-4
        )
        assert flow.double().log_prob(mass.double(), context.double()).dtype == torch.float64

    def test_works_inside_a_pyro_model(self, case):
        flow = make(case).double()
        context, mass = contexts(5), torch.linspace(13.5, 15, 5, dtype=torch.float64)

        def model(observed=None):
            with pyro.plate("clusters", 5):
                return pyro.sample("m", flow.condition(context), obs=observed)

        trace = poutine.trace(model).get_trace(mass)
        log_prob_sum = trace.log_prob_sum()
        torch.testing.assert_close(log_prob_sum, flow.log_prob(mass, context).sum(), rtol=1e-13, atol=0)
        log_prob_sum.backward()
        assert all(p.grad is not None for p in flow.parameters())
        draw = poutine.trace(model).get_trace()
        assert draw.nodes["m"]["value"].shape == (5,)
        assert draw.nodes["m"]["value"].requires_grad

    def test_reparameterised_samples_and_quantiles_carry_the_gradient_of_the_quantile(self, case):
        flow = make(case).double()
        context, direction = contexts(1), 1e-5 * contexts(1, seed=3)
        probability = torch.tensor([[0.03], [0.4], [0.98]], dtype=torch.float64)
        ends = [flow.condition(context + s * direction).icdf(probability).detach() for s in (-1, 1)]
        step = torch.zeros((), dtype=torch.float64, requires_grad=True)
        quantiles = flow.condition(context + step * direction).icdf(probability)
        for quantile, lower, upper in zip(quantiles, *ends, strict=True):
            (slope,) = torch.autograd.grad(quantile.sum(), step, retain_graph=True)
            assert slope.item() == pytest.approx(((upper - lower) / 2).item(), rel=1e-4, abs=1e-10)
        torch.manual_seed(0)
        draw = flow.condition(context + step * direction).rsample()
        (slope,) = torch.autograd.grad(draw.sum(), step)
        with torch.no_grad():
            probability = flow.condition(context).cdf(draw)
            ends = [flow.condition(context + s * direction).icdf(probability) for s in (-1, 1)]
        assert slope.item() == pytest.approx(((ends[1] - ends[0]) / 2).item(), rel=1e-4, abs=1e-10)

    def test_weights_can_be_passed_as_arguments(self, case):
        flow = make(case)
        context, mass = contexts(5, dtype=torch.float32), torch.linspace(13.5, 15, 5)
        weights = {name: 0.9 * value for name, value in flow.state_dict().items()}
        functional = torch.func.functional_call(flow, weights, (mass, context))
        flow.load_state_dict(weights)
        assert torch.equal(functional, flow(mass, context))

    def test_same_seed_same_weights_and_the_global_generator_is_left_alone(self, case):
        before = torch.get_rng_state()
        first, second, other = make(case), make(case), make(case, seed=6)
        assert torch.equal(torch.get_rng_state(), before)
        states = [flow.state_dict() for flow in (first, second, other)]
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
        assert any(not torch.equal(states[0][name], states[2][name]) for name in states[0])

    @pytest.mark.gpu
    def test_gpu_equals_cpu(self, case):
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
        flow = make(case).double()
        context, mass = contexts(50), LOC + SCALE * torch.linspace(-2, 2, 50, dtype=torch.float64)
        flow.log_prob(mass, context).sum().backward()
        expected = {name: p.grad.clone() for name, p in flow.named_parameters()}
        on_cpu = flow.condition(context).icdf(torch.full((50,), 0.1, dtype=torch.float64))
        log_prob = flow.log_prob(mass, context)
        flow.zero_grad()
        flow.to("cuda")
        on_gpu = flow.log_prob(mass.cuda(), context.cuda())
        on_gpu.sum().backward()
        torch.testing.assert_close(on_gpu.cpu(), log_prob, rtol=1e-10, atol=1e-10)
        for name, parameter in flow.named_parameters():
            torch.testing.assert_close(parameter.grad.cpu(), expected[name], rtol=1e-8, atol=1e-8)
        quantile = flow.condition(context.cuda()).icdf(torch.full((50,), 0.1, dtype=torch.float64).cuda())
        torch.testing.assert_close(quantile.cpu(), on_cpu, rtol=1e-10, atol=1e-10)


@settings(max_examples=20, deadline=None)
@given(blocks=st.integers(1, 5), seed=st.integers(0, 10**6))
def test_affine_blocks_are_exactly_one_gaussian(blocks, seed):
    flow = make("affine", affine_blocks=blocks, seed=seed).double()
    context = contexts(8, seed=seed)
    distribution = flow.condition(context)
    mass = torch.linspace(12, 17, 50, dtype=torch.float64).unsqueeze(-1)
    # The algebra of docs/flows.md: shift A <- loc + exp(log_scale) A, log scale S <- log_scale + S.
    shift = log_scale = torch.zeros(8, dtype=torch.float64)
    for block in flow.transforms[:blocks]:
        loc, step = block.nn(context).unbind(-1)
        shift, log_scale = loc + step.exp() * shift, step + log_scale
    gaussian = dist.Normal(LOC + SCALE * shift, SCALE * log_scale.exp())
    torch.testing.assert_close(distribution.mean, gaussian.mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(distribution.stddev, gaussian.stddev, rtol=1e-12, atol=0)
    torch.testing.assert_close(distribution.log_prob(mass), gaussian.log_prob(mass), rtol=1e-12, atol=1e-12)


def test_dropout_acts_in_training_only():
    flow = make("affine", dropout=0.5)
    context, mass = contexts(5, dtype=torch.float32), torch.linspace(13.5, 15, 5)
    torch.manual_seed(0)
    assert not torch.equal(flow.log_prob(mass, context), flow.log_prob(mass, context))
    flow.eval()
    assert torch.equal(flow.log_prob(mass, context), flow.log_prob(mass, context))


def test_paper_architecture_is_the_default():
    flow = build_flow()
    shapes = [tuple(p.shape) for p in flow.transforms[0].nn.parameters() if p.dim() == 2]
    assert shapes == [(512, 2500), (64, 512), (512, 64), (2, 512)]
    assert sum(p.numel() for p in flow.parameters()) == 3 * (2501 * 512 + 513 * 64 + 65 * 512 + 513 * 2)


CONV = {"trunk": "conv", "image_shape": (5, 5), "channels": (3,)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "planar"}, "unknown flow kind 'planar'; choose one of affine, spline"),
        ({"trunk": "graph"}, "unknown trunk 'graph'; choose dense, conv or set"),
        ({"trunk": "conv"}, "needs image_shape"),
        ({"trunk": "conv", "image_shape": (50, 50)}, "2500 pixels .* does not fit into a context of 26"),
        ({"trunk": "conv", "image_shape": (50,)}, "image_shape is .height, width."),
        ({**CONV, "kernels": (4,)}, "odd number of pixels or 'all', not 4"),
        ({**CONV, "kernels": (("al", 3),)}, "odd number of pixels or 'all', not 'al'"),
        ({**CONV, "kernels": ((3, 3, 3),)}, "one extent or .height, width."),
        ({**CONV, "kernels": (5, 3)}, "kernels has 2 entries and channels 1"),
        ({**CONV, "pooling": (6,)}, "pooling over 6 pixels does not fit an image that has 5 left"),
        ({**CONV, "pooling": (0,)}, "pooling over 0 pixels"),
        ({"activation": "sine"}, "unknown activation 'sine'; choose one of gelu"),
        ({"scale": 0.0}, "the scale positive"),
        ({"loc": float("nan")}, "must be finite"),
        ({"affine_blocks": 0}, "affine_blocks is 0"),
        ({"kind": "spline", "count_bins": 1}, "count_bins is 1"),
        ({"kind": "spline", "bound": -1.0}, "bound is -1.0"),
        ({"kind": "mixture", "components": 0}, "components is 0"),
        ({"hiden": (4,)}, "unknown option 'hiden' in the description of a flow; did you mean 'hidden'"),
    ],
)
def test_bad_descriptions_are_refused_in_a_sentence(changes, message):
    with pytest.raises(ValueError, match=message):
        ConditionalFlow.from_description({"kind": "affine", **SMALL, **changes})


def test_a_description_without_its_scale_is_refused():
    with pytest.raises(ValueError, match="lacks 'scale'"):
        ConditionalFlow.from_description({"kind": "affine", "context_dim": 3, "loc": 14.0})


def test_a_context_of_another_encoder_is_refused():
    with pytest.raises(ValueError, match="has 3 numbers per cluster and this flow was made for 26"):
        make("affine").condition(torch.zeros(2, 3))


@pytest.mark.parametrize("shared", [True, False])
def test_contexts_that_differ_at_their_end_are_read_like_any(shared):
    flow = build_flow(
        "affine+spline", 7, 14.3, 0.3, hidden=(6,), count_bins=4, shared=shared, seed=2
    ).double()
    generator = torch.Generator().manual_seed(4)
    context, endings = (
        torch.randn(*n, generator=generator, dtype=torch.float64) for n in ((5, 7), (3, 5, 2))
    )
    found = condition_endings(flow, context, endings).mean.reshape(3, 5)
    for ending, mean in zip(endings, found, strict=True):
        whole = torch.cat([context[:, :-2], ending], 1)
        torch.testing.assert_close(mean, flow.condition(whole).mean, rtol=1e-13, atol=1e-13)

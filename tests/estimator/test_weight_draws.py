"""Draws of the weights, applied to clusters: every draw to all of them."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn
from torch.func import functional_call

from bayesflowmass.bayes import choose
from bayesflowmass.estimator.weight_draws import condition_draws
from bayesflowmass.flows import build_flow
from bayesflowmass.posterior import MassPosterior

FLOWS = {
    "three separate affine blocks": {"kind": "affine", "hidden": (6, 5)},
    "shared trunk": {"kind": "affine+spline+mixture", "hidden": (6, 5), "shared": True, "count_bins": 4},
    "no hidden layer": {"kind": "spline", "hidden": (), "count_bins": 4},
    "dropout": {"kind": "affine", "hidden": (6, 5), "dropout": 0.5, "affine_blocks": 1},
    "convolutions": {
        "kind": "affine", "hidden": (6,), "trunk": "conv", "image_shape": (4, 4), "channels": (2,), "shared": True,
    },
}  # fmt: skip


def random_draws(flow, which, n=3):
    generator = torch.Generator().manual_seed(3)
    parameters = dict(flow.named_parameters())
    return {
        name: parameters[name].detach()
        + 0.2 * torch.randn(n, *parameters[name].shape, generator=generator, dtype=torch.float64)
        for name in choose(flow, which)
    }


def make(case):
    options = FLOWS[case]
    size = 17 if "conv" in case else 3
    generator = torch.Generator().manual_seed(4)
    context = torch.randn(9, size, generator=generator, dtype=torch.float64)
    log10_mass = 14.3 + 0.3 * torch.randn(9, generator=generator, dtype=torch.float64)
    return build_flow(context_dim=size, loc=14.3, scale=0.3, seed=2, **options).double(), context, log10_mass


@pytest.mark.parametrize("which", ["all", "last", "*.bias"])
@pytest.mark.parametrize("case", list(FLOWS))
def test_draws_equal_a_loop_over_functional_calls(case, which):
    flow, context, log10_mass = make(case)
    draws = random_draws(flow, which)
    found = condition_draws(flow, draws, context)
    flow.eval()
    expected = torch.stack(
        [
            functional_call(flow, {name: value[d] for name, value in draws.items()}, (log10_mass, context))
            for d in range(3)
        ]
    )
    assert found.batch_shape == (3, 9)
    torch.testing.assert_close(found.log_prob(log10_mass), expected, rtol=1e-12, atol=1e-12)


class Residual(nn.Sequential):
    """A sequence with a way of its own."""

    def forward(self, x):
        return x + super().forward(x)


def _twice():
    layer = nn.Linear(3, 3)
    return nn.Sequential(layer, nn.Tanh(), layer)


def _tied():
    network = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    network[2].weight = network[0].weight
    return network


TRUNKS = {
    "residual": lambda: Residual(nn.Linear(3, 3), nn.Tanh()),
    "a layer twice": _twice,
    "tied layers": _tied,
    "batch norm": lambda: nn.Sequential(nn.Linear(3, 9), nn.BatchNorm1d(9), nn.Tanh(), nn.Linear(9, 3)),
    "batch norm of fixed weights": lambda: nn.Sequential(
        nn.Linear(3, 9), nn.BatchNorm1d(9).requires_grad_(False)
    ),
}


@pytest.mark.parametrize("trunk", list(TRUNKS))
def test_draws_equal_a_flow_into_which_they_are_written(trunk):
    """Of trunks that a walk from layer to layer could get wrong; the batch norm has as many features as clusters."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = TRUNKS[trunk]()
    width = 9 if "fixed" in trunk else 3
    flow = build_flow("affine", context_dim=width, loc=14.3, scale=0.3, hidden=(4,), seed=2)
    flow.trunk, flow.context_dim = network, 3
    flow.double()
    _, context, log10_mass = make("dropout")
    names = [name for name, value in flow.named_parameters() if value.requires_grad]
    draws = random_draws(flow, names)
    if "batch norm" in trunk:
        draws["trunk.1.running_mean"] = torch.randn(3, 9, dtype=torch.float64)
    found = condition_draws(flow, draws, context).log_prob(log10_mass)
    for d in range(3):
        copy = deepcopy(flow).eval()
        for name, value in draws.items():
            tensor = dict(copy.named_buffers()).get(name)
            (copy.get_parameter(name) if tensor is None else tensor).data.copy_(value[d])
        torch.testing.assert_close(found[d], copy.log_prob(log10_mass, context), rtol=1e-12, atol=1e-12)


def test_all_clusters_get_the_same_weights():
    flow, context, _ = make("shared trunk")
    draws = random_draws(flow, "all")
    same = condition_draws(flow, draws, context[:1].expand(9, -1))
    assert (same.mean - same.mean[:, :1]).abs().max() < 1e-12
    assert same.mean[:, 0].std() > 1e-3


def test_a_network_in_training_drops_nothing_and_goes_on_training():
    flow, context, log10_mass = make("dropout")
    flow.train()
    draws = random_draws(flow, "last")
    first, again = (condition_draws(flow, draws, context).log_prob(log10_mass) for _ in range(2))
    assert torch.equal(first, again)
    assert flow.training


def test_no_draws_are_the_flow_itself():
    flow, context, log10_mass = make("shared trunk")
    found = condition_draws(flow, {}, context)
    assert found.batch_shape == (1, 9)
    torch.testing.assert_close(found.log_prob(log10_mass)[0], flow.log_prob(log10_mass, context))


def test_the_trunk_runs_once_where_only_the_last_layers_are_random():
    flow, context, _ = make("shared trunk")
    calls = []
    flow.trunk[0].register_forward_hook(lambda *args: calls.append(1))
    condition_draws(flow, random_draws(flow, "last", n=5), context)
    assert len(calls) == 1


def test_wrong_draws_are_errors():
    flow, context, _ = make("shared trunk")
    draws = random_draws(flow, "last")
    name = next(iter(draws))
    with pytest.raises(ValueError, match="'nonsense' is no parameter or buffer of the flow"):
        condition_draws(flow, {"nonsense": torch.zeros(2)}, context)
    with pytest.raises(ValueError, match=r"draws of .* have shape"):
        condition_draws(flow, {name: draws[name][0]}, context)
    with pytest.raises(ValueError, match=r"different numbers of draws: \[2, 3\]"):
        condition_draws(flow, draws | {name: draws[name][:2]}, context)
    with pytest.raises(ValueError, match="this flow was made for 3 numbers per cluster"):
        condition_draws(flow, draws, context[:, :2])


def one_shape():
    """Draws of the affine block alone, of splines that bend: a flow of two peaks."""
    flow = build_flow("affine+spline", 3, 14.3, 0.3, hidden=(6,), shared=True, count_bins=6, seed=2).double()
    context = torch.randn(9, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    with torch.no_grad():
        flow.transforms[0].nn[-1].bias += torch.linspace(-1.5, 1.5, 17, dtype=torch.float64).sin() * 1.5
    return condition_draws(flow, random_draws(flow, ["transforms.1.*"], 5), context)


def test_draws_of_the_affine_block_alone_share_a_shape():
    found = one_shape()
    shape, loc, scale = found.common_shape()
    x = torch.linspace(13.0, 15.6, 40, dtype=torch.float64)[:, None, None]
    expected = shape.log_prob((x - loc) / scale) - scale.log()
    torch.testing.assert_close(found.log_prob(x), expected, rtol=1e-10, atol=1e-10)
    for case, which in (("shared trunk", "last"), ("no hidden layer", "all")):
        flow, context, _ = make(case)
        assert condition_draws(flow, random_draws(flow, which), context).common_shape() is None


def test_a_mixture_of_one_shape_is_that_of_its_draws():
    class Plain:
        """The same distribution, of which nobody says that it has one shape."""

        def __init__(self, block):
            self.log_prob, self.cdf, self.icdf, self.batch_shape = (
                *(block.log_prob, block.cdf, block.icdf),
                block.batch_shape,
            )

    found = one_shape()
    quick, plain = (
        MassPosterior(block, log10_mass_range=(13.2, 15.6), n_nodes=nodes)
        for block, nodes in ((found, 193), (Plain(found), 1025))
    )
    x = quick.table.x
    torch.testing.assert_close(quick.table.cdf, torch.from_numpy(quick.cdf(x.T)).T, rtol=0, atol=1e-4)
    torch.testing.assert_close(quick.table.pdf, torch.from_numpy(quick.pdf(x.T)).T, rtol=0, atol=0.03)
    for name in ("mean", "sigma", "sigma_aleatoric", "sigma_epistemic"):
        assert_allclose(getattr(quick, name), getattr(plain, name), rtol=0, atol=3e-6, err_msg=name)
    for posterior in (quick, plain):
        parts = posterior.sigma_aleatoric**2 + posterior.sigma_epistemic**2
        assert_allclose(posterior.sigma**2, parts, rtol=1e-13)
    some = quick[[7, 2]]
    assert_allclose(some.sigma_epistemic, quick.sigma_epistemic[[7, 2]], rtol=1e-12)
    levels = [0.025, 0.5, 0.975]
    assert_allclose(quick.quantile(levels), plain.quantile(levels), rtol=0, atol=1e-10)

"""Draws of the weights, applied to clusters: every draw to all of them."""

from __future__ import annotations

import pytest
import torch
from torch.func import functional_call

from bayesflowmass.bayes import choose
from bayesflowmass.bayes.application import condition_draws
from bayesflowmass.flows import build_flow

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
    with pytest.raises(ValueError, match="'nonsense' is not a parameter of the flow"):
        condition_draws(flow, {"nonsense": torch.zeros(2)}, context)
    with pytest.raises(ValueError, match=r"draws of .* have shape"):
        condition_draws(flow, {name: draws[name][0]}, context)
    with pytest.raises(ValueError, match=r"different numbers of draws: \[2, 3\]"):
        condition_draws(flow, draws | {name: draws[name][:2]}, context)
    with pytest.raises(ValueError, match=r"this flow needs \(clusters, 3\)"):
        condition_draws(flow, draws, context[:, :2])

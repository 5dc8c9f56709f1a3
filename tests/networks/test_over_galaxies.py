"""The network over galaxies: what may not change its answers, gradients, memberships and counting."""

from __future__ import annotations

import math

import pytest
import torch

from bayesflowmass.encoders import GalaxySet, SetEncoder, concatenate
from bayesflowmass.networks.over_galaxies import SetNetwork, SetTrunk, membership_log_likelihood


def contexts(counts=(12, 5, 30), seed=0, counted=True):
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(sum(counts), 3, generator=generator, dtype=torch.float64)
    points = points * torch.tensor([0.5, 0.5, 800.0])
    return SetEncoder([(0.2, 500.0)], counted)(points, torch.tensor([0, *counts]).cumsum(0))


def network(context, **options):
    torch.manual_seed(1)
    made = SetNetwork(*context.shape[1:], **({"width": 16} | options)).double()
    # Fresh biases are zero, and would hide what they do.
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made


def test_features_and_memberships_have_their_shapes():
    context = contexts()
    features, logit = network(context).read(context)
    assert features.shape == (3, 19)
    assert logit.shape == (47,)
    assert torch.equal(network(context)(context), features)


def test_the_order_of_galaxies_and_of_clusters_does_not_matter():
    context = contexts()
    net = network(context)
    features, logit = net.read(context)
    order = torch.cat([start + torch.randperm(n) for n, start in ((12, 0), (5, 12), (30, 17))])
    shuffled = GalaxySet(context.galaxies[order], context.offsets, context.clusters)
    again, shuffled_logit = net.read(shuffled)
    # Sums over galaxies in another order.
    torch.testing.assert_close(again, features, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(shuffled_logit, logit[order], rtol=1e-12, atol=1e-12)
    rows = torch.tensor([2, 0])
    torch.testing.assert_close(net(context[rows]), features[rows], rtol=1e-12, atol=1e-12)


def test_gradients_reach_every_parameter():
    context = contexts()
    net = network(context)
    features, logit = net.read(context)
    (features.sum() + logit.sum()).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0.0, name


def test_the_mass_reads_the_memberships():
    context = contexts()
    net = network(context)
    before = net(context)
    with torch.no_grad():
        net.member.bias += 1.0
    assert not torch.allclose(net(context), before)


def test_a_network_that_may_not_count_sees_no_difference_where_every_galaxy_comes_twice():
    blind = contexts(counted=False)
    twice = blind.index_select(0, torch.tensor([0, 0, 1, 1, 2, 2]))
    doubled = GalaxySet(twice.galaxies, torch.tensor([0, 24, 34, 94]), blind.clusters)
    without, counting = network(blind, counted=False), network(blind, counted=True)
    torch.testing.assert_close(without(doubled), without(blind), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(counting(doubled), counting(blind), rtol=1e-3)


def test_membership_log_likelihood_is_the_mean_of_the_log_probabilities_of_the_truth():
    context = contexts()
    truth = (torch.arange(47) % 3 == 0).double()
    told = GalaxySet(context.galaxies, context.offsets, context.clusters, truth)
    logit = torch.linspace(-3.0, 3.0, 47, dtype=torch.float64)
    found = membership_log_likelihood(logit, told)
    for k, (start, stop) in enumerate(((0, 12), (12, 17), (17, 47))):
        terms = [
            -math.log1p(math.exp(-odds)) if t else -math.log1p(math.exp(odds))
            for odds, t in zip(logit[start:stop].tolist(), truth[start:stop].tolist(), strict=True)
        ]
        assert math.isclose(float(found[k]), sum(terms) / len(terms), rel_tol=1e-14)
    with pytest.raises(ValueError, match="does not tell who is a member"):
        membership_log_likelihood(logit, context)


def test_clusters_do_not_see_each_other_and_empty_ones_are_finite():
    context = contexts()
    net = network(context)
    empty = contexts(counts=(0,))
    features = net(concatenate([context, empty]))
    assert bool(torch.isfinite(features).all())
    torch.testing.assert_close(features[:3], net(context), rtol=1e-12, atol=1e-12)


def test_dense_layers_stand_above_the_network():
    context = contexts()
    trunk = SetTrunk(network(context), (11, 9)).double()
    features, logit = trunk.read(context)
    assert features.shape == (3, trunk.output_dim) == (3, 9)
    assert torch.equal(features, trunk(context))
    assert torch.equal(logit, trunk.network.read(context)[1])
    assert SetTrunk(network(context), ()).output_dim == 19


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width is 0"),
        ({"membership_weight": -1.0}, "must not be negative"),
        ({"membership_weight": math.nan}, "must not be negative"),
    ],
)
def test_unusable_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        SetNetwork(7, 1, **options)
    with pytest.raises(ValueError, match="a galaxy has 2 numbers"):
        SetNetwork(2, 1)

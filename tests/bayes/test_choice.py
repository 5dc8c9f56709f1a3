"""Which weights are random."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bayesflowmass.bayes.choice import choose, linear_paths, top_layers
from bayesflowmass.bayes.layout import WeightLayout
from bayesflowmass.flows import build_flow


def dense():
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))


def test_all_parameters_by_default():
    network = dense()
    assert choose(network) == tuple(name for name, _ in network.named_parameters())


def test_last_layers_of_a_chain():
    assert choose(dense(), "last") == ("4.weight", "4.bias")
    assert choose(dense(), "last:2") == ("2.weight", "2.bias", "4.weight", "4.bias")


def test_a_lone_layer_is_its_own_last_layer():
    assert choose(nn.Linear(2, 1), "last") == ("weight", "bias")


def test_the_heads_of_a_shared_trunk_are_the_last_layers():
    flow = build_flow("affine+spline+mixture", 5, hidden=(8, 6), shared=True)
    assert {name.rsplit(".", 1)[0] for name in choose(flow, "last")} == {
        "base_dist.nn.0", "transforms.0.nn.0", "transforms.1.nn.0"
    }  # fmt: skip
    assert {name.rsplit(".", 1)[0] for name in choose(flow, "last:2")} == {
        "trunk.2", "base_dist.nn.0", "transforms.0.nn.0", "transforms.1.nn.0"
    }  # fmt: skip


def test_each_network_of_the_paper_has_a_last_layer():
    flow = build_flow("affine", 5, hidden=(8, 6))
    assert len(choose(flow, "last")) == 6
    assert linear_paths(flow)[0] == ["transforms.0.nn.0", "transforms.0.nn.2", "transforms.0.nn.4"]


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (build_flow("affine", 12, affine_blocks=1, hidden=(8,)), "last"),
        (build_flow("affine", 12, affine_blocks=1, hidden=(8, 6)), "last:2"),
        (build_flow("affine+spline+mixture", 12, hidden=(8, 6), shared=True), "last:2"),
        (build_flow("affine+spline+mixture", 12, hidden=(8,), shared=True), "last"),
        (nn.Sequential(nn.Conv1d(1, 2, 3), nn.Linear(4, 2)), "last:2"),
    ],
    ids=["one hidden layer", "two", "shared", "shared, one hidden layer", "above a convolution"],
)
def test_the_top_layers_are_two_where_there_is_one_below_them(module, expected):
    assert top_layers(module) == expected


def test_patterns_and_types():
    network = nn.Sequential(nn.Conv1d(1, 2, 3), nn.Linear(4, 2))
    assert choose(network, "*.bias") == ("0.bias", "1.bias")
    assert choose(network, ["0.weight", "1.*"]) == ("0.weight", "1.weight", "1.bias")
    assert choose(network, nn.Conv1d) == ("0.weight", "0.bias")


@pytest.mark.parametrize(
    ("which", "sentence"),
    [
        ("nothing.*", "matches no parameter"),
        ("last:0", "positive number of layers"),
        ("last:two", "positive number of layers"),
        (nn.Conv2d, "matches no parameter of Sequential"),
    ],
)
def test_a_choice_of_nothing_is_an_error_that_says_so(which, sentence):
    with pytest.raises(ValueError, match=sentence):
        choose(dense(), which)


def test_a_flat_vector_and_its_tensors_are_the_same_weights():
    network = dense()
    layout = WeightLayout(network, choose(network, "last:2"))
    flat = torch.arange(3.0 * layout.n_weights).reshape(3, -1)
    weights = layout.split(flat)
    assert weights["4.weight"].shape == (3, 2, 5)
    assert torch.equal(layout.flatten(weights), flat)


def test_a_layout_refuses_what_the_module_lacks():
    with pytest.raises(ValueError, match=r"no parameter 'head\.weight'"):
        WeightLayout(dense(), ["head.weight"])

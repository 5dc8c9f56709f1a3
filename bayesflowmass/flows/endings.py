"""Distributions for contexts that are alike but for their last numbers, such as what a model is told in turn."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bayesflowmass.flows.distribution import MassDistribution
from bayesflowmass.flows.flow import ConditionalFlow
from bayesflowmass.networks.dense import DenseNetwork


def condition_endings(flow: ConditionalFlow, context: Tensor, endings: Tensor) -> MassDistribution:
    """
    p(log10_mass | context), batch shape (T n,), for T endings of n contexts, one ending after the other.

    Of a dense trunk the first layer, most of the arithmetic, reads once what they have in common.

    Args:
        flow: of contexts that are vectors.
        context: (n, C).
        endings: (T, n, E), each to stand in place of the last E numbers.
    """
    flow.check_context(context)
    width = endings.shape[-1]
    layers = list(flow.trunk.children()) if isinstance(flow.trunk, DenseNetwork) else []
    if layers and isinstance(layers[0], nn.Linear):
        change = (endings - context[:, -width:]) @ layers[0].weight[:, -width:].T
        features = (layers[0](context) + change).flatten(0, 1)
        for layer in layers[1:]:
            features = layer(features)
    else:
        begin = context[:, :-width].expand(len(endings), -1, -1)
        features = flow.trunk(torch.cat([begin, endings], -1).flatten(0, 1))
    return flow.distribution_of([block.nn(features) for block in (flow.base_dist, *flow.transforms)])

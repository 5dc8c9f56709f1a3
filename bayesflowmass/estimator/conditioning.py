"""Contexts to distributions of log10 mass, part by part, so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from bayesflowmass.encoders import Contexts, in_parts
from bayesflowmass.estimator.weight_draws import condition_draws
from bayesflowmass.flows import ConditionalFlow, MassDistribution

AT_ONCE = 2048
"""Contexts conditioned at once."""

DRAWS_AT_ONCE = 1 << 14
"""Contexts, times draws of the weights, conditioned at once."""


def condition_in_parts(
    flow: ConditionalFlow, contexts: Contexts, draws: Mapping[str, Tensor] | None
) -> Iterator[MassDistribution]:
    """p(log10 M200c | context) of all contexts, in order; with draws of the weights, one row for each of them.

    Args:
        flow: the conditional flow.
        contexts: of n clusters.
        draws: parameters (D, *shape) by name; None for a point model.
    """
    if draws is None:
        yield from map(flow.condition, in_parts(contexts, AT_ONCE))
        return
    # Few clusters at once: all draws of all of them are evaluated on hundreds of masses.
    n_draws = len(next(iter(draws.values())))
    for rows in in_parts(contexts, max(1, DRAWS_AT_ONCE // n_draws)):
        yield condition_draws(flow, draws, rows)

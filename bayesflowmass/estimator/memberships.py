"""Which galaxies are members, and how many: what a network over galaxies says beside the mass.

A member lies inside R_vir (Bryan & Norman 1998) of the halo of its cluster, as in the mocks that the network was
trained on. Galaxies of one cluster share what is wrong with all of them, so the error of the expected number
N = sum p is not that of independent galaxies:

    var(N) = a sum p (1 - p) + b^2 N^2 + variance of sum p over draws of the weights,

with a and b fitted at the end of training to clusters that were held out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.func import functional_call

from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.encoders import Contexts, GalaxySet, in_parts
from bayesflowmass.flows import ConditionalFlow
from bayesflowmass.networks.over_galaxies import odds_told_to

MEMBER = "inside R_vir (Bryan & Norman 1998) of the halo, as in the mocks of training"
"""What a member is."""


@dataclass(frozen=True)
class Memberships:
    """Probabilities that galaxies are members, and expected numbers of members.

    Attributes:
        probability: of each galaxy (n_galaxies,), averaged over draws of the weights where there are some.
        number: expected members N of each cluster (n,).
        error: its standard deviation (n,), NaN where the model does not know it.
    """

    probability: FloatArray
    number: FloatArray
    error: FloatArray


class MembershipNotes:
    """What a network over galaxies says of members while something else is asked of it, part after part of clusters.

    Draws of the weights are consecutive readings of the same contexts.
    """

    def __init__(self, flow: ConditionalFlow) -> None:
        self._trunk = flow.set_trunk
        self._last: GalaxySet | None = None
        self._draws: list[tuple[Tensor, Tensor, Tensor]] = []
        self._parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Notes are taken within the block."""
        with odds_told_to(self._hear):
            yield

    def _hear(self, context: GalaxySet, odds: Tensor) -> None:
        if context is not self._last:
            self._close()
            self._last = context
        p = torch.sigmoid(odds).double()
        both = torch.stack([p, p * (1.0 - p)], 1)
        number, independent = both.new_zeros(len(context), 2).index_add(0, context.numbers, both).unbind(1)
        self._draws.append((p, number, independent))

    def _close(self) -> None:
        if self._draws:
            p, number, independent = (torch.stack(each) for each in zip(*self._draws, strict=True))
            variance = number.var(0, correction=0)
            self._parts.append((p.mean(0), number.mean(0), independent.mean(0), variance))
        self._draws.clear()

    def memberships(self) -> Memberships | None:
        """Those of all clusters that were read; None for a flow that does not read galaxies."""
        self._close()
        if self._trunk is None or not self._parts:
            return None
        p, number, independent, between = (torch.cat(each) for each in zip(*self._parts, strict=True))
        noise, scatter = self._trunk.network.get_buffer("count_error").double()
        variance = noise * independent + (scatter * number) ** 2 + between
        if noise < 0:
            variance = torch.full_like(variance, torch.nan)
        return Memberships(p.cpu().numpy(), number.cpu().numpy(), variance.sqrt().cpu().numpy())


@torch.no_grad()
def memberships(
    flow: ConditionalFlow, contexts: Contexts, draws: Mapping[str, Tensor] | None = None
) -> Memberships | None:
    """Who is a member of clusters; None for a flow that does not read galaxies.

    Args:
        flow: of a model.
        contexts: of n clusters, as its encoder makes them.
        draws: of the weights (`MassEstimator.draw`); None for a point model.
    """
    trunk = flow.set_trunk
    if trunk is None:
        return None
    own = {
        key.removeprefix("trunk.0."): value
        for key, value in (draws or {}).items()
        if key.startswith("trunk.0.")
    }
    notes = MembershipNotes(flow)
    with notes.taken():
        for part in in_parts(contexts, len(contexts) or 1):
            for d in range(len(next(iter(own.values()))) if own else 1):
                functional_call(trunk.network, {key: value[d] for key, value in own.items()}, (part,))
    return notes.memberships()


def fit_count_error(flow: ConditionalFlow, contexts: Contexts) -> None:
    """Set a and b of a network over galaxies to their maximum likelihood on clusters that were held out.

    Nothing happens for other flows, or where the contexts do not tell who is a member.

    Args:
        flow: trained; changed in place.
        contexts: with the truth.
    """
    trunk = flow.set_trunk
    if trunk is None or not isinstance(contexts, GalaxySet) or contexts.members is None or not len(contexts):
        return
    trunk.network.get_buffer("count_error").copy_(torch.tensor([1.0, 0.0]))
    found = memberships(flow, contexts.without_truth())
    assert found is not None
    true = torch.zeros(len(contexts), dtype=torch.float64).index_add(
        0, contexts.numbers.cpu(), contexts.members.cpu().double()
    )
    # With a = 1 and b = 0 the error is that of independent galaxies.
    residual, independent = true.numpy() - found.number, found.error**2

    def loss(logs: FloatArray) -> float:
        a, b = np.exp(logs)
        variance = a * independent + (b * found.number) ** 2 + 1e-12
        return float(np.mean(residual**2 / variance + np.log(variance)))

    best = minimize(loss, np.log([1.0, 0.1]), method="Nelder-Mead").x
    trunk.network.get_buffer("count_error").copy_(torch.from_numpy(np.exp(best)))

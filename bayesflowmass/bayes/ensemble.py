"""Deep ensembles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from bayesflowmass.bayes.choice import choose
from bayesflowmass.bayes.initialisation import fresh_copy
from bayesflowmass.bayes.layout import WeightLayout
from bayesflowmass.bayes.point import maximise_weights
from bayesflowmass.bayes.priors import WeightPrior
from bayesflowmass.bayes.protocol import Data, Maximise, WeightPosterior
from bayesflowmass.common.processes import alone, present


class EnsemblePosterior(WeightPosterior):
    """K networks trained from K initialisations, each as likely as the others.

    All members share the training clusters, the validation split and the weights that are frozen; initial weights and
    the order of the clusters differ. Draws go through the members in order, so that K draws, or a multiple, weigh them
    equally.

    References:
        Lakshminarayanan, Pritzel & Blundell 2017, arXiv:1612.01474.

    What a network counts along while it trains, such as the means of batch normalisation, belongs to the member too.

    Args:
        module: whose weights they are.
        members: (K, P), the weights of each, then its buffers.
        buffers: names of the buffers that differ between members.
        names: of the weights that differ; None: all.
    """

    method: ClassVar[str] = "ensemble"
    argument: ClassVar[tuple[str, type] | None] = ("members", int)
    members: Tensor

    def __init__(
        self,
        module: nn.Module,
        members: Tensor,
        buffers: Sequence[str] = (),
        names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.layout = WeightLayout(module, [*(names or choose(module, "all")), *buffers])
        self.names = self.layout.names
        self.buffer_names = tuple(buffers)
        self.all_weights = names is None or list(names) == list(choose(module, "all"))
        self.register_buffer("members", members)

    @classmethod
    def fit(
        cls,
        module: nn.Module,
        data: Data,
        *,
        maximise: Maximise,
        seed: int = 0,
        progress: bool = False,
        members: int = 5,
        prior: WeightPrior | None = None,
        trained: bool = False,
    ) -> Self:
        """Train the members one after the other, each a phase of its own; processes that joined take turns.

        The module becomes the first member; with ``trained`` it is the first member already.

        Raises:
            ValueError: fewer than two members, which have no spread.
        """
        cls.check(module, data, {"members": members})
        states, processes = [], present()
        for k, own_seed in enumerate(_seeds(seed, members)):
            member = module
            if k or not trained:
                member = fresh_copy(module, own_seed)
                if k % processes.count == processes.rank:
                    with alone():
                        maximise_weights(
                            member, prior, len(data[1]), maximise, seed=own_seed, name=f"member{k}"
                        )
            states.append({name: value.detach().clone() for name, value in _tensors(member)})
        for k, state in enumerate(states):
            processes.copy(state.values(), source=k % processes.count)
        with torch.no_grad():
            for name, value in _tensors(module):
                value.copy_(states[0][name])
        buffers = _differing_buffers(module, states)
        drawn = [name for name, value in module.named_parameters() if value.requires_grad]
        layout = WeightLayout(module, [*drawn, *buffers])
        return cls(module, torch.stack([layout.flatten(state) for state in states]), buffers, drawn)

    @classmethod
    def check(cls, module: nn.Module, data: Data, options: Mapping[str, Any]) -> None:
        members = options.get("members", 2)
        if members < 2:
            raise ValueError(f"members is {members}; an ensemble needs at least 2, and 5 is usual.")

    def draw(self, n_draws: int, seed: int) -> dict[str, Tensor]:
        """The members in order, from the first again after the last; the seed has no say."""
        turn = torch.arange(n_draws, device=self.members.device) % len(self.members)
        return self.layout.split(self.members[turn])

    @property
    def n_distinct(self) -> int | None:
        return len(self.members)

    def describe(self) -> dict[str, Any]:
        found: dict[str, Any] = {"method": self.method, "members": len(self.members)}
        if not self.all_weights:
            found["names"] = [name for name in self.names if name not in self.buffer_names]
        return found | ({"buffers": list(self.buffer_names)} if self.buffer_names else {})

    @classmethod
    def _restore(cls, module: nn.Module, description: Mapping[str, Any]) -> Self:
        buffers, names = tuple(description.get("buffers", ())), description.get("names")
        size = WeightLayout(module, [*(names or choose(module, "all")), *buffers]).n_weights
        zeros = next(module.parameters()).new_zeros(int(description["members"]), size)
        return cls(module, zeros, buffers, names)


def _tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]


def _differing_buffers(module: nn.Module, states: Sequence[Mapping[str, Tensor]]) -> list[str]:
    """The buffers in which members differ.

    Raises:
        ValueError: they differ in one of whole numbers that may have a say in what the module returns.
    """
    found = []
    for name, value in module.named_buffers():
        if all(torch.equal(state[name], states[0][name]) for state in states):
            continue
        if value.is_floating_point():
            found.append(name)
        elif name.rpartition(".")[2] != "num_batches_tracked":
            raise ValueError(
                f"The members differ in the buffer '{name}', which holds {value.dtype} and no real numbers: draws of an"
                " ensemble cannot hold it."
            )
    return found


def _seeds(seed: int, n: int) -> list[int]:
    return [int(word) for word in np.random.SeedSequence([seed, n]).generate_state(n)]

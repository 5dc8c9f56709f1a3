"""Deep ensembles."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from bayesflowmass.bayes.choice import choose
from bayesflowmass.bayes.layout import WeightLayout
from bayesflowmass.bayes.point import maximise_weights
from bayesflowmass.bayes.priors import WeightPrior
from bayesflowmass.bayes.protocol import Data, Maximise, WeightPosterior

__all__ = ["EnsemblePosterior", "fresh_copy"]


class EnsemblePosterior(WeightPosterior):
    """K networks trained from K initialisations, each as likely as the others.

    All members share the training clusters and the validation split; initial weights and the order of the
    clusters differ. Draws go through the members in order, so that K draws, or a multiple, weigh them equally.

    References:
        Lakshminarayanan, Pritzel & Blundell 2017, arXiv:1612.01474.

    Args:
        module: whose weights they are.
        members: (K, P), the weights of each.
    """

    method: ClassVar[str] = "ensemble"
    argument: ClassVar[tuple[str, type] | None] = ("members", int)
    members: Tensor

    def __init__(self, module: nn.Module, members: Tensor) -> None:
        super().__init__()
        self.layout = WeightLayout(module, choose(module, "all"))
        self.names = self.layout.names
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
        """Train the members one after the other, each a phase of its own.

        The module becomes the first member; with ``trained`` it is the first member already.

        Raises:
            ValueError: fewer than two members, which have no spread.
        """
        cls.check(module, data, {"members": members})
        layout = WeightLayout(module, choose(module, "all"))
        rows = []
        for k, own_seed in enumerate(_seeds(seed, members)):
            member = module
            if k or not trained:
                member = fresh_copy(module, own_seed)
                maximise_weights(member, prior, len(data[1]), maximise, seed=own_seed, name=f"member{k}")
            rows.append(layout.flatten(dict(member.named_parameters())).detach())
        with torch.no_grad():
            for name, value in layout.split(rows[0]).items():
                module.get_parameter(name).copy_(value)
        return cls(module, torch.stack(rows))

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
        return {"method": self.method, "members": len(self.members)}

    @classmethod
    def _restore(cls, module: nn.Module, description: Mapping[str, Any]) -> Self:
        parameter = next(module.parameters())
        size = sum(p.numel() for p in module.parameters())
        return cls(module, parameter.new_zeros(int(description["members"]), size))


def fresh_copy(module: nn.Module, seed: int) -> nn.Module:
    """An untrained module of the same architecture, with initial weights of another seed.

    Raises:
        ValueError: the module cannot be made anew: it lacks ``describe`` and ``from_description``.
    """
    make, describe = getattr(module, "from_description", None), getattr(module, "describe", None)
    if make is None or describe is None:
        raise ValueError(
            f"{type(module).__name__} cannot be made anew with other initial weights; give it describe() with "
            "a 'seed' and from_description()."
        )
    # A copy, since a module may have been told what its description does not say, such as a population.
    fresh = deepcopy(module).train().requires_grad_(True)
    fresh.load_state_dict(make({**describe(), "seed": seed}).state_dict())
    return fresh


def _seeds(seed: int, n: int) -> list[int]:
    return [int(word) for word in np.random.SeedSequence([seed, n]).generate_state(n)]

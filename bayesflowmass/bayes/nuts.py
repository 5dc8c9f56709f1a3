"""Exact posteriors of small networks by Hamiltonian Monte Carlo (NUTS)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import numpy as np
import pyro
import torch
from pyro.infer.mcmc import MCMC, NUTS
from pyro.ops.stats import effective_sample_size, split_gelman_rubin
from torch import Tensor, nn

from bayesflowmass.bayes.choice import Choice, choose
from bayesflowmass.bayes.layout import WeightLayout
from bayesflowmass.bayes.priors import NormalPrior, WeightPrior
from bayesflowmass.bayes.protocol import Data, Maximise, WeightPosterior
from bayesflowmass.bayes.substitution import call_with
from bayesflowmass.bayes.traced import traced_gradient


class NUTSPosterior(WeightPosterior):
    """Draws from p(w | data), proportional to p(w) prod_i p(m_i | d_i, w), by the No-U-Turn Sampler of Pyro.

    Weights of networks have symmetries that no chain explores, so convergence is judged by functions that
    have none: R-hat and the effective number of draws of each cluster's log likelihood.

    References:
        Hoffman & Gelman 2014, arXiv:1111.4246.

    Args:
        module: whose weights they are.
        names: the random ones.
        samples: (chains, S, P).
        found: what `describe` reports of the fit.
    """

    method: ClassVar[str] = "nuts"
    argument: ClassVar[tuple[str, type] | None] = ("samples", int)
    samples: Tensor

    def __init__(
        self, module: nn.Module, names: tuple[str, ...], samples: Tensor, found: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self.layout = WeightLayout(module, names)
        self.names = self.layout.names
        self.found = dict(found)
        self.register_buffer("samples", samples)

    @classmethod
    def fit(
        cls,
        module: nn.Module,
        data: Data,
        *,
        maximise: Maximise,
        seed: int = 0,
        progress: bool = False,
        which: Choice = "all",
        prior: WeightPrior | None = None,
        chains: int = 4,
        warmup: int = 500,
        samples: int = 500,
        full_mass: bool = False,
        max_tree_depth: int = 10,
    ) -> Self:
        """Run the chains one after the other, each from a draw of the prior; nothing is trained.

        Args:
            which: the random weights (`choose`); the others stay as they are.
            prior: of the random weights; its scales are the units of the sampler.
            chains, warmup, samples: chains, and draws of each: thrown away and kept.
            full_mass, max_tree_depth: of `pyro.infer.NUTS`.

        Raises:
            ValueError: too few chains or draws to judge convergence by.
        """
        cls.check(module, data, {"chains": chains, "warmup": warmup, "samples": samples})
        names, prior = choose(module, which), prior or NormalPrior()
        layout, like = WeightLayout(module, names), next(module.parameters()).detach()
        scales = prior.scales(layout.shapes, like)
        context, log10_mass = data
        module.eval()

        def negative_log_posterior(scaled: Tensor) -> Tensor:
            weights = layout.split(scaled * scales)
            log_likelihood: Tensor = call_with(module, weights, (log10_mass, context))
            return -(log_likelihood.sum() + prior.log_prob(weights))

        traced = traced_gradient(
            negative_log_posterior, layout.flatten(dict(module.named_parameters())).detach()
        )

        def potential(state: Mapping[str, Tensor]) -> Tensor:
            value: Tensor = _KnownGradient.apply(state["scaled"], traced)
            return value

        rows, divergences = [], 0
        for word in np.random.SeedSequence([seed, chains]).generate_state(chains):
            with torch.random.fork_rng(devices=[]):
                pyro.set_rng_seed(int(word))
                start = layout.flatten(
                    {
                        name: prior.distribution(name, shape, like).sample()
                        for name, shape in layout.shapes.items()
                    }
                )
                kernel = NUTS(potential_fn=potential, full_mass=full_mass, max_tree_depth=max_tree_depth)
                run = MCMC(
                    kernel,
                    samples,
                    warmup_steps=warmup,
                    initial_params={"scaled": start / scales},
                    disable_progbar=not progress,
                )
                run.run()
            rows.append(run.get_samples()["scaled"].detach() * scales)
            divergences += sum(len(found) for found in run.diagnostics()["divergences"].values())
        found = {"warmup": warmup, "prior": prior.describe(), "divergences": divergences}
        posterior = cls(module, names, torch.stack(rows), found)
        posterior.found |= posterior._convergence(module, data)
        return posterior

    @classmethod
    def check(cls, module: nn.Module, data: Data, options: Mapping[str, Any]) -> None:
        super().check(module, data, options)
        for name, least in (("chains", 1), ("warmup", 0), ("samples", 4)):
            if options.get(name, least) < least:
                raise ValueError(f"{name} is {options[name]}; NUTS needs at least {least}.")

    @torch.no_grad()
    def _convergence(self, module: nn.Module, data: Data) -> dict[str, float]:
        chains, samples, _ = self.samples.shape
        values = torch.stack(
            [
                call_with(module, self.layout.split(flat), (data[1], data[0]))
                for flat in self.samples.flatten(0, 1)
            ]
        )
        values = values.reshape(chains, samples, -1)
        return {
            "largest_r_hat": float(split_gelman_rubin(values, 0, 1).max()),
            "smallest_effective_draws": float(effective_sample_size(values, 0, 1).min()),
        }

    def draw(self, n_draws: int, seed: int) -> dict[str, Tensor]:
        """Stored draws in random order, each once before any comes again."""
        flat, generator = self.samples.flatten(0, 1), torch.Generator().manual_seed(seed)
        order = torch.randperm(len(flat), generator=generator).repeat(-(-n_draws // len(flat)))
        return self.layout.split(flat[order[:n_draws].to(flat.device)])

    @property
    def n_distinct(self) -> int | None:
        return self.samples.shape[0] * self.samples.shape[1]

    def describe(self) -> dict[str, Any]:
        chains, samples, _ = self.samples.shape
        shape = {"names": list(self.names), "chains": chains, "samples": samples}
        return {"method": self.method, **shape, **self.found}

    @classmethod
    def _restore(cls, module: nn.Module, description: Mapping[str, Any]) -> Self:
        found = dict(description)
        del found["method"]
        names, shape = tuple(found.pop("names")), [int(found.pop(key)) for key in ("chains", "samples")]
        size = WeightLayout(module, names).n_weights
        return cls(module, names, next(module.parameters()).new_zeros(*shape, size), found)


class _KnownGradient(torch.autograd.Function):
    """The value of a function that gives its own gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
        gradient, value = function(x)
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None]:
        return outer * ctx.saved_tensors[0], None

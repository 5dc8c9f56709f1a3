"""Posteriors of networks by stochastic-gradient Hamiltonian Monte Carlo."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from tqdm import tqdm

from bayesflowmass.bayes.choice import Choice, choose
from bayesflowmass.bayes.layout import WeightLayout
from bayesflowmass.bayes.nuts import NUTSPosterior
from bayesflowmass.bayes.point import maximise_weights
from bayesflowmass.bayes.priors import NormalPrior, WeightPrior
from bayesflowmass.bayes.protocol import Data, Maximise
from bayesflowmass.bayes.substitution import call_with
from bayesflowmass.bayes.traced import traced_gradient

LARGEST = 5e8


class SGHMCPosterior(NUTSPosterior):
    r"""
    Draws along paths with friction and noise in weights z = w / S, S the prior's scales,

        :math:`dz = v\,dt, \qquad dv = -\nabla U(z)\,dt - \gamma v\,dt + \sqrt{2\gamma}\,dB,`

    with U = -log p(data, z), whose stationary density is exp(-U). A step is half a drift, the kick and the friction,
    half a drift: one gradient, and an error of second order in the step. No step is ever refused, so that there is a
    bias, which falls with ``step_size``; with batches, the noise of their gradients widens the density besides.

    References:
        Chen, Fox & Guestrin 2014, arXiv:1402.4102; Leimkuhler & Matthews 2013, arXiv:1203.5428 (splitting).

    Args:
        module, names, samples, found: as for `NUTSPosterior`.
    """

    method: ClassVar[str] = "sghmc"

    @classmethod
    def fit(  # type: ignore[override]
        cls,
        module: nn.Module,
        data: Data,
        *,
        maximise: Maximise,
        seed: int = 0,
        progress: bool = False,
        which: Choice = "all",
        prior: WeightPrior | None = None,
        train_prior: WeightPrior | None = None,
        chains: int = 4,
        warmup: int = 50,
        samples: int = 100,
        path_steps: int = 100,
        step_size: float | None = None,
        path_batch_size: int | None = None,
        trained: bool = False,
    ) -> Self:
        """Train the module, then run the chains side by side from its weights.

        Args:
            which: the random weights (`choose`); the others stay as they are.
            prior: of the random weights.
            train_prior: of all weights while the module is trained; None: maximum likelihood.
            chains, warmup, samples: chains, and draws of each: thrown away and kept.
            path_steps: from one draw to the next, in which friction forgets the direction once.
            step_size: in units of the prior's scales; None: 0.4 over the root of the largest curvature at the start.
            path_batch_size: examples in a step; None: all.

        Raises:
            ValueError: an option has no meaning, or the paths flew away.
        """
        options = {"chains": chains, "warmup": warmup, "samples": samples, "path_steps": path_steps}
        cls.check(
            module,
            data,
            options | {"which": which, "step_size": step_size, "path_batch_size": path_batch_size},
        )
        if not trained:
            maximise_weights(module, train_prior, len(data[1]), maximise, seed=seed, name="point")
        names, prior = choose(module, which), prior or NormalPrior()
        layout, start = WeightLayout(module, names), dict(module.named_parameters())
        scales = prior.scales(layout.shapes, next(module.parameters()).detach())
        n, size = len(data[1]), min(path_batch_size or len(data[1]), len(data[1]))
        module.eval()

        def one(z: Tensor, y: Tensor, x: Any) -> Tensor:
            weights = layout.split(z * scales)
            log_likelihood: Tensor = call_with(module, weights, (y, x))
            return -(log_likelihood.sum() * (n / size) + prior.log_prob(weights))

        def together(z: Tensor, y: Tensor, x: Any) -> Tensor:
            return torch.vmap(one, in_dims=(0, None, None))(z, y, x).sum()

        def in_turn(z: Tensor, y: Tensor, x: Any) -> Tensor:
            return torch.stack([one(row, y, x) for row in z.unbind()]).sum()

        z = (layout.flatten(start).detach() / scales).expand(chains, -1).clone()
        rows = torch.arange(size)
        example = (z, data[1][rows], data[0][rows])
        try:
            together(*example)
            total = together
        except RuntimeError:
            # An operation that cannot be vectorised, such as those of the spline.
            total = in_turn
        gradient = traced_gradient(total, *example)
        generator = torch.Generator().manual_seed(seed)

        def noise() -> Tensor:
            return torch.randn(z.shape, generator=generator, dtype=z.dtype).to(z.device)

        def force(z: Tensor) -> Tensor:
            x, y = data
            if size < n:
                rows = torch.randperm(n, generator=generator)[:size].to(y.device)
                x, y = x[rows], y[rows]
            return gradient(z, y, x)[0].detach()

        h = step_size or 0.4 / math.sqrt(_largest_curvature(force, z, noise()))
        kept, v = math.exp(-1.0 / path_steps), noise()
        found = []
        for k in tqdm(range(warmup + samples), desc=cls.method, unit="draw", disable=not progress):
            for _ in range(path_steps):
                z = z + (0.5 * h) * v
                kick = (-0.5 * h) * force(z)
                v = kept * (v + kick) + math.sqrt(1.0 - kept**2) * noise() + kick
                z = z + (0.5 * h) * v
            if not bool(z.isfinite().all()):
                raise ValueError(
                    f"The paths flew away after {k + 1} draws: lower step_size, which is {h:.2g}."
                )
            if k >= warmup:
                found.append(z * scales)
        notes = {"warmup": warmup, "path_steps": path_steps, "step_size": h, "prior": prior.describe()}
        posterior = cls(module, names, torch.stack(found, 1), notes)
        posterior.found |= posterior._convergence(module, data)
        return posterior

    @classmethod
    def check(cls, module: nn.Module, data: Data, options: Mapping[str, Any]) -> None:
        super().check(module, data, options)
        size = WeightLayout(module, choose(module, options.get("which", "all"))).n_weights
        stored = size * options.get("chains", 4) * options.get("samples", 100)
        if stored > LARGEST:
            raise ValueError(
                f"The draws of {size} weights are {stored:.1e} numbers, of which at most {LARGEST:.0e} are stored;"
                " choose fewer weights ('which') or samples."
            )
        for name in ("path_steps", "step_size", "path_batch_size"):
            if options.get(name) is not None and not 0 < options[name] < math.inf:
                raise ValueError(f"{name} is {options[name]}; expected a positive number.")


def _largest_curvature(force: Callable[[Tensor], Tensor], z: Tensor, direction: Tensor) -> float:
    """Largest eigenvalue in size of the Jacobian of ``force`` at equal rows z (C, P): power iteration, 30 steps."""
    value, centre = 1.0, force(z)
    for _ in range(30):
        direction = direction / direction.norm(dim=-1, keepdim=True)
        pushed = (force(z + 1e-3 * direction) - centre) / 1e-3
        value, direction = float(pushed.norm(dim=-1).max()), pushed
    return max(value, 1.0)

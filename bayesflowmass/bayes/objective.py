"""Variational inference of the weights of a conditional density: Pyro model, guide and bound as one module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, cast, get_args

import pyro
import pyro.poutine as poutine
import torch
from pyro.infer import ELBO, SVI
from pyro.optim import PyroOptim
from torch import Tensor, nn

from bayesflowmass.bayes.choice import exactly
from bayesflowmass.bayes.elbo import WeightELBO
from bayesflowmass.bayes.guides.base import WeightGuide
from bayesflowmass.bayes.handlers import MirroredDraw
from bayesflowmass.bayes.module import BayesianModule
from bayesflowmass.bayes.per_example import ESTIMATORS
from bayesflowmass.bayes.substitution import call_with

_NO_SEED = -1
Estimator = Literal["shared", "mirrored", "local"]


class VariationalObjective(nn.Module):
    """log p(y_i | x_i, w) - T KL(q || p) / N for each example i, w one draw from q: its mean is ELBO / N.

    Where the module treats each example by itself, the mean over a batch of examples drawn at random estimates ELBO / N
    without bias; its negative is what is minimised. Parameters of the module that are not random are fitted along with
    q; the random ones no longer require gradients, their place is taken by draws.

    In evaluation mode the log likelihood is the mean over ``validation_draws`` fixed draws, one for all
    examples: the held-out counterpart, without the noise of a fresh draw.

    Args:
        module: called as ``module(log10_mass (B,), context (B, C)) -> log density (B,)``.
        guide: q, over the weights of this module.
        n_data: N, the number of training examples (not of a batch).
        estimator: of the gradient: one ``shared`` draw for the batch, ``mirrored`` in every other step, or ``local``
            reparameterisation.
        tempering: T, the weight of the KL divergence; anything but 1 is not the ELBO.
        elbo: another bound of Pyro for `svi`, such as ``Trace_ELBO()``; None: `WeightELBO` with this estimator.
        validation_draws: draws in evaluation mode.

    Raises:
        ValueError: for values out of range.
    """

    mirror_seed: Tensor

    def __init__(
        self,
        module: nn.Module,
        guide: WeightGuide,
        n_data: int,
        *,
        estimator: Estimator = "shared",
        tempering: float = 1.0,
        elbo: ELBO | None = None,
        validation_draws: int = 4,
    ) -> None:
        super().__init__()
        if n_data < 1 or validation_draws < 1:
            raise ValueError(
                f"n_data is {n_data} and validation_draws {validation_draws}; expected at least 1."
            )
        if estimator not in get_args(Estimator):
            raise ValueError(
                f"Unknown estimator {estimator!r}; expected one of {', '.join(get_args(Estimator))}."
            )
        if not 0 < tempering < float("inf"):
            raise ValueError(f"tempering is {tempering}; expected a positive number, 1 for the ELBO.")
        self.network = BayesianModule(module, guide.prior, exactly(guide.names), name=guide.name)
        self.guide = guide
        self.n_data = n_data
        self.estimator = estimator
        self.tempering = tempering
        self.validation_draws = validation_draws
        # Made up front, it refuses guides that it cannot serve.
        self._handler = ESTIMATORS[estimator](guide)
        if isinstance(self._handler, MirroredDraw):
            # A buffer: a run that is resumed between the two draws of a pair goes on with the second.
            self.register_buffer("mirror_seed", torch.tensor(_NO_SEED))
        self.elbo = WeightELBO(self._handler, tempering=tempering) if elbo is None else elbo

    @property
    def one_draw(self) -> bool:
        """Whether all examples of a step share one draw of the weights."""
        return self.estimator in ("shared", "mirrored")

    @property
    def module(self) -> nn.Module:
        """The module whose weights are random."""
        return self.network.module

    def log_prob(self, log10_mass: Tensor, context: Tensor) -> Tensor:
        """log p(log10_mass | context, w) - T KL / N, (B,), of log10_mass (B,) and context (B, C)."""
        if not self.training:
            penalty = self.kl() * (self.tempering / self.n_data)
            return self.expected_log_likelihood(log10_mass, context) - penalty
        with self._pair(), self._handler:
            log_prob = cast(Tensor, self.network.run(log10_mass, context))
        kl = self._handler.kl() * (self.tempering / self.n_data)
        return log_prob - kl.to(log_prob.dtype)

    def model(self, log10_mass: Tensor, context: Tensor, weight: Tensor | None = None) -> Tensor:
        """The Pyro model of N examples of which this is a batch (B,): weights, then the factor ``log10_mass``.

        Args:
            log10_mass, context: (B,), (B, C).
            weight: (B,), how much each counts, 1 in the mean over all; None: all alike.

        Returns:
            log p(log10_mass | context, w), (B,).
        """
        with self._pair():
            log_prob = cast(Tensor, self.network(log10_mass, context))
        share = self.n_data / len(log10_mass)
        scale = share if weight is None else share * weight
        with pyro.plate("clusters", len(log10_mass)), poutine.scale(scale=scale):
            pyro.factor("log10_mass", log_prob)
        return log_prob

    def svi(self, optim: PyroOptim) -> SVI:
        """Stochastic variational inference: ``svi.step(log10_mass, context)`` is one step.

        Its parts are `model`, `guide`, ``optim`` and `elbo`, and each can be replaced by another of Pyro's.

        Args:
            optim: such as ``pyro.optim.Adam({"lr": 1e-3})``.
        """
        return SVI(self.model, self.guide, optim, self.elbo)

    def differentiable_loss(self, *batch: Tensor | None) -> Tensor:
        """The loss of a step of `svi` [nats, of all N], (), without its gradient."""
        return cast(Tensor, self.elbo.differentiable_loss(self.model, self.guide, *batch))

    @contextmanager
    def _pair(self) -> Iterator[None]:
        """Keeps the state of mirrored draws among the buffers."""
        handler = self._handler
        if not isinstance(handler, MirroredDraw) or self.mirror_seed.is_cuda:
            yield
            return
        seed = int(self.mirror_seed)
        handler.seed = None if seed == _NO_SEED else seed
        yield
        self.mirror_seed.fill_(_NO_SEED if handler.seed is None else handler.seed)

    def forward(self, log10_mass: Tensor, context: Tensor) -> Tensor:
        return self.log_prob(log10_mass, context)

    def kl(self) -> Tensor:
        """KL(q || p) [nats], summed over all weights, without gradient."""
        with torch.no_grad():
            return self.guide.kl()

    @torch.no_grad()
    def expected_log_likelihood(self, log10_mass: Tensor, context: Tensor) -> Tensor:
        """Mean of log p(log10_mass | context, w) over ``validation_draws`` fixed draws, (B,)."""
        draws = self.guide.draw(self.validation_draws, seed=0)
        total = torch.zeros_like(log10_mass)
        for i in range(self.validation_draws):
            weights = {name: value[i] for name, value in draws.items()}
            total += call_with(self.module, weights, (log10_mass, context))
        return total / self.validation_draws

    def report(self, log10_mass: Tensor, context: Tensor) -> dict[str, float]:
        """What the objective is made of, on given data.

        Returns:
            ``nll``: mean of -log p over fixed draws [nats per cluster]; ``kl_per_cluster``: KL / N, untempered;
            ``share_at_prior``: share of the random weights about which nothing was learned.
        """
        was_training = self.training
        self.eval()
        nll = -float(self.expected_log_likelihood(log10_mass, context).double().mean())
        self.train(was_training)
        return {
            "nll": nll,
            "kl_per_cluster": float(self.kl()) / self.n_data,
            "share_at_prior": self.guide.share_at_prior(),
        }

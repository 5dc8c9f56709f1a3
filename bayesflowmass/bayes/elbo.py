"""The evidence lower bound for pyro.infer.SVI, with few Pyro sites and a closed-form KL divergence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro.poutine as poutine
import torch
from pyro.infer import ELBO
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from bayesflowmass.bayes.guides.base import WeightGuide
from bayesflowmass.bayes.handlers import SharedDraw
from bayesflowmass.bayes.parameter_store import register_parameters
from bayesflowmass.bayes.per_example import ESTIMATORS, PerExampleDraw


class WeightELBO(ELBO):
    """sum_i log p(y_i | x_i, w) - T KL(q || p), w from the guide, for models that call one BayesianModule.

    Pyro's own ``Trace_ELBO`` fits the same model and guide, but spends a site, a density and a trace per tensor of
    weights. Here the weights are one message, their divergence is in closed form where there is one, and only
    the observed sites are traced, so that plates and their scales count as usual: with ``pyro.plate(..., size=N,
    subsample_size=B)`` the likelihood of a batch is scaled by N / B and the divergence counts once.

    >>> svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), WeightELBO(estimator="local"))

    Args:
        estimator: ``shared``, ``mirrored`` or ``local``, see :mod:`bayesflowmass.bayes.handlers`; or
            such a handler.
        num_particles: draws per step; two that are ``mirrored`` are a pair.
        tempering: T; anything but 1 is not the ELBO.

    Raises:
        ValueError: for an unknown estimator or unusable numbers; when it runs, if the guide is not a
            WeightGuide or the model has latent sites that are not weights.
    """

    def __init__(
        self,
        estimator: str | SharedDraw = "shared",
        *,
        num_particles: int = 1,
        tempering: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_particles=num_particles, **kwargs)
        if not isinstance(estimator, SharedDraw) and estimator not in ESTIMATORS:
            raise ValueError(f"Unknown estimator {estimator!r}; expected one of {', '.join(ESTIMATORS)}.")
        if num_particles < 1 or not 0 < tempering < float("inf"):
            raise ValueError(
                f"num_particles is {num_particles} and tempering {tempering}; expected positive numbers."
            )
        self.estimator = estimator
        self.tempering = tempering
        self._handler: SharedDraw | None = None
        self._checked = False

    def loss(self, model: Callable[..., Any], guide: WeightGuide, *args: Any, **kwargs: Any) -> float:
        """-ELBO [nats], estimated."""
        return float(self.differentiable_loss(model, guide, *args, **kwargs).detach())

    def loss_and_grads(
        self, model: Callable[..., Any], guide: WeightGuide, *args: Any, **kwargs: Any
    ) -> float:
        """-ELBO [nats], estimated; gradients are left in the parameters."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward()
        return float(loss.detach())

    def differentiable_loss(
        self, model: Callable[..., Any], guide: WeightGuide, *args: Any, **kwargs: Any
    ) -> Tensor:
        """-ELBO [nats], estimated, ()."""
        if not isinstance(guide, WeightGuide):
            raise ValueError(
                f"WeightELBO needs a WeightGuide, not a {type(guide).__name__}; use pyro.infer.Trace_ELBO for others."
            )
        register_parameters(guide.store_prefix, guide)
        losses = [
            self._particle(model, guide, args, kwargs) / self.num_particles for _ in range(self.num_particles)
        ]
        return torch.stack(losses).sum()

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Traces of model and guide, as Pyro's other bounds take them."""
        guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
        model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args, **kwargs)
        return model_trace, guide_trace

    def _particle(
        self, model: Callable[..., Any], guide: WeightGuide, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        if isinstance(self.estimator, SharedDraw):
            self._handler = self.estimator
        elif self._handler is None or self._handler.guide is not guide:
            self._handler = ESTIMATORS[self.estimator](guide)
            self._checked = False
        self._handler.counts = False
        with self._handler as estimator:
            trace = poutine.trace(model).get_trace(*args, **kwargs)
        for name, site in trace.nodes.items():
            latent = site["type"] == "sample" and not site["is_observed"]
            if latent and not site_is_subsample(site):
                raise ValueError(
                    f"The model has the latent site '{name}', which is no weight; use pyro.infer.Trace_ELBO"
                    " with a guide for it."
                )
        if isinstance(estimator, PerExampleDraw) and not self._checked:
            trace.compute_log_prob()
            for name in trace.observation_nodes:
                estimator.check_likelihood(name, trace.nodes[name]["log_prob"])
            self._checked = torch.is_grad_enabled()
        if estimator.masked:
            raise ValueError(
                "The network runs under poutine.mask, and WeightELBO would count its divergence all the same; put the"
                " mask around the observations alone."
            )
        kl = estimator.kl() * self.tempering * estimator.scale
        loss: Tensor = kl - trace.log_prob_sum()
        return loss

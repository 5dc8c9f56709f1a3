"""Effect handlers that give a network its random weights, each with its own estimator of the gradient.

All of them estimate the same E_q[log p(data | w)]; they differ in the variance of its gradient:

=================================  ==========================================================================
:class:`SharedDraw`                one draw of the weights for the whole batch
:class:`MirroredDraw`              the same, every other draw the mirror image about the mean of the one before
``LocalReparameterisation``        each example's pre-activations from their own normal distribution
                                   (:mod:`bayesflowmass.bayes.per_example`)
=================================  ==========================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary

import pyro
import torch
from pyro.poutine.condition_messenger import ConditionMessenger
from pyro.poutine.do_messenger import DoMessenger
from pyro.poutine.messenger import Messenger
from pyro.poutine.replay_messenger import ReplayMessenger
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.trace_messenger import TraceMessenger
from torch import Tensor, nn

from bayesflowmass.bayes.examination import examine
from bayesflowmass.bayes.guides.base import WeightGuide
from bayesflowmass.bayes.guides.noise import standard_normal
from bayesflowmass.bayes.module import (
    VECTORISED,
    BayesianModule,
    for_particles,
    particle_plate,
    scale_of,
    site_name,
    times,
)
from bayesflowmass.bayes.parameter_store import register_parameters
from bayesflowmass.bayes.substitution import is_traced


class SharedDraw(Messenger):
    """Gives a :class:`~bayesflowmass.bayes.module.BayesianModule` one draw of its weights from a guide.

    Within one ``with`` block all calls see the same draw. Noise comes from the global generator.

    >>> with SharedDraw(guide) as estimator:
    ...     output = network(x)
    >>> loss = -log_likelihood(output) + estimator.kl()

    Around a model of Pyro it takes the place of the sites of the weights, in the model and in the guide: where the
    model is traced, the divergence enters as the factor ``weights.divergence``, so that any of Pyro's bounds counts
    it. Other latent variables have a guide as usual:

    >>> model = SharedDraw(weights)(model)
    >>> svi = SVI(model, AutoNormal(model), optim, Trace_ELBO())

    Args:
        guide: q over the random weights of the module, of the same name as the `BayesianModule`.

    Attributes:
        counts: whether the divergence enters traces; False where somebody else adds `kl`.
        scale: by which ``poutine.scale`` multiplies the log densities where the network ran.
        masked: whether ``poutine.mask`` holds there.
        shared_layers: layer -> why one draw serves all examples, for linear layers of which that is so even where
            the estimator would rather give each example its own; known once the network ran.
    """

    def __init__(self, guide: WeightGuide) -> None:
        super().__init__()
        self.guide = guide
        self._sites = frozenset(guide.site(name) for name in guide.names)
        self.counts = True
        self.scale: float | Tensor = 1.0
        self.masked = False
        self.shared_layers: dict[str, str] = {}
        self._weights: dict[str, Tensor] | None = None
        self._network: nn.Module | None = None
        self._kl: list[Tensor] = []
        self._counted = False
        # For each network, as it trains and as it does not.
        self._examined: WeakKeyDictionary[nn.Module, dict[bool, dict[str, str]]] = WeakKeyDictionary()

    def __enter__(self) -> SharedDraw:
        self._weights = self._network = None
        self._kl, self._counted = [], False
        super().__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        super().__exit__(exc_type, exc_value, traceback)

    def kl(self) -> Tensor:
        """KL(q || p) [nats], summed over all weights; its gradient shares the passes of the draw."""
        if self._weights is None:
            raise ValueError("No network with random weights ran within this handler, so none was drawn.")
        if self._counted:
            raise ValueError("The trace of the model holds the divergence already, as 'weights.divergence'.")
        return self._divergence()

    def _divergence(self) -> Tensor:
        return torch.stack(self._kl).sum()

    def _pyro_weights(self, message: Any) -> None:
        network, args, kwargs = message["args"]
        if network.name != self.guide.name:
            # Of another network, which another handler serves, or the prior.
            return
        self._check_place(network)
        if tuple(network.layout.names) != self.guide.names:
            raise ValueError(
                f"The guide is over {', '.join(self.guide.names[:3])}, ... and the network's random weights are"
                f" {', '.join(network.layout.names[:3])}, ...; build both with the same choice, or give each network"
                " a name."
            )
        if self.counts and _traced(parameters_too=True):
            register_parameters(self.guide.store_prefix, self.guide)
        self.scale = scale_of(message)
        self.masked = message["mask"] is not None and message["mask"] is not True
        self._prepare(network, args, kwargs)
        if self._weights is None:
            self._weights = self._draw(network)
        message["value"] = self._given(network, self._weights)
        message["done"] = message["stop"] = True

    def _check_place(self, network: BayesianModule) -> None:
        """Refuse what would be ignored: another network of this name, and weights that others give or hold."""
        if self._network is not None and self._network is not network.module:
            raise ValueError(
                f"Two networks answer to the name {network.name!r} within one {type(self).__name__}, and would share"
                " their weights; give each BayesianModule and its guide a name."
            )
        self._network = network.module
        for frame in _PYRO_STACK:
            held: Any = ()
            if isinstance(frame, ConditionMessenger | DoMessenger):
                held = frame.data
            elif isinstance(frame, ReplayMessenger) and frame.trace is not None:
                held = frame.trace.nodes
            found = sorted(self._sites.intersection(held))
            if found:
                raise ValueError(
                    f"{type(frame).__name__} gives the site '{found[0]}', and {type(self).__name__} draws it: one of"
                    " them would be ignored. Leave the weights to one; to hold some, take them out of the choice"
                    " ('which')."
                )

    def _pyro_sample(self, message: Any) -> None:
        if message["name"] in self._sites:
            raise ValueError(
                f"The site '{message['name']}' is sampled within {type(self).__name__}, which gives the network"
                " its weights without sites: leave the weights out of Pyro's guide, or use WeightELBO without a handler"
                " around it."
            )

    def _pyro_outputs(self, message: Any) -> None:
        """The network has run: the divergence enters the trace, once in a block."""
        if message["args"][0].name != self.guide.name or self._counted:
            return
        if not (self.counts and _traced()):
            return
        for frame in message["cond_indep_stack"]:
            if frame.name not in VECTORISED and (frame.vectorized or times(frame) != 1):
                raise ValueError(
                    f"The network ran inside the plate '{frame.name}', where its divergence would count for each of"
                    f" {frame.full_size} members; call it before the plate."
                )
        divergence = self.kl()
        self._counted = True
        pyro.factor(site_name(self.guide.name, "weights.divergence"), -divergence)

    def _prepare(self, network: BayesianModule, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Before the first draw of a block and each call of the network."""
        known = self._examined.setdefault(network.module, {})
        if network.module.training in known:
            self.shared_layers = known[network.module.training]
            return
        self.shared_layers, n_examples = examine(network, args, kwargs)
        if n_examples != 1:
            # One example would show nothing about others.
            known[network.module.training] = self.shared_layers

    def _given(self, network: BayesianModule, weights: dict[str, Tensor]) -> Mapping[str, Tensor]:
        """The tensors that the module finds as its random weights."""
        return weights

    def _draw(self, network: BayesianModule) -> dict[str, Tensor]:
        plate = particle_plate()
        if plate is not None:
            flat = self.guide.rsample(plate.size)
            self._kl.append(self.guide.kl(flat))
            return {name: for_particles(sets, plate) for name, sets in self.guide.layout.split(flat).items()}
        weights, kl = self.guide.sample_with_kl()
        self._kl.append(kl)
        return weights


class MirroredDraw(SharedDraw):
    """Draws in pairs: w = m + L eps in one ``with`` block, m - L eps in the next, L the root of q's covariance.

    Each is a draw from q by itself. Between the two, what is odd in eps cancels (antithetic variates, Hammersley &
    Morton 1956), which is most of the gradient's noise while q is narrow; and half of the normal numbers are never
    made. An optimiser that steps between the two does not see independent draws, and ends with a q that is a little
    too narrow; two particles of one step have no such fault. Where draws cannot take turns, every one is new: on
    a GPU, in a function that `torch.jit` traces, and for particles that Pyro vectorises.

    Args:
        guide: q over the random weights of the module.
        seed: of the noise of the last draw, if its mirror image is due; an interrupted pair goes on with it.
    """

    def __init__(self, guide: WeightGuide, seed: int | None = None) -> None:
        super().__init__(guide)
        self.seed = seed
        self._kept: tuple[int, Tensor] | None = None

    def _draw(self, network: BayesianModule) -> dict[str, Tensor]:
        like = next(self.guide.parameters())
        if like.is_cuda or is_traced() or particle_plate() is not None:
            return super()._draw(network)
        if self.seed is None:
            seed, sign = int(torch.randint(1 << 62, ())), 1.0
        else:
            seed, sign = self.seed, -1.0
        if self._kept is not None and self._kept[0] == seed:
            noise = self._kept[1]
        else:
            noise = standard_normal((self.guide.n_noise,), like, torch.Generator().manual_seed(seed))
        self.seed, self._kept = (seed, (seed, noise)) if self.seed is None else (None, None)
        weights, kl = self.guide.sample_with_kl(noise=noise, sign=sign)
        self._kl.append(kl)
        return weights


def _traced(parameters_too: bool = False) -> bool:
    """Whether a trace of log densities (or of parameters) is being made."""
    return any(isinstance(f, TraceMessenger) and (parameters_too or not f.param_only) for f in _PYRO_STACK)

"""Effect handlers that give a network its random weights, each with its own estimator of the gradient.

All of them estimate the same E_q[log p(data | w)]; they differ in the variance of its gradient:

=================================  ==========================================================================
:class:`SharedDraw`                one draw of the weights for the whole batch
:class:`MirroredDraw`              the same, every other draw the mirror image about the mean of the one before
:class:`LocalReparameterisation`   each example's pre-activations from their own normal distribution
=================================  ==========================================================================

The last gives each example weights of its own, which is right for gradients of a sum over examples and wrong
for predictions of several examples at once: those need a shared draw. It is also wrong where a layer acts several
times on one example, or where an example sees rows of others; such layers get a shared draw (`examine`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
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

from bayesflowmass.bayes.examination import WatchedWeight, examine, mixes_rows, tensors_of
from bayesflowmass.bayes.guides.base import WeightGuide
from bayesflowmass.bayes.guides.fused import NormalDraw
from bayesflowmass.bayes.guides.noise import standard_normal
from bayesflowmass.bayes.module import VECTORISED, BayesianModule, parameter_name, site_name
from bayesflowmass.bayes.parameter_store import register_parameters


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
        shared_layers: layer -> why one draw serves all examples, for linear layers of which that is so even where
            the estimator would rather give each example its own; known once the network ran.
    """

    def __init__(self, guide: WeightGuide) -> None:
        super().__init__()
        self.guide = guide
        self._sites = frozenset(guide.site(name) for name in guide.names)
        self.counts = True
        self.scale: float | Tensor = 1.0
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
        in_plate = any(frame.vectorized for frame in message["cond_indep_stack"])
        self.scale = 1.0 if in_plate else message["scale"]
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
            if frame.vectorized and frame.name not in VECTORISED:
                raise ValueError(
                    f"The network ran inside the plate '{frame.name}', where its divergence would count for each of"
                    f" {frame.size} members; call it before the plate."
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
        weights, kl = self.guide.sample_with_kl()
        self._kl.append(kl)
        return weights


class MirroredDraw(SharedDraw):
    """Draws in pairs: w = m + L eps in one ``with`` block, m - L eps in the next, L the root of q's covariance.

    Each is a draw from q by itself. Between the two, what is odd in eps cancels (antithetic variates, Hammersley &
    Morton 1956), which is most of the gradient's noise while q is narrow; and half of the normal numbers are never
    made. An optimiser that steps between the two does not see independent draws, and ends with a q that is a little
    too narrow; two particles of one step have no such fault. On a GPU, where they are cheap and a captured graph
    cannot take turns, every draw is a new one.

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
        if like.is_cuda:
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


class PerExampleDraw(SharedDraw):
    """What estimators share that give each example weights of its own, in the linear layers where that is right."""

    def __enter__(self) -> SharedDraw:
        self._called: dict[str, int] = {}
        return super().__enter__()

    def own_layers(self, network: BayesianModule) -> list[str]:
        """The linear layers whose rows are the examples, each with weights of its own."""
        return [layer for layer in network.layers if layer not in self.shared_layers]

    def _prepare(self, network: BayesianModule, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        again = self._weights is not None
        super()._prepare(network, args, kwargs)
        if again and self.own_layers(network):
            raise ValueError(
                f"The network ran twice within one block of {type(self).__name__}, which gives each run other"
                " weights; use a block for each run, or the estimator 'shared'."
            )

    def _given(self, network: BayesianModule, weights: dict[str, Tensor]) -> Mapping[str, Tensor]:
        guards: dict[str, Tensor] = {}
        for layer in self.own_layers(network):
            for part in ("weight", "bias"):
                name = parameter_name(layer, part)
                if name in network.layout.shapes:
                    frozen = network.module.get_parameter(name)
                    guards[name] = WatchedWeight.of(
                        frozen, partial(self._refuse, layer, "is read past its call")
                    )
        return weights | guards

    def _is_own(self, layer: str, inputs: Tensor) -> bool:
        """Whether this call draws for each example; refuses what the first run of the network did not do."""
        if layer in self.shared_layers:
            return False
        if layer in self._called:
            self._refuse(layer, "is called twice")
        if inputs.dim() != 2:
            self._refuse(layer, f"is given inputs of shape {tuple(inputs.shape)}")
        self._called[layer] = len(inputs)
        return True

    def _pyro_outputs(self, message: Any) -> None:
        super()._pyro_outputs(message)
        if not self._called or message["args"][0].name != self.guide.name:
            return
        self._outputs = tensors_of(message["args"][1])
        lengths = {value.shape[0] if value.dim() else 0 for value in self._outputs}
        for layer, n_rows in self._called.items():
            if lengths != {n_rows}:
                self._refuse(layer, f"has {n_rows} rows where the module returns {sorted(lengths)}")

    def check_likelihood(self, name: str, log_prob: Tensor) -> None:
        """Whether each example's likelihood depends on its own row of the outputs alone.

        Args:
            name: of the observed site.
            log_prob: its log density, in the shape of its batch (B, ...).

        Raises:
            ValueError: it has another length, or depends on other rows.
        """
        if not self._called or not log_prob.requires_grad:
            return
        length = log_prob.shape[0] if log_prob.dim() else 1
        found = None
        if any(len(rows) != length for rows in self._outputs):
            found = f"has {length} examples where the network returns {len(self._outputs[0])} rows"
        elif any(mixes_rows(rows, [log_prob]) for rows in self._outputs if rows.requires_grad):
            found = "depends in one example on rows of others"
        if found is not None:
            raise ValueError(
                f"The site '{name}' {found}, and {type(self).__name__} gives each row weights of its own; use the"
                " estimator 'shared'."
            )

    def _refuse(self, layer: str, found: str) -> Any:
        raise ValueError(
            f"The layer '{layer}' {found}, which it did not when {type(self).__name__} first saw the network, so"
            " that weights for each example would be wrong; use the estimator 'shared'."
        )


class LocalReparameterisation(PerExampleDraw):
    """Draws the outputs of linear layers, not their weights: less variance, and no noise per weight.

    With independent normal weights an output is N(m.x, s^2.x^2), independent between examples and outputs
    (Kingma, Salimans & Welling 2015, arXiv:1506.02557). Random weights elsewhere (convolutions, layers of
    ``shared_layers``) are one shared draw, and so are random biases of layers whose weights are not random.

    Args:
        guide: a guide with ``local_linear``, such as the mean-field one.

    Raises:
        ValueError: if the guide has no local form.
    """

    def __init__(self, guide: WeightGuide) -> None:
        if type(guide).local_linear is WeightGuide.local_linear:
            guide.local_linear("", torch.empty(0))
        super().__init__(guide)

    def _draw(self, network: BayesianModule) -> dict[str, Tensor]:
        self._seen: dict[str, Tensor | None] = {}
        self._layers = set(self.own_layers(network))
        self._local = {
            name
            for layer in self._layers
            for part in ("weight", "bias")
            if (name := parameter_name(layer, part)) in network.layout.shapes
        }
        others = [name for name in self.guide.names if name not in self._local]
        if not others:
            return {}
        weights, kl = self.guide.sample_with_kl(others)
        self._kl.append(kl)
        return weights

    def _divergence(self) -> Tensor:
        divergences = list(self._seen.values())
        if self._layers - set(self._seen) or any(kl is None for kl in divergences):
            # A layer that was not called, or a guide that knows only the divergence of all weights.
            return self.guide.kl()
        return torch.stack([*self._kl, *(kl for kl in divergences if kl is not None)]).sum()

    def _pyro_linear(self, message: Any) -> None:
        layer = message["name"]
        inputs, _, bias, network = message["args"]
        if network != self.guide.name or not self._is_own(layer, inputs):
            return
        mean, variance, self._seen[layer] = self.guide.local_linear(layer, inputs)
        if bias is not None and parameter_name(layer, "bias") not in self._local:
            mean = mean + bias
        message["value"] = NormalDraw.apply(mean, variance)
        message["done"] = message["stop"] = True


def _traced(parameters_too: bool = False) -> bool:
    """Whether a trace of log densities (or of parameters) is being made."""
    return any(isinstance(f, TraceMessenger) and (parameters_too or not f.param_only) for f in _PYRO_STACK)


ESTIMATORS: dict[str, type[SharedDraw]] = {
    "shared": SharedDraw,
    "mirrored": MirroredDraw,
    "local": LocalReparameterisation,
}

"""Weight draws applied to clusters: every draw to all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bayesflowmass.bayes.linearised import linear_parameters
from bayesflowmass.bayes.substitution import call_with
from bayesflowmass.encoders.galaxy_set import Contexts
from bayesflowmass.flows import ConditionalFlow, MassDistribution


def condition_draws(
    flow: ConditionalFlow, draws: Mapping[str, Tensor], context: Contexts
) -> MassDistribution:
    """p(log10 M200c | context, w_d) of every weight draw d and cluster: one draw of the weights for all clusters.

    What comes before the first random layer is computed once, so random last layers cost little more than
    a point model. Dropout layers do nothing here.

    Args:
        flow: the network; it keeps the weights that are not drawn.
        draws: parameters (D, *shape) by their name; empty for the flow's own weights as a single draw.
        context: (n, C), or the galaxies of n clusters, in the precision of the networks.

    Returns:
        A distribution of batch shape (D, n); its mixture over D is the predictive posterior (`MassPosterior`).

    Raises:
        ValueError: a name is not a parameter of the flow, the numbers of draws differ, or the context has
            another length.
    """
    n_draws = _count(flow, draws)
    if isinstance(context, Tensor) and context.dim() != 2:
        raise ValueError(
            f"the context has shape {tuple(context.shape)}; this flow needs (clusters, {flow.context_dim})"
        )
    flow.check_context(context)
    training = flow.training
    flow.eval()
    try:
        if flow.linear_draws and draws:
            if not isinstance(context, Tensor):
                raise ValueError(
                    "draws of a model that is linear in its weights need contexts that are vectors"
                )
            return flow.distribution_of(linear_parameters(flow, draws, context))
        draws = _everywhere(flow, draws)
        features = _apply(flow.trunk, _below(draws, "trunk"), context, n_draws)
        parts: list[Any] = []
        for name, block in _blocks(flow):
            raw = _apply(block.nn, _below(draws, f"{name}.nn"), features, n_draws).double()
            # What no draw changes is kept once for each cluster; the base has the shape of all.
            all_of_them = raw.expand(n_draws, len(context), raw.shape[-1])
            parts.append(block.conditioned(raw if parts else all_of_them))
    finally:
        flow.train(training)
    base, *transforms = parts
    return MassDistribution(base, transforms, validate_args=False)


def _blocks(flow: ConditionalFlow) -> list[tuple[str, Any]]:
    return [("base_dist", flow.base_dist), *((f"transforms.{i}", t) for i, t in enumerate(flow.transforms))]


def _everywhere(flow: ConditionalFlow, draws: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The draws under every name of their tensors."""
    names: dict[int, str] = {}
    found = dict(draws)
    for name, value in flow.named_parameters(remove_duplicate=False):
        first = names.setdefault(id(value), name)
        if first in draws:
            found[name] = draws[first]
    return found


def _count(flow: ConditionalFlow, draws: Mapping[str, Tensor]) -> int:
    shapes = {name: value.shape for name, value in [*flow.named_parameters(), *flow.named_buffers()]}
    for name, value in draws.items():
        if name not in shapes:
            raise ValueError(f"{name!r} is no parameter or buffer of the flow; they are {', '.join(shapes)}.")
        if value.shape[1:] != shapes[name] or value.dim() == len(shapes[name]):
            raise ValueError(
                f"draws of {name!r} have shape {tuple(value.shape)}; expected (draws, {tuple(shapes[name])})."
            )
    counts = {len(value) for value in draws.values()}
    if len(counts) > 1:
        raise ValueError(f"the weights have different numbers of draws: {sorted(counts)}.")
    return counts.pop() if counts else 1


def _below(draws: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The draws of the parameters inside a submodule, by their names there."""
    return {key.removeprefix(f"{name}."): value for key, value in draws.items() if key.startswith(f"{name}.")}


def _apply(module: nn.Module, draws: Mapping[str, Tensor], x: Contexts, n_draws: int) -> Tensor:
    """Output of ``x`` (n, F), galaxies or (D, n, F): (n, P) while nothing up to here is random, else (D, n, P)."""
    if not draws:
        if not isinstance(x, Tensor):
            features: Tensor = module(x)
            return features
        # As rows of one batch: a layer may read a third dimension in its own way.
        y: Tensor = module(x.flatten(0, -2))
        flat: Tensor = y.unflatten(0, x.shape[:-1])
        return flat
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
        # A layer that stands in two places is called in both.
        for name, layer in module._modules.items():
            assert layer is not None
            x = _apply(layer, _below(draws, name), x, n_draws)
        assert isinstance(x, Tensor)
        return x
    if type(module) is nn.Linear and isinstance(x, Tensor):
        return _linear(module, draws, x)
    rows = x if isinstance(x, Tensor) and x.dim() == 3 else [x] * n_draws
    own = {name for name, _ in [*module.named_parameters(), *module.named_buffers()]}
    return torch.stack(
        [
            call_with(module, {name: value[d] for name, value in draws.items() if name in own}, (rows[d],))
            for d in range(n_draws)
        ]
    )


def _linear(layer: nn.Linear, draws: Mapping[str, Tensor], x: Tensor) -> Tensor:
    weight, bias = draws.get("weight", layer.weight), draws.get("bias", layer.bias)
    if weight.dim() == 3 and x.dim() == 2:
        # One product over all draws is several times faster than a batch of them.
        flat = x @ weight.reshape(-1, weight.shape[-1]).T
        y = flat.reshape(len(x), len(weight), -1).transpose(0, 1)
    elif weight.dim() == 3:
        y = x @ weight.mT
    else:
        y = F.linear(x, weight)
    return y if bias is None else y + (bias.unsqueeze(-2) if bias.dim() == 2 else bias)

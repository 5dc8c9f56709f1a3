"""A flow cut below its random layers: what lies below is computed once, the rest is a small flow."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bayesflowmass.common.tensors import hash_tensors
from bayesflowmass.encoders import Contexts, in_parts
from bayesflowmass.flows import ConditionalFlow
from bayesflowmass.training.random_state import torch_generator
from bayesflowmass.training.sources import EpochData, check_data

_AT_ONCE = 500


@dataclass(frozen=True)
class LastLayers:
    """The two halves of a flow.

    Attributes:
        head: the layers above as a flow over features; it shares their parameters with the whole flow and
            calls them by the same names.
        features: contexts of N clusters to what the head reads (N, F), on the device of the flow, without dropout.
    """

    head: ConditionalFlow
    features: Callable[[Contexts], Tensor]


class _Columns(nn.Module):
    """(*B, F) -> the columns of one network (*B, W)."""

    def __init__(self, start: int, stop: int) -> None:
        super().__init__()
        self.start, self.stop = start, stop

    def forward(self, features: Tensor) -> Tensor:
        return features[..., self.start : self.stop]


def cut_before_random_layers(flow: nn.Module, names: Iterable[str]) -> LastLayers | None:
    """Cut a flow below the lowest layer with random weights; None where that layer reads the context.

    Args:
        flow: with dense networks, or a shared trunk of any kind with linear layers above it.
        names: of the random parameters.
    """
    if not isinstance(flow, ConditionalFlow):
        return None
    networks = _networks(flow)
    if networks is None:
        return None
    chosen = set(names)
    shared = all(len(net) == 1 for net in networks.values())
    chains = {"trunk": flow.trunk} if shared else dict(networks)
    known = {f"{chain}.{name}" for chain, net in chains.items() for name, _ in net.named_parameters()}
    known |= {f"{name}.0.{part}" for name in networks if shared for part in ("weight", "bias")}
    cuts = {chain: _lowest(chain, net, chosen, with_last=not shared) for chain, net in chains.items()}
    if not chosen <= known or 0 in cuts.values():
        return None
    below = [nn.Sequential(*list(net.children())[: cuts[chain]]) for chain, net in chains.items()]
    head = copy.copy(flow)
    head._modules = dict(flow._modules)
    if shared:
        # Where no layer of the trunk is random, the heads read all of it.
        above = list(flow.trunk.children())[cuts["trunk"] :]
        heads = [net[0] for net in networks.values()]
        first = next(layer for layer in (*above, *heads) if isinstance(layer, nn.Linear))
        head.trunk = _above(flow.trunk, cuts["trunk"]) if above else nn.Identity()
        head.context_dim = first.in_features
    else:
        head.trunk = nn.Identity()
        widths = [_width(net, cuts[chain]) for chain, net in chains.items()]
        stops = list(itertools.accumulate(widths))
        short = {
            id(net): _above(net, cuts[chain], _Columns(stop - width, stop))
            for (chain, net), width, stop in zip(chains.items(), widths, stops, strict=True)
        }
        head.context_dim = sum(widths)
        head._modules["base_dist"] = _with_network(flow.base_dist, short)
        head._modules["transforms"] = nn.ModuleList(_with_network(block, short) for block in flow.transforms)

    @torch.no_grad()
    def features(context: Contexts) -> Tensor:
        training, device = flow.training, next(flow.parameters()).device
        flow.eval()
        try:
            parts = []
            for rows in in_parts(context, _AT_ONCE):
                common = rows.to(device) if shared else flow.trunk(rows.to(device))
                parts.append(torch.cat([part(common) for part in below], -1))
            return torch.cat(parts)
        finally:
            flow.train(training)

    return LastLayers(head, features)


def _lowest(chain: str, network: nn.Module, chosen: set[str], with_last: bool) -> int:
    """Index of the lowest layer with a random weight; without one, of the last layer, or beyond it."""
    layers = list(network.named_children())
    for index, (name, layer) in enumerate(layers):
        if any(f"{chain}.{name}.{part}" in chosen for part, _ in layer.named_parameters()):
            return index
    return len(layers) - with_last


def _networks(flow: ConditionalFlow) -> dict[str, nn.Sequential] | None:
    """The dense networks of the blocks that have parameters; None where one is of another kind."""
    blocks = {"base_dist": flow.base_dist} | {f"transforms.{i}": b for i, b in enumerate(flow.transforms)}
    found = {f"{name}.nn": block.get_submodule("nn") for name, block in blocks.items()}
    networks: dict[str, nn.Sequential] = {}
    for name, net in found.items():
        if not any(True for _ in net.parameters()):
            continue
        if not (isinstance(net, nn.Sequential) and isinstance(net[-1], nn.Linear)):
            return None
        networks[name] = net
    return networks


def _width(network: nn.Module, index: int) -> int:
    return int(list(network.children())[index].get_parameter("weight").shape[1])


def _above(network: nn.Module, index: int, first: nn.Module | None = None) -> nn.Sequential:
    """The layers from ``index`` on, under their names and without dropout, which would change the bound."""
    layers: list[nn.Module] = [
        nn.Identity() if i < index or isinstance(layer, nn.Dropout) else layer
        for i, layer in enumerate(network.children())
    ]
    if first is not None:
        layers[0] = first
    return nn.Sequential(*layers)


def _with_network(block: nn.Module, networks: dict[int, nn.Sequential]) -> nn.Module:
    if id(block.get_submodule("nn")) not in networks:
        return block
    cut = copy.copy(block)
    cut._modules = dict(block._modules)
    cut._modules["nn"] = networks[id(block.get_submodule("nn"))]
    return cut


class MirroredSource:
    """Features of the same clusters in every epoch, each as it is or mirrored in velocity, by chance.

    Args:
        features: (N, F), or (2, N, F) with the mirrored ones second.
        log10_mass: (N,).
        seed: of the choice.
        halo: (N,), see `EpochData`.
    """

    def __init__(self, features: Tensor, log10_mass: Tensor, seed: int, halo: Tensor | None = None) -> None:
        self.features = features if features.dim() == 3 else features.unsqueeze(0)
        self.log10_mass, self.seed, self.halo = log10_mass, seed, halo
        check_data(self.features[0], log10_mass, "training data")

    def epoch(self, index: int) -> EpochData:
        """All clusters, each in one of its orientations."""
        if len(self.features) == 1:
            return EpochData(self.features[0], self.log10_mass, self.halo)
        chance = torch.rand(len(self.log10_mass), 1, generator=torch_generator(self.seed, "mirror", index))
        mirrored = (chance < 0.5).to(self.features.device)
        features = torch.where(mirrored, self.features[1], self.features[0])
        return EpochData(features, self.log10_mass, self.halo)

    def fingerprint(self) -> str:
        """Hash of the masses and of a part of the features."""
        return hash_tensors({"log10_mass": self.log10_mass, "features": self.features[:, :64]})[:12]

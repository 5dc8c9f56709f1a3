"""A flow cut before its last layers: what the layers below give is computed once, the rest is a small flow."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bayesflowmass.flows import ConditionalAffine, ConditionalFlow
from bayesflowmass.training.fingerprint import hash_tensors
from bayesflowmass.training.random_state import torch_generator
from bayesflowmass.training.sources import EpochData, check_data

__all__ = ["LastLayers", "MirroredSource", "cut_before_last_layers", "location_layers"]

_AT_ONCE = 500


@dataclass(frozen=True)
class LastLayers:
    """The two halves of a flow.

    Attributes:
        head: the last layers as a flow over features; it shares their parameters with the whole flow and
            calls them by the same names.
        features: contexts (N, C) to what the head reads (N, F), on the device of the flow, without dropout.
    """

    head: ConditionalFlow
    features: Callable[[Tensor], Tensor]


class _Columns(nn.Module):
    """(*B, F) -> the columns of one network (*B, W)."""

    def __init__(self, start: int, stop: int) -> None:
        super().__init__()
        self.start, self.stop = start, stop

    def forward(self, features: Tensor) -> Tensor:
        return features[..., self.start : self.stop]


def location_layers(flow: nn.Module) -> tuple[str, ...]:
    """Patterns of the last layers that give location and width of the density: those of its affine blocks.

    Where a flow has no affine block, ``("last",)``: all last layers.
    """
    layers = [
        f"{name}.nn.{[key for key, _ in block.nn.named_children()][-1]}.*"
        for name, block in flow.named_modules()
        if isinstance(block, ConditionalAffine) and isinstance(block.nn, nn.Sequential)
    ]
    return tuple(layers) or ("last",)


def cut_before_last_layers(flow: nn.Module, names: Iterable[str]) -> LastLayers | None:
    """Cut a flow before the last layer of each of its networks; None where a random weight lies below.

    Arguments:
        flow: with dense networks.
        names: of the random parameters.
    """
    if not isinstance(flow, ConditionalFlow):
        return None
    networks = _networks(flow)
    if networks is None:
        return None
    last = {f"{name}.{len(net) - 1}.{part}" for name, net in networks.items() for part in ("weight", "bias")}
    shared = all(len(net) == 1 for net in networks.values())
    if not set(names) <= last or (shared and not list(flow.trunk.parameters())):
        return None
    head = copy.copy(flow)
    head._modules = dict(flow._modules)
    head.trunk = nn.Identity()
    lower = [nn.Sequential(*list(net)[:-1]) for net in networks.values()]
    own = [net[-1].get_parameter("weight").shape[1] for net in networks.values()]
    head.context_dim = own[0] if shared else sum(own)
    if not shared:
        stops = list(itertools.accumulate(own))
        short = {
            id(net): _shortened(net, stop - width, stop)
            for net, stop, width in zip(networks.values(), stops, own, strict=True)
        }
        head._modules["base_dist"] = _with_network(flow.base_dist, short)
        head._modules["transforms"] = nn.ModuleList(_with_network(block, short) for block in flow.transforms)

    @torch.no_grad()
    def features(context: Tensor) -> Tensor:
        training, device = flow.training, next(flow.parameters()).device
        flow.eval()
        try:
            parts = []
            for rows in context.split(_AT_ONCE):
                below = flow.trunk(rows.to(device))
                parts.append(below if shared else torch.cat([part(below) for part in lower], -1))
            return torch.cat(parts)
        finally:
            flow.train(training)

    return LastLayers(head, features)


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


def _shortened(network: nn.Sequential, start: int, stop: int) -> nn.Sequential:
    """The last layer alone, under its name, reading its own columns."""
    layers: list[nn.Module] = [nn.Identity() for _ in network]
    layers[-1] = network[-1]
    layers[0] = _Columns(start, stop) if len(network) > 1 else layers[0]
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

    Arguments:
        features: (N, F), or (2, N, F) with the mirrored ones second.
        log10_mass: (N,).
        seed: of the choice.
    """

    def __init__(self, features: Tensor, log10_mass: Tensor, seed: int) -> None:
        self.features = features if features.dim() == 3 else features.unsqueeze(0)
        self.log10_mass, self.seed = log10_mass, seed
        check_data(self.features[0], log10_mass, "training data")

    def epoch(self, index: int) -> EpochData:
        """All clusters, each in one of its orientations."""
        if len(self.features) == 1:
            return EpochData(self.features[0], self.log10_mass)
        chance = torch.rand(len(self.log10_mass), 1, generator=torch_generator(self.seed, "mirror", index))
        mirrored = (chance < 0.5).to(self.features.device)
        return EpochData(torch.where(mirrored, self.features[1], self.features[0]), self.log10_mass)

    def fingerprint(self) -> str:
        """Hash of the masses and of a part of the features."""
        return hash_tensors({"log10_mass": self.log10_mass, "features": self.features[:, :64]})[:12]

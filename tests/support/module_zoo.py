"""Modules that use their weights in every way that we know of, each with inputs of five examples.

Each maps (5, ...) to outputs (5, ...). `AS_ROWS` names the linear layers whose rows are examples of their own.
"""

from __future__ import annotations

import math

import pyro.distributions.transforms as transforms
import pytest
import torch
import torch.nn.functional as F
from pyro.nn import ConditionalDenseNN
from torch import Tensor, nn

N = 5


class DeepSet(nn.Module):
    """Sets of four, pooled: four rows of a layer are one example."""

    def __init__(self, flat: bool):
        super().__init__()
        self.flat = flat
        self.each, self.head = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.each(x.flatten(0, 1)).unflatten(0, (N, -1)) if self.flat else self.each(x)
        return self.head(torch.tanh(rows).mean(-2))


class Galaxies(nn.Module):
    """Five galaxies of five clusters, so that shapes give nothing away: the first cluster has three of them."""

    def __init__(self):
        super().__init__()
        self.each, self.head = nn.Linear(3, 3), nn.Linear(3, 2)
        self.register_buffer("cluster", torch.tensor([0, 0, 0, 3, 4]))

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.tanh(self.each(x))
        return self.head(torch.zeros_like(rows).index_add(0, self.cluster, rows))


class Recurrent(nn.Module):
    """One layer, called at each time."""

    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.Linear(5, 2), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 2)
        for t in range(x.shape[1]):
            h = torch.tanh(self.cell(torch.cat([x[:, t], h], -1)))
        return self.head(h)


class Attention(nn.Module):
    """One head of attention over the members of each example."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(3, 3) for _ in range(3))
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        share = torch.softmax(self.q(x) @ self.k(x).mT / math.sqrt(3), -1)
        return self.head((share @ self.v(x)).mean(-2))


class Tied(nn.Module):
    """Two layers that are one parameter."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.tanh(self.a(x)))


class TiedDecoder(nn.Module):
    """A decoder that shares the weight of the encoder."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.tanh(self.a(x)), self.a.weight.mT)


class ReadPastTheCall(nn.Module):
    """A layer whose weight is read and which is never called."""

    def __init__(self):
        super().__init__()
        self.a, self.head = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(F.linear(x, self.a.weight)))


class Penalised(nn.Module):
    """The norm of a weight beside the call of its layer."""

    def __init__(self):
        super().__init__()
        self.a, self.head = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.a(x))) * self.a.weight.norm()


class Centred(nn.Module):
    """Each example less the mean of all."""

    def __init__(self):
        super().__init__()
        self.a, self.head = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.head(torch.tanh(h - h.mean(0)))


class CentredInSilence(nn.Module):
    """Each example less the mean of all, through which no gradient goes."""

    def __init__(self):
        super().__init__()
        self.a, self.head = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.head(torch.tanh(h - h.mean(0).detach()))


class SelfAttention(nn.Module):
    """Torch's own attention, which reads the weights of its output layer."""

    def __init__(self):
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.attention(x, x, x, need_weights=False)[0].mean(-2))


class LastState(nn.Module):
    """A recurrent module of torch."""

    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.LSTM(3, 3, batch_first=True), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0][:, -1])


class PyroCoupling(nn.Module):
    """Density under a conditional coupling transform of Pyro."""

    def __init__(self):
        super().__init__()
        self.coupling = transforms.ConditionalAffineCoupling(1, ConditionalDenseNN(1, 1, [3]))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        conditioned = self.coupling.condition(x[:, 2:])
        z = conditioned.inv(x[:, :2])
        return z, conditioned.inv.log_abs_det_jacobian(x[:, :2], z).unsqueeze(-1)


class ZukoFlow(nn.Module):
    """Density under a flow of zuko."""

    def __init__(self):
        super().__init__()
        zuko = pytest.importorskip("zuko", reason="zuko is not installed; pip install '.[benchmarks]'")
        self.flow = zuko.flows.MAF(2, 1, transforms=1, hidden_features=(4,))

    def forward(self, x: Tensor) -> Tensor:
        return self.flow(x[:, 2:]).log_prob(x[:, :2]).unsqueeze(-1)


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def _convolution() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 3)), nn.Conv1d(1, 2, 2), nn.Flatten(), nn.Tanh(), nn.Linear(4, 2)
    )


def _batch_norm() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Linear(3, 2))


def _twice() -> nn.Module:
    layer = nn.Linear(3, 3)
    return nn.Sequential(layer, nn.Tanh(), layer)


ZOO = {
    "mlp": (_mlp, (N, 3)),
    "convolution": (_convolution, (N, 3)),
    "deep set": (lambda: DeepSet(False), (N, 4, 3)),
    "deep set, flattened": (lambda: DeepSet(True), (N, 4, 3)),
    "galaxies of clusters": (Galaxies, (N, 3)),
    "recurrent": (Recurrent, (N, 4, 3)),
    "lstm": (LastState, (N, 4, 3)),
    "attention": (Attention, (N, 4, 3)),
    "torch attention": (SelfAttention, (N, 3, 4)),
    "twice": (_twice, (N, 3)),
    "tied": (Tied, (N, 3)),
    "tied decoder": (TiedDecoder, (N, 3)),
    "read past the call": (ReadPastTheCall, (N, 3)),
    "penalised": (Penalised, (N, 3)),
    "batch norm": (_batch_norm, (N, 3)),
    "centred": (Centred, (N, 3)),
    "centred, detached": (CentredInSilence, (N, 3)),
    "pyro coupling": (PyroCoupling, (N, 3)),
    "zuko flow": (ZukoFlow, (N, 3)),
}

AS_ROWS = {
    "mlp": {"0", "2"},
    "convolution": {"4"},
    "deep set": {"head"},
    "deep set, flattened": {"head"},
    "galaxies of clusters": {"head"},
    "recurrent": {"head"},
    "lstm": {"head"},
    "attention": {"head"},
    "torch attention": {"head"},
    "twice": set(),
    "tied": set(),
    "tied decoder": set(),
    "read past the call": {"head"},
    "penalised": {"head"},
    "batch norm": {"3"},
    "centred": {"head"},
    "centred, detached": {"head"},
    "pyro coupling": set(),
    "zuko flow": set(),
}


def make(name: str) -> tuple[nn.Module, Tensor]:
    """The module, in double precision and the same each time, and its inputs."""
    build, shape = ZOO[name]
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = build().double()
        return module, 1.0 + torch.randn(shape, dtype=torch.float64)

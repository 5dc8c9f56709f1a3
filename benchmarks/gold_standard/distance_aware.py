"""A distance-aware network: spectral-normalised residual layers, random Fourier features, a normal last layer.

SNGP (Liu et al. 2020, arXiv:2006.10108) for the gold standard's likelihood. Contexts enter by a fixed isometry; each
hidden layer of the cell's network is a residual block h + tanh(W h + b) of the same width with |W|_2 <= 0.95, so that
distances of contexts are kept within factors; the outputs are linear in random features of a Gaussian kernel of h.
Hidden layers and last layer are trained together to the maximum of the posterior density; then the last layer gets
its Laplace approximation. Its functions are not those of the cell's network, so its target is not what NUTS has; prior
variance and length of the kernel are those of NUTS' prior (or chosen by the marginal likelihood from there).

All settings are constants here; they were written down before the first run on the gold standard.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bayesflowmass.flows import ConditionalFlow
from benchmarks.gold_standard.function_space import context_points, prior_features
from benchmarks.gold_standard.methods import N_DRAWS, PRIOR, Cell, Predict
from benchmarks.gold_standard.problems import NETWORKS

__all__ = ["DISTANCE_AWARE"]

N_FEATURES, BOUND = 512, 0.95
FACTORS = (0.5, 1.0, 2.0, 4.0), (0.5, 1.0, 2.0)
"""Of the prior's length, then of its standard deviation: tried one after the other by the marginal likelihood."""


class DistanceAware(nn.Module):
    """Mean and log standard deviation, in units of the problem, of contexts.

    Args:
        cell: data set and network.
        length, sd: of the kernel: length in units of the context, standard deviation of each output a priori.
        seed: of everything that is drawn.
    """

    def __init__(self, cell: Cell, length: float, sd: float, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        hidden = NETWORKS[cell.name.partition(", ")[2]]

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        self.cell, self.sd = cell, sd
        self.into = torch.linalg.qr(normal(hidden[0], cell.problem.dims))[0]
        self.weights = nn.ParameterList([normal(n, n) / math.sqrt(n) for n in hidden])
        self.biases = nn.ParameterList([normal(n) for n in hidden])
        self.frequencies = normal(hidden[-1], N_FEATURES) / length
        self.phases = 2 * math.pi * torch.rand(N_FEATURES, generator=generator, dtype=torch.float64)
        self.last = nn.Parameter(torch.zeros(N_FEATURES, 2, dtype=torch.float64))

    def features(self, x: Tensor) -> Tensor:
        """(n, K): their products are the prior's covariance of an output."""
        h = x @ self.into.mT
        for weight, bias in zip(self.weights, self.biases, strict=True):
            norm = torch.linalg.matrix_norm(weight, 2)
            h = h + torch.tanh(h @ (weight * (BOUND / norm).clamp(max=1.0)).mT + bias)
        return self.sd * math.sqrt(2 / N_FEATURES) * (h @ self.frequencies + self.phases).cos()

    def log_likelihood(self, log10_mass: Tensor, context: Tensor) -> Tensor:
        """Per cluster, in units of the problem."""
        mean, log_sd = (self.features(context) @ self.last).unbind(-1)
        residual = (log10_mass - self.cell.problem.loc) / self.cell.problem.scale - mean
        return -0.5 * (residual * (-log_sd).exp()) ** 2 - log_sd - 0.5 * math.log(2 * math.pi)

    def log_prior(self) -> Tensor:
        """Of hidden layers, the prior of the other rows; of the last, N(0, 1) of coordinates."""
        hidden = {name: p for name, p in self.named_parameters() if name != "last"}
        return PRIOR.log_prob(hidden) - 0.5 * (self.last**2 + math.log(2 * math.pi)).sum()

    def log_prob(self, log10_mass: Tensor, context: Tensor) -> Tensor:
        """Log posterior density per cluster."""
        return self.log_likelihood(log10_mass, context).mean() + self.log_prior() / len(context)

    def roots(self) -> tuple[Tensor, Tensor]:
        """Cholesky factors of the last layer's precision, for mean and log standard deviation: Fisher's curvature."""
        features = self.features(self.cell.data[0])
        curvature = (-2 * features @ self.last[:, 1]).exp()
        unit = torch.eye(N_FEATURES, dtype=features.dtype)
        mean = torch.linalg.cholesky(unit + features.mT @ (features * curvature.unsqueeze(-1)))
        return mean, torch.linalg.cholesky(unit + 2 * features.mT @ features)

    def log_evidence(self) -> float:
        """Laplace's, of the last layer, at the hidden layers' maximum."""
        context, mass = self.cell.data
        with torch.no_grad():
            volume = sum(root.diagonal().log().sum() for root in self.roots())
            joint = self.log_likelihood(mass, context).sum() + self.log_prior()
            return float(joint + N_FEATURES * math.log(2 * math.pi) - volume)

    def predict(self, seed: int) -> Predict:
        """Draws of the last layer."""
        generator, problem = torch.Generator().manual_seed(seed), self.cell.problem
        with torch.no_grad():
            draws = [
                centre.unsqueeze(-1)
                + torch.linalg.solve_triangular(
                    root.mT,
                    torch.randn(N_FEATURES, N_DRAWS, generator=generator, dtype=root.dtype),
                    upper=True,
                )
                for root, centre in zip(self.roots(), self.last.unbind(-1), strict=True)
            ]

        def predict(contexts: Tensor) -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                mean, log_sd = ((self.features(contexts) @ each).mT for each in draws)
                return problem.loc + problem.scale * mean, problem.scale * log_sd.exp()

        return predict


@dataclass(frozen=True)
class Scales:
    """Length and standard deviation of the functions that the weights' prior gives."""

    length: float
    sd: float

    @classmethod
    def of_the_prior(cls, cell: Cell) -> Scales:
        """Those with its mean variance and its mean square slope at the context points."""
        points, step = context_points(cell), 1e-3
        features = prior_features(cell, points)
        variance = float((features**2).sum(-1).mean())
        slopes = [
            float(((prior_features(cell, points + step * unit) - features) / step).square().sum(-1).mean())
            for unit in torch.eye(points.shape[-1], dtype=points.dtype)
        ]
        return cls(math.sqrt(variance * len(slopes) / sum(slopes)), math.sqrt(variance))


def _trained(cell: Cell, scales: Scales, seed: int) -> DistanceAware:
    network = DistanceAware(cell, scales.length, scales.sd, seed)
    cell.maximise(network, seed=seed, name="point")
    return network


def by_prior(cell: Cell, point: ConditionalFlow, seed: int) -> Predict:
    """Scales of the prior of NUTS."""
    return _trained(cell, Scales.of_the_prior(cell), seed).predict(seed)


def by_evidence(cell: Cell, point: ConditionalFlow, seed: int) -> Predict:
    """Scales by the marginal likelihood."""
    prior = Scales.of_the_prior(cell)
    lengths = [_trained(cell, Scales(factor * prior.length, prior.sd), seed) for factor in FACTORS[0]]
    best = max(range(len(lengths)), key=lambda k: lengths[k].log_evidence())
    length = FACTORS[0][best] * prior.length
    others = [
        lengths[best] if factor == 1.0 else _trained(cell, Scales(length, factor * prior.sd), seed)
        for factor in FACTORS[1]
    ]
    return max(others, key=DistanceAware.log_evidence).predict(seed)


DISTANCE_AWARE = {
    "distance-aware (SNGP), scales of the prior": by_prior,
    "distance-aware (SNGP), scales by marginal likelihood": by_evidence,
}

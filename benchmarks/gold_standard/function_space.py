"""Priors in function space: the weights' own prior, as the covariance of the functions that it gives.

Target: the posterior that NUTS has, with the prior's functions taken as normal. Their covariance is that of the prior
of the weights (`prior_features`), equal and uncorrelated for the mean and the log standard deviation; what is lost is
that functions of a narrow network are not jointly normal. It is evaluated at context points: the training contexts and
a box around them (`context_points`).

All settings are constants here and in the functions below. They were written down before the first run on the gold
standard, after runs on other problems, for which no exact answer is known, that asked for convergence and cost.

References:
    Sun, Zhang, Shi & Grosse 2019, arXiv:1903.05779; Rudner, Chen, Teh & Gal 2022, arXiv:2312.17199 (variational);
    Cinquin et al. 2024, arXiv:2407.13711 (Laplace: `bayesflowmass.bayes.function_space`, tried here first);
    Burt et al. 2020, arXiv:2011.09421, on what is ill-posed: the divergence between a network's functions and a
    process grows without limit with the number of points, so that number and the noise that is added to both
    (`NOISE`) are settings of the method.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bayesflowmass.bayes.layout import WeightLayout
from bayesflowmass.flows import ConditionalFlow
from benchmarks.gold_standard.methods import N_DRAWS, PRIOR, Cell, Predict
from benchmarks.gold_standard.problems import GAIN, layers, outputs

__all__ = ["FUNCTION_SPACE", "context_points", "prior_features"]

N_BOX, MARGIN = 200, 0.25
"""Context points beside the training contexts; share of the data's range by which their box is larger at each end."""
NOISE = 1e-4
"""Variance that the prior's functions have besides, in units of the problem's scale: 0.01 of it."""
N_PRIOR = 300
"""Draws of the hidden layers under their prior, each of 20 or 30 units."""
N_AT_ONCE = 20
"""Context points of either kind in a step of the variational fit."""


def prior_features(cell: Cell, x: Tensor) -> Tensor:
    """F (n, K) with F F^T the covariance of one output at contexts x (n, C) under the prior of the weights."""
    generator = torch.Generator().manual_seed(0)
    network = cell.name.partition(", ")[2]
    h = x.expand(N_PRIOR, *x.shape)
    for n, m in layers(cell.problem, network)[:-1]:
        matrix = torch.randn(N_PRIOR, n, m, generator=generator, dtype=x.dtype) * GAIN / math.sqrt(n)
        h = torch.tanh(h @ matrix + torch.randn(N_PRIOR, 1, m, generator=generator, dtype=x.dtype))
    # Given the hidden layers, the last one's matrix and bias are integrated out.
    hidden = h.transpose(0, 1).flatten(1) * (GAIN / math.sqrt(h.shape[0] * h.shape[-1]))
    return torch.cat([x.new_ones(len(x), 1), hidden], -1)


def context_points(cell: Cell) -> Tensor:
    """Training contexts, and after them the box (N + N_BOX, C)."""
    x = cell.data[0]
    low, high = x.amin(0), x.amax(0)
    box = torch.quasirandom.SobolEngine(x.shape[-1], scramble=True, seed=0).draw(N_BOX, dtype=x.dtype)
    return torch.cat([x, low + (high - low) * ((1 + 2 * MARGIN) * box - MARGIN)])


class Functions:
    """The network of a cell as a function of one vector of weights, and its prior at the context points.

    Args:
        cell: data set and network.
    """

    def __init__(self, cell: Cell) -> None:
        self.cell, self.points = cell, context_points(cell)
        features = prior_features(cell, self.points)
        self.covariance = features @ features.mT + NOISE * torch.eye(len(features), dtype=features.dtype)
        self.standardised = (cell.data[1] - cell.problem.loc) / cell.problem.scale
        """Log10 masses of the training clusters in units of the problem, (N,)."""

    def __call__(self, weights: Tensor, x: Tensor) -> Tensor:
        """Mean and log standard deviation in units of the problem, (2, n)."""
        sizes = layers(self.cell.problem, self.cell.name.partition(", ")[2])
        return torch.stack(outputs(weights, x, sizes, torch.tanh))

    def jacobian(self, weights: Tensor, x: Tensor) -> Tensor:
        """(2, n, P), by the chain rule: an eighth of the time of `torch.func.jacrev`."""
        start, matrices, inputs = 0, [], [x]
        for n, m in layers(self.cell.problem, self.cell.name.partition(", ")[2]):
            matrices.append(weights[start : start + n * m].reshape(m, n))
            inputs.append(
                torch.tanh(inputs[-1] @ matrices[-1].mT + weights[start + n * m : start + n * m + m])
            )
            start += n * m + m
        slope = torch.eye(2, dtype=x.dtype).unsqueeze(1).expand(2, len(x), 2)
        parts: list[Tensor] = []
        for matrix, h in zip(matrices[::-1], inputs[-2::-1], strict=True):
            parts = [(slope.unsqueeze(-1) * h.unsqueeze(-2)).flatten(-2), slope, *parts]
            slope = (slope @ matrix) * (1 - h**2)
        return torch.cat(parts, -1)

    def log_likelihood(self, values: Tensor) -> Tensor:
        """Of outputs (*D, 2, N) at the training contexts, (*D,)."""
        mean, log_sd = values.unbind(-2)
        return (-0.5 * ((self.standardised - mean) * (-log_sd).exp()) ** 2 - log_sd).sum(-1)

    def predict(self, draws: Callable[[Tensor], Tensor]) -> Predict:
        """Of draws of the function: contexts (n, C) -> (D, 2, n)."""
        problem = self.cell.problem

        def predict(contexts: Tensor) -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                mean, log_sd = draws(contexts).unbind(-2)
                return problem.loc + problem.scale * mean, problem.scale * log_sd.exp()

        return predict


def start_of(point: ConditionalFlow) -> tuple[Tensor, Tensor]:
    """The weights of a flow and their standard deviations under the prior, (P,)."""
    layout = WeightLayout(point, [name for name, _ in point.named_parameters()])
    flat = layout.flatten(dict(point.named_parameters())).detach()
    return flat, PRIOR.scales(layout.shapes, flat)


class _FunctionSpaceBound(nn.Module):
    """Expected log likelihood less the divergence at a subset of the context points (Rudner et al. 2022)."""

    guide = None

    def __init__(self, functions: Functions, centre: Tensor, scales: Tensor) -> None:
        super().__init__()
        self.functions, self.scales = functions, scales
        self.mean = nn.Parameter(centre / scales)
        self.log_sd = nn.Parameter(torch.full_like(centre, math.log(0.1)))

    def log_prob(self, log10_mass: Tensor, context: Tensor) -> Tensor:
        """Per cluster, one draw of the weights for each of four estimates."""
        noise = torch.randn(4, len(self.mean), dtype=self.mean.dtype)
        weights = (self.mean + self.log_sd.exp() * noise) * self.scales
        values = torch.vmap(self.functions, in_dims=(0, None))(weights, context)
        expected = self.functions.log_likelihood(values).mean()
        return (expected - self.divergence(len(context))) / len(context)

    def divergence(self, n_train: int) -> Tensor:
        """KL of the linearised function from the prior's, at points by chance."""
        functions = self.functions
        n_box = len(functions.points) - n_train
        rows = torch.cat([torch.randperm(n_train)[:N_AT_ONCE], n_train + torch.randperm(n_box)[:N_AT_ONCE]])
        points, weights = functions.points[rows], self.mean * self.scales
        root = torch.linalg.cholesky(functions.covariance[rows][:, rows])
        slope = functions.jacobian(weights, points) * (self.log_sd.exp() * self.scales)
        whitened = torch.linalg.solve_triangular(root, slope, upper=False).flatten(0, 1)
        inverse = torch.linalg.solve_triangular(root, torch.eye(len(root), dtype=root.dtype), upper=False)
        added = NOISE * inverse @ inverse.mT
        own = whitened @ whitened.mT + torch.block_diag(added, added)
        away = torch.linalg.solve_triangular(root, functions(weights, points).unsqueeze(-1), upper=False)
        return 0.5 * (own.diagonal().sum() + (away**2).sum() - len(own) - torch.logdet(own))


def variational(cell: Cell, point: ConditionalFlow, seed: int) -> Predict:
    """Mean field over all weights, from the point; predictions are those of the network itself."""
    functions = Functions(cell)
    bound = _FunctionSpaceBound(functions, *start_of(point))
    cell.maximise(bound, seed=seed, name="variational", factor=6)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(N_DRAWS, len(bound.mean), generator=generator, dtype=bound.mean.dtype)
    weights = ((bound.mean + bound.log_sd.exp() * noise) * bound.scales).detach()
    return functions.predict(lambda x: torch.vmap(functions, in_dims=(0, None))(weights, x))


class _Regularised(nn.Module):
    """Log likelihood and the prior's density of the function at all context points."""

    def __init__(self, functions: Functions, centre: Tensor) -> None:
        super().__init__()
        self.functions, self.weights = functions, nn.Parameter(centre.clone())
        self.root = torch.linalg.cholesky(functions.covariance)

    def log_prob(self, log10_mass: Tensor, context: Tensor) -> Tensor:
        """Per cluster."""
        values = self.functions(self.weights, self.functions.points)
        away = torch.linalg.solve_triangular(self.root, values.mT, upper=False)
        likelihood = self.functions.log_likelihood(values[:, : len(context)])
        return (likelihood - 0.5 * (away**2).sum()) / len(context)


@dataclass(frozen=True)
class _Tangent:
    """The network linear in its weights about those of `_Regularised`, in coordinates that are N(0, 1) a priori.

    Directions whose functions differ at the context points by less than a hundred-thousandth of the largest are left.
    """

    functions: Functions
    weights: Tensor
    basis: Tensor
    mode: Tensor

    @classmethod
    def about(cls, functions: Functions, regularised: _Regularised) -> _Tangent:
        """About the weights as they are."""
        weights, root = regularised.weights.detach(), regularised.root
        slope = torch.linalg.solve_triangular(
            root, functions.jacobian(weights, functions.points), upper=False
        )
        left, values, right = torch.linalg.svd(slope.flatten(0, 1), full_matrices=False)
        kept = values > 1e-5 * values[0]
        own = torch.linalg.solve_triangular(
            root, functions(weights, functions.points).unsqueeze(-1), upper=False
        )
        return cls(functions, weights, right.mT[:, kept] / values[kept], left.mT[kept] @ own.flatten())

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (2, n) at coordinate 0, and slopes (2, n, R)."""
        slopes = self.functions.jacobian(self.weights, x) @ self.basis
        return self.functions(self.weights, x) - slopes @ self.mode, slopes

    def predict(self, mean: Tensor, precision: Tensor, seed: int) -> Predict:
        """Of coordinates from N(mean, precision^-1)."""
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(len(mean), N_DRAWS, generator=generator, dtype=mean.dtype)
        root = torch.linalg.cholesky(precision)
        coordinates = mean + torch.linalg.solve_triangular(root.mT, noise, upper=True).mT

        def draws(x: Tensor) -> Tensor:
            value, slopes = self.features(x)
            return value + torch.einsum("onr,dr->don", slopes, coordinates)

        return self.functions.predict(draws)


def linearised_variational(cell: Cell, point: ConditionalFlow, seed: int) -> Predict:
    """About the most probable function, the normal distribution that maximises the bound: natural gradients.

    Expectations are in closed form. Of the curvature the diagonal of the outputs is kept, which is positive.
    """
    functions = Functions(cell)
    regularised = _Regularised(functions, start_of(point)[0])
    cell.maximise(regularised, seed=seed, name="point")
    tangent = _Tangent.about(functions, regularised)
    value, slopes = tangent.features(cell.data[0])
    y, mean = tangent.functions.standardised, tangent.mode
    precision = torch.eye(len(mean), dtype=mean.dtype)
    for _ in range(100):
        f, s = value + slopes @ mean
        half = torch.linalg.solve_triangular(
            torch.linalg.cholesky(precision), slopes.flatten(0, 1).mT, upper=False
        )
        half = half.mT.unflatten(0, slopes.shape[:2])
        (var_f, var_s), both = (half**2).sum(-1), (half[0] * half[1]).sum(-1)
        # E[exp(-2 s)], and mean and mean square of the residual under the density that it tilts.
        w = (-2 * s + 2 * var_s).exp()
        r = y - f + 2 * both
        square = r**2 + var_f
        gradient = torch.einsum("onr,on->r", slopes, torch.stack([w * r, w * square - 1])) - mean
        precision = 0.8 * precision + 0.2 * _precision(slopes, torch.stack([w, 2 * w * square]))
        mean = mean + 0.2 * torch.linalg.solve(precision, gradient)
    return tangent.predict(mean, precision, seed)


def _precision(slopes: Tensor, curvature: Tensor) -> Tensor:
    """Identity and sum_i J_i^T diag(curvature_i) J_i."""
    rows = (slopes * curvature.sqrt().unsqueeze(-1)).flatten(0, 1)
    return rows.mT @ rows + torch.eye(rows.shape[-1], dtype=rows.dtype)


FUNCTION_SPACE = {
    "function-space variational, all, mean field": variational,
    "function-space variational, linearised, all": linearised_variational,
}

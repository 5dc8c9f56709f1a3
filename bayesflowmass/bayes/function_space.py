"""Laplace's approximation under a prior of functions: those that the prior of the weights gives."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from bayesflowmass.bayes.choice import Choice, choose
from bayesflowmass.bayes.layout import WeightLayout
from bayesflowmass.bayes.linearised import (
    LinearisedPosterior,
    gauss_newton,
    parameters_of_draws,
    slopes_of,
)
from bayesflowmass.bayes.point import maximise_weights
from bayesflowmass.bayes.priors import NormalPrior, WeightPrior
from bayesflowmass.bayes.protocol import Data, Maximise

N_POINTS = 200
"""Points of either kind, at most: inputs of the data, and of the box."""
MARGIN = 0.25
"""Share of the inputs' range by which the box is larger at each end."""
MOST_NUMBERS = 10
"""Of an input, around which a box is still filled by points."""
LARGEST = 4000
"""Values of the function whose joint density counts."""
N_PRIOR = 4000
NOISE = 1e-4
"""Share of its variance that is added to each value under the prior, which has no density without."""
SMALLEST = 1e-5
"""Directions that move the function by less than this share of the largest are left as they are."""


class FunctionSpacePosterior(LinearisedPosterior):
    r"""
    Laplace's approximation in function space. With f the parameters of the density at points C, in the data and around
    them, and N(m, K) the mean and covariance of f under the prior of the weights, training goes to the maximum of

        :math:`\log p(\mathrm{data} | w) - \tfrac12 (f(C, w) - m)^T K^{-1} (f(C, w) - m),`

    about which the network is taken as linear in its weights: :math:`q(w) = N(w^*, (G + J_C^T K^{-1} J_C)^{+})`, G as
    for `LinearisedPosterior`. So the maximum is one of functions and not of weights, and weights that the data leave
    free count by the functions that they can give. What is left out: functions of a narrow network are not jointly
    normal under its prior; and beyond the points nothing holds the width.

    References:
        Cinquin et al. 2024, arXiv:2407.13711; K from the prior of the weights as in Sun et al. 2019, arXiv:1903.05779.

    Args:
        module, names, mean, found: as for `LaplacePosterior`.
        scale_tril: (P, R), a square root of the covariance, which has R directions.
    """

    method: ClassVar[str] = "function_space"

    @classmethod
    def fit(  # type: ignore[override]
        cls,
        module: nn.Module,
        data: Data,
        *,
        maximise: Maximise,
        seed: int = 0,
        progress: bool = False,
        which: Choice = "all",
        prior: WeightPrior | None = None,
        train_prior: WeightPrior | None = None,
        points: Tensor | None = None,
        trained: bool = False,
    ) -> Self:
        """Train the module (phase ``point``), go on to the maximum in function space (phase ``function_space``).

        Args:
            which: the random weights (`choose`); the others stay as the first phase left them.
            prior: of the random weights.
            train_prior: of all weights in the phase ``point``; None: maximum likelihood.
            points: inputs (n, ...) where the prior of the function counts, beside inputs of the data; None: a box
                around the data, for inputs of few numbers.

        Raises:
            ValueError: the inputs are no vectors, points are too many, or functions under the prior are not finite.
        """
        cls.check(module, data, {"which": which, "points": points})
        names, prior = choose(module, which), prior or NormalPrior()
        if not trained:
            maximise_weights(module, train_prior, len(data[1]), maximise, seed=seed, name="point")
        module.eval()
        objective = _InFunctionSpace(module, names, prior, data, points, seed)
        weights = getattr(module, "network_parameters", None)
        named = dict(module.named_parameters()) if weights is None else weights()
        still = [p for name, p in named.items() if name not in names and p.requires_grad]
        for parameter in still:
            parameter.requires_grad_(False)
        maximise(objective, seed=seed, name=cls.method)
        for parameter in still:
            parameter.requires_grad_(True)
        module.eval()
        basis = objective.basis()
        curvature = basis.mT @ gauss_newton(module, names, data) @ basis
        precision = curvature + torch.eye(len(curvature)).to(curvature)
        root = torch.linalg.cholesky(precision)
        mean = WeightLayout(module, names).flatten(dict(module.named_parameters())).detach()
        found = {
            "prior": prior.describe(),
            "points": len(objective.points),
            "directions": len(root),
            "effective_weights": len(root) - float(torch.cholesky_inverse(root).trace()),
        }
        factor = torch.linalg.solve_triangular(root, basis.mT, upper=False).mT
        return cls(module, names, mean, factor.to(mean), found)

    @classmethod
    def check(cls, module: nn.Module, data: Data, options: Mapping[str, Any]) -> None:
        # Any prior can be drawn from; that of the other forms of Laplace has to be normal.
        super().check(module, data, {key: value for key, value in options.items() if key != "prior"})
        points, x = options.get("points"), data[0]
        vectors = x.dim() == 2 and x.is_floating_point() and x.shape[1] <= MOST_NUMBERS
        if points is None and not vectors:
            raise ValueError(
                f"The method '{cls.method}' fills a box around inputs of at most {MOST_NUMBERS} real numbers each;"
                f" these are {tuple(x.shape[1:])} of {x.dtype}: give points=..., inputs like them and beyond them."
            )
        if points is None:
            return
        if not isinstance(points, Tensor) or points.shape[1:] != x.shape[1:]:
            found = tuple(points.shape) if isinstance(points, Tensor) else type(points).__name__
            raise ValueError(f"points is {found}; expected a tensor (n, {', '.join(map(str, x.shape[1:]))}).")
        if len(points) >= (most := _most_points(module, x)):
            raise ValueError(
                f"There are {len(points)} points; at most {most - 1} leave room for inputs of the data."
            )

    def log_density(self, draws: Mapping[str, Tensor]) -> Tensor | None:  # type: ignore[override]
        """None: the covariance has fewer directions than there are weights."""
        return None

    @classmethod
    def _restore(cls, module: nn.Module, description: Mapping[str, Any]) -> Self:
        names = tuple(description["names"])
        layout, like = WeightLayout(module, names), next(module.parameters())
        found = {key: value for key, value in description.items() if key not in ("method", "names")}
        factor = like.new_zeros(layout.n_weights, description["directions"])
        return cls(module, names, like.new_zeros(layout.n_weights), factor, found)


class _InFunctionSpace(nn.Module):
    """Log likelihood and, over N, the log density of the function at the points; while it is evaluated, the former."""

    points: Tensor
    kept: Tensor
    mean: Tensor
    root: Tensor

    def __init__(
        self,
        module: nn.Module,
        names: tuple[str, ...],
        prior: WeightPrior,
        data: Data,
        points: Tensor | None,
        seed: int,
    ) -> None:
        super().__init__()
        self.module, self.names, self.n_data = module, names, len(data[1])
        double = deepcopy(module).double().eval().requires_grad_(False)
        layout, like = WeightLayout(double, names), double.get_parameter(names[0])
        x = data[0].to(like.device)
        points = _points(x, points, _most_points(module, x), seed)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            draws = {
                name: prior.distribution(name, shape, like.cpu()).sample(torch.Size([N_PRIOR])).to(like)
                for name, shape in layout.shapes.items()
            }
            values = parameters_of_draws(double, draws, points.double()).flatten(1)
        if not bool(values.isfinite().all()):
            raise ValueError(
                "Under the prior the network gives numbers that are not finite; give a narrower prior."
            )
        variance = values.var(0)
        # Some parameters of a density may be constants.
        kept = variance > 1e-12 * variance.max()
        mean = values[:, kept].mean(0)
        away = (values[:, kept] - mean) / (N_PRIOR - 1) ** 0.5
        covariance = away.mT @ away
        root = torch.linalg.cholesky(covariance + torch.diag(NOISE * covariance.diagonal()))
        for name, value in {"points": points, "kept": kept, "mean": mean, "root": root}.items():
            self.register_buffer(name, value, persistent=False)

    def log_prob(self, y: Tensor, x: Any) -> Tensor:
        """Nats per example, (B,)."""
        log_likelihood: Tensor = self.module.log_prob(y, x)  # type: ignore[operator]
        if not self.training:
            return log_likelihood
        parts = self.module.parameters_of(self.points)  # type: ignore[operator]
        values = torch.cat([part.reshape(len(self.points), -1) for part in parts], -1).flatten()[self.kept]
        away = (values.double() - self.mean).unsqueeze(-1)
        square: Tensor = torch.linalg.solve_triangular(self.root, away, upper=False).square().sum()
        return log_likelihood - (0.5 * square / self.n_data).to(log_likelihood)

    def basis(self) -> Tensor:
        """B (P, R): w* + B z, z ~ N(0, 1), gives the functions of the prior that the linear network has."""
        double = deepcopy(self.module).double().eval().requires_grad_(False)
        slope = slopes_of(double, self.names, self.points.double()).flatten(0, 1)[self.kept]
        whitened = torch.linalg.solve_triangular(self.root, slope, upper=False)
        _, sizes, directions = torch.linalg.svd(whitened, full_matrices=False)
        large = sizes > SMALLEST * sizes[0]
        found: Tensor = directions[large].mT / sizes[large]
        return found


def _most_points(module: nn.Module, x: Tensor) -> int:
    with torch.no_grad():
        return max(2, LARGEST // sum(part[0].numel() for part in module.parameters_of(x[:1])))  # type: ignore[operator]


def _points(x: Tensor, given: Tensor | None, largest: int, seed: int) -> Tensor:
    """Inputs of the data by chance, and those given or a box around the data."""
    n = min(N_POINTS, largest // 2) if given is None else min(N_POINTS, largest - len(given))
    rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:n].to(x.device)
    if given is None:
        low, high = x.amin(0), x.amax(0)
        box = torch.quasirandom.SobolEngine(x.shape[-1], scramble=True, seed=seed).draw(n).to(x)
        given = low + (high - low) * ((1 + 2 * MARGIN) * box - MARGIN)
    return torch.cat([x[rows], given.to(x)])

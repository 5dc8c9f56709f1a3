"""Laplace's approximation of the posterior of the last layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from bayesflowmass.bayes.choice import Choice, choose
from bayesflowmass.bayes.curvature import summed_hessian
from bayesflowmass.bayes.layout import WeightLayout
from bayesflowmass.bayes.point import maximise_weights
from bayesflowmass.bayes.priors import NormalPrior, WeightPrior
from bayesflowmass.bayes.protocol import Data, Maximise, WeightPosterior

LARGEST = 4000


class LaplacePosterior(WeightPosterior):
    r"""
    The normal distribution with the curvature of the posterior at the trained weights w*,

        :math:`q(w) = N(w^*, (H + \alpha\,S^{-2})^{-1}),`

    with H the exact Hessian of the summed negative log likelihood (`summed_hessian`), S the prior's
    scales and :math:`\alpha` its relative precision, 1 where the prior is taken at its word. By default
    :math:`\alpha` maximises the Laplace approximation of the marginal likelihood (MacKay 1992).

    ``laplace-torch`` (0.3) is not used: its likelihoods are classification and Gaussian regression with one
    noise level, and a flow's density of the mass is neither.

    References:
        MacKay 1992, Neural Computation 4, 448; Daxberger et al. 2021, arXiv:2106.14806.

    Args:
        module: whose weights they are.
        names: the random ones.
        mean: (P,), w*.
        scale_tril: (P, P), Cholesky factor of the covariance.
        found: what `describe` reports of the fit.
    """

    method: ClassVar[str] = "laplace"
    argument: ClassVar[tuple[str, type] | None] = ("which", str)
    mean: Tensor
    scale_tril: Tensor

    def __init__(
        self,
        module: nn.Module,
        names: tuple[str, ...],
        mean: Tensor,
        scale_tril: Tensor,
        found: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.layout = WeightLayout(module, names)
        self.names = self.layout.names
        self.found = dict(found)
        self.register_buffer("mean", mean)
        self.register_buffer("scale_tril", scale_tril)

    @classmethod
    def defaults(cls, module: nn.Module) -> dict[str, Any]:
        """The layers that the module names in ``location_layers``, else the last ones."""
        return {"which": getattr(module, "location_layers", None) or "last"}

    @classmethod
    def fit(
        cls,
        module: nn.Module,
        data: Data,
        *,
        maximise: Maximise,
        seed: int = 0,
        progress: bool = False,
        which: Choice = "last",
        prior: NormalPrior | None = None,
        train_prior: WeightPrior | None = None,
        relative_precision: float | None = None,
        trained: bool = False,
    ) -> Self:
        """Train the module, then take the curvature at its weights.

        Args:
            which: the random weights (`choose`).
            prior: of the random weights.
            train_prior: of all weights while the module is trained; None: maximum likelihood.
            relative_precision: alpha; None: by marginal likelihood.

        Raises:
            ValueError: the weights are too many for a full Hessian, or an option has no meaning.
        """
        cls.check(module, data, {"which": which, "prior": prior, "relative_precision": relative_precision})
        names = choose(module, which)
        layout, prior = _layout(module, names), prior or NormalPrior()
        if not trained:
            maximise_weights(module, train_prior, len(data[1]), maximise, seed=seed, name="point")
        mean = layout.flatten(dict(module.named_parameters())).detach()
        scales = prior.scales(layout.shapes, mean.double())
        # In units of the prior's scales the prior is isotropic and the precisions add up eigenvalue by eigenvalue.
        scaled_hessian = scales[:, None] * cls._curvature(module, names, data) * scales
        eigenvalues, vectors = torch.linalg.eigh(scaled_hessian)
        square = float(((mean.double() / scales) ** 2).sum())
        alpha = choose_precision(eigenvalues, square) if relative_precision is None else relative_precision
        positive = eigenvalues.clamp_min(0.0)
        root = scales[:, None] * vectors * (positive + alpha).rsqrt()
        # The triangular factor of R R^T is the transposed one of R^T = Q L^T: no squaring, no loss of digits.
        upper = torch.linalg.qr(root.T).R
        scale_tril = (upper * upper.diagonal().sign().unsqueeze(-1)).T.contiguous()
        found = {
            "prior": prior.describe(),
            "relative_precision": float(alpha),
            "effective_weights": float((positive / (positive + alpha)).sum()),
            "negative_eigenvalues": int((eigenvalues < 0).sum()),
        }
        return cls(module, names, mean, scale_tril.to(mean), found)

    @staticmethod
    def _curvature(module: nn.Module, names: Sequence[str], data: Data) -> Tensor:
        """H (P, P), float64."""
        return summed_hessian(module, names, data)

    @classmethod
    def check(cls, module: nn.Module, data: Data, options: Mapping[str, Any]) -> None:
        _layout(module, choose(module, options.get("which", "last")))
        prior, alpha = options.get("prior"), options.get("relative_precision")
        if prior is not None and not isinstance(prior, NormalPrior):
            raise ValueError(f"Laplace's approximation needs a NormalPrior, not {prior!r}.")
        if alpha is not None and not 0 < alpha < float("inf"):
            raise ValueError(
                f"relative_precision is {alpha}; expected a positive number, 1 for the prior at its word, or none, to"
                " choose it by marginal likelihood."
            )

    def draw(self, n_draws: int, seed: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(n_draws, self.scale_tril.shape[-1], dtype=self.mean.dtype, generator=generator)
        return self.layout.split(self.mean + noise.to(self.mean.device) @ self.scale_tril.T)

    def log_density(self, draws: Mapping[str, Tensor]) -> Tensor:
        normal = MultivariateNormal(self.mean, scale_tril=self.scale_tril, validate_args=False)
        density: Tensor = normal.log_prob(self.layout.flatten(draws))
        return density

    def moments(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return self.layout.split(self.mean), self.layout.split(self.scale_tril.norm(dim=-1))

    def describe(self) -> dict[str, Any]:
        return {"method": self.method, "names": list(self.names), **self.found}

    @classmethod
    def _restore(cls, module: nn.Module, description: Mapping[str, Any]) -> Self:
        names = tuple(description["names"])
        layout, like = WeightLayout(module, names), next(module.parameters())
        n = layout.n_weights
        found = {key: value for key, value in description.items() if key not in ("method", "names")}
        return cls(module, names, like.new_zeros(n), like.new_zeros(n, n), found)


def _layout(module: nn.Module, names: tuple[str, ...]) -> WeightLayout:
    layout = WeightLayout(module, names)
    if layout.n_weights > LARGEST:
        raise ValueError(
            f"Laplace's approximation of {layout.n_weights} weights needs a Hessian of as many rows; choose "
            f"at most {LARGEST} weights ('which'), or a network with a narrower last hidden layer."
        )
    return layout


def choose_precision(eigenvalues: Tensor, square: float) -> float:
    r"""
    The relative precision :math:`\alpha` of the prior that maximises the Laplace marginal likelihood,

        :math:`\log Z(\alpha) = \tfrac P2 \log\alpha - \tfrac\alpha2 |S^{-1}w^*|^2
        - \tfrac12 \sum_i \log(\lambda_i + \alpha) + \mathrm{const},`

    between 1e-4 and 1e4 (MacKay 1992, eq. 2.11 ff.); directions of negative curvature count as flat.

    Args:
        eigenvalues: (P,), of S H S.
        square: :math:`|S^{-1}w^*|^2`.
    """
    positive = eigenvalues.clamp_min(0.0).cpu().numpy()

    def loss(log_alpha: float) -> float:
        alpha = np.exp(log_alpha)
        return float(
            0.5 * np.log(positive + alpha).sum() - 0.5 * len(positive) * log_alpha + 0.5 * alpha * square
        )

    limits = (np.log(1e-4), np.log(1e4))
    return float(np.exp(minimize_scalar(loss, bounds=limits, method="bounded", options={"xatol": 1e-6}).x))

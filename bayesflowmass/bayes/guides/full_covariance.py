"""Jointly normal weights, for few of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bayesflowmass.bayes.guides.base import LOG_SQRT_TWO_PI, WeightGuide

LARGEST = 4000


class FullCovariance(WeightGuide):
    """q(w) = N(w; m, L L^T) with L lower triangular, P (P + 1) / 2 numbers for P weights.

    The arguments are those of :class:`~bayesflowmass.bayes.guides.base.WeightGuide`.

    Raises:
        ValueError: for more than 4000 weights.
    """

    kind = "full_covariance"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        n = self.layout.n_weights
        if n > LARGEST:
            raise ValueError(
                f"A full covariance of {n} weights needs {n * n} numbers; choose at most {LARGEST} weights,"
                " or the mean-field guide."
            )
        self.log_diagonal = nn.Parameter((self.init_scale * self.prior_scale()).log())
        # Rows in units of the diagonal's first values: one learning rate then suits all of them.
        self.lower = nn.Parameter(self.loc.detach().new_zeros(n, n))

    def scale_tril(self) -> Tensor:
        """L, (P, P)."""
        unit = self.lower.tril(-1) * (self.init_scale * self.prior_scale()).unsqueeze(-1)
        return unit + self.log_diagonal.exp().diag_embed()

    def transform(self, noise: Tensor) -> Tensor:
        return self.loc + noise @ self.scale_tril().mT

    def flat_log_prob(self, flat: Tensor) -> Tensor:
        offset = (flat - self.loc).unsqueeze(-1)
        z: Tensor = torch.linalg.solve_triangular(self.scale_tril(), offset, upper=False).squeeze(-1)
        log_prob: Tensor = -(0.5 * z**2 + self.log_diagonal + LOG_SQRT_TWO_PI).sum(-1)
        return log_prob

    def flat_variance(self) -> Tensor:
        return self.scale_tril().square().sum(-1)

    def relative_entropy(self) -> Tensor:
        return (self.log_diagonal - self.prior_scale().log()).sum()

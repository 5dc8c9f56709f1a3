"""Where a cluster lies in the space of contexts, the images that the flow is conditioned on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bayesflowmass.common.arrays import FloatArray

_OVERSAMPLING = 10
_POWER_ITERATIONS = 4


@dataclass(frozen=True)
class ContextSpace:
    """Principal components of training contexts: p coordinates of each cluster and what they leave.

    Attributes:
        mean: of the contexts (c,), float32.
        basis: components (c, p), float16; the rounding (1e-3) is part of their definition.
    """

    mean: Tensor
    basis: Tensor

    @classmethod
    def fit(cls, context: Tensor, n_components: int, seed: int) -> ContextSpace:
        """Leading components of contexts (n, c) by randomised subspace iteration.

        References:
            Halko, Martinsson & Tropp 2011, arXiv:0909.4061, algorithms 4.4 and 5.1.
        """
        values = context.detach().to(torch.float32)
        mean = values.mean(0)
        centred = values - mean
        width = min(n_components + _OVERSAMPLING, *centred.shape)
        start = torch.randn(centred.shape[1], width, generator=torch.Generator().manual_seed(seed))
        block = centred @ start.to(centred)
        for _ in range(_POWER_ITERATIONS):
            block = torch.linalg.qr(block)[0]
            block = centred @ torch.linalg.qr(centred.T @ block)[0]
        orthonormal = torch.linalg.qr(block)[0]
        components = torch.linalg.svd(orthonormal.T @ centred, full_matrices=False)[2]
        basis = components[:n_components].T
        # The sign of a component is arbitrary; a convention makes it reproducible.
        largest = basis.abs().argmax(0, keepdim=True)
        basis = basis * torch.sign(basis.gather(0, largest))
        return cls(mean.cpu(), basis.to(torch.float16).cpu().contiguous())

    def __call__(self, context: Tensor) -> FloatArray:
        """Coordinates of contexts (n, c), and ln of the norm of the remainder: (n, p + 1), float64."""
        with torch.no_grad():
            basis = self.basis.to(device=context.device, dtype=torch.float32)
            centred = context.to(torch.float32) - self.mean.to(context.device)
            coordinates = centred @ basis
            # The rounded components are orthonormal to 1e-3, enough for a norm.
            remainder = (centred - coordinates @ basis.T).square().sum(1).clamp_min(1e-12)
            both = torch.cat([coordinates, 0.5 * remainder.log()[:, None]], dim=1)
        return both.to(device="cpu", dtype=torch.float64).numpy()

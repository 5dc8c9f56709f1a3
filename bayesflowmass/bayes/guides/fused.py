"""Draws, local reparameterisation and their KL divergences with gradients written out.

A step of mean-field inference moves several times the memory of a plain step, and automatic differentiation
of the closed-form KL divergence as much again. Here its gradient,

    d KL / d m = m / s0^2,    d KL / d log s = s^2 / s0^2 - 1,

joins the passes that the likelihood's gradient needs anyway.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bayesflowmass.bayes.guides.noise import BLOCK, on_all_cores


class Draw(NamedTuple):
    """w = m + s eps, s and eps, each (n,), with sign -1 the mirror image w = m - s eps; and m.m + s.s, sum log s."""

    weight: Tensor
    scale: Tensor
    noise: Tensor
    sign: float
    square: Tensor
    log_scale_sum: Tensor


@torch.no_grad()
def draw_normals(
    locs: Sequence[Tensor], log_scales: Sequence[Tensor], noise: Tensor, sign: float
) -> list[Draw]:
    """One draw of each N(m, s^2), from means (n,), log standard deviations (n,) and noise (P,), P the sum of n.

    Without gradient, and block by block, so that all that is needed of a block is made while it is in cache.
    """
    noises = noise.split([loc.numel() for loc in locs])
    scales, weights = ([torch.empty_like(loc) for loc in locs] for _ in range(2))
    vectors = [_blocks(parts) for parts in (locs, log_scales, noises, scales, weights)]
    sums = noise.new_empty(len(vectors[0]), 3)

    def fill(
        loc: Tensor, log_scale: Tensor, noise: Tensor, scale: Tensor, weight: Tensor, found: Tensor
    ) -> None:
        torch.exp(log_scale, out=scale)
        torch.addcmul(loc, scale, noise, value=sign, out=weight)
        torch.dot(loc, loc, out=found[0])
        torch.dot(scale, scale, out=found[1])
        torch.sum(log_scale, dim=0, out=found[2])

    on_all_cores(fill, *vectors, sums)
    found = [part.sum(0) for part in sums.split([len(_blocks([loc])) for loc in locs])]
    return [
        Draw(weight, scale, eps, sign, total[0] + total[1], total[2])
        for weight, scale, eps, total in zip(weights, scales, noises, found, strict=True)
    ]


def _blocks(vectors: Sequence[Tensor]) -> list[Tensor]:
    """Pieces of vectors that stay in cache from one operation to the next; on a GPU, which has none, all of each."""
    return [block for each in vectors for block in each.split(each.numel() if each.is_cuda else BLOCK)]


def _normal_kl(square: Tensor, log_scale_sum: Tensor, n: int, prior_scale: float) -> Tensor:
    """KL(N(m, s^2) || N(0, prior_scale^2)) [nats] of n weights, of m.m + s.s and the sum of log s."""
    constant = n * (math.log(prior_scale) - 0.5)
    return torch.add(constant - log_scale_sum, square, alpha=0.5 / prior_scale**2)


class DrawWithKL(torch.autograd.Function):
    """Gradients for a `Draw`: m (n,), log s (n,), s0 and the draw -> w and KL(N(m, s^2) || N(0, s0^2)), summed."""

    @staticmethod
    def forward(
        ctx: Any,
        loc: Tensor,
        log_scale: Tensor,
        prior_scale: float,
        weight: Tensor,
        scale: Tensor,
        noise: Tensor,
        sign: float,
        square: Tensor,
        log_scale_sum: Tensor,
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(loc, scale, noise)
        ctx.prior_scale, ctx.sign = prior_scale, sign
        return weight, _normal_kl(square, log_scale_sum, loc.numel(), prior_scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weight_grad: Tensor, kl_grad: Tensor) -> tuple[Tensor | None, ...]:
        loc, scale, noise = ctx.saved_tensors
        per_variance = kl_grad / ctx.prior_scale**2
        loc_grad = torch.addcmul(weight_grad, loc, per_variance)
        grad = (scale * per_variance).addcmul_(weight_grad, noise, value=ctx.sign)
        return loc_grad, torch.addcmul(-kl_grad, grad, scale, out=grad), *[None] * 7


class LocalLinear(torch.autograd.Function):
    """Mean and variance (B, O) of the outputs of a linear layer, and the KL divergence of its random weights.

    Of x (B, I), means and log scales of the weights (O I,), those of the biases (O,) or None, and the scales
    of their priors: mean = x m^T + m_b, variance = x^2 (s^2)^T + s_b^2 (Kingma, Salimans & Welling 2015, eq. 6).
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        loc: Tensor,
        log_scale: Tensor,
        prior_scale: float,
        bias_loc: Tensor | None,
        bias_log_scale: Tensor | None,
        bias_prior_scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        weight_variance = torch.mul(log_scale, 2.0).exp_()
        # A row of ones: its product is the sum over each row of variances, and in the product of the backward
        # pass it adds a constant to every element, both for free.
        x_square = torch.cat([x * x, x.new_ones(1, x.shape[1])])
        matrix = (-1, x.shape[1])
        products = x_square @ weight_variance.view(matrix).T
        square = (torch.dot(loc, loc) + products[-1].sum()) / prior_scale**2
        kl = 0.5 * (square - loc.numel()) - log_scale.sum() + loc.numel() * math.log(prior_scale)
        variance, bias_scale = products[:-1], None
        if bias_loc is None or bias_log_scale is None:
            mean = x @ loc.view(matrix).T
        else:
            bias_scale = bias_log_scale.exp()
            mean = torch.addmm(bias_loc, x, loc.view(matrix).T)
            variance = torch.addcmul(variance, bias_scale, bias_scale)
            square = torch.dot(bias_loc, bias_loc) + torch.dot(bias_scale, bias_scale)
            kl += _normal_kl(square, bias_log_scale.sum(), bias_loc.numel(), bias_prior_scale)
        ctx.save_for_backward(x, x_square, loc, weight_variance, bias_loc, bias_scale)
        ctx.prior_scales = prior_scale, bias_prior_scale
        return mean, variance, kl

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, mean_grad: Tensor, variance_grad: Tensor, kl_grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, x_square, loc, variance, bias_loc, bias_scale = ctx.saved_tensors
        matrix = (-1, x.shape[1])
        per_variance, per_bias_variance = (kl_grad / scale**2 for scale in ctx.prior_scales)
        loc_grad = torch.mm(mean_grad.T, x).view(-1).addcmul_(loc, per_variance)
        rows = torch.cat([2.0 * variance_grad, per_variance.expand(1, variance_grad.shape[1])])
        grad = torch.mm(rows.T, x_square).view(-1)
        torch.addcmul(-kl_grad, grad, variance, out=grad)
        x_grad = bias_loc_grad = bias_grad = None
        if ctx.needs_input_grad[0]:
            x_grad = torch.addcmul(
                mean_grad @ loc.view(matrix), x, variance_grad @ variance.view(matrix), value=2.0
            )
        if bias_loc is not None:
            bias_loc_grad = mean_grad.sum(0).addcmul_(bias_loc, per_bias_variance)
            per_scale = rows[:-1].sum(0) + per_bias_variance
            bias_grad = torch.addcmul(-kl_grad, per_scale, bias_scale * bias_scale)
        return x_grad, loc_grad, grad, None, bias_loc_grad, bias_grad, None


class NormalDraw(torch.autograd.Function):
    """One draw of N(mean, variance), elementwise."""

    @staticmethod
    def forward(ctx: Any, mean: Tensor, variance: Tensor) -> Tensor:
        # The smallest positive numbers stand in for a zero, where the root has no derivative.
        scale = variance.clamp_min(torch.finfo(variance.dtype).tiny).sqrt_()
        noise = torch.randn_like(scale)
        drawn = torch.addcmul(mean, scale, noise)
        ctx.save_for_backward(noise.div_(scale))
        return drawn

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        (noise_over_scale,) = ctx.saved_tensors
        return grad, (grad * noise_over_scale).mul_(0.5)

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

from bayesflowmass.threads import pool

__all__ = ["Draw", "DrawWithKL", "LocalLinear", "NormalDraw", "draw_normals", "standard_normal"]

# Numbers per block of a long vector of noise. Each block has a generator of its own: torch fills a tensor
# with normal numbers on one core only.
_BLOCK = 1 << 16


def standard_normal(shape: Sequence[int], like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """N(0, 1) noise of this shape, in the type and on the device of ``like``.

    The numbers do not depend on the number of threads.
    """
    noise = torch.empty(tuple(shape), dtype=like.dtype, device=like.device)
    if noise.is_cuda or noise.numel() <= _BLOCK:
        return noise.normal_(generator=generator)
    blocks = noise.view(-1).split(_BLOCK)
    seeds = torch.randint(1 << 62, (len(blocks),), generator=generator).tolist()

    def fill(block: Tensor, seed: int) -> None:
        block.normal_(generator=torch.Generator().manual_seed(seed))

    workers = min(len(blocks), torch.get_num_threads())
    if workers == 1:
        for block, seed in zip(blocks, seeds, strict=True):
            fill(block, seed)
    else:
        list(pool(workers).map(fill, blocks, seeds))
    return noise


class Draw(NamedTuple):
    """w = m + s eps, s and eps, each (n,)."""

    weight: Tensor
    scale: Tensor
    noise: Tensor


@torch.no_grad()
def draw_normals(locs: Sequence[Tensor], log_scales: Sequence[Tensor]) -> list[Draw]:
    """One draw of each N(m, s^2), from means (n,) and log standard deviations (n,); without gradient.

    All in one go, block by block: threads that make noise get in the way of those of torch, and what is made of a
    block of noise while it is in cache saves passes over memory. Threads do not change the numbers.
    """
    sizes, like = [loc.numel() for loc in locs], locs[0]
    if like.is_cuda or sum(sizes) <= _BLOCK:
        noises = standard_normal((sum(sizes),), like).split(sizes)
        scales = [log_scale.exp() for log_scale in log_scales]
        drawn = zip(locs, scales, noises, strict=True)
        return [Draw(torch.addcmul(loc, scale, noise), scale, noise) for loc, scale, noise in drawn]
    found = [Draw(*(torch.empty_like(loc) for _ in range(3))) for loc in locs]
    blocks = [
        block
        for loc, log_scale, draw in zip(locs, log_scales, found, strict=True)
        for block in zip(*(part.split(_BLOCK) for part in (loc, log_scale, *draw)), strict=True)
    ]
    seeds = torch.randint(1 << 62, (len(blocks),)).tolist()

    def fill(block: tuple[Tensor, ...], seed: int) -> None:
        loc, log_scale, weight, scale, noise = block
        with torch.no_grad():
            noise.normal_(generator=torch.Generator().manual_seed(seed))
            torch.exp(log_scale, out=scale)
            torch.addcmul(loc, scale, noise, out=weight)

    workers = min(len(blocks), torch.get_num_threads())
    if workers == 1:
        for block, seed in zip(blocks, seeds, strict=True):
            fill(block, seed)
    else:
        list(pool(workers).map(fill, blocks, seeds))
    return found


def normal_kl(loc: Tensor, scale: Tensor, log_scale: Tensor, prior_scale: float) -> Tensor:
    """KL(N(loc, scale^2) || N(0, prior_scale^2)) [nats], summed over (n,): without temporaries of that size."""
    square = torch.dot(loc, loc) + torch.dot(scale, scale)
    constant = loc.numel() * (math.log(prior_scale) - 0.5)
    return torch.add(constant - log_scale.sum(), square, alpha=0.5 / prior_scale**2)


class DrawWithKL(torch.autograd.Function):
    """Gradients for a `Draw`: (m (n,), log s (n,), s0, w, s, eps) -> w and KL(N(m, s^2) || N(0, s0^2)), summed."""

    @staticmethod
    def forward(
        ctx: Any,
        loc: Tensor,
        log_scale: Tensor,
        prior_scale: float,
        weight: Tensor,
        scale: Tensor,
        noise: Tensor,
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(loc, scale, noise)
        ctx.prior_scale = prior_scale
        return weight, normal_kl(loc, scale, log_scale, prior_scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weight_grad: Tensor, kl_grad: Tensor) -> tuple[Tensor | None, ...]:
        loc, scale, noise = ctx.saved_tensors
        per_variance = kl_grad / ctx.prior_scale**2
        loc_grad = torch.addcmul(weight_grad, loc, per_variance)
        grad = (scale * per_variance).addcmul_(weight_grad, noise)
        return loc_grad, torch.addcmul(-kl_grad, grad, scale, out=grad), None, None, None, None


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
            kl += normal_kl(bias_loc, bias_scale, bias_log_scale, bias_prior_scale)
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

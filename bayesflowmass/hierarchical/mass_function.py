"""A population of clusters whose masses are known only as PDFs: a tilted mass function, seen by a selection."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor


class MassFunctionModel:
    r"""Clusters as a Poisson process in mass, with amplitude and slope of the mass function unknown.

    Expected clusters per dex, before selection, at m = log10 M200c [Msun/h]:

        dN/dm = exp(ln A) 10^{b (m - pivot)} dN_ref/dm.

    With likelihoods L_i(m) of the galaxies of the n clusters seen, and the probability P(select | m) that a
    cluster is seen at all (`SelectionProbability`),

        ln p(d | ln A, b) = -int P(select | m) dN/dm dm + sum_i ln int L_i(m) dN/dm dm + const.

    P enters the expected number alone: having been selected is part of the data, and of L_i
    (`MassLikelihood`). Masses are integrated out on a grid, so the cost of one value is n g products.

    References:
        Mandel, Farr & Gair 2019, arXiv:1809.02063 (selection); Foreman-Mackey et al. 2014, arXiv:1406.3020.

    Args:
        log10_mass: the grid (g,), evenly spaced, g odd; the population ends where it ends.
        log_reference: ln dN_ref/dm on it (g,), clusters per dex in the volume.
        selection: P(select | m) on it (g,), or as each draw of the weights sees it (draws, g), see
            `selection_seen`.
        pivot: log10 mass at which the slope does not change the density.
        prior_scale: standard deviations of the normal priors of ln A and of b, both about zero.

    Raises:
        ValueError: shapes disagree, the grid is uneven or g is even, or P is below 0, or above 1 without draws.
    """

    def __init__(
        self,
        log10_mass: Tensor,
        log_reference: Tensor,
        selection: Tensor,
        *,
        pivot: float = 14.0,
        prior_scale: tuple[float, float] = (0.3, 0.25),
    ) -> None:
        weights = simpson_weights(log10_mass)
        for name, values in (("log_reference", log_reference), ("selection", selection)):
            if values.shape[-1:] != log10_mass.shape or values.dim() > 1 + (name == "selection"):
                raise ValueError(
                    f"{name} has shape {tuple(values.shape)}; the grid of masses has "
                    f"{tuple(log10_mass.shape)}: give one value for each node."
                )
        highest = 1.0 if selection.dim() == 1 else math.inf  # an average PDF has noise
        if not bool(((selection >= 0.0) & (selection <= highest)).all()):
            raise ValueError("selection must be a probability, between 0 and 1, at each node of the grid.")
        self.log10_mass = log10_mass
        self.pivot = pivot
        self.prior_scale = prior_scale
        self._log_measure = log_reference + weights.log()
        self._selection = selection

    def log_likelihood(self, likelihoods: Tensor, ln_amplitude: Tensor, slope: Tensor) -> Tensor:
        """ln p(d | ln A, b), (*D, *T), for likelihoods ln L (*D, n, g) and parameters that broadcast to (*T).

        The integrals depend on the slope alone: amplitudes (a, 1) and slopes (b,) cost b of them, not a b.
        """
        shape = torch.broadcast_shapes(ln_amplitude.shape, slope.shape)
        draws = likelihoods.shape[:-2]
        tilt = math.log(10.0) * slope.reshape(-1, 1) * (self.log10_mass - self.pivot)
        log_number = self._log_measure + tilt
        scale = log_number.detach().amax(-1, keepdim=True)
        number = (log_number - scale).exp()
        peak = likelihoods.amax(-1, keepdim=True)
        integrals = (likelihoods - peak).exp() @ number.T
        total = (integrals.log() + peak + scale.T).sum(-2)
        expected = (self._selection @ number.T) * scale[:, 0].exp()
        # Draws, then dimensions that the amplitude has and the slope has not.
        lead = (1,) * (len(shape) - slope.dim())
        total = total.reshape((*draws, *lead, *slope.shape))
        expected = expected.reshape(
            (*expected.shape[:-1], *(lead if expected.dim() > 1 else ()), *slope.shape)
        )
        return likelihoods.shape[-2] * ln_amplitude + total - ln_amplitude.exp() * expected

    def __call__(self, likelihoods: Tensor) -> None:
        """The Pyro model of likelihoods ln L (n, g), or (draws, n, g): sites ``ln_amplitude`` and ``slope``.

        One draw of the weights holds for all clusters; the draws are equally probable beforehand and are
        averaged over: ln 1/D sum_d p_d(d | ln A, b), which lets the clusters judge the draws. Where they should
        not, average the posteriors of single draws (docs/hierarchical.md).
        """
        zero = self.log10_mass.new_zeros(())
        ln_amplitude = pyro.sample("ln_amplitude", dist.Normal(zero, self.prior_scale[0]))
        slope = pyro.sample("slope", dist.Normal(zero, self.prior_scale[1]))
        value = self.log_likelihood(likelihoods, ln_amplitude, slope)
        if likelihoods.dim() == 3:
            value = value.logsumexp(0) - math.log(likelihoods.shape[0])
        pyro.factor("clusters", value)

    def log_posterior(self, likelihoods: Tensor, ln_amplitude: Tensor, slope: Tensor) -> Tensor:
        """ln p(d, ln A, b) up to a constant, (*D, *T): `log_likelihood` plus the priors, draw by draw."""
        prior = -0.5 * ((ln_amplitude / self.prior_scale[0]) ** 2 + (slope / self.prior_scale[1]) ** 2)
        return self.log_likelihood(likelihoods, ln_amplitude, slope) + prior


def selection_seen(
    likelihoods: Iterable[Tensor], n_haloes: int, log10_mass_range: tuple[float, float]
) -> Tensor:
    r"""P(select | m) as a model sees it, (g,) or (draws, g): the sum of its PDFs of mocks over their density.

    With N haloes drawn from a flat density q over the training range and those that were selected,

        P_w(m) = 1/(N q) sum_j p_w(m | d_j),

    which is P(select | m) if the PDFs are right on average. With it in place of P the population likelihood of
    every draw w is normalised over the data, so that draws can be compared by their evidence.

    Args:
        likelihoods: blocks of `MassLikelihood.on_grid` of the selected mocks, (n, g) or (draws, n, g) each.
        n_haloes: N, the selected and the others.
        log10_mass_range: of the mocks, the training range of a model with a flat training prior.
    """
    total: Tensor | None = None
    for block in likelihoods:
        part = block.exp().sum(-2)
        total = part if total is None else total + part
    if total is None:
        raise ValueError("selection_seen needs the likelihoods of at least one mock cluster; found none.")
    return total * ((log10_mass_range[1] - log10_mass_range[0]) / n_haloes)


def evenly_spaced(nodes: Tensor) -> bool:
    """Whether nodes (g,) are as far apart as each other, to 1e-9."""
    steps = nodes.diff()
    return bool((steps - steps.mean()).abs().max() < 1e-9)


def simpson_weights(nodes: Tensor) -> Tensor:
    """Weights (g,) of Simpson's rule on evenly spaced nodes (g,).

    Raises:
        ValueError: the number of nodes is even or below three, or they are not evenly spaced.
    """
    g = nodes.numel()
    if nodes.dim() != 1 or g < 3 or g % 2 == 0 or not evenly_spaced(nodes):
        raise ValueError(
            f"A grid of masses needs an odd number of evenly spaced nodes, three or more; found shape "
            f"{tuple(nodes.shape)}. torch.linspace(low, high, 2 * k + 1, dtype=torch.float64) makes one."
        )
    weights = torch.full_like(nodes, 2.0)
    weights[1::2] = 4.0
    weights[[0, -1]] = 1.0
    return weights * (nodes.diff().mean() / 3.0)

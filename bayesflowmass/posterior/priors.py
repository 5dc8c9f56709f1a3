"""Populations of cluster masses, used as priors: flat in log10 mass, the mass function, piecewise, selected.

A flow trained on a population q(m), m = log10 M200c [Msun/h], gives p(m | d) proportional to L(d | m) q(m).
The posterior under another prior pi(m) is therefore p(m | d) pi(m) / q(m), normalised over the range where
q is positive: outside the training range the network has seen nothing and no reweighting can say anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.cosmology import MDPL2, Cosmology, mass_function
from bayesflowmass.posterior.smooth import polynomials, value_and_slope
from bayesflowmass.selection.limited import LIMITED, LimitedSample

PRIOR_NAMES = ("flat", "hmf")

# Nodes of the Chebyshev interpolation of ln(dn/dlog10M): accurate to 5e-5 in mass, 3e-3 in redshift (z < 0.5; 9e-3 for
# z < 1.2, of a quantity that falls by 20).
_MASS_NODES = 12
_REDSHIFT_NODES = 8
# ln of a probability stays finite where it is zero.
_LEAST = 1e-30


class MassPrior(Protocol):
    """A prior on log10 M200c [Msun/h] over a bounded range.

    One whose density jumps inside the range also has ``breaks``, the log10 masses at which it does; integrals are split
    there.
    """

    @property
    def name(self) -> str: ...

    @property
    def log10_mass_range(self) -> tuple[float, float]: ...

    def log_density(self, redshift: FloatArray) -> Callable[[Tensor], Tensor]:
        """ln of the density, up to a constant per cluster, as a function of log10 mass (*, n)."""
        ...


def _check_range(log10_mass_range: tuple[float, float]) -> tuple[float, float]:
    low, high = (float(value) for value in log10_mass_range)
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(
            f"The mass range of a prior is ({low}, {high}); "
            "two increasing finite values of log10 mass [Msun/h] are expected."
        )
    return low, high


@dataclass(frozen=True)
class FlatPrior:
    """Constant density per dex between two limits.

    Args:
        log10_mass_range: the limits, log10 M200c [Msun/h].
    """

    log10_mass_range: tuple[float, float]
    name: str = "flat"

    def __post_init__(self) -> None:
        _check_range(self.log10_mass_range)

    def log_density(self, redshift: FloatArray) -> Callable[[Tensor], Tensor]:
        return torch.zeros_like


@dataclass(frozen=True)
class MassFunctionPrior:
    """The halo mass function dn/dlog10 M (Tinker et al. 2008, 200c) at the redshift of each cluster.

    ln(dn/dlog10M) is interpolated at Chebyshev nodes in log10 mass and redshift, so it is smooth and
    cheap for any number of clusters.

    References:
        Tinker et al. 2008, arXiv:0803.2706.

    Args:
        log10_mass_range: the limits, log10 M200c [Msun/h].
        cosmology: of the mass function.
    """

    log10_mass_range: tuple[float, float]
    cosmology: Cosmology = MDPL2
    name: str = "hmf"

    def __post_init__(self) -> None:
        _check_range(self.log10_mass_range)

    def log_density(self, redshift: FloatArray) -> Callable[[Tensor], Tensor]:
        def exact(log10_mass: FloatArray, z: float) -> FloatArray:
            return np.log(np.asarray(mass_function(log10_mass, z, self.cosmology)))

        coefficients = polynomials(exact, self.log10_mass_range, redshift, _MASS_NODES, _REDSHIFT_NODES)
        return lambda log10_mass: value_and_slope(coefficients, self.log10_mass_range, log10_mass)[0]


@dataclass(frozen=True)
class PiecewisePrior:
    """Density per dex of log10 M200c [Msun/h] that is constant between consecutive edges.

    A network trained on a sample that was thinned above some mass learns p(m | d) proportional to
    L(d | m) q(m), with the thinned q. Told q, `MassPosterior.with_prior` divides by it.

    Args:
        edges: k + 1 increasing values of log10 M200c [Msun/h].
        densities: k relative densities per dex, positive; only their ratios matter.
        name: what tables call this prior.

    Raises:
        ValueError: the edges do not increase, a density is not positive, or the numbers do not fit.
    """

    edges: tuple[float, ...]
    densities: tuple[float, ...]
    name: str = "piecewise"

    def __post_init__(self) -> None:
        edges, densities = np.asarray(self.edges, np.float64), np.asarray(self.densities, np.float64)
        if len(edges) < 2 or not np.all(np.isfinite(edges)) or not np.all(np.diff(edges) > 0):
            raise ValueError(
                f"The edges of a piecewise prior are {self.edges}; at least two finite, increasing values of"
                " log10 mass [Msun/h] are expected."
            )
        if len(densities) != len(edges) - 1 or not np.all(np.isfinite(densities) & (densities > 0)):
            raise ValueError(
                f"The densities of a piecewise prior are {self.densities}; {len(edges) - 1} positive values"
                f" are expected, one for each interval between {len(edges)} edges."
            )

    @property
    def log10_mass_range(self) -> tuple[float, float]:
        """First and last edge, log10 M200c [Msun/h]."""
        return float(self.edges[0]), float(self.edges[-1])

    @property
    def breaks(self) -> tuple[float, ...]:
        """The edges."""
        return self.edges

    def log_density(self, redshift: FloatArray) -> Callable[[Tensor], Tensor]:
        """ln of the density, up to a constant, as a function of log10 mass (*, n); constant beyond the
        edges."""
        inner = torch.tensor(self.edges[1:-1], dtype=torch.float64)
        values = torch.tensor(self.densities, dtype=torch.float64).log()

        def evaluate(log10_mass: Tensor) -> Tensor:
            return values[torch.bucketize(log10_mass.contiguous(), inner, right=True)]

        return evaluate


@dataclass(frozen=True)
class SelectedPrior:
    """pi(m) P(select | m, z), m = log10 M200c [Msun/h]: the population of a sample that was selected otherwise
    than by the galaxies that the model sees, such as by X-rays.

    A selection by those galaxies themselves (ten at least) cancels and must not be put in here (docs/priors.md).

    Args:
        prior: pi.
        probability: P of log10 masses and redshifts that broadcast, such as a `SelectionProbability` or a
            `SelectionTable`; only its shape matters.
        label: how the sample was selected.
    """

    prior: MassPrior
    probability: Callable[[FloatArray, FloatArray], FloatArray]
    label: str = "selected"

    @property
    def name(self) -> str:
        """That of pi, and the label."""
        return f"{self.prior.name}, {self.label}"

    @property
    def log10_mass_range(self) -> tuple[float, float]:
        """That of pi."""
        return self.prior.log10_mass_range

    @property
    def breaks(self) -> tuple[float, ...]:
        """Those of pi."""
        return breaks_of(self.prior)

    def log_density(self, redshift: FloatArray) -> Callable[[Tensor], Tensor]:
        """ln of the density, up to a constant per cluster, as a function of log10 mass (*, n)."""
        before = self.prior.log_density(redshift)
        low, high = self.log10_mass_range

        def evaluate(log10_mass: Tensor) -> Tensor:
            # Tables reach a little beyond the range; what is there has no weight.
            mass = np.clip(log10_mass.detach().numpy(), low, high)
            chance = np.asarray(self.probability(mass, np.broadcast_to(redshift, mass.shape)))
            return before(log10_mass) + torch.from_numpy(np.log(np.maximum(chance, _LEAST)))

        return evaluate


def breaks_of(prior: MassPrior) -> tuple[float, ...]:
    """log10 masses at which a prior says that its density jumps."""
    return tuple(getattr(prior, "breaks", ()))


def make_prior(
    name: str, log10_mass_range: tuple[float, float], cosmology: Cosmology = MDPL2
) -> FlatPrior | MassFunctionPrior | SelectedPrior:
    """The prior called `name`, over a range of log10 M200c [Msun/h].

    Args:
        name: one of `PRIOR_NAMES`, or a sample of the mass function limited by another survey, such as ``"sz:14.5"``
            (`LimitedSample.from_text`), or chosen by the number of galaxies that the model sees, ``"richness:20"``: a
            cut that is part of the data and cancels (docs/priors.md).

    Raises:
        ValueError: the name is neither.
    """
    limits = _check_range(log10_mass_range)
    if name == "flat":
        return FlatPrior(limits)
    if name == "hmf":
        return MassFunctionPrior(limits, cosmology)
    if re.fullmatch(r"richness:\d+", name):
        return MassFunctionPrior(limits, cosmology, f"hmf, {name} (cancels)")
    if name.startswith(tuple(f"{kind}:" for kind in LIMITED)):
        return SelectedPrior(MassFunctionPrior(limits, cosmology), LimitedSample.from_text(name), name)
    names = ", ".join(map(repr, PRIOR_NAMES))
    raise ValueError(
        f"Unknown prior {name!r}; the priors are {names}, and samples such as 'sz:14.5', 'xray:3e-12' or"
        " 'richness:20' (docs/priors.md)."
    )

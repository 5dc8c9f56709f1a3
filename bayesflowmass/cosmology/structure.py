"""How many haloes there are, how concentrated and how clustered: what colossus computes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.cosmology.universe import MDPL2, Cosmology, valid_redshifts

# Above this many distinct redshifts a table over redshift replaces one colossus call for each.
_MAX_DIRECT_REDSHIFTS = 4
_LOG10_MASS_STEP = 0.05
_REDSHIFT_STEP = 0.01


def concentration_median(log10_mass: ArrayLike, z: ArrayLike, cosmology: Cosmology = MDPL2) -> FloatArray:
    """Median c_200c of a halo of mass M200c (Diemer & Joyce 2019, arXiv:1809.07326, by colossus).

    More than four distinct redshifts are interpolated on a table, accurate to 1e-3.
    """
    return _over_redshift(_concentration_at, log10_mass, z, cosmology)


def mass_function(log10_mass: ArrayLike, z: ArrayLike, cosmology: Cosmology = MDPL2) -> FloatArray:
    """dn/dlog10 M200c [(Mpc/h)^-3 per dex], comoving (Tinker et al. 2008, arXiv:0803.2706, by colossus).

    More than four distinct redshifts are interpolated on a table, accurate to 0.5 %.
    """
    return np.exp(_over_redshift(_log_mass_function_at, log10_mass, z, cosmology))


def halo_bias(log10_mass: ArrayLike, z: float, cosmology: Cosmology = MDPL2) -> FloatArray:
    """Linear bias of haloes of mass M200c at one redshift (Tinker et al. 2010, arXiv:1001.3162, by colossus)."""
    mass = np.atleast_1d(10.0 ** np.asarray(log10_mass, dtype=np.float64))
    with _colossus(cosmology) as colossus:
        bias = colossus.lss.bias.haloBias(mass, float(valid_redshifts(z)), "200c", model="tinker10")
    return np.asarray(bias, dtype=np.float64)


def linear_correlation(r: ArrayLike, z: float, cosmology: Cosmology = MDPL2) -> FloatArray:
    """Linear matter correlation function at comoving separations r [Mpc/h] and one redshift (colossus)."""
    separation = np.atleast_1d(np.asarray(r, dtype=np.float64))
    with _colossus(cosmology) as colossus:
        correlation = colossus.cosmology.cosmology.getCurrent().correlationFunction(
            separation, float(valid_redshifts(z))
        )
    return np.asarray(correlation, dtype=np.float64)


def redshift_nodes(redshifts: FloatArray) -> FloatArray:
    """Redshifts at which to compute what is smooth in redshift: the distinct ones where they are few, else a grid."""
    values = np.unique(redshifts)
    if values.size <= _MAX_DIRECT_REDSHIFTS:
        return values
    low, high = float(values.min()), float(values.max())
    return np.linspace(low, high, max(4, math.ceil((high - low) / _REDSHIFT_STEP) + 1))


@contextmanager
def _colossus(cosmology: Cosmology) -> Iterator[Any]:
    """The package colossus, its global cosmology set; afterwards the one that was there is put back."""
    import colossus.cosmology.cosmology
    import colossus.halo.concentration
    import colossus.lss.bias
    import colossus.lss.mass_function

    state = colossus.cosmology.cosmology
    before = state.current_cosmo
    state.setCurrent(_colossus_cosmology(cosmology))
    try:
        yield colossus
    finally:
        state.current_cosmo = before


@lru_cache(maxsize=16)
def _colossus_cosmology(cosmology: Cosmology) -> Any:
    from colossus.cosmology import cosmology as colossus_cosmology

    return colossus_cosmology.Cosmology(
        name=f"bayesflowmass-{cosmology.name}",
        flat=True,
        Om0=cosmology.Om0,
        Ob0=cosmology.Ob0,
        H0=100.0 * cosmology.h,
        sigma8=cosmology.sigma8,
        ns=cosmology.ns,
        relspecies=False,
        persistence="",
    )


def _concentration_at(log10_mass: FloatArray, z: float, cosmology: Cosmology) -> FloatArray:
    with _colossus(cosmology) as colossus:
        masses = np.atleast_1d(10.0**log10_mass)
        median = colossus.halo.concentration.concentration(masses, "200c", z, model="diemer19")
    return np.asarray(median, dtype=np.float64)


def _log_mass_function_at(log10_mass: FloatArray, z: float, cosmology: Cosmology) -> FloatArray:
    with _colossus(cosmology) as colossus:
        mass = np.atleast_1d(10.0**log10_mass)
        density = colossus.lss.mass_function.massFunction(
            mass, z, mdef="200c", model="tinker08", q_in="M", q_out="dndlnM"
        )
    return np.log(np.asarray(density, dtype=np.float64) * math.log(10.0))


def _over_redshift(function: Any, log10_mass: ArrayLike, z: ArrayLike, cosmology: Cosmology) -> FloatArray:
    """Evaluate function(masses, redshift, cosmology) over arrays of both; by a table for many redshifts."""
    from scipy.interpolate import RegularGridInterpolator

    mass, redshift = np.broadcast_arrays(np.asarray(log10_mass, dtype=np.float64), valid_redshifts(z))
    result = np.empty(mass.shape)
    if mass.size == 0:
        return result
    if not np.all(np.isfinite(mass)):
        raise ValueError("masses must be finite log10 Msun/h.")
    nodes = redshift_nodes(redshift)
    if nodes.size <= _MAX_DIRECT_REDSHIFTS and np.isin(redshift, nodes).all():
        for value in nodes:
            chosen = redshift == value
            result[chosen] = function(mass[chosen], float(value), cosmology)
        return result
    low, high = float(mass.min()), float(mass.max())
    grid = np.linspace(low - 0.01, high + 0.01, max(4, math.ceil((high - low) / _LOG10_MASS_STEP) + 1))
    table = np.stack([function(grid, float(node), cosmology) for node in nodes])
    interpolate = RegularGridInterpolator((nodes, grid), table, method="cubic")
    return np.asarray(interpolate(np.stack([redshift.ravel(), mass.ravel()], axis=-1)).reshape(mass.shape))

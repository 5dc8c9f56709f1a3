"""Matter that falls toward a halo: how far out its surroundings are counted, and how fast they come in."""

from __future__ import annotations

import numpy as np

from bayesflowmass.common.arrays import FloatArray, IntArray
from bayesflowmass.cosmology import Cosmology, efunc, radius_delta
from bayesflowmass.mocks.background import Background
from bayesflowmass.mocks.halos import Halos
from bayesflowmass.mocks.parameters import MockParameters


def radius_200m(halos: Halos, cosmology: Cosmology) -> FloatArray:
    """R200m of the haloes [comoving Mpc/h], with M200m taken as 1.3 M200c: exact to 3 % for clusters."""
    return radius_delta(halos.log10_mass + np.log10(1.3), halos.redshift, "200m", cosmology=cosmology)


def infall_speed(
    r: FloatArray,
    halo: IntArray,
    halos: Halos,
    r200m: FloatArray,
    parameters: MockParameters,
    background: Background,
) -> FloatArray:
    """Mean infall speed [km/s] toward a halo at distance r [comoving Mpc/h], positive inward.

    v = (1/3) a H r f d (1 + d)^(-1/4) with d = 200 (r/R200m)^-2.1 and f = Om(z)^0.55 (Yahil 1985 as in
    arXiv:1403.2087), joined to v_cap = 0.9 V200c (r/R200m)^(-1/2) as (v^-2 + v_cap^-2)^(-1/2).
    """
    cosmology = background.cosmology
    z = halos.redshift
    growth = (cosmology.Om0 * (1.0 + z) ** 3 / efunc(z, cosmology) ** 2) ** 0.55
    x = r / r200m[halo]
    excess = 200.0 * x**-2.1
    linear = (background.hubble(z) * growth / 3.0)[halo] * r * excess * (1.0 + excess) ** -0.25
    cap = parameters.infall_cap * halos.v200c[halo] / np.sqrt(x)
    return halos.parameter("infall_amplitude", parameters)[halo] / np.sqrt(linear**-2 + cap**-2)

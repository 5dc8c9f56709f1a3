"""Mass definitions, radii, velocities and the halo mass function of a flat LCDM universe.

Units, everywhere: masses are ``log10`` of Msun/h, lengths Mpc/h (comoving unless a name or a keyword says
otherwise), velocities km/s. A mass definition ``mdef`` is a spherical overdensity: ``"200c"`` and ``"500c"``
(times the critical density), ``"200m"`` (times the mean matter density) or ``"vir"`` (Bryan & Norman 1998,
arXiv:astro-ph/9710107). With M in Msun/h and R in Mpc/h the Hubble constant drops out of every relation here
except the shape of the power spectrum: ``h`` matters only to the concentration and to the mass function.
"""

from bayesflowmass.cosmology.haloes import (
    circular_velocity_delta,
    convert_mass,
    overdensity,
    radius_at_circular_velocity,
    radius_delta,
    velocity_dispersion_evrard,
)
from bayesflowmass.cosmology.structure import (
    concentration_median,
    halo_bias,
    linear_correlation,
    mass_function,
    redshift_nodes,
)
from bayesflowmass.cosmology.universe import (
    GRAVITATIONAL_CONSTANT,
    MDPL2,
    SPEED_OF_LIGHT,
    Cosmology,
    comoving_distance,
    critical_density,
    efunc,
    redshift_at_distance,
    transverse_mpc_h_per_radian,
)

__all__ = [
    "GRAVITATIONAL_CONSTANT",
    "MDPL2",
    "SPEED_OF_LIGHT",
    "Cosmology",
    "circular_velocity_delta",
    "comoving_distance",
    "concentration_median",
    "convert_mass",
    "critical_density",
    "efunc",
    "halo_bias",
    "linear_correlation",
    "mass_function",
    "overdensity",
    "radius_at_circular_velocity",
    "radius_delta",
    "redshift_at_distance",
    "redshift_nodes",
    "transverse_mpc_h_per_radian",
    "velocity_dispersion_evrard",
]

"""Haloes in bulk: structure of the clusters, and of the haloes near them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from bayesflowmass.common.arrays import FloatArray, IntArray
from bayesflowmass.cosmology import Cosmology, circular_velocity_delta, radius_delta
from bayesflowmass.mocks.background import Background
from bayesflowmass.mocks.parameters import MockParameters
from bayesflowmass.mocks.profile import CONCENTRATION_AXIS


@dataclass(frozen=True)
class Halos:
    """One entry per halo; masses log10 M200c [Msun/h], lengths comoving Mpc/h, velocities km/s.

    Attributes:
        log_c: ln c200c.
        richness: expected number of satellites inside R_vir, of this halo.
        r200c, r_vir: radii.
        v200c: circular velocity at r200c.
        speed: factor of all velocities: velocity bias times the scatter of the dispersion.
        drawn: parameters that each halo has its own value of (`Randomisation`), (n,) each.
    """

    log10_mass: FloatArray
    redshift: FloatArray
    log_c: FloatArray
    richness: FloatArray
    r200c: FloatArray
    r_vir: FloatArray
    v200c: FloatArray
    speed: FloatArray
    drawn: Mapping[str, FloatArray] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.log10_mass.size

    def parameter(self, name: str, parameters: MockParameters) -> FloatArray:
        """A parameter of each halo (n,): drawn, or the one value of all."""
        return parameter_of(name, parameters, self.drawn, len(self))


def drawn_for(drawn: Mapping[str, FloatArray], index: IntArray) -> dict[str, FloatArray]:
    """Drawn parameters of the haloes at these positions."""
    return {name: values[index] for name, values in drawn.items()}


def parameter_of(
    name: str, parameters: MockParameters, drawn: Mapping[str, FloatArray] | None, n: int
) -> FloatArray:
    """A parameter of n haloes (n,): drawn, or the one value of all."""
    return drawn[name] if drawn and name in drawn else np.full(n, getattr(parameters, name))


def draw_halos(
    log10_mass: FloatArray,
    redshift: FloatArray,
    parameters: MockParameters,
    background: Background,
    cosmology: Cosmology,
    rng: np.random.Generator,
    drawn: Mapping[str, FloatArray] | None = None,
) -> Halos:
    """Concentration, richness and dispersion of haloes of given mass and redshift.

    ln c and ln richness are Gaussian about their relations with mass and correlated
    (`MockParameters.richness_concentration_correlation`); the richness keeps its mean. Concentrations are
    confined to 1-40.

    Args:
        drawn: parameters that each halo has its own value of, (n,) each.
    """
    n = log10_mass.size
    first, second = rng.standard_normal((2, n))
    rho = parameters.richness_concentration_correlation
    second = rho * first + np.sqrt(1.0 - rho**2) * second
    log_c = background.log_concentration(log10_mass, redshift)
    log_c = log_c + np.log(10.0) * parameters.concentration_scatter * first
    np.clip(log_c, CONCENTRATION_AXIS.low, CONCENTRATION_AXIS.high, out=log_c)
    scatter = parameter_of("richness_scatter", parameters, drawn, n)
    richness = mean_richness(log10_mass, parameters) * np.exp(scatter * second - 0.5 * scatter**2)
    richness *= parameter_of("richness_at_1e14", parameters, drawn, n) / parameters.richness_at_1e14
    speed = parameter_of("velocity_bias", parameters, drawn, n) * np.exp(
        parameters.dispersion_scatter * rng.standard_normal(n)
    )
    speed *= 10.0 ** (parameters.velocity_bias_host_slope * (log10_mass - 15.0))
    r200c = radius_delta(log10_mass, redshift, cosmology=cosmology)
    return Halos(
        log10_mass=log10_mass,
        redshift=redshift,
        log_c=log_c,
        richness=richness,
        r200c=r200c,
        r_vir=r200c * background.virial_over_r200c(log_c, redshift),
        v200c=circular_velocity_delta(log10_mass, redshift, cosmology=cosmology),
        speed=speed,
        drawn=dict(drawn or {}),
    )


def mean_richness(log10_mass: FloatArray, parameters: MockParameters) -> FloatArray:
    """Mean number of satellites inside R_vir: a power law with an exponential cut-off at low host mass."""
    log_m = log10_mass - 14.0
    cutoff = parameters.satellite_cutoff_mass / 10.0**log10_mass
    return parameters.richness_at_1e14 * 10.0 ** (parameters.richness_slope * log_m) * np.exp(-cutoff)

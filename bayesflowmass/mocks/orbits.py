"""Galaxies of a halo on their orbits: fallen in long ago or lately, thrown out again, or still on their way.

Test particles cross r200c of a growing halo at the rate at which its mass grows, with the speeds that haloes
have there (Jiang et al. 2015, arXiv:1409.1179), and are followed to the present, or back to it from a crossing
to come. Inside r200c the mass is that of an NFW halo with a constant scale radius, M200c ~ exp(-growth z)
(Wechsler et al. 2002, arXiv:astro-ph/0108151); beyond it the excess of Diemer & Kravtsov (2014) and a
cosmological constant act too.
Units: r200c, V200c, r200c / V200c = 1 / (10 H) at the present, z = 0.117; other redshifts use the same orbits.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from bayesflowmass.common.arrays import FloatArray, IntArray
from bayesflowmass.cosmology import MDPL2, circular_velocity_delta, efunc, velocity_dispersion_evrard
from bayesflowmass.mocks.galaxies import isotropic
from bayesflowmass.mocks.grids import Axis
from bayesflowmass.mocks.nfw import nfw_mass
from bayesflowmass.mocks.parameters import MockParameters
from bayesflowmass.mocks.rows import Rows


class Orbit(IntEnum):
    """Codes of the galaxy column `gal_orbit`, the classes of de los Rios et al. (2021, arXiv:2010.11959)."""

    LONG = 0
    """Inside r200c for more than 2 Gyr, or outside after three crossings or more (CL)."""
    RECENT = 1
    """Inside r200c, fell in within 2 Gyr (RIN)."""
    BACKSPLASH = 2
    """Outside r200c, went in and came out (BS)."""
    INFALLING = 3
    """Never inside, approaching (IN)."""
    INTERLOPER = 4
    """Never inside, receding (ITL)."""


@dataclass(frozen=True)
class Placed(Rows):
    """Galaxies in haloes: radii (n,) [r200c], unit vectors (3, n), velocities (3, n) [V200c], `Orbit` (n,)."""

    s: FloatArray
    direction: FloatArray
    velocity: FloatArray
    orbit: NDArray[np.int8]


_REDSHIFT, _GYR = 0.117, 1.0 / 1.362
_LOG_C = Axis(float(np.log(2.0)), float(np.log(13.0)), 5)
_LOG_RATE = Axis(float(np.log10(0.01)), float(np.log10(1.6)), 9)
"""Of the loss of galaxies while they are inside r200c [1/Gyr]."""
_EDGES = Axis(float(np.log(0.02)), float(np.log(8.0)), 400)
_PARTICLES, _QUANTILES, _STEP = 5000, 4096, 0.02
_PAST, _FUTURE, _RECENT = 12.0 * _GYR, 5.0 * _GYR, 2.0 * _GYR
_OUTER_AMPLITUDE, _OUTER_POWER, _SOFTENING = 1.5, 1.5, 1e-3
_RADIAL = 2.9
"""p(v_r / v) ~ exp(this v_r / v) - 1 at infall: Jiang et al., light satellites of hosts of 10^14 Msun."""


class OrbitTables:
    """Particles at the present for concentrations `_LOG_C` and rates of loss `_LOG_RATE`, ready to be drawn.

    For each of the two, `_QUANTILES` particles of equal weight in order of radius. A factor for each sets the 1-D
    dispersion inside r200c to that of Evrard et al. (2008): how fast galaxies are is the business of `velocity_bias`.

    Attributes:
        particles: (n, 4) radius [r200c], radial and tangential velocity [V200c], `Orbit`.
    """

    def __init__(self, parameters: MockParameters, seed: int = 0) -> None:
        particles = _integrate(parameters, np.random.default_rng(seed))
        shape = (_LOG_C.n, _LOG_RATE.n)
        table = np.empty((*shape, _QUANTILES, 4))
        self.share = np.empty((*shape, _EDGES.n))
        evrard = float(velocity_dispersion_evrard(15.0, _REDSHIFT, MDPL2))
        evrard /= float(circular_velocity_delta(15.0, _REDSHIFT, cosmology=MDPL2))
        for k, (r, radial, tangential, within, orbit) in enumerate(particles):
            keep = np.flatnonzero(
                (r < parameters.outskirts_radius) & ((orbit != Orbit.INFALLING) | (radial < 0.0))
            )
            keep = keep[np.argsort(r[keep])]
            r, radial, tangential, within, orbit = (x[keep] for x in (r, radial, tangential, within, orbit))
            for j, rate in enumerate(10.0**_LOG_RATE.points):
                weight = np.exp(-((rate / _GYR * within) ** parameters.orbit_loss_power))
                weight[orbit == Orbit.INFALLING] *= parameters.orbit_lone_share
                cumulative = np.cumsum(weight)
                cumulative /= cumulative[-1]
                pick = np.searchsorted(cumulative, (np.arange(_QUANTILES) + 0.5) / _QUANTILES)
                inside = r[pick] < 1.0
                square = (radial[pick] ** 2 + tangential[pick] ** 2)[inside].mean() / 3.0
                factor = evrard / np.sqrt(square)
                columns = (r, factor * radial, factor * tangential, orbit)
                table[k, j] = np.stack([column[pick] for column in columns], axis=1)
                self.share[k, j] = np.searchsorted(r[pick], np.exp(_EDGES.points)) / _QUANTILES
        self.particles = table.reshape(-1, 4)

    def share_inside(self, s: FloatArray, log_c: FloatArray, log10_rate: FloatArray) -> FloatArray:
        """Share of the galaxies out to the outskirts radius that lie inside s r200c; linear in all three."""
        where = np.stack(
            [_position(_LOG_C, log_c), _position(_LOG_RATE, log10_rate), _position(_EDGES, np.log(s))]
        )
        return np.asarray(map_coordinates(self.share, where, order=1, mode="nearest"))

    def draw(
        self,
        log_c: FloatArray,
        log10_rate: FloatArray,
        rng: np.random.Generator,
        edge: FloatArray | None = None,
    ) -> IntArray:
        """Rows of ``particles`` for galaxies (n,).

        Args:
            log_c: ln c200c of the halo of each; between two nodes one of them is drawn, by its nearness.
            log10_rate: of loss inside r200c [1/Gyr]; the same.
            edge: (n,) only inside this many r200c.
        """
        k, j = (
            (_position(axis, x) + rng.random(x.size)).astype(np.int64)
            for axis, x in ((_LOG_C, log_c), (_LOG_RATE, log10_rate))
        )
        table = k * _LOG_RATE.n + j
        quantile = rng.random(log_c.size)
        if edge is not None:
            quantile *= self.share.reshape(-1, _EDGES.n)[
                table, _position(_EDGES, np.log(edge)).astype(np.int64)
            ]
        return table * _QUANTILES + (quantile * _QUANTILES).astype(np.int64)

    def place(self, rows: IntArray, rng: np.random.Generator) -> Placed:
        """Galaxies that are at rows of ``particles`` on their orbits, seen from anywhere."""
        n = rows.size
        s, radial, tangential, orbit = self.particles.take(rows, axis=0).T
        direction = isotropic(n, rng)
        # Across: a turn by a random angle from north, (-x z, -y z, x^2 + y^2) / rho, toward east, (-y, x, 0) / rho.
        x, y, z = direction
        angle = rng.uniform(0.0, 2.0 * np.pi, n)
        rho = np.sqrt(np.maximum(x * x + y * y, 1e-30))
        north, east = tangential * np.cos(angle), tangential * np.sin(angle) / rho
        outward = radial - north * z / rho
        velocity = np.stack([x * outward - y * east, y * outward + x * east, z * radial + north * rho])
        return Placed(s, direction, velocity, orbit.astype(np.int8))


def _position(axis: Axis, x: FloatArray) -> FloatArray:
    """Where values lie on the axis, in steps from its first node; those beyond the ends at the ends."""
    return np.clip((x - axis.low) * ((axis.n - 1) / (axis.high - axis.low)), 0.0, axis.n - 1.0)


class _Halo:
    """The haloes of all concentrations, which grow together."""

    def __init__(self, growth: float) -> None:
        self.growth = growth
        self.c = np.exp(_LOG_C.points)[:, None]
        self.e = float(efunc(_REDSHIFT))
        self.omega = MDPL2.Om0 * (1.0 + _REDSHIFT) ** 3 / self.e**2
        self._dark = np.sqrt(1.0 - MDPL2.Om0)
        self._hubble = 0.1 / self.e
        self.now = float(
            np.arcsinh(np.sqrt((1.0 / MDPL2.Om0 - 1.0) / (1.0 + _REDSHIFT) ** 3))
            / (1.5 * self._dark * self._hubble)
        )
        power = 3.0 - _OUTER_POWER
        five_r200m = 5.0 * np.cbrt(1.3 / self.omega)
        self._outer = 3.0 * _OUTER_AMPLITUDE * self.omega / 200.0 * five_r200m**_OUTER_POWER / power

    def mass_and_radius(self, t: FloatArray | float) -> tuple[FloatArray, FloatArray]:
        """M200c and r200c at a time, over the present ones."""
        matter = np.sinh(1.5 * self._dark * self._hubble * np.asarray(t)) ** 2  # Lambda over matter
        cubed = (1.0 / MDPL2.Om0 - 1.0) / matter  # (1 + z)^3
        mass = np.exp(-self.growth * (np.cbrt(cubed) - 1.0 - _REDSHIFT))
        return mass, np.cbrt(mass * self.e**2 / (MDPL2.Om0 * cubed + 1.0 - MDPL2.Om0))

    def pull(self, position: FloatArray, mass: FloatArray, edge: FloatArray) -> FloatArray:
        """Acceleration at positions (2, n_c, n) in the planes of the orbits."""
        r = np.sqrt((position**2).sum(axis=0)) + _SOFTENING
        power = 3.0 - _OUTER_POWER
        enclosed = mass * nfw_mass(self.c * r) / nfw_mass(self.c * edge)
        enclosed += self._outer * np.maximum(r**power - edge**power, 0.0)
        return np.asarray((0.01 * (1.0 - self.omega) - enclosed / r**3) * position)


def _integrate(parameters: MockParameters, rng: np.random.Generator) -> list[tuple[FloatArray, ...]]:
    """Radius, radial and tangential velocity, time inside r200c and `Orbit` of particles, for each concentration."""
    halo = _Halo(parameters.orbit_growth)
    times = np.linspace(halo.now - _PAST, halo.now + _FUTURE, 2000)
    grown = halo.mass_and_radius(times)[0]
    quantile = (np.arange(_PARTICLES) + rng.random(_PARTICLES)) / _PARTICLES
    infall = np.interp(quantile, (grown - grown[0]) / (grown[-1] - grown[0]), times)
    mass, radius = halo.mass_and_radius(infall)
    speed = parameters.orbit_speed + parameters.orbit_speed_scatter * rng.standard_normal(_PARTICLES)
    speed = np.abs(speed) * np.sqrt(mass / radius)
    x = np.linspace(0.0, 1.0, 1000)
    cumulative = (np.expm1(_RADIAL * x) - _RADIAL * x) / (np.expm1(_RADIAL) - _RADIAL)
    inward = np.interp(rng.random(_PARTICLES), cumulative, x)
    shape = (2, _LOG_C.n, _PARTICLES)
    position = np.broadcast_to(np.stack([radius, 0.0 * radius])[:, None], shape).copy()
    velocity = np.broadcast_to((speed * np.stack([-inward, np.sqrt(1.0 - inward**2)]))[:, None], shape).copy()
    crossings, within = np.zeros(shape[1:], dtype=int), np.zeros(shape[1:])
    past = int((infall < halo.now).sum())
    for part, start in ((slice(0, past), halo.now - _PAST), (slice(past, None), halo.now + _FUTURE)):
        t = infall[part]
        forward = start < halo.now
        p, v, crossed = position[:, :, part], velocity[:, :, part], crossings[:, part]
        inside = np.ones(crossed.shape, dtype=bool)
        for time in np.linspace(start, halo.now, int(np.ceil(abs(halo.now - start) / _STEP)) + 1)[1:]:
            # Particles are in order of infall: those under way are the first, or the last where time runs backward.
            moving = slice(0, np.searchsorted(t, time)) if forward else slice(np.searchsorted(t, time), None)
            step = np.clip(time - t[moving], -_STEP, _STEP)
            grown_mass, edge = halo.mass_and_radius(time)
            at = p[:, :, moving]
            half = at + 0.5 * step * v[:, :, moving]
            v[:, :, moving] += step * halo.pull(half, grown_mass, edge)
            at[:] = half + 0.5 * step * v[:, :, moving]
            now_inside = (at**2).sum(axis=0) < edge**2
            crossed[:, moving] += now_inside != inside[:, moving]
            within[:, part][:, moving] += np.abs(step) * now_inside
            inside[:, moving] = now_inside
    r = np.sqrt((position**2).sum(axis=0))
    radial = (position * velocity).sum(axis=0) / r
    tangential = (position[0] * velocity[1] - position[1] * velocity[0]) / r
    age = np.broadcast_to(halo.now - infall, r.shape)
    outside = np.where(crossings > 2, Orbit.LONG, Orbit.BACKSPLASH)
    orbit = np.where(r < 1.0, np.where(age > _RECENT, Orbit.LONG, Orbit.RECENT), outside)
    orbit = np.where((age < 0.0) & (r >= 1.0), Orbit.INFALLING, orbit)
    return list(zip(r, radial, tangential, np.where(age > 0.0, within, 0.0), orbit, strict=True))

"""M200c from virial and projected masses of a catalogue: interlopers removed, aperture found, calibrated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from bayesflowmass.baselines.surface_pressure import surface_share
from bayesflowmass.baselines.virial import projected_mass_profile, virial_mass_profile
from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.cosmology import critical_density
from bayesflowmass.selection import recentre_velocity, remove_interlopers

DynamicalMass = Literal["virial", "projected"]
DynamicalForm = Literal["formula", "inverse", "regression"]

_PROFILES: dict[str, Callable[[FloatArray, FloatArray], FloatArray]] = {
    "virial": virial_mass_profile,
    "projected": projected_mass_profile,
}
_LEAST = 5
_CONCENTRATION = 4.0
# Proper Mpc/h: only galaxies that all sit on the centre are closer.
_SMALLEST_EDGE = 1e-6


def without_interlopers(catalog: ClusterCatalog) -> ClusterCatalog:
    """Velocities centred, and galaxies outside 2.7 sigma_los(R) left out (`selection.remove_interlopers`)."""
    return remove_interlopers(recentre_velocity(catalog))


def dynamical_mass(
    catalog: ClusterCatalog, kind: DynamicalMass = "virial", *, surface_pressure: bool = True
) -> FloatArray:
    """log10 M200c [Msun/h] (n,) of clusters whose interlopers are removed.

    The mass inside an aperture b, corrected for the surface term where that is asked for, gives R200c by an NFW
    profile of concentration 4; R200c is the next aperture, until it rests. So the galaxies used are those
    projected inside R200c, as in GalWCat19 (Abdullah et al. 2020, arXiv:1907.05061), but never fewer than five.
    Where R200c lies outside the cylinder the profile bridges the rest.

    Args:
        catalog: clusters (:func:`without_interlopers`).
        kind: "virial" or "projected".
        surface_pressure: take off the surface term of an isotropic NFW halo, about 0.13 dex of the virial mass,
            0.21 dex of the projected one.

    Raises:
        ValueError: unknown kind, or a cluster with fewer than two galaxies or without a velocity dispersion.
    """
    if kind not in get_args(DynamicalMass):
        raise ValueError(f"The mass '{kind}' is unknown; it is one of {', '.join(get_args(DynamicalMass))}.")
    few = np.flatnonzero(catalog.n_galaxies < 2)
    if few.size:
        raise ValueError(
            f"A {kind} mass needs at least two galaxies; cluster {catalog.column('cluster_id')[few[0]]} has "
            f"{catalog.n_galaxies[few[0]]} ({few.size} such clusters in all); remove them."
        )
    redshift = np.asarray(catalog.column("redshift"), dtype=np.float64)
    density = 800.0 / 3.0 * np.pi * critical_density(redshift, catalog.metadata.cosmology)
    radius, velocity = catalog.r_proj.astype(np.float64), catalog.galaxies("v_los").astype(np.float64)
    offsets, table = catalog.offsets, _nfw_table(kind, surface_pressure)
    result = np.empty(len(catalog))
    for row in range(len(catalog)):
        part = slice(offsets[row], offsets[row + 1])
        order = np.argsort(radius[part], kind="stable")
        r = radius[part][order] / (1.0 + redshift[row])
        profile = _PROFILES[kind](r, velocity[part][order])
        mass = _at_r200(r, profile, float(density[row]), table)
        if not mass > 0.0:
            raise ValueError(
                f"The velocities or the positions of cluster {catalog.column('cluster_id')[row]} are all equal: it "
                f"has no {kind} mass."
            )
        result[row] = np.log10(mass)
    return result


def _at_r200(
    r: FloatArray, profile: FloatArray, density: float, table: tuple[FloatArray, FloatArray]
) -> float:
    """Fixed point of aperture and R200c; where it goes round between neighbours, their geometric mean."""
    # An aperture ends half-way to the next galaxy; the last one is its own end.
    edge = np.maximum(np.append(0.5 * (r[:-1] + r[1:]), r[-1]), _SMALLEST_EDGE)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_ratio = np.log(profile / (density * edge**3))
        # Reversed, since mean density falls outwards.
        log_s = np.interp(-log_ratio, -table[1], table[0])
    mass = np.where(profile > 0.0, density * (_CONCENTRATION * edge / np.exp(log_s)) ** 3, 0.0)
    next_number = np.clip(
        np.searchsorted(r, np.cbrt(mass / density), side="right"), min(_LEAST, r.size), r.size
    )
    visited = [r.size]
    while (number := int(next_number[visited[-1] - 1])) not in visited:
        visited.append(number)
    cycle = mass[np.array(visited[visited.index(number) :]) - 1]
    return float(np.exp(np.mean(np.log(cycle)))) if np.all(cycle > 0.0) else 0.0


@cache
def _nfw_table(kind: str, surface_pressure: bool) -> tuple[FloatArray, FloatArray]:
    """ln s and ln of the mean density that an estimator gives inside s = b / r_s, in units of M200c / R200c^3."""
    s = np.geomspace(1e-3, 1e3, 6000)
    enclosed = np.log1p(s) - s / (1.0 + s)
    whole = np.log1p(_CONCENTRATION) - _CONCENTRATION / (1.0 + _CONCENTRATION)
    share = surface_share(kind, s) if surface_pressure else 0.0
    return np.log(s), np.log(_CONCENTRATION**3 * enclosed / (whole * s**3 * (1.0 - share)))


@dataclass(frozen=True)
class DynamicalRelation:
    """log10 M200c = intercept + slope log10 of a virial or projected M200c, with the scatter of its training.

    Attributes:
        form: "formula" (intercept 0, slope 1), "inverse" or "regression", as for `MSigmaRelation`.
        kind: "virial" or "projected".
        intercept: log10 of Msun/h.
        slope: of true on estimated log mass.
        scatter: root mean square of log10(M_true / M_pred) on the training sample [dex].
    """

    form: DynamicalForm
    kind: DynamicalMass
    intercept: float
    slope: float
    scatter: float

    def predict(self, log10_estimate: ArrayLike) -> FloatArray:
        """log10 M200c [Msun/h] from `dynamical_mass` (n,)."""
        return np.asarray(self.intercept + self.slope * np.asarray(log10_estimate, dtype=np.float64))


def fit_dynamical(
    form: DynamicalForm, kind: DynamicalMass, log10_estimate: ArrayLike, log10_mass: ArrayLike
) -> DynamicalRelation:
    """Calibrate `dynamical_mass` on clusters of known mass; ``formula`` takes the width of the error alone.

    Args:
        form: "formula", "inverse" (estimate regressed on mass, then inverted) or "regression" (mass on estimate).
        kind: "virial" or "projected".
        log10_estimate: (n,).
        log10_mass: log10 M200c [Msun/h] (n,); flat over the range of interest.

    Raises:
        ValueError: unknown form, fewer than three clusters, or masses or estimates that are all equal.
    """
    if form not in get_args(DynamicalForm):
        raise ValueError(f"The form '{form}' is unknown; it is one of {', '.join(get_args(DynamicalForm))}.")
    s, x = np.asarray(log10_estimate, dtype=np.float64), np.asarray(log10_mass, dtype=np.float64)
    if s.size < 3 or np.ptp(x) == 0 or np.ptp(s) == 0:
        raise ValueError(f"A {kind} mass is calibrated on at least three different clusters; found {s.size}.")
    slope, intercept = 1.0, 0.0
    if form == "inverse":
        b, a = np.polyfit(x, s, 1)
        slope, intercept = 1.0 / b, -a / b
    elif form == "regression":
        slope, intercept = np.polyfit(s, x, 1)
    scatter = float(np.sqrt(np.mean((x - intercept - slope * s) ** 2)))
    return DynamicalRelation(form, kind, float(intercept), float(slope), scatter)

"""Satellites of haloes at fixed depth: mocks beside occupations that reproduce the clustering of SDSS galaxies.

Each occupation is <N_sat> = ((M - M_0) / M_1)^alpha inside a halo of mean density 200 times that of matter, for
galaxies brighter than M_r - 5 log10 h.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.cosmology import MDPL2, convert_mass
from bayesflowmass.mocks import MockParameters
from bayesflowmass.mocks.background import Background
from bayesflowmass.mocks.galaxies import Galaxies
from bayesflowmass.mocks.halos import Halos, draw_halos
from bayesflowmass.mocks.infall import radius_200m
from bayesflowmass.mocks.luminosity import LuminosityTable
from bayesflowmass.mocks.members import Shapes, cluster_galaxies
from bayesflowmass.mocks.profile import RadialTables
from bayesflowmass.mocks.shapes import draw_axes, velocity_axes

__all__ = ["OCCUPATIONS", "galaxies_in_space", "occupation_table", "satellites"]

LIMITS, LOG10_MASSES = (-18.0, -19.0, -20.0, -21.0), (14.0, 14.5, 15.0)
OCCUPATIONS: Mapping[str, Mapping[float, tuple[float, float, float]]] = MappingProxyType(
    {
        "Zehavi et al. 2005": {
            -18.0: (0.0, 12.57, 0.92),
            -19.0: (0.0, 12.94, 1.08),
            -20.0: (0.0, 13.42, 1.16),
            -21.0: (0.0, 14.09, 1.39),
        },
        "Zheng et al. 2007": {
            -18.0: (11.20, 12.40, 0.83),
            -19.0: (11.49, 12.83, 1.02),
            -20.0: (11.38, 13.31, 1.06),
            -21.0: (11.92, 13.94, 1.15),
        },
        "Zehavi et al. 2011": {
            -18.0: (9.81, 12.42, 1.04),
            -19.0: (9.77, 12.63, 1.02),
            -20.0: (12.35, 12.98, 1.00),
            -21.0: (12.71, 13.76, 1.15),
        },
    }
)
"""By limit: log10 M_0, log10 M_1 [Msun/h] and alpha (the first has no M_0)."""
_Z, _TOLERANCE, _HALOES = 0.1, 0.15, 200


def galaxies_in_space(
    log10_mass: FloatArray, z: float, parameters: MockParameters, rng: np.random.Generator
) -> tuple[Halos, Galaxies, FloatArray, FloatArray]:
    """Haloes, their galaxies out to the outskirts, how far these are from the centre and M_r - 5 log10 h."""
    redshift = np.full(log10_mass.size, z)
    background = Background(
        parameters, MDPL2, (z, z), (float(log10_mass.min()) - 0.1, float(log10_mass.max()) + 0.1)
    )
    axes = draw_axes(log10_mass.size, parameters, rng)
    halos = draw_halos(log10_mass, redshift, parameters, background, MDPL2, rng)
    galaxies, _ = cluster_galaxies(
        halos,
        Shapes(axes, velocity_axes(axes, parameters, rng)),
        radius_200m(halos, MDPL2),
        RadialTables.build(parameters),
        parameters,
        background,
        rng,
        outskirts=True,
        central=False,
    )
    magnitude = LuminosityTable(parameters, MDPL2, (z, z)).draw(
        galaxies.log10_mass, redshift[galaxies.halo], rng
    )
    return halos, galaxies, np.sqrt((galaxies.position**2).sum(axis=0)), magnitude


def satellites(name: str, limit: float, log10_m200c: float) -> float:
    """Published mean number of satellites brighter than a limit."""
    m0, m1, alpha = OCCUPATIONS[name][limit]
    mass = 10.0 ** float(convert_mass(np.array([log10_m200c]), np.array([_Z]), "200c", "200m")[0])
    return float(max((mass - (10.0**m0 if m0 else 0.0)) / 10.0**m1, 0.0) ** alpha)


def occupation_table(seed: int, parameters: MockParameters) -> tuple[str, list[bool]]:
    """The mocks beside what is published, in Markdown, and whether each number is within its range, 15 % allowed."""
    lines = [
        "| log10 M200c | M_r - 5 log10 h < | " + " | ".join(OCCUPATIONS) + " | mock |",
        "|---|---|" + "---|" * (len(OCCUPATIONS) + 1),
    ]
    met = []
    for mass in LOG10_MASSES:
        halos, galaxies, distance, magnitude = galaxies_in_space(
            np.full(_HALOES, mass), _Z, parameters, np.random.default_rng([seed, 2])
        )
        inside = distance < radius_200m(halos, MDPL2)[galaxies.halo]
        for limit in LIMITS:
            mock = float((inside & (magnitude < limit)).sum() / _HALOES)
            published = [satellites(name, limit, mass) for name in OCCUPATIONS]
            low, high = (1.0 - _TOLERANCE) * min(published), (1.0 + _TOLERANCE) * max(published)
            met.append(low <= mock <= high)
            shown = f"{mock:.1f}" if met[-1] else f"**{mock:.1f}**"
            cells = [f"{mass:g}", f"{limit:g}", *(f"{number:.1f}" for number in published), shown]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines), met

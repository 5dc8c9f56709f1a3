"""Published numbers that a mock catalogue must meet, and the same numbers measured on mocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from bayesflowmass.mocks.catalog_builder import simulate_catalog
from bayesflowmass.mocks.parameters import MockParameters, parameter_table
from benchmarks.mock_targets.measurements import (
    dispersion_relation,
    mass_errors,
    measure_bulk,
    measure_interlopers,
    measure_orientation,
)

__all__ = ["TARGETS", "Target", "compare", "put_back", "relations"]

_HO = "notebooks of Ho et al. 2019 (arXiv:1902.05950), MDPL2"
_WOJTAK = "Wojtak 2013 (arXiv:1310.3837)"
_MAMON = "Mamon, Biviano & Murante 2010 (arXiv:1003.0033)"


@dataclass(frozen=True)
class Target:
    """One published number.

    Attributes:
        key: name of the measurement.
        text: what it is.
        low, high: the published value, or the range of several published values.
        tolerance: how far outside that range a mock may lie. Agreed for the relations: 0.03 for a slope,
            0.025 for a value, 0.015 for a scatter of log sigma_v, 0.04 for mass scatter and offsets.
        source: where it was published.
    """

    key: str
    text: str
    low: float
    high: float
    tolerance: float
    source: str

    def met(self, value: float) -> bool:
        """Whether a measured value lies within the tolerance."""
        return bool(self.low - self.tolerance <= value <= self.high + self.tolerance)


def _target(
    key: str, text: str, published: float | tuple[float, float], tolerance: float, source: str
) -> Target:
    low, high = published if isinstance(published, tuple) else (published, published)
    return Target(key, text, low, high, tolerance, source)


TARGETS: tuple[Target, ...] = (
    _target(
        "evrard_ratio",
        "1-D dispersion of a dark-matter-like tracer over Evrard's",
        1.0,
        0.03,
        "Evrard et al. 2008 (arXiv:astro-ph/0702241)",
    ),
    _target("pure_slope", "pure: slope of log sigma_v on log M, flat 13.5-15.25", 0.366, 0.03, _HO),
    _target("pure_value", "pure: log sigma_v at 10^15 Msun/h", 3.036, 0.025, _HO),
    _target("pure_scatter", "pure: scatter of log sigma_v [dex]", 0.069, 0.015, _HO),
    _target("pure_mass_scatter", "pure: mass scatter, hmf 14-15 [dex]", (0.141, 0.183), 0.04, _HO),
    _target("pure_low", "pure: 16 % offset of the mass error, hmf 14-15 [dex]", -0.149, 0.04, _HO),
    _target("pure_high", "pure: 84 % offset [dex]", 0.134, 0.04, _HO),
    _target("contaminated_slope", "contaminated: slope", 0.241, 0.03, _HO),
    _target("contaminated_value", "contaminated: log sigma_v at 10^15 Msun/h", 3.001, 0.025, _HO),
    _target("contaminated_scatter", "contaminated: scatter of log sigma_v [dex]", 0.104, 0.015, _HO),
    _target(
        "contaminated_mass_scatter", "contaminated: mass scatter, hmf 14-15 [dex]", (0.369, 0.372), 0.04, _HO
    ),
    _target(
        "contaminated_scatter_sigma",
        "contaminated: scatter of log sigma_v, hmf 14-15 [dex]",
        0.090,
        0.015,
        _HO,
    ),
    _target("contaminated_mean", "contaminated: mean mass error, hmf 14-15 [dex]", -0.064, 0.04, _HO),
    _target("contaminated_median", "contaminated: median mass error [dex]", -0.085, 0.04, _HO),
    _target("contaminated_low", "contaminated: 16 % offset about the median [dex]", -0.327, 0.04, _HO),
    _target("contaminated_high", "contaminated: 84 % offset about the median [dex]", 0.364, 0.04, _HO),
    _target("space_axis_ratio", "axis ratio of the galaxies", 0.66, 0.07, _WOJTAK),
    _target("velocity_axis_ratio", "axis ratio of their velocities", 0.78, 0.03, _WOJTAK),
    _target(
        "orientation_mass_scatter",
        "mass scatter from orientation",
        (0.30, 0.40),
        0.03,
        "Saro et al. 2013 (arXiv:1203.5708)",
    ),
    _target("before_cut", "interlopers inside the projected R_vir, before a cut", 0.26, 0.05, _MAMON),
    _target("after_cut", "the same after a 2.7 sigma cut", 0.23, 0.05, _MAMON),
    _target("width", "Gaussian width of interloper velocities [V200c]", (0.58, 0.67), 0.05, _MAMON),
    _target("radial_slope", "d ln(surface density)/d ln R of the interlopers", 0.0, 0.3, _MAMON),
    _target(
        "interloper_share",
        "interloper share of the cylinder, hmf above 13.5, all galaxies",
        (0.30, 0.50),
        0.05,
        "public mocks",
    ),
)

_KINDS: tuple[Literal["pure"], Literal["contaminated"]] = ("pure", "contaminated")


def relations(n_clusters: int, seed: int, parameters: MockParameters) -> dict[str, float]:
    """Slope, value and scatter of the dispersion relation, mass errors and interloper shares of mocks.

    Args:
        n_clusters: clusters of each of four catalogues: pure and contaminated, flat in mass (13.5-15.25) and
            following the mass function (14-15); paper mode, z = 0.117.
    """
    result: dict[str, float] = {}
    for kind in _KINDS:
        flat = simulate_catalog(
            n_clusters,
            log10_mass_range=(13.5, 15.25),
            kind=kind,
            parameters=parameters,
            seed=seed,
        )
        hmf = simulate_catalog(
            n_clusters,
            masses="hmf",
            log10_mass_range=(14.0, 15.0),
            kind=kind,
            parameters=parameters,
            seed=seed + 1,
        )
        relation = dispersion_relation(flat)
        errors = mass_errors(hmf, relation)
        result |= {
            f"{kind}_slope": relation.slope,
            f"{kind}_value": relation.value,
            f"{kind}_scatter": relation.scatter,
            f"{kind}_mass_scatter": errors.scatter,
            f"{kind}_scatter_sigma": errors.scatter_sigma,
            f"{kind}_mean": errors.mean,
            f"{kind}_median": errors.median,
            f"{kind}_low": errors.low,
            f"{kind}_high": errors.high,
        }
        if kind == "contaminated":
            log10_mass, fraction = flat.column("log10_mass"), flat.column("interloper_fraction")
            for centre in (13.6, 14.0, 14.5, 15.0):
                near = np.abs(log10_mass - centre) < 0.1
                result[f"share_{centre}"] = float(fraction[near].mean())
    return result


def compare(
    n_clusters: int = 20000, seed: int = 0, parameters: MockParameters | None = None
) -> dict[str, float]:
    """Measure everything in `TARGETS`, and some more, on mocks of one set of parameters.

    Args:
        n_clusters: clusters of each of four catalogues (paper mode, z = 0.117); smaller samples elsewhere.
    """
    chosen = MockParameters() if parameters is None else parameters
    result = relations(n_clusters, seed, chosen)
    low = simulate_catalog(
        max(500, n_clusters // 2),
        masses="hmf",
        log10_mass_range=(13.5, 15.25),
        parameters=chosen,
        seed=seed + 2,
    )
    result["interloper_share"] = float(1.0 - low.column("n_members").sum() / low.n_galaxies.sum())
    result |= measure_bulk(chosen, max(200, n_clusters // 10), seed)
    result |= measure_orientation(chosen, max(60, n_clusters // 40), seed)
    result |= measure_interlopers(chosen, max(500, n_clusters // 2), seed)
    return result


def put_back(n_clusters: int, seed: int) -> dict[str, dict[str, float]]:
    """`relations` with each tuned parameter returned to its starting value, one at a time, and all at once.

    The key is the parameter's name; ``""`` is the default set, ``"all"`` the starting set.
    """
    start = {name: info.starting for name, _, info in parameter_table() if info.starting is not None}
    sets: dict[str, dict[str, float]] = {"": {}, **{name: {name: value} for name, value in start.items()}}
    sets["all"] = start
    return {
        name: relations(n_clusters, seed, MockParameters().replace(**changes))
        for name, changes in sets.items()
    }

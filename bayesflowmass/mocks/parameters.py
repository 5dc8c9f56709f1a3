"""Every number of the mock clusters: value, unit, allowed range, source, and the target that chose it."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

PRESETS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "paper": {},
        "sky": {
            "orbit_growth": 0.9,
            "orbit_speed": 1.3,
            "orbit_speed_scatter": 0.25,
            "orbit_lone_share": 0.5,
            "orbit_loss": 0.55,
            "orbit_loss_slope": 0.6,
            "orbit_loss_power": 2.0,
            "infall_region_amplitude": 0.8,
            "richness_slope": 1.0,
            "richness_scatter": 0.12,
            "supercluster_density": 8e-5,
        },
    }
)
"""What differs from the defaults: ``paper`` meets MDPL2 as the paper saw it, ``sky`` simulated orbits and surveys."""


@dataclass(frozen=True)
class ParameterInfo:
    """What is known about one parameter.

    Attributes:
        text: what it is.
        unit: unit, or "" for a pure number.
        low, high: allowed range, ends included.
        tag: "pub" (published or read in public code), "lead" (plausible, unverified: a nuisance parameter),
            "target" (chosen so that a published target is met), "numeric" (a limit of the calculation).
        source: paper, or where the value comes from.
        target: the published quantity that chose the value, or "".
        starting: the value before tuning, when tuning changed it.
    """

    text: str
    unit: str
    low: float
    high: float
    tag: str
    source: str
    target: str = ""
    starting: float | None = None


def parameter(
    default: float,
    text: str,
    unit: str,
    allowed: tuple[float, float],
    tag: str,
    source: str,
    *,
    target: str = "",
    starting: float | None = None,
) -> Any:
    """A dataclass field with a default and its `ParameterInfo` as metadata."""
    info = ParameterInfo(text, unit, *allowed, tag, source, target, starting)
    return field(default=default, metadata={"info": info})


@dataclass(frozen=True)
class MockParameters:
    """All constants of the mock clusters; immutable and validated.

    `parameter_table` lists text, unit, range, source and tuning target of each field. Masses are M200c in
    Msun/h, lengths comoving Mpc/h, velocities km/s; sigma_ln is a scatter of the natural logarithm.

    Raises:
        ValueError: if a value is not a finite number inside its allowed range.
    """

    # A table reads better as one.
    # fmt: off
    concentration_scatter: float = parameter(
        0.16, "scatter of log10 c200c about the median", "dex", (0.0, 0.4), "pub", "Diemer & Joyce 2019")
    galaxy_concentration_ratio: float = parameter(
        0.7, "concentration of galaxies over that of dark matter", "", (0.2, 1.5), "lead", "estimate")
    richness_concentration_correlation: float = parameter(
        -0.4, "correlation of ln richness with ln c at fixed mass", "", (-0.95, 0.95), "lead", "estimate")
    richness_at_1e14: float = parameter(
        40.0, "mean number of satellites inside R_vir at 1e14 Msun/h", "", (1.0, 200.0), "lead", "estimate")
    richness_slope: float = parameter(
        0.92, "d ln richness / d ln M200c", "", (0.5, 1.3), "target", "estimate",
        target="contaminated scatter of log sigma_v", starting=0.95)
    richness_scatter: float = parameter(
        0.18, "lognormal scatter of richness beyond Poisson", "sigma_ln", (0.0, 0.6), "lead", "estimate")
    satellite_cutoff_mass: float = parameter(
        7e11, "satellites are suppressed by exp(-this/M)", "Msun/h", (0.0, 1e13), "target",
        "a host must outweigh satellites of 1e11 several times", target="contaminated slope", starting=2e12)
    velocity_bias: float = parameter(
        1.0, "dispersion of galaxies over that of dark matter", "", (0.8, 1.3), "lead", "estimate")
    velocity_bias_host_slope: float = parameter(
        0.028, "d log(velocity bias) / d log10 M200c of the host; the bias is as given at 1e15 Msun/h", "",
        (-0.1, 0.1), "target",
        "Munari et al. 2013: slope 0.364 for galaxies and subhaloes against 0.336 for dark matter",
        target="pure slope", starting=0.0)
    velocity_bias_slope: float = parameter(
        0.0, "d ln(velocity bias) / d log10(accretion mass); negative: faint galaxies are faster", "1/dex",
        (-0.3, 0.3), "lead", "estimate")
    anisotropy_outer: float = parameter(
        0.5, "beta(r) = this x r / (r + r_-2)", "", (0.0, 0.9), "pub", "Mamon & Lokas 2005")
    escape_fraction: float = parameter(
        0.95, "members are slower than this times the escape speed", "", (0.6, 1.5), "pub",
        "cut of unbound galaxies in public mocks")
    orbit_growth: float = parameter(
        0.0, "galaxies are on orbits in a halo that grows as exp(-this z); 0: in equilibrium", "", (0.0, 3.0),
        "target", "Wechsler et al. 2002", target="backsplash galaxies of MDPL2 + SAG")
    orbit_speed: float = parameter(
        1.2, "mean speed at infall through r200c", "V200c", (0.8, 1.6), "pub", "Jiang et al. 2015")
    orbit_speed_scatter: float = parameter(
        0.2, "its scatter", "V200c", (0.0, 0.5), "lead", "Jiang et al. 2015: 0.09 with wide wings")
    orbit_lone_share: float = parameter(
        1.0, "share of the galaxies on their way in that come alone: neighbouring haloes bring the others", "",
        (0.0, 1.0), "target", "no galaxy is counted twice", target="infalling galaxies of MDPL2 + SAG")
    orbit_loss: float = parameter(
        0.0, "rate at which galaxies are lost inside r200c, at an accretion mass of 1e11 Msun/h", "1/Gyr",
        (0.0, 1.6), "target", "tides and mergers", target="recent infallers of MDPL2 + SAG")
    orbit_loss_power: float = parameter(
        1.0, "exp(-(rate x time inside r200c)^this) of the galaxies are left: above 1 it takes a while", "",
        (1.0, 4.0), "target", "dynamical friction", target="long members of MDPL2 + SAG")
    orbit_loss_slope: float = parameter(
        0.0, "that rate falls as (accretion mass)^-this", "", (0.0, 2.0), "target",
        "heavy galaxies survive", target="median radius of bright galaxies (The Three Hundred)")
    axis_ratio_q: float = parameter(
        0.73, "mean intermediate to major axis of the galaxies", "", (0.3, 1.0), "target", "Wojtak 2013",
        target="mean axis ratio in space", starting=0.70)
    axis_ratio_s: float = parameter(
        0.60, "mean minor to major axis of the galaxies", "", (0.2, 1.0), "target", "Wojtak 2013",
        target="mean axis ratio in space", starting=0.55)
    axis_ratio_scatter: float = parameter(
        0.10, "scatter of each axis ratio", "", (0.0, 0.3), "target", "Wojtak 2013",
        target="scatter of the axis ratio in space", starting=0.12)
    velocity_shape_exponent: float = parameter(
        0.58, "velocity axes are proportional to (position axis)^this", "", (0.0, 1.0), "target",
        "Wojtak 2013, Saro et al. 2013", target="velocity axis ratio; mass scatter from orientation",
        starting=0.35)
    velocity_axis_scatter: float = parameter(
        0.05, "extra scatter of each velocity axis", "sigma_ln", (0.0, 0.3), "lead", "estimate")
    dispersion_scatter: float = parameter(
        0.04, "scatter of the 3-D dispersion at fixed mass", "sigma_ln", (0.0, 0.3), "pub", "Evrard 2008")
    central_velocity_offset: float = parameter(
        0.1, "1-D velocity offset of the central galaxy, over sigma", "", (0.0, 0.6), "lead", "estimate")
    substructure_mean_number: float = parameter(
        0.8, "mean number of infalling clumps (Poisson)", "", (0.0, 6.0), "target", "estimate",
        target="pure offsets of the mass error", starting=1.0)
    substructure_slope: float = parameter(
        -1.5, "power of the distribution of clump fractions f", "", (-3.0, -1.01), "lead", "estimate")
    substructure_min: float = parameter(
        0.03, "smallest clump fraction of the members", "", (0.005, 0.2), "lead", "estimate")
    substructure_max: float = parameter(
        0.40, "largest clump fraction of the members", "", (0.05, 0.6), "lead", "estimate")
    substructure_total_max: float = parameter(
        0.60, "largest sum of clump fractions", "", (0.05, 0.9), "lead", "estimate")
    substructure_radius: float = parameter(
        0.3, "clump radius is this x f^(1/3) R_vir", "", (0.05, 1.0), "lead", "estimate")
    outskirts_radius: float = parameter(
        3.0, "the profile of the halo ends here", "r200c", (1.5, 5.0), "pub",
        "range of the form of Diemer & Kravtsov 2014")
    outskirts_truncation: float = parameter(
        2.1, "the profile is multiplied by [1 + (r/(this r200c))^4]^-2", "r200c", (0.8, 6.0), "pub",
        "Diemer & Kravtsov 2014")
    outskirts_dispersion: float = parameter(
        1.0, "dispersion beyond R_vir over the Jeans solution there", "", (0.1, 1.5), "lead", "this project")
    outskirts_satellite_share: float = parameter(
        0.2,
        "share of the outskirts galaxies that are satellites of smaller haloes: paper mode keeps no other",
        "", (0.0, 1.0), "target",
        "beyond R_vir a subhalo finder calls a lone galaxy a central, which public mocks drop",
        target="contaminated scatter of log sigma_v", starting=1.0)
    outskirts_group_mass: float = parameter(
        1e12, "within the outskirts radius lighter haloes count as outskirts galaxies, not as neighbours",
        "Msun/h", (1e11, 1e14), "lead", "this project: no galaxy is counted twice")
    infall_amplitude: float = parameter(
        1.0, "factor of the mean infall velocity", "", (0.0, 2.0), "pub", "Yahil 1985, Shull 2014 form")
    infall_cap: float = parameter(
        0.9, "infall is capped at this x V200c (r/R200m)^-1/2", "V200c", (0.1, 2.0), "pub",
        "joins the virial region to linear infall")
    neighbour_min_mass: float = parameter(
        2e11, "haloes above this host satellites along the line of sight", "Msun/h", (1e11, 1e13), "numeric",
        "their satellites are negligible below, given the cut-off", starting=4e11)
    central_min_mass: float = parameter(
        1e11, "haloes above this have a central galaxy in survey mode", "Msun/h", (1e10, 1e12), "pub",
        "the mass-at-accretion cut of the satellites")
    neighbour_max_mass: float = parameter(
        3e15, "largest neighbour", "Msun/h", (1e14, 1e16), "numeric", "the mass function is negligible above")
    neighbour_velocity_scatter: float = parameter(
        280.0, "1-D scatter of the velocity of neighbouring haloes", "km/s", (0.0, 800.0), "lead", "estimate")
    infall_region_amplitude: float = parameter(
        2.5, "excess of neighbours this x b^power (r/5 R200m)^-slope exp(-(r/cut)^2)", "", (0.0, 10.0),
        "target", "form and amplitude 1-2.5 for matter: Diemer & Kravtsov 2014",
        target="contaminated scatter of log sigma_v; interloper fraction", starting=0.8)
    infall_region_bias_power: float = parameter(
        1.5, "that excess is proportional to (bias of the neighbour)^this", "", (0.0, 3.0), "target",
        "top-heavy mass function of dense regions", target="contaminated scatter of log sigma_v",
        starting=1.0)
    infall_region_slope: float = parameter(
        1.5, "slope of that excess", "", (0.5, 2.5), "pub", "Diemer & Kravtsov 2014 form")
    infall_region_cutoff: float = parameter(
        6.0, "cut-off radius of that excess", "Mpc/h", (1.0, 15.0), "lead", "estimate")
    exclusion: float = parameter(
        1.0, "no neighbour centre within this x the larger of the two R_vir", "", (0.0, 3.0), "lead",
        "estimate")
    line_of_sight_depth: float = parameter(
        45.0, "half length of the cylinder that holds neighbours", "Mpc/h", (40.0, 100.0), "numeric",
        "2500 km/s plus fast galaxies: more than 40")
    near_radius: float = parameter(
        8.0, "neighbours within this radius are drawn in the whole sphere", "Mpc/h", (5.0, 20.0), "numeric",
        "where lines of sight of one halo share neighbours")
    filament_share: float = parameter(
        0.5, "share of the near neighbours that lie in filaments", "", (0.0, 1.0), "lead", "Noh & Cohn 2012")
    filament_width: float = parameter(
        1.0, "1-D width of a filament", "Mpc/h", (0.1, 5.0), "lead", "this project")
    filament_alignment: float = parameter(
        0.5, "chance that a filament leaves along the major axis instead of anywhere", "", (0.0, 1.0), "lead",
        "White, Cohn & Smit 2010")
    filament_spread: float = parameter(
        0.35, "scatter about the major axis of an aligned filament", "radian", (0.0, 1.5), "lead",
        "this project")
    environment_scatter: float = parameter(
        0.3, "scatter of the excess of near neighbours from halo to halo", "sigma_ln", (0.0, 1.5), "lead",
        "this project")
    supercluster_share: float = parameter(
        0.6, "share of the far neighbours that come in superclusters", "", (0.0, 1.0), "lead", "this project")
    supercluster_density: float = parameter(
        1.5e-4, "number density of superclusters", "(Mpc/h)^-3", (1e-5, 1e-2), "lead",
        "integral of b^2 xi within 10 Mpc/h")
    supercluster_size: float = parameter(
        3.0, "1-D width of a supercluster", "Mpc/h", (0.5, 8.0), "lead", "this project")
    supercluster_velocity_share: float = parameter(
        0.5, "share of the variance of a neighbour's velocity common to its supercluster", "", (0.0, 1.0),
        "lead", "this project")
    luminosity_scatter: float = parameter(
        0.4, "scatter of the absolute magnitude at fixed accretion mass", "mag", (0.0, 1.0), "lead",
        "abundance matching")
    subhalo_mass_slope: float = parameter(
        -0.9, "cumulative number of satellites against accretion mass: power", "", (-1.5, -0.5), "pub",
        "subhalo mass functions")
    # fmt: on

    def __post_init__(self) -> None:
        for item in fields(self):
            info: ParameterInfo = item.metadata["info"]
            value = getattr(self, item.name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"mock parameter '{item.name}' is {value!r}; expected a number.")
            if not info.low <= value <= info.high:
                unit = f" {info.unit}" if info.unit else ""
                raise ValueError(
                    f"mock parameter '{item.name}' is {value!r}; expected {info.low:g} to "
                    f"{info.high:g}{unit}."
                )
            object.__setattr__(self, item.name, float(value))
        if self.substructure_min >= self.substructure_max:
            raise ValueError(
                f"mock parameter 'substructure_min' = {self.substructure_min:g} must be below "
                f"'substructure_max' = {self.substructure_max:g}."
            )

    def to_dict(self) -> dict[str, float]:
        """All values by name."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, float]) -> MockParameters:
        """Inverse of `to_dict`; absent names keep their default, an unknown one is an error."""
        return cls().replace(**values)

    @classmethod
    def preset(cls, name: str, changes: Mapping[str, float] | None = None) -> MockParameters:
        """A set of `PRESETS`, perhaps with some values changed.

        Raises:
            ValueError: for an unknown preset or name, or a value out of range.
        """
        if name not in PRESETS:
            raise ValueError(f"preset is {name!r}; expected one of {', '.join(PRESETS)}.")
        return cls().replace(**{**PRESETS[name], **(changes or {})})

    def replace(self, **changes: float) -> MockParameters:
        """A copy with some values changed.

        Raises:
            ValueError: for an unknown name, or a value out of range.
        """
        known = {item.name for item in fields(self)}
        for name in changes:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean '{near[0]}'?" if near else "see parameter_table()."
                raise ValueError(f"there is no mock parameter '{name}'; {hint}")
        return dataclasses.replace(self, **changes)


def parameter_table() -> list[tuple[str, float, ParameterInfo]]:
    """Name, default and `ParameterInfo` of every parameter, in order."""
    return [(item.name, float(item.default), item.metadata["info"]) for item in fields(MockParameters)]  # type: ignore[arg-type]

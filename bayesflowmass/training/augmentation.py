"""What observing does to the training clusters, drawn anew for each one each time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.common.arrays import BoolArray, FloatArray
from bayesflowmass.mocks import PRIORS
from bayesflowmass.selection import (
    aperture,
    central_losses,
    completeness,
    cylinder,
    fibre_collisions,
    magnitude_limit,
    miscentre,
    recentre_velocity,
    remove_interlopers,
    richness_limits,
    velocity_errors,
)

# A Gaussian tail beyond this many sigma is left out of the wider cylinder that errors scatter galaxies from.
TAIL = 4.5
RANGES = (
    ("magnitude_limit", -math.inf, math.inf),
    ("completeness", 0.0, 1.0),
    ("central_losses", 0.0, 1.0),
    ("fibre_collisions", 0.0, 600.0),
    ("velocity_error", 0.0, math.inf),
    ("aperture", 0.0, math.inf),
)
LEAST_RICHNESS = 10
# Written only where they say something, so that runs begun before they existed can go on.
LATER_FIELDS = ("completeness_log", "cleaning", "known", "fibre_collisions", "aperture")


@dataclass(frozen=True)
class Augmentation:
    """Random selection and errors, in the order in which observing applies them.

    Faint galaxies, those without a fibre and others are lost; the centre is misplaced; velocities get errors; the
    velocity centre is found again; interlopers are removed; the cylinder and the least richness are applied to what
    was measured; what is known about a cluster is chosen. Each cluster has its own limit, completeness and
    errors, uniform between the two numbers of a range; None leaves a step out.

    Args:
        magnitude_limit: faintest magnitude (M - 5 log10 h, or apparent); needs ``gal_abs_mag``.
        apparent: the limit is an apparent magnitude.
        fibre_collisions: no two galaxies are closer than this [arcsec].
        completeness: share of galaxies kept.
        completeness_log: that share is uniform in its logarithm.
        central_losses: share of galaxies lost at the centre, half of it at ``central_losses_scale``
            [comoving Mpc/h].
        velocity_error: standard deviation [km/s].
        miscentre_r: standard deviation of the centre along x and along y [comoving Mpc/h], or the two numbers
            between which that of each cluster lies.
        miscentre_v: standard deviation of the velocity centre [km/s], likewise.
        recentre: find the velocity centre again, as is done with data.
        cleaning: chance that the interlopers of a cluster are removed (`remove_interlopers`), about the
            velocity centre of its galaxies; cluster column ``cleaned``.
        aperture: radius of the observed field [comoving Mpc/h]; a field larger than the cylinder covers it.
        known: ``{column: chance}`` that a cluster's value of a column stays known; else ``mode`` becomes
            ``"mixed"`` and a number NaN. A parameter that each halo draws (`bayesflowmass.mocks.PRIORS`) stays
            as it is, and its column ``known_NAME`` holds the value or NaN.

    Raises:
        ValueError: if a range is not ordered or a number has no meaning.
    """

    magnitude_limit: tuple[float, float] | None = None
    apparent: bool = True
    completeness: tuple[float, float] | None = None
    central_losses: tuple[float, float] | None = None
    central_losses_scale: float = 0.1
    velocity_error: tuple[float, float] | None = None
    miscentre_r: float | tuple[float, float] = 0.0
    miscentre_v: float | tuple[float, float] = 0.0
    recentre: bool = False
    completeness_log: bool = False
    cleaning: float = 0.0
    known: Mapping[str, float] = field(default_factory=dict)
    fibre_collisions: tuple[float, float] | None = None
    aperture: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for name, bottom, top in RANGES:
            limits = getattr(self, name)
            if limits is None:
                continue
            low, high = (float(limit) for limit in limits)
            object.__setattr__(self, name, (low, high))
            if not (bottom <= low <= high <= top and math.isfinite(low) and math.isfinite(high)):
                raise ValueError(
                    f"augmentation: {name} is {[low, high]}; expected two numbers, the smaller first, from"
                    f" {bottom:g} to {top:g}."
                )
        for name in ("completeness", "aperture"):
            if (limits := getattr(self, name)) is not None and limits[0] == 0.0:
                raise ValueError(f"augmentation: {name} begins at 0; expected a number above 0.")
        for name in ("miscentre_r", "miscentre_v"):
            value = getattr(self, name)
            low, high = _limits(value)
            if not (math.isfinite(high) and 0.0 <= low <= high):
                raise ValueError(
                    f"augmentation: {name} is {value}; expected a number that is not negative, or two of them, the"
                    " smaller first."
                )
            if not isinstance(value, int | float):
                object.__setattr__(self, name, (low, high))
        for name, chance in (("cleaning", self.cleaning), *self.known.items()):
            if not 0.0 <= chance <= 1.0:
                raise ValueError(f"augmentation: {name} is {chance}; expected a share from 0 to 1.")

    def __bool__(self) -> bool:
        """Whether it changes anything."""
        return self != Augmentation()

    def margins(self) -> tuple[float, float]:
        """How much wider than the final cylinder a catalogue must be cut, (Mpc/h, km/s), for its edges to be
        right."""
        return TAIL * _limits(self.miscentre_r)[1], TAIL * _limits(self.miscentre_v)[1] + self._error_margin()

    def _error_margin(self) -> float:
        return TAIL * self.velocity_error[1] if self.velocity_error is not None else 0.0

    def apply(
        self,
        catalog: ClusterCatalog,
        rng: np.random.Generator,
        *,
        r_max: float | None = None,
        v_max: float | None = None,
        min_galaxies: int | None = None,
    ) -> ClusterCatalog:
        """The catalogue as it might be observed; clusters left with fewer than ``min_galaxies`` are not in
        it.

        Args:
            catalog: clusters, best cut wider than the final cylinder by :meth:`margins`.
            rng: drawn from in a fixed order.
            r_max, v_max: the final cylinder [comoving Mpc/h, km/s]; None takes what the catalogue records,
                and no cylinder where it records none.
            min_galaxies: None takes what the catalogue records, else 10.
        """
        known = catalog.metadata.selection
        r_max = known.get("r_max") if r_max is None else r_max
        v_max = known.get("v_max") if v_max is None else v_max
        least = int(known.get("min_galaxies") or LEAST_RICHNESS) if min_galaxies is None else min_galaxies
        n = len(catalog)
        if self.magnitude_limit is not None:
            faintest = rng.uniform(*self.magnitude_limit, n)
            catalog = magnitude_limit(catalog, faintest, apparent=self.apparent)
            if not self.apparent:
                catalog = catalog.with_columns(abs_mag_limit=faintest)
        if self.fibre_collisions is not None:
            catalog = fibre_collisions(catalog, rng.uniform(*self.fibre_collisions, n), rng)
        if self.completeness is not None:
            kept = rng.uniform(*self.completeness, n)
            if self.completeness_log:
                low, high = self.completeness
                if high > low:
                    kept = np.clip(low * (high / low) ** ((kept - low) / (high - low)), low, high)
            catalog = completeness(catalog, kept, rng)
        if self.central_losses is not None:
            lost = rng.uniform(*self.central_losses, n)
            catalog = central_losses(catalog, lost, self.central_losses_scale, rng)
        if _limits(self.miscentre_r)[1] > 0.0 or _limits(self.miscentre_v)[1] > 0.0:
            wide = None if v_max is None else v_max + self._error_margin()
            widths = (_drawn(self.miscentre_r, n, rng), _drawn(self.miscentre_v, n, rng))
            catalog = miscentre(catalog, *widths, rng, r_max=r_max, v_max=wide)
        if self.velocity_error is not None:
            catalog = velocity_errors(catalog, rng.uniform(*self.velocity_error, n), rng)
        if r_max is not None and v_max is not None:
            catalog = cylinder(catalog, r_max, v_max)
        if self.aperture is not None:
            catalog = aperture(catalog, np.minimum(rng.uniform(*self.aperture, n), r_max or math.inf))
        if self.recentre:
            catalog = recentre_velocity(catalog, v_max=v_max)
        if self.cleaning > 0.0:
            catalog = _partly_cleaned(catalog, rng.random(n) < self.cleaning, self.cleaning)
        catalog = richness_limits(catalog, least)
        for name, chance in self.known.items():
            catalog = _partly_known(catalog, name, rng.random(len(catalog)) < chance)
        return catalog

    def to_dict(self) -> dict[str, Any]:
        """JSON-able dictionary."""
        default = Augmentation()
        values = asdict(self) | {"known": dict(self.known)}
        for name in LATER_FIELDS:
            if getattr(self, name) == getattr(default, name):
                del values[name]
        return values


def _limits(value: float | tuple[float, float]) -> tuple[float, float]:
    low, high = (value, value) if isinstance(value, int | float) else value
    return float(low), float(high)


def _drawn(value: float | tuple[float, float], n: int, rng: np.random.Generator) -> float | FloatArray:
    return value if isinstance(value, int | float) else rng.uniform(*value, n)


def _partly_cleaned(catalog: ClusterCatalog, chosen: BoolArray, share: float) -> ClusterCatalog:
    """The same clusters, the chosen ones without what `remove_interlopers` takes for interlopers."""
    for axis in "xyv":
        if not catalog.has(f"offset_{axis}"):
            catalog = catalog.with_columns(**{f"offset_{axis}": np.zeros(len(catalog))})
    metadata = catalog.metadata.with_selection(cleaned_share=share)
    cleaned = remove_interlopers(recentre_velocity(catalog.filter(chosen))) if chosen.any() else catalog[:0]
    parts = [catalog.filter(~chosen), cleaned]
    order = np.argsort(np.concatenate([np.flatnonzero(~chosen), np.flatnonzero(chosen)]), kind="stable")
    joined = ClusterCatalog.concatenate(parts, metadata)[order]
    return joined.with_columns(cleaned=chosen)


def _partly_known(catalog: ClusterCatalog, name: str, known: BoolArray) -> ClusterCatalog:
    """The same clusters, a column of which only some values are known."""
    if not catalog.has(name):
        raise CatalogError(
            f"augmentation.known names the column '{name}', which the training clusters do not have; draw it"
            " (simulate.randomise, augmentation.velocity_error), or leave it out."
        )
    values = catalog.column(name)
    if values.dtype.kind == "U":
        return catalog.with_columns(**{name: np.where(known, values, "mixed")})
    told = np.where(known, values, np.nan)
    return catalog.with_columns(**{f"known_{name}" if name in PRIORS else name: told})

"""What observing does to the training clusters, drawn anew for each one each time."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.selection import (
    central_losses,
    completeness,
    cylinder,
    magnitude_limit,
    miscentre,
    recentre_velocity,
    richness_limits,
    velocity_errors,
)

__all__ = ["Augmentation"]

# A Gaussian tail beyond this many sigma is left out of the wider cylinder that errors scatter galaxies from.
TAIL = 4.5
RANGES = (
    ("magnitude_limit", -math.inf, math.inf),
    ("completeness", 0.0, 1.0),
    ("central_losses", 0.0, 1.0),
    ("velocity_error", 0.0, math.inf),
)
LEAST_RICHNESS = 10


@dataclass(frozen=True)
class Augmentation:
    """Random selection and errors, in the order in which observing applies them.

    Faint galaxies and others are lost; the centre is misplaced; velocities get errors; the velocity centre is
    found again; the cylinder and the least richness are applied to what was measured. Each cluster has its
    own limit, completeness and error, uniform between the two numbers of a range; None leaves a step out.

    Arguments:
        magnitude_limit: faintest magnitude (M - 5 log10 h, or apparent); needs ``gal_abs_mag``.
        apparent: the limit is an apparent magnitude.
        completeness: share of galaxies kept.
        central_losses: share of galaxies lost at the centre, half of it at ``central_losses_scale``
            [comoving Mpc/h].
        velocity_error: standard deviation [km/s].
        miscentre_r: standard deviation of the centre along x and along y [comoving Mpc/h].
        miscentre_v: standard deviation of the velocity centre [km/s].
        recentre: find the velocity centre again, as is done with data.

    Raises:
        ValueError: if a range is not ordered or a number has no meaning.
    """

    magnitude_limit: tuple[float, float] | None = None
    apparent: bool = True
    completeness: tuple[float, float] | None = None
    central_losses: tuple[float, float] | None = None
    central_losses_scale: float = 0.1
    velocity_error: tuple[float, float] | None = None
    miscentre_r: float = 0.0
    miscentre_v: float = 0.0
    recentre: bool = False

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
        if self.completeness is not None and self.completeness[0] == 0.0:
            raise ValueError("augmentation: completeness begins at 0; expected a share above 0.")
        for name in ("miscentre_r", "miscentre_v"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0.0):
                raise ValueError(f"augmentation: {name} is {value}; expected a number that is not negative.")

    def __bool__(self) -> bool:
        """Whether it changes anything."""
        return self != Augmentation()

    def margins(self) -> tuple[float, float]:
        """How much wider than the final cylinder a catalogue must be cut, (Mpc/h, km/s), for its edges to be
        right."""
        return TAIL * self.miscentre_r, TAIL * self.miscentre_v + self._error_margin()

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

        Arguments:
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
            catalog = magnitude_limit(catalog, rng.uniform(*self.magnitude_limit, n), apparent=self.apparent)
        if self.completeness is not None:
            catalog = completeness(catalog, rng.uniform(*self.completeness, n), rng)
        if self.central_losses is not None:
            lost = rng.uniform(*self.central_losses, n)
            catalog = central_losses(catalog, lost, self.central_losses_scale, rng)
        if self.miscentre_r > 0.0 or self.miscentre_v > 0.0:
            wide = None if v_max is None else v_max + self._error_margin()
            catalog = miscentre(catalog, self.miscentre_r, self.miscentre_v, rng, r_max=r_max, v_max=wide)
        if self.velocity_error is not None:
            catalog = velocity_errors(catalog, rng.uniform(*self.velocity_error, n), rng)
        if r_max is not None and v_max is not None:
            catalog = cylinder(catalog, r_max, v_max)
        if self.recentre:
            catalog = recentre_velocity(catalog, v_max=v_max)
        return richness_limits(catalog, least)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able dictionary."""
        return asdict(self)

"""What observing does to the training clusters, drawn anew for each one each time."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.selection import (
    completeness,
    cylinder,
    miscentre,
    recentre_velocity,
    richness_limits,
    velocity_errors,
)

__all__ = ["Augmentation"]

# A Gaussian tail beyond this many sigma is left out of the wider cylinder that errors scatter galaxies from.
TAIL = 4.0


@dataclass(frozen=True)
class Augmentation:
    """Random selection and errors, in the order in which observing applies them.

    Galaxies are lost; the centre is misplaced; velocities get errors; the velocity centre is found again; the
    cylinder and the least richness are applied to what was measured. Each cluster has its own completeness
    and error.

    Arguments:
        completeness: share of galaxies kept, uniform between the two numbers; None keeps all.
        velocity_error: standard deviation [km/s], uniform between the two numbers; None adds none.
        miscentre_r: standard deviation of the centre along x and along y [comoving Mpc/h].
        miscentre_v: standard deviation of the velocity centre [km/s].
        recentre: find the velocity centre again, as is done with data.

    Raises:
        ValueError: if a range is not ordered or a number has no meaning.
    """

    completeness: tuple[float, float] | None = None
    velocity_error: tuple[float, float] | None = None
    miscentre_r: float = 0.0
    miscentre_v: float = 0.0
    recentre: bool = False

    def __post_init__(self) -> None:
        for name, top in (("completeness", 1.0), ("velocity_error", math.inf)):
            limits = getattr(self, name)
            if limits is not None and not (0.0 <= limits[0] <= limits[1] <= top and math.isfinite(limits[1])):
                raise ValueError(
                    f"augmentation: {name} is {list(limits)}; expected two numbers, the smaller first,"
                    f" from 0 to {top:g}."
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
        error = self.velocity_error[1] if self.velocity_error is not None else 0.0
        return TAIL * math.sqrt(2.0) * self.miscentre_r, TAIL * math.hypot(self.miscentre_v, error)

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
            r_max, v_max: the final cylinder [comoving Mpc/h, km/s]; None takes what the catalogue records.
            min_galaxies: None takes what the catalogue records.

        Raises:
            CatalogError: if neither the arguments nor the catalogue know the cylinder or the least richness.
        """
        known = catalog.metadata.selection
        r_max = _known("r_max", r_max, known)
        v_max = _known("v_max", v_max, known)
        least = int(_known("min_galaxies", min_galaxies, known))
        if self.completeness is not None:
            catalog = completeness(catalog, rng.uniform(*self.completeness, len(catalog)), rng)
        if self.miscentre_r > 0.0 or self.miscentre_v > 0.0:
            wide_r, wide_v = self.margins()
            catalog = miscentre(
                catalog, self.miscentre_r, self.miscentre_v, rng, r_max=r_max + wide_r, v_max=v_max + wide_v
            )
        if self.velocity_error is not None:
            catalog = velocity_errors(catalog, rng.uniform(*self.velocity_error, len(catalog)), rng)
        catalog = cylinder(catalog, r_max, v_max)
        if self.recentre:
            catalog = recentre_velocity(catalog, v_max=v_max)
        return richness_limits(catalog, least)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able dictionary."""
        return asdict(self)


def _known(name: str, value: float | None, recorded: dict[str, Any]) -> float:
    found = recorded.get(name) if value is None else value
    if found is None:
        raise CatalogError(
            f"Augmentation needs {name}, which the catalogue does not record; cut it with"
            " bayesflowmass.selection first."
        )
    return float(found)

"""Other haloes around the clusters: what near and far surroundings have in common."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayesflowmass.common.arrays import BoolArray, FloatArray, IntArray
from bayesflowmass.cosmology import Cosmology, radius_delta
from bayesflowmass.mocks.halos import Halos
from bayesflowmass.mocks.rows import Rows


@dataclass(frozen=True)
class Neighbours(Rows):
    """Haloes around clusters.

    Attributes:
        halo: (n,) index of the cluster in the batch.
        position: (3, n) from the cluster [comoving Mpc/h], in the frame of its axes.
        velocity: (3, n) peculiar velocity relative to the cluster [km/s].
        log10_mass: (n,) log10 M200c [Msun/h].
    """

    halo: IntArray
    position: FloatArray
    velocity: FloatArray
    log10_mass: FloatArray


@dataclass(frozen=True)
class Sightlines:
    """Directions from which each halo is seen, in the frame of its axes.

    Attributes:
        x, y, z: (n_halos, n_projections, 3) orthonormal; z points away from the observer.
    """

    x: FloatArray
    y: FloatArray
    z: FloatArray

    @property
    def n_projections(self) -> int:
        """Lines of sight of each halo."""
        return int(self.z.shape[1])

    def offset(self, halo: IntArray, position: FloatArray, projection: int) -> FloatArray:
        """Distance (n,) of positions (3, n) from a line of sight."""
        z = self.z[halo, projection].T
        along = (position * z).sum(axis=0)
        return np.asarray(np.sqrt(np.maximum((position**2).sum(axis=0) - along**2, 0.0)))

    def seen_before(
        self, halo: IntArray, position: FloatArray, projection: IntArray, radius: float
    ) -> BoolArray:
        """Whether a position drawn for one line of sight lies in the cylinder of an earlier one.

        Haloes far away are drawn cylinder by cylinder; dropping these leaves each point of the union of the
        cylinders with its density once, and the same haloes in every cylinder that holds them.
        """
        seen = np.zeros(halo.size, dtype=bool)
        for j in range(self.n_projections - 1):
            later = np.flatnonzero((projection > j) & ~seen)
            seen[later] = self.offset(halo[later], position[:, later], j) < radius
        return seen

    def in_any(self, halo: IntArray, position: FloatArray, radius: FloatArray) -> BoolArray:
        """Whether positions lie within ``radius`` (n,) of at least one line of sight."""
        inside = np.zeros(halo.size, dtype=bool)
        for j in range(self.n_projections):
            rest = np.flatnonzero(~inside)
            inside[rest] = self.offset(halo[rest], position[:, rest], j) < radius[rest]
        return inside

    def to_frame(self, halo: IntArray, projection: IntArray, sky: FloatArray) -> FloatArray:
        """Positions (3, n) in the halo's frame from (x, y, along the line of sight)."""
        return np.asarray(
            sky[0] * self.x[halo, projection].T
            + sky[1] * self.y[halo, projection].T
            + sky[2] * self.z[halo, projection].T
        )


def virial_radius(log10_mass: FloatArray, halo: IntArray, halos: Halos, cosmology: Cosmology) -> FloatArray:
    """R_vir [comoving Mpc/h] with M_vir taken as 1.2 M200c: for cuts, not for structure."""
    return radius_delta(log10_mass + np.log10(1.2), halos.redshift[halo], "vir", cosmology=cosmology)

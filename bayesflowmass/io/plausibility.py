"""Numbers that are finite but cannot be what their column says: other units, other frames."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesflowmass.catalog import CatalogError
from bayesflowmass.catalog.arrays import offsets_from_counts, segment_median
from bayesflowmass.common.arrays import FloatArray, IntArray

__all__ = [
    "check_not_radians",
    "check_positions_meet",
    "check_radius",
    "check_redshifts",
    "check_same_radius",
    "check_same_velocity",
    "check_velocities",
]

MAX_REDSHIFT = 3.0


def check_redshifts(z: FloatArray, what: str, *, lowest: float) -> None:
    """Refuse a negative or absurd redshift; ``what`` names the column, and rows count from 1.

    Raises:
        CatalogError: naming the first row at fault.
    """
    bad = (z < lowest) | (z > MAX_REDSHIFT)
    if not bad.any():
        return
    row = int(np.argmax(bad))
    if np.median(z) > MAX_REDSHIFT:
        raise CatalogError(
            f"{what} in row {row + 1} is {z[row]:g}, which looks like cz in km/s; expected a redshift in "
            f"[{lowest:g}, {MAX_REDSHIFT:g}]: name such a column of galaxies cz, or divide it by 299792.458."
        )
    raise CatalogError(
        f"{what} in row {row + 1} is {z[row]:g}; expected a redshift in [{lowest:g}, {MAX_REDSHIFT:g}]."
    )


def check_velocities(v_los: FloatArray, ids: NDArray[Any], counts: IntArray, where: str) -> None:
    """Refuse rest-frame velocities that are cz, m/s, or multiples of c.

    Medians over galaxies and clusters decide, so that interlopers and a few odd clusters do not.

    Args:
        v_los: flat, cluster after cluster [km/s].
        ids, counts: of the clusters (n,).

    Raises:
        CatalogError: saying which of them it looks like.
    """
    offsets = offsets_from_counts(counts)
    several = counts >= 3
    if not several.any():
        return
    centre = segment_median(v_los, offsets)
    spread = 1.4826 * segment_median(np.abs(v_los - np.repeat(centre, counts)), offsets)
    centre, spread, names = centre[several], spread[several], ids[several]
    typical = float(np.median(spread))
    if typical > 5000.0:
        raise CatalogError(
            f"{where}: the velocities of a typical cluster scatter by {typical:.0f}, as those in m/s do; "
            "expected km/s: declare the unit of the column or divide it by 1000."
        )
    if np.any(spread > 0.0) and typical < 20.0:
        raise CatalogError(
            f"{where}: the velocities of a typical cluster scatter by {typical:.2g} km/s, which no cluster "
            "does; expected rest-frame velocities in km/s, not redshifts or multiples of c."
        )
    far = np.abs(centre) > np.maximum(2000.0, 3.0 * spread)
    if far.any():
        row = int(np.argmax(far))
        raise CatalogError(
            f"{where}: the median velocity of cluster {names[row]} is {centre[row]:.0f} km/s, far from 0, "
            "as cz is; expected c (z - z_cl)/(1 + z_cl): give ra, dec and cz instead and it is computed."
        )


def check_radius(radius: FloatArray, where: str) -> None:
    """Refuse radii of hundreds, which are kpc.

    Raises:
        CatalogError: if the median is beyond any cluster.
    """
    typical = float(np.median(radius)) if radius.size else 0.0
    if typical > 20.0:
        raise CatalogError(
            f"{where}: the typical distance from the centre is {typical:.0f}, as in kpc; expected comoving "
            "Mpc/h: declare the unit of the column, such as 'proper kpc', and it is converted."
        )


def check_not_radians(ra: FloatArray, dec: FloatArray, where: str) -> None:
    """Refuse coordinates without a declared unit that could all be radians.

    Raises:
        CatalogError: if every one of ten or more lies in the range of radians.
    """
    if ra.size >= 10 and _like_radians(ra, dec):
        raise CatalogError(
            f"{where}: every ra is within 2 pi and every dec within pi/2, as in radians; expected degrees: "
            "declare the unit (rad, or deg if this is right) of the columns ra and dec."
        )


def check_positions_meet(
    radius: FloatArray, ra: FloatArray, dec: FloatArray, where: str, centres: str
) -> None:
    """Refuse galaxies that lie nowhere near their clusters, or all but on top of them.

    Raises:
        CatalogError: if the typical distance [Mpc/h] is beyond any cluster, or 1/57 of what it should be.
    """
    typical = float(np.median(radius)) if radius.size else 1.0
    if typical > 50.0:
        raise CatalogError(
            f"{where}: galaxies lie {typical:.0f} Mpc/h from the centres in {centres}, typically; expected "
            "ra and dec of both in degrees (not hours or radians), and the ids of the same clusters."
        )
    if typical < 0.06 and _like_radians(ra, dec):
        raise CatalogError(
            f"{where}: galaxies lie {typical:.2g} Mpc/h from the centres in {centres}, typically, too near "
            "by the factor of 57 that radians taken for degrees give; declare the unit of the columns ra "
            "and dec."
        )


def check_same_radius(given: FloatArray, computed: FloatArray, z: FloatArray, h: float, where: str) -> None:
    """Compare given radii with those from ra, dec and z, and say what they are where they differ.

    Raises:
        CatalogError: if another reading fits the radii better than comoving Mpc/h, or none fits.
    """
    usable = (computed > 0.05) & (given > 0.0)
    if not usable.any():
        return
    ratio = given[usable] / computed[usable]
    one_plus_z = 1.0 + z[usable]
    readings = {
        "comoving Mpc/h": np.ones_like(one_plus_z),
        "proper Mpc/h": 1.0 / one_plus_z,
        "comoving Mpc": np.full_like(one_plus_z, 1.0 / h),
        "proper Mpc": 1.0 / (one_plus_z * h),
        "proper kpc": 1000.0 / (one_plus_z * h),
        "proper kpc/h": 1000.0 / one_plus_z,
        "comoving kpc/h": np.full_like(one_plus_z, 1000.0),
    }
    misfit = {name: float(np.median(np.abs(np.log(ratio / expected)))) for name, expected in readings.items()}
    best = min(misfit, key=lambda name: misfit[name])
    typical = float(np.median(ratio))
    if best == "comoving Mpc/h" and misfit[best] < 0.1:
        return
    verdict = f"it looks {best}" if misfit[best] < 0.03 else "it fits no unit we know"
    raise CatalogError(
        f"{where}: the radius given is {typical:.3f} of the comoving one from ra, dec and z, so {verdict}, "
        "and comoving Mpc/h is expected: leave the column out, since radii are computed from ra, dec and z."
    )


def check_same_velocity(given: FloatArray, computed: FloatArray, where: str) -> None:
    """Compare given velocities with those from the redshifts.

    Raises:
        CatalogError: if the typical difference exceeds 100 km/s.
    """
    difference = float(np.median(np.abs(given - computed))) if given.size else 0.0
    if difference > 100.0:
        raise CatalogError(
            f"{where}: v_los differs from c (z - z_cl)/(1 + z_cl) by {difference:.0f} km/s typically; "
            "leave the column out, since velocities are computed from the redshifts, or correct the "
            "redshifts of the clusters."
        )


def _like_radians(ra: FloatArray, dec: FloatArray) -> bool:
    return bool(np.all(np.abs(ra) <= 2.0 * np.pi) and np.all(np.abs(dec) <= 0.5 * np.pi))

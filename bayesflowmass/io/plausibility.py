"""Numbers that are finite but cannot be what their column says: other units, other frames."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesflowmass.catalog import CatalogError
from bayesflowmass.catalog.arrays import offsets_from_counts, segment_median
from bayesflowmass.catalog.ranges import RANGES
from bayesflowmass.common.arrays import FloatArray, IntArray
from bayesflowmass.cosmology import SPEED_OF_LIGHT, Cosmology, transverse_mpc_h_per_radian

_USUAL_COSMOLOGIES = tuple(
    (Cosmology(Om0=om, h=h0 / 100.0), f" of H0 = {h0:g}, Om = {om:g}")
    for h0, om in ((70.0, 0.3), (67.4, 0.315), (73.0, 0.27), (50.0, 1.0), (75.0, 0.3))
)


def check_redshifts(z: FloatArray, name: str, where: str) -> None:
    """Refuse redshifts of a column when a typical one cannot be; NaN is none.

    Args:
        z: (n,).
        name: of the column in `bayesflowmass.catalog.ranges.RANGES`.
        where: names the column; rows count from 1.
    """
    limits = RANGES[name]
    bad = ~limits.holds(z) & ~np.isnan(z)
    if not bad.any():
        return
    row = int(np.argmax(bad))
    found = f"{where} in row {row + 1} is {z[row]:g}"
    typical = float(np.nanmedian(z))
    expected = f"expected a redshift in [{limits.low:g}, {limits.high:g}]"
    if typical > 100.0:
        raise CatalogError(
            f"{found}, which looks like cz in km/s; {expected}: name such a column of galaxies cz, or divide it by "
            "299792.458."
        )
    if typical > limits.high:
        raise CatalogError(
            f"{found}, which looks like a magnitude; {expected}: say which column it is with --column z=THEIRS."
        )
    raise CatalogError(f"{found}; {expected}.")


def check_velocities(v_los: FloatArray, ids: NDArray[Any], counts: IntArray, where: str) -> None:
    """Refuse rest-frame velocities that are cz, m/s, or multiples of c.

    Medians over galaxies and clusters decide, so that interlopers and a few odd clusters do not.

    Args:
        v_los: flat, cluster after cluster [km/s].
        ids, counts: of the clusters (n,).
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
    """Refuse radii of hundreds, which are kpc."""
    typical = float(np.median(radius)) if radius.size else 0.0
    if typical > 20.0:
        raise CatalogError(
            f"{where}: the typical distance from the centre is {typical:.0f}, as in kpc; expected comoving "
            "Mpc/h: declare the unit of the column, such as 'proper kpc', and it is converted."
        )


def check_not_radians(ra: FloatArray, dec: FloatArray, where: str) -> None:
    """Refuse coordinates without a declared unit that could all be radians."""
    if ra.size >= 10 and _like_radians(ra, dec):
        raise CatalogError(
            f"{where}: every ra is within 2 pi and every dec within pi/2, as in radians; expected degrees: "
            "declare the unit (rad, or deg if this is right) of the columns ra and dec."
        )


def check_positions_meet(
    radius: FloatArray, ra: FloatArray, dec: FloatArray, where: str, centres: str, declared: bool
) -> None:
    """Refuse galaxies that lie nowhere near their clusters, or all but on top of them.

    Args:
        radius: comoving Mpc/h (n,).
        ra, dec: degrees (n,).
        where, centres: name the tables.
        declared: a unit of the coordinates, so that they are no radians.
    """
    typical = float(np.median(radius)) if radius.size else 1.0
    if typical > 50.0:
        raise CatalogError(
            f"{where}: galaxies lie {typical:.0f} Mpc/h from the centres in {centres}, typically; expected "
            "ra and dec of both in degrees (not hours or radians), and the ids of the same clusters."
        )
    if not declared and typical < 0.06 and _like_radians(ra, dec):
        raise CatalogError(
            f"{where}: galaxies lie {typical:.2g} Mpc/h from the centres in {centres}, typically, too near "
            "by the factor of 57 that radians taken for degrees give; declare the unit of the columns ra "
            "and dec."
        )


def radius_reading(
    given: FloatArray, computed: FloatArray, z: FloatArray, ours: Cosmology, where: str
) -> str | None:
    """What given radii are, told from those of ra, dec and z; None where they are comoving Mpc/h of our cosmology.

    Args:
        given: as the table has them (n,).
        computed: comoving Mpc/h (n,).
        z: of the clusters (n,).
        ours: cosmology of the computed radii.
        where: names the table and the columns.
    """
    usable = (computed > 0.05) & (given > 0.0)
    if not usable.any():
        return None
    ratio = given[usable] / computed[usable]
    one_plus_z = 1.0 + z[usable]
    ours_per_radian = transverse_mpc_h_per_radian(z[usable], ours)
    readings: dict[str, FloatArray] = {}
    for made_with, name in ((ours, ""), *_USUAL_COSMOLOGIES):
        scale = transverse_mpc_h_per_radian(z[usable], made_with) / ours_per_radian
        readings |= {
            f"comoving Mpc/h{name}": scale,
            f"proper Mpc/h{name}": scale / one_plus_z,
            f"comoving Mpc{name}": scale / made_with.h,
            f"proper Mpc{name}": scale / (one_plus_z * made_with.h),
            f"proper kpc{name}": 1000.0 * scale / (one_plus_z * made_with.h),
            f"comoving kpc{name}": 1000.0 * scale / made_with.h,
            f"proper kpc/h{name}": 1000.0 * scale / one_plus_z,
            f"comoving kpc/h{name}": 1000.0 * scale,
        }
    readings |= {
        "degrees": np.degrees(1.0) / ours_per_radian,
        "arcmin": 60.0 * np.degrees(1.0) / ours_per_radian,
        "arcsec": 3600.0 * np.degrees(1.0) / ours_per_radian,
    }
    misfit = {name: float(np.median(np.abs(np.log(ratio / expected)))) for name, expected in readings.items()}
    if misfit["comoving Mpc/h"] < 0.01:
        return None
    best: str = min(misfit, key=lambda name: misfit[name])
    if misfit[best] < 0.03:
        return best
    if misfit["comoving Mpc/h"] < 0.1:
        return None
    raise CatalogError(
        f"{where}, read as the distance from the centre, is {float(np.median(ratio)):.3f} times the comoving one from "
        "ra, dec and z, so it fits no unit we know: correct the centres of the clusters, or take the column out of the "
        "table if it is something else, since radii are computed from ra, dec and z."
    )


def velocity_reading(given: FloatArray, computed: FloatArray, z: FloatArray, where: str) -> str | None:
    """What given velocities are, told from the redshifts; None where they are those of the rest frame.

    Args:
        given, computed: km/s (n,); NaN is none.
        z: redshifts of the galaxies (n,).
        where: names the table.
    """
    known = np.isfinite(given)
    if not known.any():
        return None
    difference = float(np.median(np.abs(given - computed)[known]))
    if difference <= 100.0:
        return None
    if float(np.median(np.abs(given - SPEED_OF_LIGHT * z)[known])) <= 100.0:
        return "cz"
    raise CatalogError(
        f"{where}: v_los differs from c (z - z_cl)/(1 + z_cl) by {difference:.0f} km/s typically; "
        "leave the column out, since velocities are computed from the redshifts, or correct the "
        "redshifts of the clusters."
    )


def _like_radians(ra: FloatArray, dec: FloatArray) -> bool:
    return bool(np.all(np.abs(ra) <= 2.0 * np.pi) and np.all(np.abs(dec) <= 0.5 * np.pi))

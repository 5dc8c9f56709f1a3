"""Cuts: the observed cylinder, magnitudes, richness."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.cosmology import comoving_distance
from bayesflowmass.selection.record import check_positive, per_cluster, record, recordable

R_MAX = 1.6
"""Radius of the cylinder of Kodi Ramanah et al. (2020) [comoving Mpc/h]: the default wherever there is one."""
V_MAX = 2500.0
"""Half of its depth [km/s]."""


def cylinder(catalog: ClusterCatalog, r_max: float = R_MAX, v_max: float = V_MAX) -> ClusterCatalog:
    """Galaxies with R < r_max [comoving Mpc/h] and |v_los| < v_max [km/s].

    Records ``r_max`` and ``v_max``; where the catalogue was cut more tightly before, the tighter value stays.

    Raises:
        CatalogError: if a limit is not positive.
    """
    check_positive("r_max", r_max)
    check_positive("v_max", v_max)
    x, y = catalog.galaxies("x"), catalog.galaxies("y")
    inside = (x * x + y * y < r_max * r_max) & (np.abs(catalog.galaxies("v_los")) < v_max)
    before = catalog.metadata.selection
    return record(
        catalog.filter_galaxies(inside),
        r_max=min(float(r_max), before.get("r_max") or np.inf),
        v_max=min(float(v_max), before.get("v_max") or np.inf),
    )


def aperture(catalog: ClusterCatalog, radius: ArrayLike) -> ClusterCatalog:
    """Galaxies in the observed field of each cluster, R < radius.

    Records ``aperture`` (a range where it varies) and the cluster column ``aperture``.

    Args:
        radius: [comoving Mpc/h], one number or one per cluster; NaN keeps all, since the field is not known.
    """
    limit = np.array(np.broadcast_to(np.asarray(radius, dtype=np.float64), (len(catalog),)))
    if np.any(limit <= 0.0):
        raise CatalogError(
            f"aperture is {limit[limit <= 0.0][0]:g}; expected a radius above 0 comoving Mpc/h."
        )
    outside = catalog.r_proj >= np.repeat(limit, catalog.n_galaxies)
    kept = catalog.filter_galaxies(~outside).with_columns(aperture=limit)
    return record(kept, aperture=recordable(limit[np.isfinite(limit)]))


def magnitude_limit(catalog: ClusterCatalog, limit: ArrayLike, *, apparent: bool = False) -> ClusterCatalog:
    """Galaxies brighter than a limit in ``gal_abs_mag`` (M - 5 log10 h).

    Args:
        limit: faintest magnitude, one number or one per cluster.
        apparent: the limit is an apparent magnitude m of a flux-limited survey, and the absolute limit
            follows from M - 5 log10 h = m - 25 - 5 log10(D_L / (Mpc/h)) at the redshift of each cluster,
            without K correction.

    Records ``magnitude_limit`` (the absolute one; a range where it varies).

    Raises:
        CatalogError: if there are no magnitudes, or some of them are not finite.
    """
    faintest = per_cluster(catalog, "magnitude limit", limit)
    if not catalog.has("gal_abs_mag"):
        raise CatalogError(
            "a magnitude limit needs the galaxy column gal_abs_mag, which the catalogue does not have."
        )
    magnitude = catalog.galaxies("gal_abs_mag")
    if not np.all(np.isfinite(magnitude)):
        raise CatalogError("a magnitude limit needs finite gal_abs_mag for every galaxy.")
    if apparent:
        redshift = catalog.column("redshift")
        if not np.all(redshift > 0.0):
            raise CatalogError("an apparent magnitude limit needs redshifts above 0.")
        luminosity_distance = comoving_distance(redshift, catalog.metadata.cosmology) * (1.0 + redshift)
        faintest = faintest - 25.0 - 5.0 * np.log10(luminosity_distance)
    kept = catalog.filter_galaxies(magnitude < np.repeat(faintest, catalog.n_galaxies))
    return record(kept, magnitude_limit=recordable(faintest))


def richness_limits(catalog: ClusterCatalog, minimum: int = 10, maximum: int | None = None) -> ClusterCatalog:
    """Clusters with ``minimum <= n_galaxies <= maximum``; records ``min_galaxies`` and ``max_galaxies``.

    Raises:
        CatalogError: if the limits contradict each other.
    """
    if minimum < 0 or (maximum is not None and maximum < minimum):
        raise CatalogError(f"richness limits {minimum} and {maximum}: expected 0 <= minimum <= maximum.")
    counts = catalog.n_galaxies
    keep = counts >= minimum
    if maximum is not None:
        keep &= counts <= maximum
    before = catalog.metadata.selection
    highest = [value for value in (maximum, before.get("max_galaxies")) if value is not None]
    return record(
        catalog.filter(keep),
        min_galaxies=max(int(minimum), before.get("min_galaxies") or 0),
        max_galaxies=min(highest) if highest else None,
    )

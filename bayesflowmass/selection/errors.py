"""Errors of measurement: of velocities, and of where the centre is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.cosmology import SPEED_OF_LIGHT
from bayesflowmass.selection.cuts import cylinder
from bayesflowmass.selection.record import generator, per_cluster, record, recordable


def velocity_errors(
    catalog: ClusterCatalog, sigma: ArrayLike, seed: int | np.random.Generator
) -> ClusterCatalog:
    """Add Gaussian noise to ``v_los``.

    Args:
        sigma: standard deviation [km/s, rest frame]: one number, one per cluster (n,), or one per galaxy,
            flat.

    The error is stored, added in quadrature to one that is there: per galaxy in ``gal_v_err``, else in the
    cluster column ``sigma_v_err``. Records ``velocity_error`` (a range where it varies). The cylinder is
    **not** applied again, as a survey cuts on what it measures: call `cylinder` after this.

    Raises:
        CatalogError: if an error is negative or not finite, or has another shape.
    """
    width = np.asarray(sigma, dtype=np.float64)
    by_galaxy = width.ndim == 1 and width.size != len(catalog)
    if by_galaxy and width.size != catalog.n_galaxies_total:
        raise CatalogError(
            f"sigma has {width.size} values; expected 1, {len(catalog)} (clusters) or "
            f"{catalog.n_galaxies_total} (galaxies)."
        )
    if not np.all(np.isfinite(width) & (width >= 0.0)):
        raise CatalogError("velocity errors must be finite and not negative.")
    name = "gal_v_err" if by_galaxy else "sigma_v_err"
    before = catalog.galaxies if by_galaxy else catalog.column
    spread = width if by_galaxy else per_cluster(catalog, "sigma", width)
    total = np.hypot(spread, before(name)) if catalog.has(name) else spread
    each = spread if by_galaxy else np.repeat(spread, catalog.n_galaxies)
    noise = generator(seed, "velocity_errors").standard_normal(catalog.n_galaxies_total) * each
    noisy = _moved(catalog, "v_los", noise)
    noisy = noisy.with_galaxies(gal_v_err=total) if by_galaxy else noisy.with_columns(sigma_v_err=total)
    return record(noisy, seed, velocity_error=recordable(total))


def miscentre(
    catalog: ClusterCatalog,
    sigma_r: ArrayLike,
    sigma_v: ArrayLike,
    seed: int | np.random.Generator,
    *,
    r_max: float | None = None,
    v_max: float | None = None,
) -> ClusterCatalog:
    """Move the assumed centre of each cluster, in position and velocity, and cut the cylinder again.

    The centre moves by a two-dimensional Gaussian, ``sigma_r`` along each axis, and by a Gaussian of
    ``sigma_v``; the offsets (assumed minus true centre) are kept in the cluster columns ``offset_x``,
    ``offset_y``, ``offset_v``. A centre moved by u changes a rest-frame velocity to (v - u) / (1 + u/c).

    The new cylinder reaches beyond the old one. **It is exact only for a catalogue cut more widely than
    (r_max, v_max)**, by about four sigma, before; otherwise the moved side of it is empty.
    ``miscentre_exact`` records which of the two it was.

    Args:
        sigma_r: comoving Mpc/h, one number or one per cluster.
        sigma_v: km/s, one number or one per cluster.
        r_max, v_max: of the new cylinder; None takes what the catalogue records, and no cut where it records
            none.

    Raises:
        CatalogError: if a sigma is negative, not finite or of another shape.
    """
    width_r = per_cluster(catalog, "sigma_r", sigma_r)
    width_v = per_cluster(catalog, "sigma_v", sigma_v)
    if np.any(width_r < 0.0) or np.any(width_v < 0.0):
        raise CatalogError("mis-centring: sigma_r and sigma_v must not be negative.")
    draws = generator(seed, "miscentre").standard_normal((3, len(catalog)))
    offsets = {"x": draws[0] * width_r, "y": draws[1] * width_r, "v": draws[2] * width_v}
    before = catalog.metadata.selection
    moved = move_centre(catalog, offsets)
    moved = record(
        moved,
        seed,
        miscentre=[recordable(width_r), recordable(width_v)],
        miscentre_exact=_reaches(before.get("r_max"), r_max, width_r)
        and _reaches(before.get("v_max"), v_max, width_v),
    )
    return recut(moved, r_max, v_max)


def move_centre(catalog: ClusterCatalog, offsets: dict[str, FloatArray]) -> ClusterCatalog:
    """Subtract a new centre's ``x``, ``y``, ``v`` (n,) and add them to the columns ``offset_*``."""
    counts = catalog.n_galaxies
    for name, offset in offsets.items():
        each = np.repeat(offset, counts)
        if name == "v":
            rest_frame = (catalog.galaxies("v_los") - each) / (1.0 + each / SPEED_OF_LIGHT)
            catalog = _moved(catalog, "v_los", rest_frame - catalog.galaxies("v_los"))
        else:
            catalog = _moved(catalog, name, -each)
        column = f"offset_{name}"
        total = offset + catalog.column(column) if catalog.has(column) else offset
        catalog = catalog.with_columns(**{column: total})
    return catalog


def recut(catalog: ClusterCatalog, r_max: float | None, v_max: float | None) -> ClusterCatalog:
    """Apply a cylinder again: the given one, else the recorded one, else none."""
    before = catalog.metadata.selection
    radius = r_max if r_max is not None else before.get("r_max")
    velocity = v_max if v_max is not None else before.get("v_max")
    if radius is None and velocity is None:
        return catalog
    result = cylinder(catalog, radius or np.inf, velocity or np.inf)
    return record(result, r_max=radius, v_max=velocity)


def _reaches(before: Any, after: float | None, width: FloatArray) -> bool:
    largest = float(width.max(initial=0.0))
    if before is None or largest == 0.0:
        return True
    return after is not None and before >= after + 4.0 * largest


def _moved(catalog: ClusterCatalog, name: str, shift: FloatArray) -> ClusterCatalog:
    values = catalog.galaxies(name)
    return catalog.with_galaxies(**{name: (values + shift).astype(values.dtype)})

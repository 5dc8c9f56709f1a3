"""Finding the centre again from the galaxies: one function for mocks and for data, so that both err alike."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.catalog.arrays import segment_median, segment_sum
from bayesflowmass.common.arrays import BoolArray, FloatArray
from bayesflowmass.selection.errors import move_centre, recut
from bayesflowmass.selection.record import at_least, check_positive, record

_MAX_ITERATIONS = 60
_TOLERANCE_V, _TOLERANCE_R = 1.0, 0.005
"""km/s and comoving Mpc/h: a centre that moves by less rests."""
_MIN_GALAXIES = 5
_ROUNDS = 2


def recentre(
    catalog: ClusterCatalog,
    *,
    position: bool = True,
    velocity: bool = True,
    r_inner: float = 0.5,
    v_inner: float = 1000.0,
    r_max: float | None = None,
    v_max: float | None = None,
) -> ClusterCatalog:
    """Velocity centre and position in turns, since each needs the other; mocks and surveys alike.

    ``offset_x, offset_y, offset_v`` are there afterwards, whatever was found.

    Args:
        position, velocity: which of them to find.
        r_inner, v_inner: of `recentre_position`; comoving Mpc/h, km/s.
        r_max, v_max: of the cylinder that is cut around the new centre; None takes what is recorded.

    Raises:
        CatalogError: if an argument is not positive.
    """
    for axis in "xyv":
        if not catalog.has(f"offset_{axis}"):
            catalog = catalog.with_columns(**{f"offset_{axis}": np.zeros(len(catalog))})
    for _ in range(_ROUNDS):
        if velocity:
            catalog = recentre_velocity(catalog, v_max=v_max)
        if position:
            catalog = recentre_position(catalog, r_inner, v_inner, r_max=r_max)
    return catalog


def recentre_velocity(
    catalog: ClusterCatalog, r_inner: float = 0.8, *, v_max: float | None = None
) -> ClusterCatalog:
    """Put v_los = 0 at the velocity of the galaxies near the centre.

    It is the biweight location of the galaxies with R < r_inner (Beers, Flynn & Gebhardt 1990, AJ 100, 32):
    weights (1 - u^2)^2 for |u| < 1 with u = (v - centre) / (6 MAD), from the median on, iterated until the
    centre of every cluster moves by less than 1 km/s. A cluster with fewer than five such galaxies uses all it
    has; one with no galaxy stays as it is.

    The change is added to the cluster column ``offset_v``; velocities become (v - u)/(1 + u/c); the cut |v|
    < v_max (given, or recorded) is applied again. Records ``recentred``.

    Args:
        r_inner: comoving Mpc/h.

    Raises:
        CatalogError: if an argument is not positive.
    """
    check_positive("r_inner", r_inner)
    inner = at_least(catalog.r_proj < r_inner, catalog, _MIN_GALAXIES)
    velocity = catalog.galaxies("v_los").astype(np.float64)
    median = np.nan_to_num(segment_median(velocity, catalog.offsets, inner))
    moved = move_centre(catalog, {"v": _biweight(velocity, catalog, inner, median)})
    settings = {"velocity": "biweight", "r_inner": float(r_inner)}
    return recut(_recorded(moved, settings), None, v_max)


def recentre_position(
    catalog: ClusterCatalog, r_inner: float = 0.5, v_inner: float = 1000.0, *, r_max: float | None = None
) -> ClusterCatalog:
    """Put (x, y) = 0 at the centroid of the galaxies within r_inner of it and |v_los| < v_inner, iterated.

    Mean shift with a top hat, from the present centre on, without regard to luminosity. A cluster with fewer
    than five such galaxies stops moving. The change is added to ``offset_x`` and ``offset_y``,
    and the cut R < r_max (given, or recorded) is applied again. Records ``recentred``.

    Args:
        r_inner: comoving Mpc/h.
        v_inner: km/s.

    Raises:
        CatalogError: if an argument is not positive.
    """
    check_positive("r_inner", r_inner)
    check_positive("v_inner", v_inner)
    x, y = catalog.galaxies("x").astype(np.float64), catalog.galaxies("y").astype(np.float64)
    slow = np.abs(catalog.galaxies("v_los")) < v_inner
    centre = np.zeros((2, len(catalog)))
    counts = catalog.n_galaxies
    for _ in range(_MAX_ITERATIONS):
        dx, dy = x - np.repeat(centre[0], counts), y - np.repeat(centre[1], counts)
        near = (slow & (dx * dx + dy * dy < r_inner**2)).astype(np.float64)
        number = segment_sum(near, catalog.offsets)
        step = np.stack([segment_sum(near * dx, catalog.offsets), segment_sum(near * dy, catalog.offsets)])
        step *= (number >= _MIN_GALAXIES) / np.maximum(number, 1.0)
        centre += step
        if np.all(np.hypot(*step) < _TOLERANCE_R):
            break
    moved = move_centre(catalog, {"x": centre[0], "y": centre[1]})
    settings = {
        "position": "centroid",
        "position_r_inner": float(r_inner),
        "position_v_inner": float(v_inner),
    }
    return recut(_recorded(moved, settings), r_max, None)


def _biweight(
    velocity: FloatArray, catalog: ClusterCatalog, inner: BoolArray, median: FloatArray
) -> FloatArray:
    counts = catalog.n_galaxies
    deviation = segment_median(np.abs(velocity - np.repeat(median, counts)), catalog.offsets, inner)
    # A cluster without spread keeps its median.
    scale = np.where(deviation > 0.0, 6.0 * deviation, np.inf)
    each_scale = np.repeat(np.where(np.isfinite(scale), scale, 1.0), counts)
    centre = median.copy()
    for _ in range(_MAX_ITERATIONS):
        difference = velocity - np.repeat(centre, counts)
        u = difference / each_scale
        weight = np.where(inner & (np.abs(u) < 1.0), (1.0 - u * u) ** 2, 0.0)
        total = segment_sum(weight, catalog.offsets)
        step = segment_sum(weight * difference, catalog.offsets) / np.where(total > 0.0, total, 1.0)
        step[~np.isfinite(scale)] = 0.0
        centre += step
        if np.all(np.abs(step) < _TOLERANCE_V):
            break
    return centre


def _recorded(catalog: ClusterCatalog, settings: dict[str, Any]) -> ClusterCatalog:
    before = catalog.metadata.selection.get("recentred") or {}
    return record(catalog, recentred={**before, **settings})

"""Does a catalogue say of its own selection what the training set was? For the flags ``selection`` and ``richness``."""

from __future__ import annotations

import numpy as np

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.common.arrays import BoolArray, FloatArray
from bayesflowmass.encoders.columns import OptionalColumns
from bayesflowmass.estimator.cylinder import APERTURE_MARGIN
from bayesflowmass.estimator.training_info import TrainingInfo

COMPLETENESS_MARGIN = 0.02
MAGNITUDE_MARGIN = 0.5
# Velocity errors [km/s] below this change no mass: they add in quadrature to dispersions above 250 km/s.
VELOCITY_ERROR = 100.0


def selection_differs(catalog: ClusterCatalog, info: TrainingInfo) -> BoolArray:
    """Cylinder, observed part of it, completeness, magnitude limit or velocity errors outside those of training (n,).

    What is not said is not compared. Velocity errors are those of the clusters, or the root mean square of their
    galaxies', as the encoder takes them.
    """
    ours, theirs = catalog.metadata.selection, info.selection
    wrong = np.zeros(len(catalog), dtype=bool)
    for key in ("r_max", "v_max"):
        # A tighter cylinder is a small aperture, for a model that knows of them.
        if ours.get(key) and theirs.get(key) and not (key == "r_max" and theirs.get("aperture")):
            wrong |= abs(float(ours[key]) / float(theirs[key]) - 1.0) > APERTURE_MARGIN
    if theirs.get("r_max") and catalog.has("aperture"):
        smallest, _ = _range(theirs.get("aperture"), float(theirs["r_max"]))
        wrong |= np.asarray(catalog.column("aperture")) < (1.0 - APERTURE_MARGIN) * smallest
    lowest, _ = _range(theirs.get("completeness"), 1.0)
    wrong |= _completeness(catalog) < lowest - COMPLETENESS_MARGIN
    wrong |= _velocity_errors(catalog) > max(VELOCITY_ERROR, _range(theirs.get("velocity_error"), 0.0)[1])
    return wrong | _other_magnitudes(catalog, info)


def incompleteness_differs(catalog: ClusterCatalog, info: TrainingInfo) -> BoolArray:
    """Completeness or magnitude limit other than in training (n,): a model that counts galaxies presumes both."""
    low, high = _range(info.selection.get("completeness"), 1.0)
    complete = _completeness(catalog)
    outside = (complete < low - COMPLETENESS_MARGIN) | (complete > high + COMPLETENESS_MARGIN)
    return outside | _other_magnitudes(catalog, info)


def _other_magnitudes(catalog: ClusterCatalog, info: TrainingInfo) -> BoolArray:
    """A limit on absolute magnitude on one side only, or limits that differ; a cluster's own, told or that of its
    faintest galaxy, goes before the catalogue's.
    """
    ours, theirs = catalog.metadata.selection.get("magnitude_limit"), info.selection.get("magnitude_limit")
    if theirs is not None and (catalog.has("abs_mag_limit") or (ours is None and catalog.has("gal_abs_mag"))):
        limits = OptionalColumns(["abs_mag_limit"]).values(catalog)[:, 0]
        low, high = _range(theirs, 0.0)
        return np.asarray((limits < low - MAGNITUDE_MARGIN) | (limits > high + MAGNITUDE_MARGIN))
    if ours is None and theirs is None:
        differs = False
    elif ours is None or theirs is None:
        differs = catalog.has("gal_abs_mag") or ours is not None
    else:
        low, high = _range(theirs, 0.0)
        brightest, faintest = _range(ours, 0.0)
        differs = brightest < low - MAGNITUDE_MARGIN or faintest > high + MAGNITUDE_MARGIN
    return np.full(len(catalog), differs)


def _completeness(catalog: ClusterCatalog) -> FloatArray:
    if catalog.has("completeness"):
        return np.asarray(catalog.column("completeness"), dtype=np.float64)
    return np.full(len(catalog), _range(catalog.metadata.selection.get("completeness"), 1.0)[0])


def _velocity_errors(catalog: ClusterCatalog) -> FloatArray:
    """Velocity error of each cluster [km/s] (n,); NaN where nothing is known, which no limit exceeds."""
    known = OptionalColumns(["sigma_v_err"]).values(catalog)[:, 0]
    declared = _range(catalog.metadata.selection.get("velocity_error"), 0.0)[0]
    return np.where(np.isnan(known), declared, known)


def _range(value: object, default: float) -> tuple[float, float]:
    """Smallest and largest of a number or a list of numbers."""
    if isinstance(value, int | float):
        return float(value), float(value)
    if isinstance(value, list | tuple) and value:
        return float(min(value)), float(max(value))
    return default, default

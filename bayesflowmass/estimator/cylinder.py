"""The cylinder that a model was trained in: what of a catalogue it may see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.selection import aperture, cylinder

APERTURE_MARGIN = 0.02
"""Relative difference between radii that is taken for rounding."""


def in_cylinder(catalog: ClusterCatalog, selection: Mapping[str, Any]) -> ClusterCatalog:
    """The clusters with those of their galaxies that lie inside the cylinder of training, as they did there.

    Every way from galaxies to a mass begins here: galaxies further out would widen the kernels and be counted.
    A catalogue that lies inside, or a selection without a cylinder, costs a look. The column ``aperture`` of the
    result is the observed part of the cylinder: a field that is larger covers it. A catalogue without that column
    that was cut more tightly than the cylinder has the aperture that it was cut to.

    Args:
        catalog: clusters; those left without galaxies stay, empty.
        selection: of the training set, ``TrainingInfo.selection``: ``r_max`` [comoving Mpc/h], ``v_max`` [km/s].
    """
    r_max, v_max = selection.get("r_max"), selection.get("v_max")
    if not r_max and not v_max:
        return catalog
    within = cylinder(catalog, r_max or np.inf, v_max or np.inf)
    cut = catalog.metadata.selection.get("r_max")
    if catalog.has("aperture"):
        return aperture(within, np.minimum(catalog.column("aperture"), r_max or np.inf))
    return aperture(within, cut) if r_max and cut and cut < (1.0 - APERTURE_MARGIN) * r_max else within

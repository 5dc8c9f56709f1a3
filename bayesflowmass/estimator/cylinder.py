"""The cylinder that a model was trained in: what of a catalogue it may see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.selection import cylinder

__all__ = ["in_cylinder"]


def in_cylinder(catalog: ClusterCatalog, selection: Mapping[str, Any]) -> ClusterCatalog:
    """The clusters with those of their galaxies that lie inside the cylinder of training, as they did there.

    Every way from galaxies to a mass begins here: galaxies further out would widen the kernels and be counted.
    A catalogue that lies inside, or a selection without a cylinder, costs a look.

    Args:
        catalog: clusters; those left without galaxies stay, empty.
        selection: of the training set, ``TrainingInfo.selection``: ``r_max`` [comoving Mpc/h], ``v_max`` [km/s].
    """
    r_max, v_max = selection.get("r_max"), selection.get("v_max")
    if not r_max and not v_max:
        return catalog
    return cylinder(catalog, r_max or np.inf, v_max or np.inf)

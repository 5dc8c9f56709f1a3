"""Masses of galaxy clusters from the positions and velocities of their galaxies.

The nouns are here: ``from bayesflowmass import ClusterCatalog, MassEstimator``. The verbs are modules of their
own, each with the function and the command of its name: ``from bayesflowmass.train import train``.

Units everywhere: masses are log10 M200c in Msun/h, distances comoving Mpc/h, velocities km/s, densities per
dex.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bayesflowmass.common.lazy import lazy_exports
from bayesflowmass.common.version import __version__ as __version__

__all__ = [
    "MDPL2",
    "CatalogError",
    "CatalogMetadata",
    "ClusterCatalog",
    "ConditionalFlow",
    "ContextEncoder",
    "Cosmology",
    "KDEEncoder",
    "MassEstimator",
    "MassPosterior",
    "MockParameters",
]

if TYPE_CHECKING:
    from bayesflowmass.catalog import CatalogError, CatalogMetadata, ClusterCatalog
    from bayesflowmass.cosmology import MDPL2, Cosmology
    from bayesflowmass.encoders import ContextEncoder, KDEEncoder
    from bayesflowmass.estimator import MassEstimator
    from bayesflowmass.flows import ConditionalFlow
    from bayesflowmass.mocks import MockParameters
    from bayesflowmass.posterior import MassPosterior

__getattr__, __dir__ = lazy_exports(__name__, __file__)

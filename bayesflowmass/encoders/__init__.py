"""Galaxies to context vectors: exact kernel densities of phase space, scaled for a network."""

from bayesflowmass.encoders.context import ContextEncoder
from bayesflowmass.encoders.grid import Grid
from bayesflowmass.encoders.kde import KDEEncoder, KDEError

__all__ = ["ContextEncoder", "Grid", "KDEEncoder", "KDEError"]

"""Galaxies to context vectors: exact kernel densities of phase space, scaled for a network."""

from bayesflowmass.encoders.context import ContextEncoder
from bayesflowmass.encoders.kde import KDEEncoder, KDEError
from bayesflowmass.encoders.kde.grid import Grid

__all__ = ["ContextEncoder", "Grid", "KDEEncoder", "KDEError"]

"""Galaxies to numbers for a network: exact kernel densities of phase space, on a grid or at the galaxies."""

from bayesflowmass.encoders.context import ContextEncoder
from bayesflowmass.encoders.kde import Grid, KDEEncoder, KDEError
from bayesflowmass.encoders.local import KERNEL_WIDTHS, LocalDensities

__all__ = ["KERNEL_WIDTHS", "ContextEncoder", "Grid", "KDEEncoder", "KDEError", "LocalDensities"]

"""Kernel densities of phase space at the galaxies themselves."""

from bayesflowmass.encoders.local.densities import KERNEL_WIDTHS, LocalDensities

__all__ = ["KERNEL_WIDTHS", "LocalDensities"]

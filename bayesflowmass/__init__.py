"""Masses of galaxy clusters from the positions and velocities of their galaxies."""

__version__ = "0.1.0"

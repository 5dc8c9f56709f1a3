"""Flat tables of galaxies, and of clusters, -> ClusterCatalog."""

from bayesflowmass.io.flat.read import read_flat

__all__ = ["read_flat"]

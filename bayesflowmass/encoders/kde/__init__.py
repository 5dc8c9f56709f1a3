"""Exact batched kernel density estimates of the phase space of clusters, on a grid."""

from bayesflowmass.encoders.kde.covariance import KDEError
from bayesflowmass.encoders.kde.encoder import KDEEncoder
from bayesflowmass.encoders.kde.grid import Grid

__all__ = ["Grid", "KDEEncoder", "KDEError"]

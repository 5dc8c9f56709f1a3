"""Galaxies to contexts: exact kernel densities of phase space, as an image or at the galaxies themselves."""

from bayesflowmass.encoders.base import Encoder
from bayesflowmass.encoders.context import ContextEncoder
from bayesflowmass.encoders.galaxy_set import Contexts, GalaxySet, concatenate, context_tensors, in_parts
from bayesflowmass.encoders.kde import Grid, KDEEncoder, KDEError
from bayesflowmass.encoders.local import KERNEL_WIDTHS, LocalDensities
from bayesflowmass.encoders.set_encoder import SetEncoder

__all__ = [
    "KERNEL_WIDTHS",
    "ContextEncoder",
    "Contexts",
    "Encoder",
    "GalaxySet",
    "Grid",
    "KDEEncoder",
    "KDEError",
    "LocalDensities",
    "SetEncoder",
    "concatenate",
    "context_tensors",
    "in_parts",
]

"""Likelihoods of a population of clusters, as factors of Pyro models."""

from bayesflowmass.hierarchical.likelihood import MassLikelihood
from bayesflowmass.hierarchical.mass_function import MassFunctionModel

__all__ = ["MassFunctionModel", "MassLikelihood"]

"""Likelihoods of a population of clusters, as factors of Pyro models; and what a survey says of its own sky."""

from bayesflowmass.hierarchical.likelihood import MassLikelihood
from bayesflowmass.hierarchical.mass_function import MassFunctionModel
from bayesflowmass.hierarchical.summary_likelihood import SummaryLikelihood
from bayesflowmass.hierarchical.survey import SurveyModel

__all__ = ["MassFunctionModel", "MassLikelihood", "SummaryLikelihood", "SurveyModel"]

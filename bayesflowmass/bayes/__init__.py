"""Distributions over the weights of any torch module: priors, guides, objectives, handlers for Pyro."""

from bayesflowmass.bayes.choice import choose
from bayesflowmass.bayes.guides import FullCovariance, MeanField, WeightGuide
from bayesflowmass.bayes.objective import VariationalObjective
from bayesflowmass.bayes.priors import NormalPrior, ScaleMixturePrior, WeightPrior

__all__ = [
    "FullCovariance",
    "MeanField",
    "NormalPrior",
    "ScaleMixturePrior",
    "VariationalObjective",
    "WeightGuide",
    "WeightPrior",
    "choose",
]

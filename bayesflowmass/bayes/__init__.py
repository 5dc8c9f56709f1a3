"""Distributions over the weights of any torch module: priors, guides, objectives, handlers for Pyro."""

from bayesflowmass.bayes.choice import choose
from bayesflowmass.bayes.ensemble import EnsemblePosterior
from bayesflowmass.bayes.guides import FullCovariance, MeanField, WeightGuide
from bayesflowmass.bayes.laplace import LaplacePosterior
from bayesflowmass.bayes.objective import VariationalObjective
from bayesflowmass.bayes.point import PenalisedLikelihood, PointPosterior
from bayesflowmass.bayes.priors import NormalPrior, ScaleMixturePrior, WeightPrior
from bayesflowmass.bayes.protocol import WEIGHT_POSTERIORS, Maximise, WeightPosterior, parse_weights

__all__ = [
    "WEIGHT_POSTERIORS",
    "EnsemblePosterior",
    "FullCovariance",
    "LaplacePosterior",
    "Maximise",
    "MeanField",
    "NormalPrior",
    "PenalisedLikelihood",
    "PointPosterior",
    "ScaleMixturePrior",
    "VariationalObjective",
    "WeightGuide",
    "WeightPosterior",
    "WeightPrior",
    "choose",
    "parse_weights",
]

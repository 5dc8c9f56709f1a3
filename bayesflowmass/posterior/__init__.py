"""Posteriors of cluster masses: PDF, cdf, quantiles, change of prior, definitions of mass, tables."""

from bayesflowmass.posterior.density import ConditionedDistribution, FlowDensity
from bayesflowmass.posterior.mass_posterior import MassPosterior
from bayesflowmass.posterior.piecewise_prior import PiecewisePrior
from bayesflowmass.posterior.priors import PRIOR_NAMES, FlatPrior, MassFunctionPrior, MassPrior, make_prior

__all__ = [
    "PRIOR_NAMES",
    "ConditionedDistribution",
    "FlatPrior",
    "FlowDensity",
    "MassFunctionPrior",
    "MassPosterior",
    "MassPrior",
    "PiecewisePrior",
    "make_prior",
]

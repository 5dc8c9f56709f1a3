"""Posteriors of cluster masses: PDF, cdf, quantiles, change of prior, definitions of mass, tables."""

from bayesflowmass.posterior.density import ConditionedDistribution, FlowDensity
from bayesflowmass.posterior.draws import MONTE_CARLO_ERROR, monte_carlo_error, number_of_draws
from bayesflowmass.posterior.mass_posterior import MassPosterior
from bayesflowmass.posterior.piecewise_prior import PiecewisePrior
from bayesflowmass.posterior.predictive import PredictiveMass
from bayesflowmass.posterior.priors import PRIOR_NAMES, FlatPrior, MassFunctionPrior, MassPrior, make_prior
from bayesflowmass.posterior.selected_prior import SelectedPrior

__all__ = [
    "MONTE_CARLO_ERROR",
    "PRIOR_NAMES",
    "ConditionedDistribution",
    "FlatPrior",
    "FlowDensity",
    "MassFunctionPrior",
    "MassPosterior",
    "MassPrior",
    "PiecewisePrior",
    "PredictiveMass",
    "SelectedPrior",
    "make_prior",
    "monte_carlo_error",
    "number_of_draws",
]

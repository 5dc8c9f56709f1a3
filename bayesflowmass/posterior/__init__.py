"""Posteriors of cluster masses: PDF, cdf, quantiles, change of prior, definitions of mass, tables."""

from bayesflowmass.posterior.converted import ConvertedDensity
from bayesflowmass.posterior.density import Density
from bayesflowmass.posterior.draws import MONTE_CARLO_ERROR, monte_carlo_error, number_of_draws
from bayesflowmass.posterior.flow_density import ConditionedDistribution, FlowDensity
from bayesflowmass.posterior.mass_posterior import MassPosterior
from bayesflowmass.posterior.predictive import JointPredictiveMass, PredictiveMass
from bayesflowmass.posterior.priors import (
    PRIOR_NAMES,
    FlatPrior,
    MassFunctionPrior,
    MassPrior,
    PiecewisePrior,
    SelectedPrior,
    make_prior,
)

__all__ = [
    "MONTE_CARLO_ERROR",
    "PRIOR_NAMES",
    "ConditionedDistribution",
    "ConvertedDensity",
    "Density",
    "FlatPrior",
    "FlowDensity",
    "JointPredictiveMass",
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

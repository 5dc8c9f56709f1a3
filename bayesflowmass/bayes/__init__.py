"""Distributions over the weights of torch modules: priors, guides, objectives, handlers for Pyro."""

import importlib
import pkgutil

from bayesflowmass.bayes.choice import choose
from bayesflowmass.bayes.elbo import WeightELBO
from bayesflowmass.bayes.fitting import fit
from bayesflowmass.bayes.guides import Eigenbasis, FullCovariance, MeanField, WeightGuide
from bayesflowmass.bayes.handlers import SharedDraw
from bayesflowmass.bayes.latents import LatentPosterior
from bayesflowmass.bayes.module import BayesianModule
from bayesflowmass.bayes.objective import VariationalObjective
from bayesflowmass.bayes.per_example import LocalReparameterisation
from bayesflowmass.bayes.point import PenalisedLikelihood
from bayesflowmass.bayes.posterior import Posterior, load
from bayesflowmass.bayes.priors import DistributionPrior, NormalPrior, WeightPrior, as_prior
from bayesflowmass.bayes.protocol import WEIGHT_POSTERIORS, Maximise, WeightPosterior, parse_weights
from bayesflowmass.bayes.variational import VariationalPosterior, build_objective

__all__ = [
    "WEIGHT_POSTERIORS",
    "BayesianModule",
    "DistributionPrior",
    "Eigenbasis",
    "FullCovariance",
    "LatentPosterior",
    "LocalReparameterisation",
    "Maximise",
    "MeanField",
    "NormalPrior",
    "PenalisedLikelihood",
    "Posterior",
    "SharedDraw",
    "VariationalObjective",
    "VariationalPosterior",
    "WeightELBO",
    "WeightGuide",
    "WeightPosterior",
    "WeightPrior",
    "as_prior",
    "build_objective",
    "choose",
    "fit",
    "load",
    "parse_weights",
]

# A posterior of the weights is known by the file that it is in.
for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
    importlib.import_module(_module.name)

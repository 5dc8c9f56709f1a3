"""Distributions over the weights of any torch module: priors, guides, objectives, handlers for Pyro."""

from bayesflowmass.bayes.choice import choose
from bayesflowmass.bayes.dropout import DropoutPosterior
from bayesflowmass.bayes.elbo import WeightELBO
from bayesflowmass.bayes.ensemble import EnsemblePosterior
from bayesflowmass.bayes.fitting import fit
from bayesflowmass.bayes.guides import Eigenbasis, FullCovariance, LowRank, MeanField, WeightGuide
from bayesflowmass.bayes.handlers import Flipout, LocalReparameterisation, SharedDraw
from bayesflowmass.bayes.laplace import LaplacePosterior
from bayesflowmass.bayes.latents import LatentPosterior
from bayesflowmass.bayes.module import BayesianModule
from bayesflowmass.bayes.nuts import NUTSPosterior
from bayesflowmass.bayes.objective import VariationalObjective
from bayesflowmass.bayes.point import PenalisedLikelihood, PointPosterior
from bayesflowmass.bayes.posterior import Posterior, load
from bayesflowmass.bayes.priors import DistributionPrior, NormalPrior, WeightPrior, as_prior
from bayesflowmass.bayes.protocol import WEIGHT_POSTERIORS, Maximise, WeightPosterior, parse_weights
from bayesflowmass.bayes.variational import VariationalPosterior, build_objective

__all__ = [
    "WEIGHT_POSTERIORS",
    "BayesianModule",
    "DistributionPrior",
    "DropoutPosterior",
    "Eigenbasis",
    "EnsemblePosterior",
    "Flipout",
    "FullCovariance",
    "LaplacePosterior",
    "LatentPosterior",
    "LocalReparameterisation",
    "LowRank",
    "Maximise",
    "MeanField",
    "NUTSPosterior",
    "NormalPrior",
    "PenalisedLikelihood",
    "PointPosterior",
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

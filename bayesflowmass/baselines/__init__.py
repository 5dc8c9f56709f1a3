"""Simpler estimators on the same clusters: what a network has to beat."""

from bayesflowmass.baselines.dispersion import gapper, standard_deviation, velocity_dispersion
from bayesflowmass.baselines.msigma import MSigmaRelation, fit_msigma
from bayesflowmass.baselines.published import PUBLISHED, PublishedResult
from bayesflowmass.baselines.richness import RichnessRelation, fit_richness
from bayesflowmass.baselines.suite import BaselinePrediction, fit_baselines, predict_baselines

__all__ = [
    "PUBLISHED",
    "BaselinePrediction",
    "MSigmaRelation",
    "PublishedResult",
    "RichnessRelation",
    "fit_baselines",
    "fit_msigma",
    "fit_richness",
    "gapper",
    "predict_baselines",
    "standard_deviation",
    "velocity_dispersion",
]

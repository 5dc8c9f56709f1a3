"""Simpler estimators on the same clusters: what a network has to beat."""

from bayesflowmass.baselines.dispersion import biweight, gapper, standard_deviation
from bayesflowmass.baselines.msigma import MSigmaRelation, fit_msigma
from bayesflowmass.baselines.published import PUBLISHED, PublishedResult
from bayesflowmass.baselines.suite import BaselinePrediction, fit_baselines, predict_baselines

__all__ = [
    "PUBLISHED",
    "BaselinePrediction",
    "MSigmaRelation",
    "PublishedResult",
    "biweight",
    "fit_baselines",
    "fit_msigma",
    "gapper",
    "predict_baselines",
    "standard_deviation",
]

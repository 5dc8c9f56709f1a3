"""Simpler estimators on the same clusters: what a network has to beat."""

from bayesflowmass.baselines.dispersion import gapper, standard_deviation, velocity_dispersion
from bayesflowmass.baselines.msigma import MSigmaRelation, fit_msigma
from bayesflowmass.baselines.richness import RichnessRelation, fit_richness

__all__ = [
    "MSigmaRelation",
    "RichnessRelation",
    "fit_msigma",
    "fit_richness",
    "gapper",
    "standard_deviation",
    "velocity_dispersion",
]

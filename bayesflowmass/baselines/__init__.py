"""Simpler estimators on the same clusters: what a network has to beat."""

from bayesflowmass.baselines.dispersion import (
    biweight,
    clipped_deviation,
    gapper,
    standard_deviation,
    velocity_dispersion,
)
from bayesflowmass.baselines.dynamical import (
    DynamicalRelation,
    dynamical_mass,
    fit_dynamical,
    without_interlopers,
)
from bayesflowmass.baselines.msigma import MSigmaRelation, fit_msigma
from bayesflowmass.baselines.published import PUBLISHED, PublishedResult
from bayesflowmass.baselines.richness import RichnessRelation, fit_richness
from bayesflowmass.baselines.suite import BaselinePrediction, fit_baselines, predict_baselines
from bayesflowmass.baselines.surface_pressure import projected_surface_share, virial_surface_share
from bayesflowmass.baselines.virial import projected_mass, virial_mass

__all__ = [
    "PUBLISHED",
    "BaselinePrediction",
    "DynamicalRelation",
    "MSigmaRelation",
    "PublishedResult",
    "RichnessRelation",
    "biweight",
    "clipped_deviation",
    "dynamical_mass",
    "fit_baselines",
    "fit_dynamical",
    "fit_msigma",
    "fit_richness",
    "gapper",
    "predict_baselines",
    "projected_mass",
    "projected_surface_share",
    "standard_deviation",
    "velocity_dispersion",
    "virial_mass",
    "virial_surface_share",
    "without_interlopers",
]

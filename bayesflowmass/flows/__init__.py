"""From contexts to p(log10_mass): conditional transforms, base distributions, exact cdf, quantiles."""

from bayesflowmass.flows.base import ConditionalStandardNormal, StandardNormal
from bayesflowmass.flows.conditional_affine import ConditionalAffine, ConditionedAffine, conditional_affine
from bayesflowmass.flows.distribution import MassDistribution
from bayesflowmass.flows.flow import FLOW_KINDS, ConditionalFlow, Standardisation, build_flow
from bayesflowmass.flows.joint import JointFlow
from bayesflowmass.flows.known_population import TrainingPopulation
from bayesflowmass.flows.mixture import ConditionalGaussianMixture, GaussianMixture
from bayesflowmass.flows.pyro_block import PyroBlock, ScalarTransform
from bayesflowmass.flows.spline import (
    ConditionalMonotoneSpline,
    ConditionedMonotoneSpline,
    conditional_monotone_spline,
)

__all__ = [
    "FLOW_KINDS",
    "ConditionalAffine",
    "ConditionalFlow",
    "ConditionalGaussianMixture",
    "ConditionalMonotoneSpline",
    "ConditionalStandardNormal",
    "ConditionedAffine",
    "ConditionedMonotoneSpline",
    "GaussianMixture",
    "JointFlow",
    "MassDistribution",
    "PyroBlock",
    "ScalarTransform",
    "Standardisation",
    "StandardNormal",
    "TrainingPopulation",
    "build_flow",
    "conditional_affine",
    "conditional_monotone_spline",
]

"""From contexts to p(log10_mass): conditional transforms, base distributions, exact cdf, quantiles."""

from .base import ConditionalStandardNormal, StandardNormal, normal_cdf
from .conditional_affine import ConditionalAffine, ConditionedAffine, conditional_affine
from .distribution import MassDistribution
from .flow import FLOW_KINDS, ConditionalFlow, Standardisation, build_flow
from .mixture import ConditionalGaussianMixture, GaussianMixture, conditional_gaussian_mixture
from .networks import ConvNetwork, DenseNetwork
from .root_finding import bracketed_root
from .spline import ConditionalMonotoneSpline, ConditionedMonotoneSpline, conditional_monotone_spline

__all__ = [
    "FLOW_KINDS",
    "ConditionalAffine",
    "ConditionalFlow",
    "ConditionalGaussianMixture",
    "ConditionalMonotoneSpline",
    "ConditionalStandardNormal",
    "ConditionedAffine",
    "ConditionedMonotoneSpline",
    "ConvNetwork",
    "DenseNetwork",
    "GaussianMixture",
    "MassDistribution",
    "Standardisation",
    "StandardNormal",
    "bracketed_root",
    "build_flow",
    "conditional_affine",
    "conditional_gaussian_mixture",
    "conditional_monotone_spline",
    "normal_cdf",
]

"""Residual scatter, calibration and scores, on plain arrays."""

from bayesflowmass.diagnostics.bins import binned_statistics, mass_edges
from bayesflowmass.diagnostics.bootstrap import bootstrap_errors, bootstrap_weights
from bayesflowmass.diagnostics.calibration import (
    coverage,
    coverage_curve,
    nominal_pair,
    pit_ecdf,
    pit_histogram,
)
from bayesflowmass.diagnostics.equation8 import Equation8, fit_equation8, shot_noise_msigma
from bayesflowmass.diagnostics.residuals import residual, weighted_residual_statistics
from bayesflowmass.diagnostics.scores import crps_from_density, crps_gaussian, log_density_gaussian
from bayesflowmass.diagnostics.summary import summarise

__all__ = [
    "Equation8",
    "binned_statistics",
    "bootstrap_errors",
    "bootstrap_weights",
    "coverage",
    "coverage_curve",
    "crps_from_density",
    "crps_gaussian",
    "fit_equation8",
    "log_density_gaussian",
    "mass_edges",
    "nominal_pair",
    "pit_ecdf",
    "pit_histogram",
    "residual",
    "shot_noise_msigma",
    "summarise",
    "weighted_residual_statistics",
]

"""Residual scatter, calibration and scores, on plain arrays."""

from bayesflowmass.diagnostics.assessment import assess_calibration
from bayesflowmass.diagnostics.bins import binned_statistics, mass_edges, merged_edges, quantile_edges
from bayesflowmass.diagnostics.bootstrap import bootstrap_errors, bootstrap_weights
from bayesflowmass.diagnostics.calibration import (
    central_level,
    coverage,
    nominal_pair,
    pit_histogram,
)
from bayesflowmass.diagnostics.dependence import correlated_uniforms, effective_number, halo_correlation
from bayesflowmass.diagnostics.equation8 import Equation8, fit_equation8, shot_noise_msigma
from bayesflowmass.diagnostics.expectation import compare_by_true_mass
from bayesflowmass.diagnostics.highest_density import highest_density_level
from bayesflowmass.diagnostics.multiplicity import holm
from bayesflowmass.diagnostics.posterior_summary import PosteriorSummary
from bayesflowmass.diagnostics.residuals import residual, weighted_residual_statistics
from bayesflowmass.diagnostics.scores import (
    crps_from_density,
    crps_gaussian,
    interval_score,
    log_density_gaussian,
)
from bayesflowmass.diagnostics.summary import summarise
from bayesflowmass.diagnostics.uniformity import Uniformity, uniformity

__all__ = [
    "Equation8",
    "PosteriorSummary",
    "Uniformity",
    "assess_calibration",
    "binned_statistics",
    "bootstrap_errors",
    "bootstrap_weights",
    "central_level",
    "compare_by_true_mass",
    "correlated_uniforms",
    "coverage",
    "crps_from_density",
    "crps_gaussian",
    "effective_number",
    "fit_equation8",
    "halo_correlation",
    "highest_density_level",
    "holm",
    "interval_score",
    "log_density_gaussian",
    "mass_edges",
    "merged_edges",
    "nominal_pair",
    "pit_histogram",
    "quantile_edges",
    "residual",
    "shot_noise_msigma",
    "summarise",
    "uniformity",
    "weighted_residual_statistics",
]

"""Residual scatter, calibration and scores, on plain arrays."""

from bayesflowmass.diagnostics.assessment import assess_calibration
from bayesflowmass.diagnostics.bins import merged_edges
from bayesflowmass.diagnostics.bootstrap import bootstrap_errors
from bayesflowmass.diagnostics.calibration import central_level, coverage, pit_histogram
from bayesflowmass.diagnostics.equation8 import Equation8, fit_equation8
from bayesflowmass.diagnostics.posterior_summary import PosteriorSummary
from bayesflowmass.diagnostics.residuals import residual
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
    "bootstrap_errors",
    "central_level",
    "coverage",
    "crps_from_density",
    "crps_gaussian",
    "fit_equation8",
    "interval_score",
    "log_density_gaussian",
    "merged_edges",
    "pit_histogram",
    "residual",
    "summarise",
    "uniformity",
]

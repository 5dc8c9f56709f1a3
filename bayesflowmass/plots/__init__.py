"""Figures: one per function, from plain arrays or our objects, one journal column wide.

``paper`` has those of Kodi Ramanah et al. (2020), ``checks`` those that test a model, ``card`` the page of one
cluster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bayesflowmass.common.lazy import lazy_exports

__all__ = [
    "ClusterPdfs",
    "Masses",
    "ScatterPair",
    "Widths",
    "plot_architecture",
    "plot_calibration_by_mass",
    "plot_cluster_card",
    "plot_comparison",
    "plot_contraction",
    "plot_coverage",
    "plot_epistemic_by_mass",
    "plot_equation8",
    "plot_loss",
    "plot_masses",
    "plot_pdfs",
    "plot_perturbed_pdfs",
    "plot_phase_space",
    "plot_pit",
    "plot_pit_ecdf",
    "plot_predicted_vs_true",
    "plot_real_clusters",
    "plot_residuals",
    "plot_saliency",
    "plot_true_mass",
    "save_figure",
]

if TYPE_CHECKING:
    from bayesflowmass.plots.card.page import plot_cluster_card
    from bayesflowmass.plots.checks.calibration_by_mass import plot_calibration_by_mass
    from bayesflowmass.plots.checks.comparison import plot_comparison
    from bayesflowmass.plots.checks.contraction import plot_contraction
    from bayesflowmass.plots.checks.coverage import plot_coverage
    from bayesflowmass.plots.checks.epistemic import Widths, plot_epistemic_by_mass
    from bayesflowmass.plots.checks.loss import plot_loss
    from bayesflowmass.plots.checks.pit import plot_pit
    from bayesflowmass.plots.checks.pit_ecdf import plot_pit_ecdf
    from bayesflowmass.plots.checks.residuals import plot_residuals
    from bayesflowmass.plots.checks.true_mass import plot_true_mass
    from bayesflowmass.plots.paper.architecture import plot_architecture
    from bayesflowmass.plots.paper.equation8 import ScatterPair, plot_equation8
    from bayesflowmass.plots.paper.masses import plot_masses
    from bayesflowmass.plots.paper.pdfs import ClusterPdfs, plot_pdfs
    from bayesflowmass.plots.paper.perturbed_pdfs import plot_perturbed_pdfs
    from bayesflowmass.plots.paper.phase_space import plot_phase_space
    from bayesflowmass.plots.paper.predicted_vs_true import plot_predicted_vs_true
    from bayesflowmass.plots.paper.real_clusters import Masses, plot_real_clusters
    from bayesflowmass.plots.paper.saliency import plot_saliency
    from bayesflowmass.plots.style import save_figure

# Imported on first use: whoever saves one figure needs not all of them.
__getattr__, __dir__ = lazy_exports(__name__, __file__)

"""Recalibration: an explicit, stored step that makes stated probabilities come true (docs/recalibration.md)."""

from bayesflowmass.recalibration.fit import fit_stage, halo_weights
from bayesflowmass.recalibration.maps import StagedMap
from bayesflowmass.recalibration.recalibration import Recalibration

__all__ = ["Recalibration", "StagedMap", "fit_stage", "halo_weights"]

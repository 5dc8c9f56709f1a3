"""Encoder + flow + what they were trained on: save, load, infer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bayesflowmass.common.lazy import lazy_exports

__all__ = [
    "DEFAULT_MODEL",
    "FLAGS",
    "SHIPPED_COMPLETE",
    "MassEstimator",
    "ModelError",
    "Reference",
    "TrainingInfo",
    "resolve_device",
    "shipped_models",
]

if TYPE_CHECKING:
    from bayesflowmass.estimator.description import ModelError
    from bayesflowmass.estimator.flags import FLAGS
    from bayesflowmass.estimator.mass_estimator import MassEstimator, resolve_device
    from bayesflowmass.estimator.reference import Reference
    from bayesflowmass.estimator.shipped import DEFAULT_MODEL, SHIPPED_COMPLETE, shipped_models
    from bayesflowmass.estimator.training_info import TrainingInfo

# Imported on first use: what a model was trained on can be read without torch.
__getattr__, __dir__ = lazy_exports(__name__, __file__)

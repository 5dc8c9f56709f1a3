"""Encoder + flow + what they were trained on: save, load, infer."""

from bayesflowmass.estimator.flags import FLAGS
from bayesflowmass.estimator.mass_estimator import MassEstimator, resolve_device
from bayesflowmass.estimator.model_folder import ModelError
from bayesflowmass.estimator.reference import Reference
from bayesflowmass.estimator.shipped import DEFAULT_MODEL, SHIPPED_COMPLETE, shipped_models
from bayesflowmass.estimator.training_info import TrainingInfo

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

"""Typed, validated settings of the commands, and the YAML files they come from.

Every command has one settings class; a YAML file fills it and flags override the file (see
:mod:`bayesflowmass.command`). Unknown keys are errors that name the nearest valid key. Functions of the
library never see these classes: a verb takes the values out and passes them on.
"""

from bayesflowmass.config.base import ConfigError, Settings, build_settings, config_path, load_yaml
from bayesflowmass.config.comparison import CompareSettings
from bayesflowmass.config.evaluation import EvaluateSettings
from bayesflowmass.config.fetch import FetchSettings
from bayesflowmass.config.figures import FiguresSettings
from bayesflowmass.config.inference import InferSettings, InspectSettings
from bayesflowmass.config.mocks import AugmentationSettings, MockSettings, SimulateSettings
from bayesflowmass.config.nbody import NbodySettings
from bayesflowmass.config.recalibration import RecalibrateSettings
from bayesflowmass.config.report import ReportSettings
from bayesflowmass.config.training import (
    EncoderSettings,
    FitSettings,
    FlowSettings,
    KernelSettings,
    TrainSettings,
    WeightsSettings,
)

__all__ = [
    "AugmentationSettings",
    "CompareSettings",
    "ConfigError",
    "EncoderSettings",
    "EvaluateSettings",
    "FetchSettings",
    "FiguresSettings",
    "FitSettings",
    "FlowSettings",
    "InferSettings",
    "InspectSettings",
    "KernelSettings",
    "MockSettings",
    "NbodySettings",
    "RecalibrateSettings",
    "ReportSettings",
    "Settings",
    "SimulateSettings",
    "TrainSettings",
    "WeightsSettings",
    "build_settings",
    "config_path",
    "load_yaml",
]

"""Typed, validated settings of the commands, running a command, and the record that it leaves.

Every command has one settings class; a YAML file fills it and flags override the file. Unknown keys are errors that
name the nearest valid key. Functions of the library never see these classes: a verb takes the values out and passes
them on.
"""

from bayesflowmass.command.mocks import AugmentationSettings, MockSettings
from bayesflowmass.command.nbody import NbodySettings
from bayesflowmass.command.run import run_command
from bayesflowmass.command.settings import load_yaml
from bayesflowmass.command.training import (
    EncoderSettings,
    FitSettings,
    FlowSettings,
    KernelSettings,
    TrainSettings,
    WeightsSettings,
)
from bayesflowmass.common.settings import ConfigError, Settings, build_settings

__all__ = [
    "AugmentationSettings",
    "ConfigError",
    "EncoderSettings",
    "FitSettings",
    "FlowSettings",
    "KernelSettings",
    "MockSettings",
    "NbodySettings",
    "Settings",
    "TrainSettings",
    "WeightsSettings",
    "build_settings",
    "load_yaml",
    "run_command",
]

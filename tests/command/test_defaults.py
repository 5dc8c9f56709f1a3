"""Settings and the functions that they are for have the same defaults: a value that stands twice is compared."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest
from pydantic_core import PydanticUndefined

from bayesflowmass.cli import VERBS
from bayesflowmass.command.mocks import AugmentationSettings, MockSettings
from bayesflowmass.command.nbody import NbodySettings
from bayesflowmass.command.training import (
    EncoderSettings,
    FitSettings,
    FlowSettings,
    KernelSettings,
    TrainSettings,
    WeightsSettings,
)
from bayesflowmass.common.settings import Settings
from bayesflowmass.comparison.verdicts import TOLERANCES
from bayesflowmass.encoders import ContextEncoder, KDEEncoder
from bayesflowmass.flows import build_flow
from bayesflowmass.mocks import simulate_catalog, simulate_nbody
from bayesflowmass.train import train
from bayesflowmass.training.augmentation import Augmentation


def verb(module, function=None):
    return getattr(importlib.import_module(f"bayesflowmass.{module}"), function or module)


# Settings -> the functions that take these values.
FUNCTIONS = {
    KernelSettings: [KDEEncoder],
    EncoderSettings: [ContextEncoder, KDEEncoder],
    FlowSettings: [build_flow],
    MockSettings: [simulate_catalog],
    NbodySettings: [simulate_nbody],
    AugmentationSettings: [Augmentation],
    FitSettings: [train],
    TrainSettings: [train],
    # Its defaults are those of each method.
    WeightsSettings: [],
    **{
        verb(name, f"{name.capitalize()}Settings"): [
            verb(name, "inspect_file" if name == "inspect" else None)
        ]
        for name in VERBS
        if name != "train"
    },
}
OTHER_NAMES = {"bootstrap": "n_resamples"}
# A command shows its progress, and keeps answers; a function does as it is told.
DIFFERENT_ON_PURPOSE = {"progress", "cache"}
# None says that nobody chose a prior, which is then flat.
NOBODY_CHOSE = {("InferSettings", "prior")}


def plain(value):
    """Nothing, an empty tuple and an empty mapping mean the same; a path is its text."""
    if isinstance(value, Path):
        return str(value)
    return None if value is None or (hasattr(value, "__len__") and len(value) == 0) else value


def differences(settings, function):
    parameters = inspect.signature(function).parameters
    found = {}
    for name, field in settings.model_fields.items():
        ours, parameter = (
            field.get_default(call_default_factory=True),
            parameters.get(OTHER_NAMES.get(name, name)),
        )
        if (
            parameter is None
            or name in DIFFERENT_ON_PURPOSE
            or (settings.__name__, name) in NOBODY_CHOSE
            or (isinstance(field.annotation, type) and issubclass(field.annotation, Settings))
        ):
            continue
        theirs = parameter.default
        if str(theirs) == "<factory>":
            theirs = None
        required = ours is PydanticUndefined or theirs is inspect.Parameter.empty
        if not required and plain(ours) != plain(theirs):
            found[name] = (ours, theirs)
    return found


@pytest.mark.parametrize("settings", FUNCTIONS, ids=lambda settings: settings.__name__)
def test_settings_have_the_defaults_of_their_function(settings):
    assert {f.__name__: d for f in FUNCTIONS[settings] if (d := differences(settings, f))} == {}


def test_every_class_of_settings_is_compared():
    def below(kind):
        return {kind}.union(*(below(part) for part in kind.__subclasses__()))

    # Bases of others, and options that their function takes as they are.
    shared = {
        "Settings",
        "DrawSettings",
        "PartSettings",
        "ReadingSettings",
        "PosteriorSettings",
        "ModelTestSettings",
        "FitOptions",
    }
    ours = {kind for kind in below(Settings) if kind.__module__.startswith("bayesflowmass.")}
    assert {kind.__name__ for kind in ours - set(FUNCTIONS)} <= shared


def test_a_difference_is_found():
    class Wrong(MockSettings):
        r_max: float = 1.5

    assert differences(Wrong, simulate_catalog) == {"r_max": (1.5, 1.6)}


def test_the_tolerances_of_compare_are_those_of_its_verdicts():
    fields = verb("compare", "CompareSettings").model_fields
    assert {name: fields[f"tolerance_{name}"].default for name in TOLERANCES} == TOLERANCES

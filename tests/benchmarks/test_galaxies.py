"""The plan of the benchmark of networks over galaxies can be carried out: `train` takes its flags."""

from __future__ import annotations

import pytest

from bayesflowmass.command.run import parse_settings
from bayesflowmass.train import TrainSettings
from benchmarks.galaxies import RUNS, flags_of


@pytest.mark.parametrize(("setting", "name"), [run[:2] for run in RUNS], ids=lambda x: x)
def test_train_takes_the_flags_of_every_run(setting, name, tmp_path):
    settings = parse_settings(TrainSettings, flags_of(setting, name, 0, tmp_path), prog="train")
    assert settings is not None
    changed = settings.augmentation.completeness is not None
    assert changed == (setting == "thinned")
    assert settings.simulate.mode == (setting if setting in ("survey", "mixed") else "paper")
    if name.startswith("galaxies"):
        assert settings.encoder.counted == ("not counted" not in name)

"""The plan of the benchmark of networks over galaxies can be carried out: `train` takes its flags."""

from __future__ import annotations

import numpy as np
import pytest

from bayesflowmass.command.run import parse_settings
from bayesflowmass.train import TrainSettings
from benchmarks.galaxies import RUNS, flags_of, gain_lines, without_half


@pytest.mark.parametrize(("setting", "name"), [run[:2] for run in RUNS], ids=lambda x: x)
def test_train_takes_the_flags_of_every_run(setting, name, tmp_path):
    settings = parse_settings(TrainSettings, flags_of(setting, name, 0, tmp_path), prog="train")
    assert settings is not None
    changed = settings.augmentation.completeness is not None
    assert changed == (setting == "thinned")
    assert settings.simulate.mode == (setting if setting in ("survey", "mixed") else "paper")
    if name.startswith("galaxies"):
        assert settings.encoder.counted == ("not counted" not in name)


def medians(scatter: float, seed: int, shift: float = 0.0) -> dict[str, np.ndarray]:
    """2000 clusters of 14-15 whose medians scatter so much about the truth, and move so much without half of them."""
    rng = np.random.default_rng(seed)
    truth = np.random.default_rng(0).uniform(14.0, 15.0, 2000)
    median = truth + scatter * rng.standard_normal(2000)
    return {"truth": truth, "median": median, "half": median + shift}


@pytest.mark.parametrize(("scatter", "word"), [(0.10, "is there"), (0.118, "is not there")])
def test_the_gain_in_survey_mode_is_said_by_the_rule(scatter, word):
    """Ratios are 0.83 and 0.98 with errors of 0.01 to 0.02: far from 0.90 on either side."""
    found = {
        ("survey", name): {seed: {"scatter": medians(of, 10 * k + seed)} for seed in range(3)}
        for k, (name, of) in enumerate((("galaxies", scatter), ("image", 0.12)))
    }
    assert [word in line for line in gain_lines(found) if line] == [True]
    del found["survey", "image"][2]
    assert gain_lines(found) == []


@pytest.mark.parametrize(
    ("shifts", "word"), [((-0.04,) * 3, ": less"), ((-0.02, -0.045, -0.07), ": not less")]
)
def test_the_change_without_half_of_the_galaxies_is_said_by_the_rule(shifts, word):
    """The second has a mean below the limit of 0.05, but not with twice its error of 0.014."""
    key = ("thinned", "galaxies, not counted, 1500 updates")
    found = {key: {seed: {"half": medians(0.1, seed, shift)} for seed, shift in enumerate(shifts)}}
    assert word in without_half(found)[-1]

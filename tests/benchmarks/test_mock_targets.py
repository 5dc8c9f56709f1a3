"""Mock catalogues against published numbers: quickly with small samples, and slowly at full size."""

from pathlib import Path

import pytest

from bayesflowmass.mocks import MockParameters
from benchmarks.mock_targets.__main__ import _REPORTED, main, parameters_markdown, targets_markdown
from benchmarks.mock_targets.comparison import TARGETS, compare, relations
from benchmarks.mock_targets.measurements import measure_bulk, measure_interlopers, measure_orientation

DOCS = Path(__file__).parents[2] / "docs"
BY_KEY = {target.key: target for target in TARGETS}

# What 3000 clusters add to a tolerance: three standard deviations, measured over ten seeds.
SAMPLING = {"slope": 0.01, "value": 0.006, "scatter": 0.005, "mass_scatter": 0.027, "scatter_sigma": 0.005}
SAMPLING |= {"mean": 0.02, "median": 0.03, "low": 0.024, "high": 0.037}


@pytest.fixture(scope="module")
def measured():
    return relations(3000, 21, MockParameters())


@pytest.mark.parametrize(
    "key", [key for key in BY_KEY if key.startswith(("pure_", "contaminated_"))], ids=lambda key: key
)
def test_dispersion_relations_meet_the_published_ones(measured, key):
    target = BY_KEY[key]
    extra = SAMPLING[key.split("_", 1)[1]]
    assert target.low - target.tolerance - extra <= measured[key] <= target.high + target.tolerance + extra


def test_shapes_and_dispersions_of_members_meet_the_published_ones():
    values = measure_bulk(MockParameters(), 400, 3)
    for key in ("evrard_ratio", "space_axis_ratio", "velocity_axis_ratio"):
        assert BY_KEY[key].met(values[key]), (key, values[key])
    assert values["space_axis_ratio_scatter"] == pytest.approx(0.07, abs=0.015)


def test_orientation_scatters_dispersion_richness_and_contamination_together():
    values = measure_orientation(MockParameters(), 80, 4)
    assert BY_KEY["orientation_mass_scatter"].met(values["orientation_mass_scatter"])
    for key in ("dispersion_angle", "richness_angle", "interlopers_angle", "dispersion_interlopers"):
        assert values[key] > 0.05, (key, values[key])


def test_interlopers_have_the_published_share_and_velocities():
    values = measure_interlopers(MockParameters(), 1500, 5)
    for key in ("before_cut", "after_cut", "width", "radial_slope"):
        target = BY_KEY[key]
        assert target.low - target.tolerance - 0.02 <= values[key] <= target.high + target.tolerance + 0.02
    assert values["after_cut_survey"] > values["after_cut"]


def test_every_target_and_measurement_is_in_the_table():
    values = dict.fromkeys(BY_KEY, 0.0)
    values |= dict.fromkeys(_REPORTED, 0.0)
    values["pure_scatter_sigma"] = 0.0
    text = targets_markdown(values, {"": values, "all": values}, 10, 0)
    assert all(target.text in text for target in TARGETS)
    assert "**no**" in text
    assert "missed: " in text


def test_the_documented_parameters_are_those_of_the_code():
    assert (DOCS / "mock_parameters.md").read_text(encoding="utf-8") == parameters_markdown()


def test_the_command_writes_the_table_of_parameters(tmp_path, capsys):
    assert main(["--parameters-out", str(tmp_path / "sub" / "p.md")]) == 0
    assert "wrote" in capsys.readouterr().out
    assert "`velocity_bias`" in (tmp_path / "sub" / "p.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_all_targets_are_met_by_samples_of_20000():
    values = compare(20000, 1)
    missed = {t.key: values[t.key] for t in TARGETS if not t.met(values[t.key])}
    assert missed == {}

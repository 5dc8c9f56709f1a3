"""Numbers that would take all memory or time are refused in a sentence, before anything is loaded."""

from __future__ import annotations

import pytest

from bayesflowmass import cli
from bayesflowmass.command.run import parse_settings
from bayesflowmass.command.settings import load_yaml
from bayesflowmass.common.settings import ConfigError
from bayesflowmass.estimator import resolve_device
from bayesflowmass.fetch import FetchSettings
from bayesflowmass.flows import build_flow
from bayesflowmass.infer import InferSettings


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("infer --galaxies g.csv --n-draws 1e9", "'n_draws' in the flags is 1000000000.0: input should be less"),
        ("infer --galaxies g.csv --n-draws 1", "'n_draws'"),
        ("infer --galaxies g.csv --device mps", "unknown device 'mps'; expected auto, cpu or cuda"),
        ("infer --galaxies g.csv --h nan", "'h' in the flags is 'nan': input should be a finite number"),
        ("recalibrate --model sky --catalog c --out o --bin-width 1e-12", "'bin_width' in the flags is 1e-12"),
        ("simulate --n-projections 1e9", "'n_projections'"),
        ("simulate --n-clusters 1e30", "'n_clusters'"),
        ("simulate --seed 1e40", "'seed'"),
        ("evaluate --model sky --catalog c --bootstrap 1e9", "'bootstrap'"),
        ("train --encoder.grid 1e6 50", "'encoder.grid.0'"),
        ("train --fit.learning-rate .inf", "'fit.learning_rate'"),
        ("train --flow.options hidden=[-4] --simulate.n-clusters 50", "hidden is [-4]; expected at most 64"),
    ],
    ids=lambda text: text.rpartition(" --")[2],
)  # fmt: skip
def test_a_number_out_of_bounds_is_one_sentence(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words.split()) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert said in error


@pytest.mark.parametrize("hidden", [[-4], [0], [10**9], [2.5], [8] * 65])
def test_widths_that_no_network_has_are_refused(hidden):
    with pytest.raises(ValueError, match="hidden is"):
        build_flow("affine", 10, hidden=hidden)


@pytest.mark.parametrize("name", ["mps", "meta", "cuda:x", "cuda:-1", "CPU", ""])
def test_devices_that_this_package_does_not_run_on_are_refused(name):
    with pytest.raises(ValueError, match="Unknown device"):
        resolve_device(name)


def test_numbers_with_an_exponent_may_be_negative():
    words = ["--position", "150.1", "-2.5e-1", "--redshift", "0.05"]
    assert parse_settings(FetchSettings, words, prog="fetch").position == (150.1, -0.25)
    for number in ("-1", "-.5", "-3.", "-4E+1", "-5e0"):
        words = ["--position", "10", number, "--redshift", "0.05"]
        assert parse_settings(FetchSettings, words, prog="fetch").position == (10.0, float(number))


def test_text_stays_text_whatever_yaml_makes_of_it():
    words = [
        "--galaxies",
        "g.csv",
        "--cluster-id",
        "007",
        "--column",
        "cluster_id=No",
        "x=1e3",
        "y=on",
        "v_los=010",
    ]
    settings = parse_settings(InferSettings, words, prog="infer")
    assert settings.column == {"cluster_id": "No", "x": "1e3", "y": "on", "v_los": "010"}
    assert settings.cluster_id == "007"


def test_a_long_value_is_quoted_by_its_beginning():
    long = "9" * 5000
    with pytest.raises(ConfigError, match=r"'n_draws' .* is '9{10,60}\.\.\. \(5002 characters\): ") as caught:
        parse_settings(InferSettings, ["--galaxies", "g.csv", "--n-draws", long], prog="infer")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed: 1\nseed: 2\n", "the key 'seed' stands twice"),
        ("fit: {max_updates: 1, max_updates: 2}\n", "the key 'max_updates' stands twice"),
        ("seed: 010\n", "010 is one number to some programs"),
        ("seed: 1:30\n", "1:30 is one number to some programs"),
        ("a: &a [x, x]\nb: [*a, *a]\n", "aliases"),
        ("? [1, 2]\n: 3\n", "a key is one word"),
        ("a: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("# " + "x" * 2**20, "bytes; settings have some thousand"),
    ],
    ids=["key twice", "inner key twice", "octal", "sexagesimal", "aliases", "list as key", "deep", "large"],
)
def test_settings_that_are_not_one_thing_only_are_refused(text, said, tmp_path):
    (tmp_path / "s.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=said):
        load_yaml(tmp_path / "s.yaml")


def test_plain_values_are_those_of_yaml_1_2(tmp_path):
    (tmp_path / "s.yaml").write_text(
        "a: [1, -2, 0, 1e3, 2e-3, 1., .5]\nb: [true, False, null, ~]\nc: [no, on, 2020-01-01, '010']\n",
        encoding="utf-8",
    )
    assert load_yaml(tmp_path / "s.yaml") == {
        "a": [1, -2, 0, 1000.0, 0.002, 1.0, 0.5],
        "b": [True, False, None, None],
        "c": ["no", "on", "2020-01-01", "010"],
    }

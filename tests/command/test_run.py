"""Settings and command lines: what a user types, and what a user reads when it is wrong."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from bayesflowmass import cli
from bayesflowmass.command import (
    ConfigError,
    MockSettings,
    TrainSettings,
    build_settings,
    load_yaml,
    run_command,
)
from bayesflowmass.command.run import parse_settings
from bayesflowmass.command.settings import parse_yaml
from bayesflowmass.infer import InferSettings

ROOT = Path(__file__).resolve().parents[2]


def outcome(capsys, argv, body=lambda settings: None, kind=TrainSettings):
    """Exit code and standard error of a command."""
    try:
        code = run_command(kind, body, argv, prog="train")
    except SystemExit as stop:
        code = stop.code
    return code, capsys.readouterr().err


def test_flags_override_the_file_which_overrides_the_defaults(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text(
        "seed: 3\nfit: {max_updates: 7, learning_rate: 1e-3}\nflow: {options: {hidden: [8], blocks: 2}}\n",
        encoding="utf-8",
    )
    argv = ["--config", str(path), "--fit.max-updates", "9", "--flow.options", "blocks=5"]
    settings = parse_settings(TrainSettings, argv, prog="train")
    assert (settings.seed, settings.fit.max_updates, settings.fit.learning_rate) == (3, 9, 1e-3)
    assert settings.flow.options == {"hidden": [8], "blocks": 5}
    assert settings.fit.batch_size == TrainSettings().fit.batch_size


def test_ranges_booleans_and_repeated_key_values_parse():
    argv = ["--simulate.redshift-range", "0.1", "0.2", "--resume", "--no-progress"]
    settings = parse_settings(TrainSettings, argv, prog="train")
    assert settings.simulate.redshift_range == (0.1, 0.2)
    assert settings.resume
    assert not settings.progress
    argv = ["--galaxies", "g.csv", "--column", "cluster_id=ClID", "x=X", "--column", "y=Y"]
    assert parse_settings(InferSettings, argv, prog="infer").column == {
        "cluster_id": "ClID",
        "x": "X",
        "y": "Y",
    }


def test_an_unknown_key_names_the_nearest_valid_one(capsys, tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("fit: {learning_rat: 1}\n", encoding="utf-8")
    code, text = outcome(capsys, ["--config", str(path)])
    assert code == 2
    assert "Unknown key 'fit.learning_rat'" in text
    assert "did you mean 'learning_rate'?" in text
    assert text.count("\n") == 1


def test_an_unknown_flag_names_the_nearest_valid_one(capsys):
    code, text = outcome(capsys, ["--fit.max-update", "3"])
    assert code == 2
    assert text == "train: error: there is no '--fit.max-update'; did you mean --fit.max-updates?\n"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--seed", "many"], ["'seed'", "'many'", "integer"]),
        (["--validation-fraction", "2"], ["'validation_fraction'", "less than 1"]),
        (["--simulate.masses", "round"], ["'simulate.masses'", "'flat' or 'hmf'"]),
        (["--simulate.log10-mass-range", "15", "14"], ["log10_mass_range", "smaller"]),
        (["--config", "nowhere/none.yaml"], ["'nowhere/none.yaml' does not exist"]),
        (["--flow.options", "hidden"], ["KEY=VALUE", "'hidden'"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_bad_value_is_one_sentence_with_the_key_and_the_remedy(capsys, argv, words):
    code, text = outcome(capsys, argv)
    assert code == 2
    for word in words:
        assert word in text
    assert text.count("\n") == 1


def test_a_missing_required_flag_is_named(capsys):
    code, text = outcome(capsys, [], kind=InferSettings)
    assert code == 2
    assert "'galaxies' is missing" in text
    assert "--galaxies" in text


def test_a_file_that_is_not_yaml_is_refused(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("a: [1, 2\nb: }", encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot be read as YAML"):
        load_yaml(path)
    path.write_text("seed: " + "9" * 5000, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"bad\.yaml' cannot be read as YAML"):
        load_yaml(path)
    path.write_text("- 1\n- 2\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="holds a list; expected"):
        load_yaml(path)


def test_settings_come_through_a_pipe_too():
    if not Path("/dev/fd").is_dir():
        pytest.skip("no /dev/fd here")
    reading, writing = os.pipe()
    os.write(writing, b"seed: 3\n")
    os.close(writing)
    try:
        assert load_yaml(f"/dev/fd/{reading}") == {"seed": 3}
    finally:
        os.close(reading)


def test_yaml_cannot_run_code(tmp_path):
    path = tmp_path / "evil.yaml"
    path.write_text("seed: !!python/object/apply:os.system ['true']\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot be read as YAML"):
        load_yaml(path)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ValueError("Row 3 of a.csv:\n bad."), 2, "Row 3 of a.csv: bad."),
        (
            OSError(errno.ENOSPC, "No space left on device", "out.parquet"),
            2,
            "the disk is full ('out.parquet')",
        ),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "a.csv"),
            2,
            "No such file or directory ('a.csv')",
        ),
        (KeyboardInterrupt("Continue with --resume."), 130, "interrupted. Continue with --resume."),
    ],
    ids=["bad input", "full disk", "missing file", "ctrl-c"],
)
def test_expected_errors_become_one_sentence_and_an_exit_code(capsys, error, code, words):
    def body(settings):
        raise error

    found, text = outcome(capsys, [], body)
    assert found == code
    assert words in text
    assert text.count("\n") == 1


def test_our_own_mistakes_keep_their_traceback():
    def body(settings):
        raise KeyError("bug")

    with pytest.raises(KeyError):
        run_command(TrainSettings, body, [], prog="train")


def test_settings_are_immutable_and_strict():
    settings = MockSettings()
    with pytest.raises(ValueError, match="frozen"):
        settings.n_clusters = 3
    with pytest.raises(ConfigError, match="did you mean 'n_clusters'"):
        build_settings(MockSettings, {"n_cluster": 3})


def test_the_entry_point_lists_commands_and_corrects_typos(capsys):
    assert cli.main(["--help"]) == 0
    assert "train" in capsys.readouterr().out
    assert cli.main(["trian"]) == 2
    assert "did you mean 'train'?" in capsys.readouterr().err


@pytest.mark.parametrize("verb", sorted(cli.VERBS))
def test_every_command_has_help_with_defaults(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([verb, "--help"])
    assert stop.value.code == 0
    assert "default" in capsys.readouterr().out


def test_what_is_wrong_in_a_section_is_said_without_the_whole_section(capsys):
    words = ["train", "--config", "quick.yaml", "--fit.max-updates", "5"]
    assert cli.main(words) == 2
    assert capsys.readouterr().err == (
        "bayesflowmass train: error: In 'fit' of 'quick.yaml' and flags: warmup_updates is 100; expected less than"
        " max_updates = 5.\n"
    )


def test_help_says_what_kind_of_value_a_flag_takes(capsys):
    for verb, flags in {
        "simulate": ("--log10-mass-range X X", "--out FILE", "--seed N", "--hosts PATH", "--folds [N ...]"),
        "figures": ("--model MODEL", "--also [MODEL ...]", "--out DIR", "--prior {flat,hmf}", "--n-draws N"),
    }.items():
        with pytest.raises(SystemExit):
            cli.main([verb, "--help"])
        usage = capsys.readouterr().out
        assert [flag for flag in flags if flag not in usage] == []


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_configuration_is_valid(path):
    build_settings(TrainSettings, load_yaml(path), source=path.name)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-3", 2e-3),
        ("1E5", 1e5),
        ("-3e+2", -300.0),
        ("2.5e-1", 0.25),
        ("12", 12),
        ("e5", "e5"),
        ("1e", "1e"),
        ("0.5", 0.5),
    ],
)
def test_numbers_with_an_exponent_are_numbers(text, value):
    parsed = parse_yaml(text)
    assert parsed == value
    assert type(parsed) is type(value)


def test_a_user_without_a_home_gets_one_for_the_time_of_the_command(capsys, monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    homes = []
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    code, _ = outcome(capsys, [], lambda settings: homes.append(Path(os.environ["HOME"])))
    assert code == 0
    assert not homes[0].exists()
    assert "HOME" not in os.environ


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EROFS, "Read-only file system", "m.ecsv"), "Read-only file system ('m.ecsv')"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "nnn"), "File name too long ('nnn')"),
        (MemoryError("Unable to allocate 8 TiB"), "there is not enough memory (Unable to allocate 8 TiB)"),
    ],
    ids=["read-only", "long name", "memory"],
)
def test_what_the_system_refuses_is_one_sentence(capsys, error, said):
    def body(settings):
        raise error

    code, text = outcome(capsys, [], body)
    assert (code, text.count("\n")) == (2, 1)
    assert said in text

"""`bayesflowmass simulate`: the file it writes, and what it says about bad input."""

import numpy as np
import pytest

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.catalog.work import WorkFolder
from bayesflowmass.mocks import MockParameters, catalog_builder, simulate_catalog
from bayesflowmass.simulate import main


def test_the_command_writes_the_catalogue_that_the_function_makes(tmp_path, capsys):
    out = tmp_path / "mocks.parquet"
    argv = ["--out", str(out), "--n-clusters", "30", "--masses", "hmf", "--log10-mass-range", "13.9", "15"]
    argv += ["--mode", "mixed", "--redshift-range", "0.05", "0.2", "--n-projections", "3", "--seed", "4"]
    assert main([*argv, "--parameters", "velocity_bias=1.05", "--no-progress"]) == 0
    assert "30 clusters" in capsys.readouterr().out
    catalog = ClusterCatalog.read(out)
    expected = simulate_catalog(
        30,
        masses="hmf",
        log10_mass_range=(13.9, 15.0),
        mode="mixed",
        redshift=(0.05, 0.2),
        n_projections=3,
        parameters=MockParameters(velocity_bias=1.05),
        seed=4,
    )
    for name in ("x", "y", "v_los", "gal_component"):
        np.testing.assert_array_equal(catalog.galaxies(name), expected.galaxies(name))
    np.testing.assert_array_equal(catalog.column("mode"), expected.column("mode"))
    assert catalog.metadata == expected.metadata
    assert catalog.metadata.extra["mock_parameters"]["velocity_bias"] == 1.05
    # Lines of sight of one halo stay together when a catalogue is split.
    parts = catalog.split([0.5, 0.5], seed=0)
    assert not set(parts[0].column("halo_id")) & set(parts[1].column("halo_id"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--parameters", "velocity_bais=1"], "did you mean 'velocity_bias'?"),
        (["--parameters", "richness_slope=9"], "expected 0.5 to 1.3"),
        (["--redshift", "-0.2"], "within 0.01-1.5"),
        (["--log10-mass-range", "1e14", "1e15"], "log10 M200c"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(tmp_path, capsys, flags, message):
    assert main(["--out", str(tmp_path / "m.parquet"), "--n-clusters", "5", "--no-progress", *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_processes_and_interruptions_change_no_galaxy(tmp_path, monkeypatch, capsys):
    argv = ["--n-clusters", "150", "--log10-mass-range", "14", "15", "--n-projections", "40", "--no-progress"]
    # A batch of few haloes, so that there are several parts.
    monkeypatch.setattr(catalog_builder, "_BATCH_ROWS", 80)
    monkeypatch.setattr(catalog_builder, "_PART", 1)
    out, made = tmp_path / "mocks.parquet", []
    keep = WorkFolder.keep

    def stop_at_the_second(work, index, catalog):
        if len(made) == 1:
            raise KeyboardInterrupt
        made.append(index)
        keep(work, index, catalog)

    monkeypatch.setattr(WorkFolder, "keep", stop_at_the_second)
    assert main(["--out", str(out), *argv]) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert not out.exists()
    assert main(["--out", str(out), *argv, "--seed", "5"]) == 2
    assert "holds parts of an unfinished run" in capsys.readouterr().err
    monkeypatch.setattr(
        WorkFolder, "keep", lambda work, index, one: made.append(index) or keep(work, index, one)
    )
    assert main(["--out", str(out), *argv]) == 0
    assert made == sorted(set(made))
    expected = simulate_catalog(150, log10_mass_range=(14.0, 15.0), n_projections=40)
    assert ClusterCatalog.read(out).equals(expected)
    assert [path.name for path in tmp_path.iterdir()] == ["mocks.parquet"]


def test_two_processes_make_the_catalogue_of_one(tmp_path):
    out = tmp_path / "mocks.parquet"
    assert main(["--out", str(out), "--n-clusters", "30", "--workers", "2", "--no-progress"]) == 0
    assert ClusterCatalog.read(out).equals(simulate_catalog(30))

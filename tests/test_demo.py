"""The demo: which commands it runs, in which order, and the example tables it writes."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.table import Table

from bayesflowmass import demo as demo_module
from bayesflowmass.demo import demo, main, write_example_tables
from bayesflowmass.io import load_catalog


def test_example_tables_read_back_as_the_clusters_they_came_from(tmp_path):
    galaxies, clusters = tmp_path / "my_galaxies.csv", tmp_path / "my_clusters.csv"
    catalog = write_example_tables(galaxies, clusters, seed=1, n_clusters=4)
    read = load_catalog(galaxies, clusters)
    assert len(read) == 4
    order = np.argsort(read.column("cluster_id"))
    np.testing.assert_array_equal(read.n_galaxies[order], catalog.n_galaxies)
    np.testing.assert_allclose(read.column("log10_mass")[order], catalog.column("log10_mass"), atol=1e-4)
    assert list(Table.read(galaxies).colnames) == ["cluster_id", "x", "y", "v_los"]


@pytest.fixture
def recorded(monkeypatch):
    """Commands in the order in which the demo ran them, instead of their effects."""
    calls = []
    for name in ("simulate", "train", "evaluate", "infer", "report"):
        verb = getattr(demo_module, f"{name}_verb")

        def run(arguments, name=name):
            calls.append((name, list(arguments)))
            return 0

        run.__module__ = verb.__name__
        monkeypatch.setattr(verb, "main", run)
    monkeypatch.setattr(demo_module, "_show", lambda masses, clusters: None)
    return calls


def test_the_demo_runs_the_commands_in_order_and_prints_each(recorded, tmp_path, capsys):
    assert demo(tmp_path / "d", seed=3, progress=False) == 0
    assert [name for name, _ in recorded] == ["train", "infer", "simulate", "evaluate", "report"]
    printed = capsys.readouterr().out
    for name, _ in recorded:
        assert f"$ bayesflowmass {name} " in printed
    train = dict(recorded)["train"]
    assert "quick.yaml" in train
    assert "--resume" in train
    assert dict(recorded)["simulate"][-3:-1] == ["--seed", "4"]


def test_a_finished_test_catalogue_is_not_simulated_again(recorded, tmp_path):
    (tmp_path / "test.parquet").touch()
    assert demo(tmp_path, progress=False) == 0
    assert [name for name, _ in recorded] == ["train", "infer", "evaluate", "report"]


def test_the_demo_stops_at_the_first_command_that_fails_and_returns_its_code(recorded, tmp_path, monkeypatch):
    monkeypatch.setattr(demo_module.simulate_verb, "main", _failing)
    assert main(["--out", str(tmp_path / "d"), "--no-progress"]) == 2
    assert [name for name, _ in recorded] == ["train", "infer"]


def _failing(arguments):
    return 2


_failing.__module__ = "bayesflowmass.simulate"

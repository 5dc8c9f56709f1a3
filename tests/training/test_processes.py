"""Several processes train as one does, with the same batches; a death among them costs nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bayesflowmass.common.processes import Processes
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.mocks import simulate_catalog
from bayesflowmass.training.checkpoint import CheckpointError, check_same_settings, counted
from bayesflowmass.training.history import read_history

POINT = {
    "device": "cpu",
    "seed": 3,
    "progress": False,
    "validation_fraction": 0.3,
    "encoder": {"grid": [8, 8]},
    "flow": {"kind": "affine", "options": {"hidden": [8]}},
    "fit": {
        "batch_size": 9,
        "max_updates": 24,
        "validate_every": 6,
        "checkpoint_every": 4,
        "patience_updates": None,
        "learning_rate": 1e-3,
        "flip_velocity": True,
        "clip_norm": 1.0,
    },
}
SHORT = {"max_updates": 24, "validate_every": 6}
MIRRORED = {
    "method": "variational",
    "which": "all",
    "guide": "mean_field",
    "options": {"estimator": "mirrored"},
    "fit": SHORT,
}


class Launcher:
    """Runs ``train`` in processes that are forks of one that has imported everything."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        script = Path(__file__).parents[1] / "support" / "process_group.py"
        self._process = subprocess.Popen(
            [sys.executable, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            text=True,
        )
        simulate_catalog(60, log10_mass_range=(13.8, 14.4), seed=1).write(folder / "clusters.parquet")

    def run(
        self,
        out: Path,
        *flags: str,
        count: int = 2,
        signals: dict[int, tuple[int, int]] | None = None,
        environment: dict[str, Any] | None = None,
        **settings: Any,
    ) -> list[dict[str, Any]]:
        """What became of each process: rank -> ``signals`` has a signal and the update after which it is sent."""
        config = out.with_suffix(".yaml")
        config.write_text(json.dumps(POINT | settings), encoding="utf-8")
        catalog = str(self.folder / "clusters.parquet")
        request = {
            "argv": ["--config", str(config), "--catalog", catalog, "--out", str(out), *flags],
            "count": count,
            "signals": signals or {},
            "environment": environment or {},
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        found: list[dict[str, Any]] = json.loads(self._process.stdout.readline())
        return found

    def trained(self, out: Path, *flags: str, **options: Any) -> tuple[str, list[float]]:
        """Hash of the weights and validation losses of a run that must end well."""
        found = self.run(out, *flags, **options)
        assert [process["code"] for process in found] == [0] * len(found), found
        description = json.loads((out / "model.json").read_text(encoding="utf-8"))
        histories = sorted(out.glob("history*.csv"))
        return description["weights_sha256"], [
            row.validation_loss for path in histories for row in read_history(path)
        ]

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    started = Launcher(tmp_path_factory.mktemp("processes"))
    yield started
    started.close()


@pytest.mark.parametrize("weights", [{"method": "point"}, MIRRORED], ids=["point", "variational"])
def test_losses_are_those_of_one_process(tmp_path: Path, launcher: Launcher, weights: dict[str, Any]):
    """Batches of nine rows, five and four of them mirrored in velocity or not, with a clipped gradient."""
    _, alone = launcher.trained(tmp_path / "one", count=1, weights=weights)
    _, shared = launcher.trained(tmp_path / "two", weights=weights)
    assert len(shared) >= 4
    assert shared == pytest.approx(alone, abs=1e-4)
    one, two = (MassEstimator.load(tmp_path / name, "cpu").flow for name in ("one", "two"))
    for ours, theirs in zip(two.parameters(), one.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_the_same_count_gives_the_same_bits(tmp_path: Path, launcher: Launcher):
    flow = {"kind": "affine", "options": {"hidden": [8], "dropout": 0.2}}
    first, again = (launcher.trained(tmp_path / name, flow=flow) for name in ("first", "again"))
    assert again == first


def test_members_of_an_ensemble_are_those_of_one_process(tmp_path: Path, launcher: Launcher):
    weights = {"method": "ensemble", "options": {"members": 3}}
    start = {"start": str(tmp_path / "point")}
    launcher.trained(tmp_path / "point", count=1)
    alone = launcher.trained(tmp_path / "one", count=1, weights=weights | start)
    assert launcher.trained(tmp_path / "two", weights=weights | start) == alone


def test_the_first_process_alone_writes_and_speaks(tmp_path: Path, launcher: Launcher):
    first, second = launcher.run(tmp_path / "run", "--progress")
    assert "Trained 24 updates" in first["said"]
    assert second == {"code": 0, "said": ""}
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        *(
            "model.json",
            "model.safetensors",
            "history.csv",
            "loss.pdf",
            "loss.png",
            "run.json",
            "settings.yaml",
        )
    }


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "update"), [(0, 7), (1, 18)])
def test_one_that_dies_ends_the_others_and_the_run_goes_on(
    tmp_path: Path, launcher: Launcher, rank: int, update: int
):
    flow = {"kind": "affine", "options": {"hidden": [8], "dropout": 0.2}}
    expected = launcher.trained(tmp_path / "whole", flow=flow)
    begun = time.monotonic()
    found = launcher.run(tmp_path / "run", signals={rank: (signal.SIGKILL, update)}, flow=flow)
    assert time.monotonic() - begun < 60.0
    assert found[rank]["code"] == -signal.SIGKILL
    other = found[1 - rank]
    assert other["code"] == 2
    assert other["said"].count("\n") == 1, other
    assert "Another process of this training is gone" in other["said"]
    assert launcher.trained(tmp_path / "run", "--resume", flow=flow) == expected


def test_signals_that_come_at_different_updates_stop_all_at_one(tmp_path: Path, launcher: Launcher):
    expected = launcher.trained(tmp_path / "whole", weights=MIRRORED)
    signals = {0: (signal.SIGTERM, 9), 1: (signal.SIGTERM, 11)}
    first, second = launcher.run(tmp_path / "run", signals=signals, weights=MIRRORED)
    assert (first["code"], second) == (130, {"code": 130, "said": ""})
    assert "stopped at update 9" in first["said"]
    assert launcher.trained(tmp_path / "run", "--resume", weights=MIRRORED) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fit": POINT["fit"] | {"batch_size": 1}}, "batch of 1 clusters is shared by 2 processes"),
        ({"environment": {"MASTER_ADDR": ""}}, "MASTER_ADDR"),
        ({"flow": {"kind": "afine"}}, "unknown flow kind"),
    ],
    ids=["batch", "rendezvous", "setting"],
)
def test_bad_input_is_said(tmp_path: Path, launcher: Launcher, options: dict[str, Any], message: str):
    first, second = launcher.run(tmp_path / "run", **options)
    assert (first["code"], second["code"]) == (2, 2)
    assert message in first["said"]
    assert first["said"].count("\n") == 1


def test_who_finds_no_others_says_so(tmp_path: Path, launcher: Launcher):
    (found,) = launcher.run(
        tmp_path / "run",
        count=1,
        environment={"RANK": 1, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 9},
    )
    assert found["code"] == 2
    assert "Process 1 of 2 found no others at 127.0.0.1:9" in found["said"].splitlines()[-1]


def test_another_number_of_processes_cannot_go_on(tmp_path: Path, launcher: Launcher):
    launcher.run(tmp_path / "run", signals={0: (signal.SIGTERM, 9)})
    (found,) = launcher.run(tmp_path / "run", "--resume", count=1)
    assert found["code"] == 2
    assert "was begun with 2 processes and cannot go on with 1" in found["said"]
    with pytest.raises(CheckpointError, match="begun with 1 processes and cannot go on with 3"):
        check_same_settings({}, counted(Processes(0, 3)), "run")


def test_a_folder_in_use_is_refused_by_the_first_and_left_by_the_others(tmp_path: Path, launcher: Launcher):
    from bayesflowmass.common.lock import sole_writer

    with sole_writer(tmp_path / "run", "another training"):
        first, second = launcher.run(tmp_path / "run")
    assert "is in use by another training" in first["said"]
    assert (first["code"], second) == (2, {"code": 2, "said": ""})


@pytest.mark.parametrize("n", [0, 1, 2, 7, 9])
def test_rows_are_shared_out_once(n: int):
    shares = [Processes(rank, 3).rows(n) for rank in range(3)]
    assert sorted(row for share in shares for row in share) == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1

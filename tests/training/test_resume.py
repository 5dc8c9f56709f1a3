"""A run that is killed again and again ends with the weights of the run that was not, to the last bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

POINTS = ("half a file", "before a rename", "before a flush", "before old checkpoints go")


class Trainer:
    """Runs training in children of a process that has imported everything."""

    def __init__(self, log: Path) -> None:
        self._log = open(log, "wb")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parents[1] / "support" / "killable_training.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            text=True,
        )
        assert self._answer() == "ready"

    def run(
        self,
        out: Path,
        resume: bool = True,
        doom: tuple[str, int] | None = None,
        seconds: float | None = None,
    ) -> bool:
        """Whether the child ended by itself: not killed after so many seconds, nor at its doom."""
        assert self._process.stdin is not None
        request = {"out": str(out), "resume": resume, "doom": doom, "seconds": seconds}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        code = int(self._answer())
        assert code in (0, -signal.SIGKILL), Path(self._log.name).read_text(encoding="utf-8")[-2000:]
        return code == 0

    def _answer(self) -> str:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline().strip()
        assert answer, Path(self._log.name).read_text(encoding="utf-8")[-2000:]
        return answer

    def close(self) -> None:
        self._process.communicate()
        self._log.close()


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainer]:
    started = Trainer(tmp_path_factory.mktemp("resume") / "log")
    yield started
    started.close()


def weights(out: Path) -> tuple[str, list[list[str]]]:
    """The hash of the weights, and the history without its column of wall times."""
    description = json.loads((out / "model.json").read_text(encoding="utf-8"))
    lines = (out / "history.csv").read_text(encoding="utf-8").splitlines()
    return description["weights_sha256"], [line.split(",")[:-1] for line in lines]


KILLS = 24


def test_killed_and_resumed_runs_end_with_the_same_weights(tmp_path: Path, trainer: Trainer):
    assert trainer.run(tmp_path / "whole", resume=False)
    started = time.monotonic()
    assert trainer.run(tmp_path / "again", resume=False)
    length = time.monotonic() - started
    expected = weights(tmp_path / "whole")
    assert weights(tmp_path / "again") == expected
    # Killed while it tidied up after the end.
    (tmp_path / "again" / "checkpoint" / "update-20").mkdir(parents=True)
    assert trainer.run(tmp_path / "again")
    assert not (tmp_path / "again" / "checkpoint").exists()
    rng = np.random.default_rng(1)
    done = before_first = within_write = chain = 0
    while done < KILLS:
        chain += 1
        out = tmp_path / f"chain{chain}"
        for step in range(8):
            # By turns at a random instant and at a random point of a checkpoint write; the third rename is
            # that of
            # the first checkpoint, after the settings and the history.
            within = step % 2 == 1 or done == 0
            point, count = POINTS[(done // 2) % len(POINTS)], int(rng.integers(1, 12))
            doom = None if not within else ("before a rename", 3) if done == 0 else (point, count)
            seconds = None if within else length * rng.random() * (0.2 if step == 0 else 1.0)
            if trainer.run(out, doom=doom, seconds=seconds):
                break
            done += 1
            before_first += not (out / "checkpoint" / "latest").is_file()
            within_write += within
        assert trainer.run(out)
        assert weights(out) == expected, f"chain {chain} ended elsewhere"
        assert not (out / "checkpoint").exists()
    print(
        f"{done} kills in {chain} chains, {before_first} before a checkpoint, {within_write} within a write"
    )
    assert before_first > 0
    assert within_write > 5

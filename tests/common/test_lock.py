"""One writer for a folder at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bayesflowmass.common.lock import FolderInUseError, sole_writer

HOLD = """
import sys, time
from pathlib import Path
from bayesflowmass.common.lock import sole_writer
with sole_writer(Path(sys.argv[1]), "training"):
    print("held", flush=True)
    time.sleep(600)
"""


def hold(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_is_told_who_the_first_is_and_a_killed_one_locks_nobody_out(tmp_path: Path):
    folder = tmp_path / "run"
    first = hold(folder)
    try:
        with (
            pytest.raises(FolderInUseError, match=f"run' is in use by training, process {first.pid} on "),
            sole_writer(folder, "training"),
        ):
            pass
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
    assert list(folder.iterdir())
    with sole_writer(folder, "training"):
        assert str(os.getpid()) in (folder / ".in-use").read_text(encoding="utf-8")
    assert not list(folder.iterdir())


def test_a_folder_in_which_nothing_came_is_removed_and_one_that_was_there_stays(tmp_path: Path):
    with sole_writer(tmp_path / "new", "training"):
        pass
    assert not (tmp_path / "new").exists()
    with sole_writer(tmp_path / "kept", "training"):
        (tmp_path / "kept" / "file").touch()
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["file"]


@pytest.mark.parametrize("place", ["file/run", "n" * 300], ids=["below a file", "a name too long"])
def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path, place: str):
    (tmp_path / "file").touch()
    with (
        pytest.raises(ValueError, match="; choose another folder"),
        sole_writer(tmp_path / place, "training"),
    ):
        pass

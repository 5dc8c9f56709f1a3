"""Whole-file writing: the old content or the new, and nothing left over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from bayesflowmass.command.paths import check_paths
from bayesflowmass.common.files import PARTIAL, remove_leftovers, whole_file, write_json, write_whole
from bayesflowmass.infer import InferSettings

WRITER = """
import sys, time
from pathlib import Path
from bayesflowmass.common.files import whole_file
with whole_file(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


def partials(folder):
    return sorted(folder.glob(f"{PARTIAL}*"))


def age(path, hours):
    then = time.time() - 3600.0 * hours
    os.utime(path, (then, then))


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    write_whole(tmp_path / "a", "old")

    def half() -> None:
        with whole_file(tmp_path / "a") as temporary:
            temporary.write_text("new", encoding="utf-8")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert (tmp_path / "a").read_text(encoding="utf-8") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.fixture
def writer(tmp_path):
    """A process in the midst of writing a file."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "m.ecsv")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "writing\n"
    with process:
        yield process
        process.kill()


@pytest.mark.skipif(os.name == "nt", reason="files are not locked there")
def test_what_a_killed_writer_leaves_goes_at_the_next_run_and_not_before(writer, tmp_path):
    (half,) = partials(tmp_path)
    age(half, hours=5)
    remove_leftovers(tmp_path)
    assert partials(tmp_path) == [half], "the process still writes"
    writer.kill()
    writer.wait()
    remove_leftovers(tmp_path)
    assert partials(tmp_path) == []
    assert not (tmp_path / "m.ecsv").exists()


def test_what_may_not_be_locked_yet_stays(tmp_path):
    (tmp_path / f"{PARTIAL}young").write_text("", encoding="utf-8")
    (tmp_path / "other").write_text("", encoding="utf-8")
    age(tmp_path / "other", hours=5)
    remove_leftovers(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.skipif(os.name == "nt", reason="files are not locked there")
def test_a_command_tidies_up_where_it_writes_and_nowhere_else(tmp_path):
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{PARTIAL}x").write_text("", encoding="utf-8")
        age(tmp_path / name / f"{PARTIAL}x", hours=5)
    (tmp_path / "in" / "g.csv").write_text("x\n", encoding="utf-8")
    check_paths(InferSettings(galaxies=tmp_path / "in" / "g.csv", out=tmp_path / "out" / "m.ecsv"))
    assert partials(tmp_path / "out") == []
    assert len(partials(tmp_path / "in")) == 1


def test_json_has_finite_numbers_or_is_not_written(tmp_path):
    path = write_json(tmp_path / "a.json", {"b": [1.5, None]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"b": [1.5, None]}
    for number in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON compliant"):
            write_json(path, {"b": number})
    assert json.loads(path.read_text(encoding="utf-8")) == {"b": [1.5, None]}

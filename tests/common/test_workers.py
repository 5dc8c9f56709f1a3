"""Parts of a job on several processes: none is lost, whoever dies, and nothing depends on who did it."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from bayesflowmass.common import workers
from bayesflowmass.common.workers import available_cores, processes, work_off

HERE = str(Path(__file__).parent)


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Other processes find the functions of this file by its name."""
    monkeypatch.setitem(sys.modules, "test_workers", sys.modules[__name__])
    monkeypatch.syspath_prepend(HERE)
    paths = os.pathsep.join([HERE, os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", paths)
    for function in (square, once_deadly, always_deadly, threads_of_torch):
        monkeypatch.setattr(function, "__module__", "test_workers")


def square(number):
    return number**2


def once_deadly(folder, number):
    """The worker that is first to come to 3 is killed over it."""
    if number == 3 and not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number**2


def always_deadly(number):
    os.kill(os.getpid(), signal.SIGKILL)


def threads_of_torch(_):
    """Whether torch was there before it was asked for, and its threads."""
    before = "torch" in sys.modules
    import torch

    return before, torch.get_num_threads()


def test_processes_compute_on_one_core_each_and_load_torch_where_it_is_used(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert dict(work_off(threads_of_torch, range(2), workers=2))[0] == (False, 1)


@pytest.mark.parametrize("n", [1, 2])
def test_every_task_has_its_result(n):
    assert dict(work_off(square, range(7), workers=n)) == {k: k * k for k in range(7)}


def test_tasks_without_end_are_taken_as_they_are_worked_off():
    taken = []
    tasks = (taken.append(n) or n for n in itertools.count())
    for count, _ in enumerate(work_off(square, tasks, workers=2), 1):
        if count == 5:
            break
    assert len(taken) <= 5 + 3


def test_a_killed_worker_loses_nothing(tmp_path):
    found = dict(work_off(partial(once_deadly, tmp_path), range(6), workers=2))
    assert found == {n: n * n for n in range(6)}
    assert (tmp_path / "died").exists()


def test_a_task_that_kills_every_worker_is_one_sentence():
    with pytest.raises(ValueError, match="died three times over the same part"):
        list(work_off(always_deadly, [1], workers=2))


# Without one, a scheduler takes port 8787, and warns where another test has it.
ANY_PORT = "127.0.0.1:0"


def test_a_dask_cluster_does_the_same(tmp_path, monkeypatch):
    """Its workers are killed, lack the package's version, or are not there."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=ANY_PORT) as cluster:
        address = cluster.scheduler_address
        found = dict(work_off(partial(once_deadly, tmp_path), range(6), scheduler=address))
        assert found == {n: n * n for n in range(6)}
        monkeypatch.setattr(workers, "__version__", "9.9")
        with pytest.raises(ValueError, match=r"and this process 9\.9; install the same version"):
            next(work_off(square, [1], scheduler=address))
    monkeypatch.setattr(workers, "_PATIENCE", 0.5)
    with pytest.raises(ValueError, match="No Dask scheduler answers"):
        next(work_off(square, [1], scheduler=address))


BARE = """
import sys
sys.modules["bayesflowmass"] = None
from distributed.cli.dask_worker import main
main([sys.argv[1], "--nthreads", "1", "--no-nanny", "--no-dashboard"])
"""


def test_dask_workers_without_the_package_or_none_at_all_are_one_sentence(monkeypatch):
    """The package cannot be imported where the only worker runs."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=0, dashboard_address=ANY_PORT) as cluster:
        address = cluster.scheduler_address
        monkeypatch.setattr(workers, "_PATIENCE", 0.5)
        with pytest.raises(ValueError, match=r"has no workers; start some: `dask worker ADDRESS`\."):
            next(work_off(square, [1], scheduler=address))
        monkeypatch.setattr(workers, "_PATIENCE", 60.0)
        with subprocess.Popen([sys.executable, "-c", BARE, address], stderr=subprocess.DEVNULL) as worker:
            try:
                with pytest.raises(
                    ValueError, match=r"lack this package: .*; install it where they run"
                ) as caught:
                    next(work_off(square, [1], scheduler=address))
            finally:
                worker.kill()
        assert "bayesflowmass" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_there_are_as_many_processes_as_are_asked_for_or_as_there_are_cores_or_tasks():
    assert processes(7, 3) == 7
    assert processes(None, 1) == 1
    assert processes(None, 10**6) == available_cores() >= 1

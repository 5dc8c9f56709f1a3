"""Many parts of one job, on the processes of this machine or on a Dask cluster; whoever dies, no part is lost."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing.process import BaseProcess
from typing import Any

from bayesflowmass.common.version import __version__

_ATTEMPTS = 3
_PATIENCE = 10.0
"""Seconds that a scheduler has to answer, and its workers to come."""


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processes(asked: int | None, tasks: int) -> int:
    """How many processes share the tasks of a job: as asked, else one for each core, no more than there are tasks."""
    return asked or min(available_cores(), tasks)


def work_off(
    function: Callable[[Any], Any], tasks: Iterable[Any], *, workers: int = 1, scheduler: str | None = None
) -> Iterator[tuple[Any, Any]]:
    """Each task with its result, as they come; tasks are taken no faster than they are worked off.

    A task whose worker dies is given to another. What a task leaves on a disk should appear whole or not at all.

    Args:
        function: of a module, of one task; it and the tasks are pickled. It does the same whoever calls it.
        tasks: hashable; any iterable, also one without an end.
        workers: processes of this machine; one: this one.
        scheduler: address of a Dask scheduler, whose workers do it instead.

    Raises:
        ValueError: no scheduler answers, its workers lack this package or have another version of it, or a task took
            three workers with it.
    """
    if scheduler is None and workers == 1:
        yield from ((task, function(task)) for task in tasks)
        return
    queue, failed = iter(tasks), list[Any]()
    attempts: dict[Any, int] = {}
    while True:
        with _pool(workers, scheduler) as (pool, size):
            running = {pool.submit(function, task): task for task in failed}
            failed.clear()
            try:
                while True:
                    for task in islice(queue, max(0, size + 1 - len(running))):
                        running[pool.submit(function, task)] = task
                    if not running:
                        return
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        result = future.result()
                        yield running.pop(future), result
            except BrokenProcessPool as error:
                failed.extend(running.values())
                for task in failed:
                    attempts[task] = attempts.get(task, 0) + 1
                if max(attempts.values()) >= _ATTEMPTS:
                    raise ValueError(
                        "A worker process died three times over the same part; is there enough memory? Finished parts "
                        "are kept: the same command with fewer --workers goes on from there."
                    ) from error


@contextmanager
def _pool(workers: int, scheduler: str | None) -> Iterator[tuple[Executor, int]]:
    """An executor, and the number of its workers; what has not begun is given up when the block is left."""
    if scheduler is not None:
        with _dask(scheduler) as found:
            yield found
        return
    # Threads of libraries do not survive a fork.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_begin_worker)
    try:
        yield pool, workers
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _dask(address: str) -> Iterator[tuple[Executor, int]]:
    try:
        from distributed import Client
    except ImportError:
        raise ValueError(
            "--scheduler needs Dask; install it with pip install 'bayesflowmass[distributed]'."
        ) from None
    try:
        client = Client(address, timeout=_PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"No Dask scheduler answers at '{address}'; start one with `dask scheduler` and `dask worker ADDRESS`."
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=_PATIENCE)
        except TimeoutError:
            raise ValueError(
                f"The Dask scheduler at '{address}' has no workers; start some: `dask worker ADDRESS`."
            ) from None
        try:
            versions = client.run(_version_there)
        except Exception as error:
            raise ValueError(
                f"The Dask workers at '{address}' lack this package: {error}; install it where they run."
            ) from error
        for worker, version in versions.items():
            if version != __version__:
                raise ValueError(
                    f"The Dask worker {worker} has bayesflowmass {version} and this process {__version__}; install "
                    "the same version on all of them."
                )
        yield client.get_executor(retries=_ATTEMPTS, pure=False), sum(client.nthreads().values())


def _begin_worker() -> None:
    """Each process computes on one core, leaves Ctrl-C to its parent, and does not outlive it."""
    # Read when torch is loaded, which mocks do not need: two seconds and 200 MB of each process.
    os.environ["OMP_NUM_THREADS"] = "1"
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _version_there() -> str:
    return __version__

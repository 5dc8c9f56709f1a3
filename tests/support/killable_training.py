"""A process that trains in children that can be killed: forks, so that none has to import torch again.

Reads requests from standard input, one JSON object a line, and answers each with the exit code of its child.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from typing import Any

import torch
import torch._dynamo
from tqdm import tqdm

from bayesflowmass.common import files
from bayesflowmass.encoders import ContextEncoder, KDEEncoder
from bayesflowmass.mocks import catalog_builder
from bayesflowmass.train import train
from bayesflowmass.training import checkpoint
from bayesflowmass.training.augmentation import Augmentation


def train_once(out: str, resume: bool, prefetch: bool = True, max_updates: int = 60) -> None:
    """A training run with augmentation, fresh mocks, dropout and averaging."""
    train(
        out=out,
        simulate={"n_clusters": 50, "log10_mass_range": (13.8, 14.4)},
        encoder=ContextEncoder(KDEEncoder(grid=(8, 8)), extras=("redshift",)),
        flow={"kind": "affine+spline", "hidden": (16,), "dropout": 0.1, "count_bins": 4},
        augmentation=Augmentation(
            completeness=(0.6, 1.0), velocity_error=(0, 100), miscentre_r=0.05, recentre=True
        ),
        fresh_mocks=True,
        prefetch=prefetch,
        redraw_every=2,
        flip_velocity=True,
        validation_fraction=0.2,
        options={
            "learning_rate": 1e-3,
            "schedule": "cosine",
            "average_decay": 0.9,
            "batch_size": 8,
            "max_updates": max_updates,
            "validate_every": 4,
            "checkpoint_every": 3,
            "patience_updates": None,
        },
        seed=5,
        device="cpu",
        resume=resume,
        progress=False,
    )


def arrange_death(where: str, count: int) -> None:
    """Kill this process at the count-th time that a checkpoint comes to this point."""
    seen = 0

    def dies(whole: Any, half: Any = None) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen == count:
                if half is not None:
                    half(*arguments)
                os.kill(os.getpid(), signal.SIGKILL)
            return whole(*arguments, **options)

        return call

    if where == "half a file":
        files.write_through = dies(
            files.write_through, lambda path, content: path.write_bytes(content[: len(content) // 2])
        )
    elif where == "before a rename":
        os.replace = dies(os.replace)
    elif where == "before a flush":
        os.fsync = dies(os.fsync)
    else:
        checkpoint.shutil.rmtree = dies(shutil.rmtree)


def child(request: dict[str, Any]) -> int:
    """Train in a fork; the exit code, negative for a signal."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            if request["doom"] is not None:
                arrange_death(*request["doom"])
            train_once(request["out"], request["resume"])
            code = 0
        finally:
            os._exit(code)
    end = time.monotonic() + (request["seconds"] if request["seconds"] is not None else 600.0)
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> None:
    """Warm up, so that children begin at once, then serve."""
    torch.set_num_threads(1)
    # The default lock of tqdm is a semaphore of the system, which a killed process leaves behind.
    tqdm.set_lock(threading.RLock())
    catalog_builder._BATCH_ROWS = 64
    answers = os.fdopen(os.dup(1), "w")
    # What training says goes to the log of this process.
    os.dup2(2, 1)
    with tempfile.TemporaryDirectory() as folder:
        train_once(f"{folder}/warm", resume=False, prefetch=False, max_updates=4)
    print("ready", file=answers, flush=True)
    for line in iter(sys.stdin.readline, ""):
        print(child(json.loads(line)), file=answers, flush=True)


if __name__ == "__main__":
    main()

"""Kill trainings at random moments, resume them, and compare the models with one that was left alone, bit by bit.

    python -m benchmarks.kills --n 50

Points, variational posteriors and ensembles by turns: tiny networks, since what is tested is files and random states.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from bayesflowmass.encoders import ContextEncoder, KDEEncoder
from bayesflowmass.mocks import simulate_catalog
from bayesflowmass.train import train

METHODS: dict[str, dict[str, Any]] = {
    "point": {"method": "point"},
    "variational": {"method": "variational", "fit": {"max_updates": 40}},
    "ensemble": {"method": "ensemble:2"},
}
MOST_DEATHS = 4


def options(method: str) -> dict[str, Any]:
    """Arguments of a training of about a second."""
    return {
        "encoder": ContextEncoder(KDEEncoder(grid=(8, 8))),
        "flow": {"kind": "affine", "hidden": (8,), "dropout": 0.1},
        "validation_fraction": 0.3,
        "options": {
            "batch_size": 8,
            "max_updates": 40,
            "validate_every": 10,
            "checkpoint_every": 4,
            "patience_updates": None,
        },
        "weights": METHODS[method],
        "seed": 3,
        "device": "cpu",
        "progress": False,
    }


def train_in_fork(method: str, catalog: Path, out: Path, seconds: float | None) -> bool:
    """Train in a child, which is killed after some seconds; whether it ended by itself.

    Raises:
        RuntimeError: the training failed.
    """
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            train(catalog, out=out, resume=True, **options(method))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    end = time.monotonic() + (600.0 if seconds is None else seconds)
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            if os.waitstatus_to_exitcode(status) != 0:
                raise RuntimeError(f"training of {method} in {out} failed")
            return True
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return False


def digest(folder: Path) -> str:
    """Of the weights."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=50, help="kills in all")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    # The default lock of tqdm is a semaphore of the system, which a killed process leaves behind.
    tqdm.set_lock(threading.RLock())
    rng = np.random.default_rng(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        catalog = folder / "clusters.parquet"
        simulate_catalog(60, log10_mass_range=(13.8, 14.4), seed=1).write(catalog)
        alone, took = {}, {}
        for method in METHODS:
            start = time.monotonic()
            train_in_fork(method, catalog, folder / f"alone-{method}", None)
            took[method] = time.monotonic() - start
            print(f"{method}: {took[method]:.1f} s if left alone", flush=True)
            alone[method] = digest(folder / f"alone-{method}")
        kills, runs, same = 0, 0, 0
        while kills < arguments.n:
            method = list(METHODS)[runs % len(METHODS)]
            out = folder / f"run-{runs}"
            deaths = 0
            while not train_in_fork(
                method, catalog, out, float(rng.uniform(0.05, took[method])) if deaths < MOST_DEATHS else None
            ):
                deaths += 1
            kills, runs, same = kills + deaths, runs + 1, same + (digest(out) == alone[method])
            print(
                f"{method}: killed {deaths} times, {'same' if digest(out) == alone[method] else 'OTHER'} weights",
                flush=True,
            )
    print(f"{same} of {runs} runs, killed {kills} times in all, ended with the weights of a run left alone.")
    if same < runs:
        raise SystemExit(1)


if __name__ == "__main__":
    main()

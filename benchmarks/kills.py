"""Kill trainings at random moments, resume them, and compare the models with one that was left alone, bit by bit.

    python -m benchmarks.kills --n 50 --flips 200

Points, variational posteriors and ensembles: tiny networks, since what is tested is files and random states. Then bits
are flipped at random places of what killed runs left and of finished models: each must be refused.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from bayesflowmass.common.sealed import hash_bytes
from bayesflowmass.encoders import ContextEncoder, KDEEncoder
from bayesflowmass.estimator import MassEstimator
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
    return hash_bytes((folder / "model.safetensors").read_bytes())


def kill_and_resume(method: str, catalog: Path, folder: Path, n: int, rng: np.random.Generator) -> int:
    """Kill trainings ``n`` times or a little more, resume each until it ends; how many ended with other weights.

    Leaves in ``folder`` the run that was left alone (``alone``) and one that was killed (``half``).
    """
    start = time.monotonic()
    train_in_fork(method, catalog, folder / "alone", None)
    took = time.monotonic() - start
    kills, runs, other = 0, 0, 0
    while kills < n or not (folder / "half").exists():
        out, deaths = folder / f"run-{runs}", 0
        while not train_in_fork(
            method, catalog, out, float(rng.uniform(0.02, took)) if deaths < MOST_DEATHS else None
        ):
            deaths += 1
            if list(out.rglob("latest")) and not (folder / "half").exists():
                shutil.copytree(out, folder / "half")
        kills, runs, other = kills + deaths, runs + 1, other + (digest(out) != digest(folder / "alone"))
        shutil.rmtree(out)
    print(f"{method}: {kills} kills in {runs} runs, {other} of them ended with other weights.", flush=True)
    return other


def state_files(run: Path) -> list[Path]:
    """What a killed run goes on from: its finished phases, and the checkpoint of the one that was interrupted."""
    done = (run / "phases" / "point.json").is_file()
    begun = [path.parent for path in run.rglob("latest") if not (done and path.parent.name == "checkpoint")]
    folders = [*begun, *(folder / (folder / "latest").read_text(encoding="utf-8") for folder in begun)]
    return [path for folder in (run / "phases", *folders) for path in folder.glob("*") if path.is_file()]


def model_files(run: Path) -> list[Path]:
    return [run / "model.json", run / "model.safetensors"]


def accepted_flips(
    files: Sequence[Path], n: int, read: Callable[[], object], rng: np.random.Generator
) -> list[str]:
    """Flip one bit after another in the files, ``n`` in all, by turns, until reading takes one; where that was."""
    for number in range(n):
        path = files[number % len(files)]
        whole = path.read_bytes()
        place, bit = int(rng.integers(len(whole))), int(rng.integers(8))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
        with suppress(ValueError):
            read()
            return [f"bit {bit} of byte {place} of {path} was taken; {n - 1 - number} more were not tried"]
        path.write_bytes(whole)
    return []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=50, help="kills of each method")
    parser.add_argument(
        "--flips", type=int, default=200, help="bits flipped, half in checkpoints, half in models"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    # The default lock of tqdm is a semaphore of the system, which a killed process leaves behind.
    tqdm.set_lock(threading.RLock())
    rng = np.random.default_rng(arguments.seed)
    other, accepted = 0, []
    with tempfile.TemporaryDirectory() as name:
        catalog = Path(name) / "clusters.parquet"
        simulate_catalog(60, log10_mass_range=(13.8, 14.4), seed=1).write(catalog)
        # Children find everything imported: they are killed in training and not before.
        train(catalog, out=Path(name) / "warm", **options("point"))
        for method in METHODS:
            folder = Path(name) / method
            folder.mkdir()
            other += kill_and_resume(method, catalog, folder, arguments.n, rng)
            n = len(range(list(METHODS).index(method), arguments.flips // 2, len(METHODS)))
            half = folder / "half"
            resume = partial(train, catalog, out=half, resume=True, **options(method))
            with open(os.devnull, "w", encoding="utf-8") as quiet, redirect_stdout(quiet):
                accepted += accepted_flips(state_files(half), n, resume, rng)
            load = partial(MassEstimator.load, folder / "alone", "cpu")
            accepted += accepted_flips(model_files(folder / "alone"), n, load, rng)
            # Whole again, both are taken.
            load()
            resume()
    print(
        "\n".join(
            [f"{arguments.flips - len(accepted)} of {arguments.flips} flipped bits were refused.", *accepted]
        )
    )
    if other or accepted:
        raise SystemExit(1)


if __name__ == "__main__":
    main()

"""
Training in two processes beside one: speed, losses, and what a killed process costs.

    python -m benchmarks.processes [--updates 100] [--batches 100 1000] [--kills 10]

The paper's networks on made-up images, one thread a process, the same batches; then a tiny training under torchrun of
which one process is killed at random moments and which is resumed: it must end with the weights of one left alone.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from bayesflowmass.common.processes import joined
from bayesflowmass.common.sealed import hash_bytes
from bayesflowmass.flows import build_flow
from bayesflowmass.mocks import simulate_catalog
from bayesflowmass.training.fit import fit
from bayesflowmass.training.sources import FixedSource
from benchmarks.training_step import CONTEXT, LOC, SCALE

CLUSTERS = 4000
TINY = {
    "device": "cpu",
    "seed": 3,
    "progress": False,
    "validation_fraction": 0.3,
    "encoder": {"grid": [8, 8]},
    "flow": {"kind": "affine", "options": {"hidden": [8], "dropout": 0.1}},
    "fit": {
        "batch_size": 8,
        "max_updates": 400,
        "validate_every": 20,
        "checkpoint_every": 5,
        "patience_updates": None,
    },
}


def torchrun(count: int, *command: str) -> subprocess.Popen[str]:
    """The command in ``count`` processes of one thread."""
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={count}"] if count > 1 else []
    words = [word for module in (*launcher[:1], command[0]) for word in ("-m", module)]
    words[2:2] = launcher[1:]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *words, *command[1:]], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment,
    )  # fmt: skip


def work(batch: int, updates: int) -> None:
    """Train, and print the time [s] and the validation loss."""
    torch.set_num_threads(1)
    with joined("cpu") as processes:
        generator = torch.Generator().manual_seed(0)
        context = torch.rand(CLUSTERS, CONTEXT, generator=generator)
        mass = LOC + SCALE * torch.randn(CLUSTERS, generator=generator)
        source, held_out = FixedSource(context, mass), (context[:100], mass[:100])
        options = {"batch_size": batch, "patience_updates": None, "device": "cpu", "progress": False}
        flow = build_flow("affine", CONTEXT, LOC, SCALE)
        fit(flow, source, held_out, max_updates=3, validate_every=3, **options)
        result = fit(flow, source, held_out, max_updates=updates, validate_every=updates, **options)
        if processes.is_first:
            print(json.dumps([result.seconds, result.best_validation_loss]))


def measure(count: int, batch: int, updates: int) -> tuple[float, float]:
    """Milliseconds an update, and the validation loss."""
    found = torchrun(count, "benchmarks.processes", "--work", str(batch), "--updates", str(updates))
    said, errors = found.communicate()
    if found.returncode:
        raise SystemExit(errors)
    seconds, loss = json.loads(said.splitlines()[-1])
    return 1e3 * seconds / updates, loss


def children_of(pid: int) -> list[int]:
    """Processes that a launcher started, in order."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8")
    return [int(word) for word in text.split()]


def kill(n: int, seed: int) -> None:
    """Kill one of two processes at n random moments after the first checkpoint, resume, and compare."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        simulate_catalog(60, log10_mass_range=(13.8, 14.4), seed=1).write(folder / "clusters.parquet")
        (folder / "tiny.yaml").write_text(json.dumps(TINY), encoding="utf-8")

        def train(out: str) -> subprocess.Popen[str]:
            flags = ["--config", "tiny.yaml", "--catalog", "clusters.parquet", "--resume", "--out", out]
            flags = [str(folder / word) if "." in word or word == out else word for word in flags]
            return torchrun(2, "bayesflowmass.train", *flags)

        def digest(out: str) -> str:
            return hash_bytes((folder / out / "model.safetensors").read_bytes())

        train("alone").communicate()
        done = 0
        while True:
            run = train("killed")
            if done < n:
                checkpoints = folder / "killed" / "checkpoint"
                known = (checkpoints / "latest").read_text(encoding="utf-8") if done else ""
                while run.poll() is None and not (
                    (checkpoints / "latest").is_file()
                    and (checkpoints / "latest").read_text(encoding="utf-8") != known
                ):
                    time.sleep(0.005)
                time.sleep(rng.uniform(0.0, 0.2))
                members = children_of(run.pid) if run.poll() is None else []
                if members:
                    os.kill(members[int(rng.integers(len(members)))], signal.SIGKILL)
            begun = time.monotonic()
            _, errors = run.communicate()
            if run.returncode == 0:
                break
            done += 1
            said = [line for line in errors.splitlines() if line.startswith("bayesflowmass train:")]
            print(f"kill {done}: ended {time.monotonic() - begun:.1f} s later, saying {said}", flush=True)
        same = digest("killed") == digest("alone")
    print(f"killed {done} times and resumed: {'the same weights' if same else 'OTHER WEIGHTS'}")
    if not same:
        raise SystemExit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--updates", type=int, default=100, help="of each run (100)")
    parser.add_argument(
        "--batches", type=int, nargs="+", default=[100, 1000], help="clusters a batch (100 1000)"
    )
    parser.add_argument("--kills", type=int, default=10, help="(10)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    parser.add_argument("--work", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work, arguments.updates)
        return
    for batch in arguments.batches:
        (one, loss), (two, same) = (measure(count, batch, arguments.updates) for count in (1, 2))
        print(
            f"batch of {batch}: {one:.1f} ms an update in one process, {two:.1f} in two, {one / two:.2f} times the"
            f" speed; validation losses differ by {abs(loss - same):.1e} nats",
            flush=True,
        )
    kill(arguments.kills, arguments.seed)


if __name__ == "__main__":
    main()

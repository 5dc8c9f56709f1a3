"""
All that is to be done on a GPU, in one go: the tests marked `gpu`, then the speed of what is slow, into a table.

    python -m benchmarks.gpu_check [--device cuda] [--out docs/results/gpu.md]       (or: make gpu-check)

Under eight minutes on one card. Where there is none it says so and does nothing; `--device cpu --small` runs the same
code at a tiny size, to see that it works. Rows beside `float32` say what reduced precision and captured steps (CUDA
graphs) give: each update is that of the paper's networks, 4.04 million weights, a batch of 100.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyro
import torch

from bayesflowmass.bayes import MeanField
from bayesflowmass.encoders import KDEEncoder, LocalDensities
from bayesflowmass.infer import infer
from bayesflowmass.train import train
from bayesflowmass.training.update import matmul_precision
from benchmarks import inference, local_densities, weights_step
from benchmarks.kde import synthetic
from benchmarks.provenance import header, provenance
from benchmarks.training_step import CONTEXT, LOC, SCALE, ByHand

Row = tuple[str, str, str]
TESTS = (
    "training/test_gpu.py",
    "flows/test_flows.py",
    "encoders/test_kde.py",
    "encoders/test_local_densities.py",
)


def least_seconds(work: Callable[[], object], turns: int = 5) -> float:
    """The shortest of a few turns, after one to warm up, until the device is done."""
    times = []
    for _ in range(turns + 1):
        begun = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    return min(times[1:])


def encoders(device: str, small: bool) -> Iterator[Row]:
    """Images of the density, and densities at the galaxies."""
    n = 50 if small else 20_000
    points, offsets = synthetic(n, np.random.default_rng(0))
    x, ends = torch.from_numpy(points).float().to(device), torch.from_numpy(offsets).to(device)
    kde = KDEEncoder()
    yield "KDE, 10 to 400 galaxies", f"{n / least_seconds(lambda: kde(x, ends)):.0f}", "clusters/s"
    n = 10 if small else 2000
    points, ends = (part.to(device) for part in local_densities.clusters([200] * n, torch.float32, 0))
    local = LocalDensities()
    taken = least_seconds(lambda: local(points, ends))
    yield "local densities, 200 galaxies", f"{n / taken:.0f}", "clusters/s"


def steps(device: str, small: bool) -> Iterator[Row]:
    """Updates: without random weights, of the default posterior, of the mean field."""
    batch = LOC + SCALE * torch.randn(100, device=device), torch.rand(100, CONTEXT, device=device)
    on_gpu = torch.device(device).type == "cuda"
    kinds: dict[str, Callable[[bool, dict[str, str]], weights_step.Step]] = {
        "plain": lambda graphs, options: weights_step.trainer(ByHand().to(device), graphs, **options),
        "variational, default": lambda graphs, _: weights_step.ours_above(device, graphs, batch),
        "mean field, all weights": lambda graphs, _: weights_step.ours(
            device, graphs, MeanField, "all", estimator="local"
        ),
    }
    for name, make in kinds.items():
        precisions = ["float32"]
        if on_gpu and name == "plain":
            precisions += ["tf32", "bf16"]
        for precision in precisions:
            for graphs in (False, True) if on_gpu else (False,):
                with matmul_precision(precision):
                    step = make(graphs, {"precision": precision})
                    taken = weights_step.timed(step, batch, 1 if small else 50)
                captured = ", captured" if graphs else ""
                yield f"update, {name}, {precision}{captured}", f"{min(taken):.3f}", "ms"


def whole(device: str, small: bool) -> Iterator[Row]:
    """Inference, and the paper's training from mocks to model."""
    n = 20 if small else 20_000
    catalog = inference.clusters(n, 60)
    for name in inference.MODELS:
        estimator = inference.model(name, catalog, device)
        taken = least_seconds(partial(infer, estimator, catalog), 1 if small else 3)
        yield f"inference, {name}, 60 galaxies", f"{n / taken:.0f}", "clusters/s"
    n, updates = (40, 4) if small else (20_000, 2000)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        train(
            out=folder,
            simulate={"n_clusters": n},
            options={"max_updates": updates, "patience_updates": None, "batch_size": min(100, n // 2)},
            device=device,
            progress=False,
        )
        taken = time.perf_counter() - begun
    yield f"the paper's training, {updates} updates, {n} mocks made for it", f"{taken:.1f}", "s"


def equality() -> str:
    """The tests marked `gpu`: their last line.

    Raises:
        SystemExit: one failed.
    """
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", *(f"tests/{path}" for path in TESTS)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    print(found.stdout)
    if found.returncode:
        raise SystemExit(f"A test marked gpu failed; see above. {found.stderr}")
    return found.stdout.strip().splitlines()[-1].strip("= ")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try the code (cuda)")
    parser.add_argument(
        "--small", action="store_true", help="tiny sizes, and no tests: only to see that it runs"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/results/gpu.md"), help="(docs/results/gpu.md)")
    arguments = parser.parse_args(argv)
    if arguments.device != "cpu" and not torch.cuda.is_available():
        print(
            "gpu-check: skipped, since torch finds no CUDA device here; --device cpu --small tries the code."
        )
        return
    said = "not run" if arguments.small else equality()
    torch.manual_seed(0)
    table: list[Row] = []
    with pyro.validation_enabled(False):
        for part in (encoders, steps, whole):
            for row in part(arguments.device, arguments.small):
                print(*row, flush=True)
                table.append(row)
    lines = [
        header("On a GPU", provenance(0)),
        f"Tests of equality with the CPU: {said}.\n",
        *("| what | speed |", "|---|---|"),
        *(f"| {what} | {number} {unit} |" for what, number, unit in table),
    ]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

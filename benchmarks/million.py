"""A million clusters through the verbs: time, memory, and the same tables whoever makes them.

    pip install '.[distributed]'
    python -m benchmarks.million --work DIR [--n 1000000] [--steps ...] [--out docs/results/million]

Contaminated clusters of the mass function, some fifty galaxies each, by two processes; the same by a Dask scheduler
with two workers, of which one is killed in the middle of `infer`. `ratios` takes 262 144 clusters by one
process and by two; `evaluate` judges the point model on the million, and `report` makes the page of all that is in
DIR by then. Memory is what all processes of a command have at the worst moment, shared
pages counted once (PSS). The point model is that of `quick.yaml`, trained here. Steps that are done are kept in DIR.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq

from benchmarks.provenance import header, provenance

ADDRESS = "tcp://127.0.0.1:8797"
MOCKS = ("simulate", "--masses", "hmf", "--log10-mass-range", "13.5", "15.4", "--seed", "3", "--no-progress")
STEPS = ("simulate", "point", "dask", "ratios", "sky", "evaluate", "report")
LIMIT = "a loop that shares nothing"
"""What two cores of this machine give at best; virtual cores can be less than two."""
EIGHT_PARTS = 262_144
"""Clusters of the comparison of one process with two: equal parts of `infer`, many enough that starting is little."""


def cli(*arguments: str) -> list[str]:
    """The command of the package."""
    code = "import sys; from bayesflowmass.cli import main; sys.exit(main())"
    return [sys.executable, "-c", code, *arguments]


def run(*arguments: str, watch: Sequence[psutil.Process] = ()) -> dict[str, float]:
    """Wall time [s] of a command, processor time [s] and peak memory [GB] of it, its children and ``watch``."""
    before = sum(map(processor, watch))
    begun = time.monotonic()
    child = psutil.Popen(cli(*arguments), stderr=subprocess.DEVNULL)
    peak, spent = 0.0, dict[int, float]()
    while child.poll() is None:
        family = [*watch, child, *children(child)]
        peak = max(peak, sum(map(memory, family)))
        spent |= {process.pid: processor(process) for process in family if process not in watch}
        time.sleep(0.5)
    if child.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with code {child.returncode}.")
    used = sum(spent.values()) + sum(map(processor, watch)) - before
    return {"wall": time.monotonic() - begun, "processor": used, "gigabytes": peak / 1e9}


def children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def memory(process: psutil.Process) -> float:
    try:
        return float(process.memory_full_info().pss)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0.0


def processor(process: psutil.Process) -> float:
    try:
        return float(sum(process.cpu_times()[:2]))
    except psutil.NoSuchProcess:
        return 0.0


@contextmanager
def dask() -> Iterator[list[psutil.Process]]:
    """A scheduler and two workers of one thread; the workers are the last two."""
    port = ADDRESS.rpartition(":")[2]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    program = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    started = [psutil.Popen([*program, "--host", "127.0.0.1", "--port", port, "--no-dashboard"], **quiet)]
    time.sleep(5)
    started += [worker() for _ in range(2)]
    try:
        yield started
    finally:
        for process in started:
            with suppress(psutil.NoSuchProcess):
                process.kill()
                process.wait()


def worker() -> psutil.Popen:
    """One worker of one thread."""
    options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--memory-limit", "0"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return psutil.Popen(
        [sys.executable, "-m", "distributed.cli.dask_worker", ADDRESS, *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )


def equal(first: Path, second: Path) -> bool:
    """Whether two files have the same rows, read row group by row group."""
    a, b = pq.ParquetFile(first), pq.ParquetFile(second)
    same = a.num_row_groups == b.num_row_groups and a.schema_arrow.equals(b.schema_arrow)
    return same and all(a.read_row_group(i).equals(b.read_row_group(i)) for i in range(a.num_row_groups))


def ratios(work: Path) -> dict[str, Any]:
    """Wall times of one process and of two."""
    catalog = work / "some.parquet"
    commands = {
        "simulate": (*MOCKS, "--n-clusters", str(EIGHT_PARTS), "--out", str(catalog)),
        "infer": infer(catalog, work / "some_masses.parquet", work / "point"),
    }
    times = {
        name: [run(*command, "--workers", str(workers))["wall"] for workers in (1, 2)]
        for name, command in commands.items()
    }
    return {LIMIT: [statistics.median(loops(workers) for _ in range(3)) for workers in (1, 2)]} | times


def loops(workers: int) -> float:
    """Wall time [s] of a loop that needs nothing but its core, all of it or a part in each process."""
    program = (
        f"import numpy as np\na = np.ones(20000)\nfor _ in range({16_000 // workers}): np.exp(np.sin(a))"
    )
    begun = time.monotonic()
    started = [psutil.Popen([sys.executable, "-c", program]) for _ in range(workers)]
    for process in started:
        process.wait()
    return time.monotonic() - begun


def infer(catalog: Path, out: Path, model: Path | str) -> tuple[str, ...]:
    """The command that makes masses."""
    return ("infer", "--galaxies", str(catalog), "--model", str(model), "--out", str(out), "--no-progress")


def by_dask(work: Path, n: int) -> dict[str, Any]:
    """The catalogue, and the masses of the point model while a worker is killed, beside those of two processes."""
    catalog, masses = work / "dask.parquet", work / "dask_masses.parquet"
    scheduler = ("--scheduler", ADDRESS)
    with dask() as started:
        simulated = run(*MOCKS, "--n-clusters", str(n), "--out", str(catalog), *scheduler, watch=started)
        simulated["equal"] = equal(catalog, work / "million.parquet")
        catalog.unlink()
        victim = started[-1]
        subprocess.Popen([sys.executable, "-c", KILL, str(victim.pid), f"{masses}.work"])
        command = infer(work / "million.parquet", masses, work / "point")
        inferred = run(*command, *scheduler, watch=started)
        if victim.poll() != -signal.SIGKILL:
            raise SystemExit("The worker was not killed in the middle.")
        inferred["equal"] = equal(masses, work / "point_masses.parquet")
    return {"simulate": simulated, "infer": inferred}


KILL = """
import os, pathlib, signal, sys, time
pid, folder = int(sys.argv[1]), pathlib.Path(sys.argv[2])
while not folder.is_dir() or len([p for p in folder.rglob("*.parquet")]) < 3:
    time.sleep(0.2)
time.sleep(1.0)
os.kill(pid, signal.SIGKILL)
"""


def step(name: str, work: Path, n: int) -> dict[str, Any]:
    """Numbers of one step."""
    two = ("--workers", "2")
    if name == "ratios":
        return ratios(work)
    if name == "simulate":
        return run(*MOCKS, "--n-clusters", str(n), "--out", str(work / "million.parquet"), *two)
    if name == "point":
        return run(*infer(work / "million.parquet", work / "point_masses.parquet", work / "point"), *two)
    if name == "sky":
        return run(*infer(work / "million.parquet", work / "sky_masses.parquet", "sky"), *two)
    if name == "evaluate":
        files = ("--catalog", str(work / "million.parquet"), "--out", str(work / "evaluation"))
        return run("evaluate", "--model", str(work / "point"), *files, "--no-progress", *two)
    if name == "report":
        return run("report", str(work))
    return by_dask(work, n)


def page(results: dict[str, Any], n: int, galaxies: int) -> str:
    """The table."""
    lines = [
        f"{n} clusters with {galaxies} galaxies ({galaxies / n:.1f} each). Memory: all processes together.",
        "",
        "| what | by | wall time [s] | processor time [s] | peak memory [GB] | same table |",
        "|---|---|---|---|---|---|",
    ]
    names: dict[str, list[tuple[str, str, str | None]]] = {
        "simulate": [("simulate", "two processes", None)],
        "point": [("infer, point model", "two processes", None)],
        "sky": [("infer, `sky`", "two processes", None)],
        "evaluate": [("evaluate, point model, with figures", "two processes", None)],
        "report": [("report", "one process", None)],
        "dask": [
            ("simulate", "Dask, two workers", "simulate"),
            ("infer, point model", "Dask, one of two workers killed in the middle", "infer"),
        ],
    }
    for key, rows in names.items():
        for what, who, part in rows:
            if key in results:
                r = results[key] if part is None else results[key].get(part)
                if r:
                    same = {None: "", True: "yes", False: "**no**"}[r.get("equal")]
                    numbers = f"{r['wall']:.0f} | {r['processor']:.0f} | {r['gigabytes']:.2f}"
                    lines.append(f"| {what} | {who} | {numbers} | {same} |")
    for name, (one, two) in results.get("ratios", {}).items():
        what = name if name == LIMIT else f"`{name}` of {EIGHT_PARTS} clusters"
        lines.append(
            f"\n{what[0].upper()}{what[1:]}: {one:.1f} s by one process, {two:.1f} s by two"
            f": {one / two:.2f} times as fast."
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is missing and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--out", type=Path, default=Path("docs/results/million"))
    arguments = parser.parse_args()
    work, n = arguments.work, arguments.n
    work.mkdir(parents=True, exist_ok=True)
    kept = work / "results.json"
    results = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    if not (work / "point" / "model.json").exists():
        run("train", "--config", "quick.yaml", "--out", str(work / "point"), "--seed", "1", "--no-progress")
    for name in STEPS:
        if name in arguments.steps and name not in results:
            results[name] = step(name, work, n)
            kept.write_text(json.dumps(results, indent=1), encoding="utf-8")
            print(name, results[name], flush=True)
    galaxies = n_galaxies(work / "million.parquet")
    source = provenance(3)
    arguments.out.with_suffix(".json").write_text(
        json.dumps({"provenance": source, "n": n, **results}, indent=1) + "\n", encoding="utf-8"
    )
    text = header("A million clusters", source) + "\n" + page(results, n, galaxies)
    arguments.out.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


def n_galaxies(catalog: Path) -> int:
    """Galaxies of a catalogue with list columns."""
    file = pq.ParquetFile(catalog)
    groups = (file.read_row_group(i, columns=["v_los"]) for i in range(file.num_row_groups))
    return sum(len(chunk.flatten()) for group in groups for chunk in group.column("v_los").chunks)


if __name__ == "__main__":
    main()

"""Wall and processor time of simulating mock clusters: the smallest of several runs in one thread.

``python -m benchmarks.simulation [--clusters N] [--repeats K] [--out OUT]`` writes OUT.md, and fails where the flat
contaminated catalogue takes more than 20 s for 20 000 clusters.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import torch

from bayesflowmass.mocks import simulate_catalog
from benchmarks.provenance import header, provenance

LIMIT_S = 20.0
CASES = {
    "flat, contaminated, paper": {},
    "flat, contaminated, survey": {"mode": "survey"},
    "flat, contaminated, mixed, z 0.01-0.3": {"mode": "mixed", "redshift": (0.01, 0.3)},
    "flat, contaminated, three projections": {"n_projections": 3},
    "flat, pure": {"kind": "pure"},
    "mass function 13.5-15.25, contaminated": {"masses": "hmf", "log10_mass_range": (13.5, 15.25)},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clusters", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        header("Simulation", provenance(0)),
        "| catalogue | galaxies | wall [s] | processor [s] | clusters/s |",
        "|---|---|---|---|---|",
    ]
    fastest = {}
    for name, options in CASES.items():
        seconds, processor = [], []
        for repeat in range(arguments.repeats):
            start, busy = time.perf_counter(), time.process_time()
            catalog = simulate_catalog(arguments.clusters, seed=repeat, **options)
            seconds.append(time.perf_counter() - start)
            processor.append(time.process_time() - busy)
        fastest[name] = min(seconds)
        lines.append(
            f"| {name} | {catalog.n_galaxies_total:,} | {fastest[name]:.2f} | {min(processor):.2f} | "
            f"{arguments.clusters / fastest[name]:,.0f} |"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    lines.append(
        f"\nPeak memory {peak:.2f} GB; {arguments.clusters:,} clusters, minimum of {arguments.repeats} runs."
    )
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.with_suffix(".md").write_text(text, encoding="utf-8")
    return int(fastest["flat, contaminated, paper"] * 20_000 / arguments.clusters > LIMIT_S)


if __name__ == "__main__":
    raise SystemExit(main())

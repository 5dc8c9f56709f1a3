"""A million clusters of 50 galaxies: write, open, filter and iterate; wall time and peak memory.

``python -m benchmarks.catalog [--clusters N] [--galaxies M] [--folder DIR]`` prints one line per step, each
step run in a process of its own so that its peak resident memory is its own, and fails where that exceeds 4
GB.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT_GB = 4.0


def write(path: Path, clusters: int, galaxies: int) -> str:
    """Stream parts of 20 000 clusters to one file, positions and velocities in float32."""
    import numpy as np

    from bayesflowmass.catalog import CatalogWriter, ClusterCatalog

    rng = np.random.default_rng(0)
    with CatalogWriter(path) as writer:
        for start in range(0, clusters, 20_000):
            n = min(20_000, clusters - start)
            rows = {
                "cluster_id": np.arange(start, start + n),
                "redshift": rng.uniform(0.01, 0.3, n),
                "log10_mass": rng.uniform(13.2, 15.6, n),
                "halo_id": np.arange(start, start + n) // 3,
            }
            columns = {
                "x": rng.normal(0, 0.5, n * galaxies).astype(np.float32),
                "y": rng.normal(0, 0.5, n * galaxies).astype(np.float32),
                "v_los": rng.normal(0, 700, n * galaxies).astype(np.float32),
                "gal_is_member": rng.random(n * galaxies) < 0.7,
            }
            writer.write(ClusterCatalog.from_arrays(rows, columns, np.full(n, galaxies)))
    return f"{path.stat().st_size / 1e9:.2f} GB on disk"


def open_whole(path: Path, clusters: int, galaxies: int) -> str:
    """Read everything into memory and validate it."""
    from bayesflowmass.catalog import ClusterCatalog

    catalog = ClusterCatalog.read(path).validate()
    assert len(catalog) == clusters
    assert catalog.n_galaxies_total == clusters * galaxies
    return repr(catalog)


def filter_whole(path: Path, clusters: int, galaxies: int) -> str:
    """Read, then keep massive clusters, then galaxies in the cylinder, then split."""
    from bayesflowmass.catalog import ClusterCatalog
    from bayesflowmass.selection import cylinder

    catalog = ClusterCatalog.read(path, ["cluster_id", "halo_id", "log10_mass", "x", "y", "v_los"])
    timer = time.perf_counter()
    massive = catalog.filter(catalog.column("log10_mass") > 14.0)
    del catalog
    inner = cylinder(massive, 1.0, 1500.0)
    parts = inner.split([0.8, 0.1, 0.1], seed=0)
    seconds = time.perf_counter() - timer
    return f"{inner!r}, parts of {[len(part) for part in parts]}; after reading {seconds:.2f} s"


def iterate(path: Path, clusters: int, galaxies: int) -> str:
    """Stream batches of 4096 clusters, as training does, into tensors."""
    import torch

    from bayesflowmass.catalog import ClusterCatalog

    total = 0
    for batch in ClusterCatalog.iterate(path, 4096, ["log10_mass", "x", "y", "v_los"]):
        total += len(batch.galaxy_tensor(["r_proj", "v_los"], torch.float32))
    assert total == clusters * galaxies
    return f"{total} galaxies"


def iterate_filtered(path: Path, clusters: int, galaxies: int) -> str:
    """The same with a condition that keeps a quarter of the clusters."""
    import pyarrow.compute as pc

    from bayesflowmass.catalog import ClusterCatalog

    where = pc.field("log10_mass") > 15.0
    batches = ClusterCatalog.iterate(path, 4096, ["log10_mass", "x", "y", "v_los"], where)
    return f"{sum(len(batch) for batch in batches)} clusters"


STEPS = {step.__name__: step for step in (write, open_whole, filter_whole, iterate, iterate_filtered)}


def main() -> int:
    """Run every step in its own process and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clusters", type=int, default=1_000_000)
    parser.add_argument("--galaxies", type=int, default=50)
    parser.add_argument(
        "--folder", type=Path, default=None, help="where the file goes (default: a temporary folder)"
    )
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        timer = time.perf_counter()
        what = STEPS[arguments.step](arguments.path, arguments.clusters, arguments.galaxies)
        seconds = time.perf_counter() - timer
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(json.dumps({"seconds": seconds, "peak_gb": peak, "what": what}))
        return 0
    worst = 0.0
    print(f"{arguments.clusters} clusters of {arguments.galaxies} galaxies, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for name in STEPS:
            size = ["--clusters", str(arguments.clusters), "--galaxies", str(arguments.galaxies)]
            command = [
                sys.executable,
                __file__,
                "--step",
                name,
                "--path",
                str(Path(folder) / "big.parquet"),
                *size,
            ]
            result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            worst = max(worst, result["peak_gb"])
            print(
                f"{name:18s} {result['seconds']:7.2f} s   peak {result['peak_gb']:5.2f} GB   {result['what']}"
            )
    print(
        f"largest peak {worst:.2f} GB, limit {LIMIT_GB:.0f} GB: {'met' if worst < LIMIT_GB else 'EXCEEDED'}"
    )
    return int(worst >= LIMIT_GB)


if __name__ == "__main__":
    sys.exit(main())

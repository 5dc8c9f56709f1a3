"""How long cylinders around clusters take, and N-body boxes to read: ``python -m benchmarks.cylinders``."""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from astropy.table import Table

from bayesflowmass.io import Recentring, cut_cylinders, iterate_box
from benchmarks.provenance import header, provenance

HEADER = "rockstarId,upId,pId,Mvir,Rvir,Rs,Macc,Vacc,M500c,M200c,x,y,z,vx,vy,vz"


def survey(rng, n):
    """Galaxies over a quarter of the sky, uniform in volume to z = 0.2."""
    table = Table({"ra": rng.uniform(0, 180, n), "dec": np.degrees(np.arcsin(rng.random(n)))})
    table["z"], table["z_err"] = 0.2 * rng.random(n) ** (1 / 3), np.full(n, 1e-4)
    return table


def centres(rng, n):
    table = Table({"cluster_id": np.arange(n), "ra": rng.uniform(5, 175, n), "dec": rng.uniform(5, 60, n)})
    table["redshift"] = rng.uniform(0.03, 0.18, n)
    return table


def timed(call):
    """Seconds of computing, which other users of the machine change little."""
    begun = time.process_time()
    result = call()
    return result, time.process_time() - begun


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--galaxies", type=int, nargs="+", default=[100_000, 1_000_000, 3_000_000])
    parser.add_argument("--clusters", type=int, default=3000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    print(header("Cylinders around clusters, and N-body boxes", provenance(arguments.seed)))
    print("| galaxies | clusters | as given [CPU s] | recentred [CPU s] |\n|---|---|---|---|")
    for n in arguments.galaxies:
        galaxies, clusters = survey(rng, n), centres(rng, arguments.clusters)
        _, plain = timed(lambda g=galaxies, c=clusters: cut_cylinders(g, c))
        _, again = timed(lambda g=galaxies, c=clusters: cut_cylinders(g, c, recentring=Recentring()))
        print(f"| {n} | {arguments.clusters} | {plain:.1f} | {again:.1f} |")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "box.csv"
        with path.open("w", encoding="utf-8") as stream:
            stream.write(HEADER + "\n")
            for start in range(0, arguments.rows, 100_000):
                rows = rng.uniform(1, 900, (min(100_000, arguments.rows - start), 16))
                np.savetxt(stream, rows, fmt=["%d"] * 3 + ["%.6g"] * 13, delimiter=",")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        count, seconds = timed(lambda: sum(len(part["id"]) for part in iterate_box(path)))
        more = max(0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        size = path.stat().st_size / 2**20
    print(
        f"\nA CosmoSim CSV of {count} rows ({size:.0f} MiB): {seconds:.1f} CPU s, at most {more:.0f} MiB more memory."
    )


if __name__ == "__main__":
    main()

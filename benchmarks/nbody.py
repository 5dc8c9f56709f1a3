"""How long mocks out of an N-body box take, and in what memory: ``python -m benchmarks.nbody``.

The boxes are written first, in the layout of the field: host haloes as a CosmoSim CSV, galaxies as a
UniverseMachine npy with 32-bit floats. Hosts follow the mass function above 10^13.5 Msun/h, at the density of
MDPL2; each has 40 (M / 10^14)^0.95 satellites in a cloud of its virial radius and dispersion; the rest of the
galaxies are satellites of 20 in smaller haloes everywhere. Each size is cut in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bayesflowmass.cosmology import (
    mass_function,
    radius_delta,
    velocity_dispersion_evrard,
)
from bayesflowmass.mocks import simulate_nbody
from bayesflowmass.mocks.masses import sample_mass_function
from benchmarks.provenance import header, provenance

REDSHIFT = 0.117
COLUMNS = "rockstarId,upId,pId,Mvir,Rvir,Rs,Macc,Vacc,M500c,M200c,x,y,z,vx,vy,vz"
FIELDS = ["x", "y", "z", "vx", "vy", "vz", "upid", "id", "mvir", "mpeak", "obs_sm", "obs_sfr"]
ROWS_AT_ONCE = 1_000_000


def write_box(folder: Path, n_hosts: int, n_galaxies: int, seed: int) -> float:
    """Write hosts.csv and galaxies.npy; returns the side of the box [Mpc/h]."""
    rng = np.random.default_rng(seed)
    grid = np.linspace(13.5, 15.6, 400)
    size = (n_hosts / np.trapezoid(mass_function(grid, REDSHIFT), grid)) ** (1.0 / 3.0)
    mass = sample_mass_function(n_hosts, 13.5, 15.6, REDSHIFT, rng)
    centre = rng.uniform(0.0, size, (n_hosts, 3))
    bulk = rng.normal(0.0, 280.0, (n_hosts, 3))
    radius = radius_delta(mass + 0.08, REDSHIFT, "vir")
    sigma = velocity_dispersion_evrard(mass, REDSHIFT)
    ids = 10**18 + np.arange(n_hosts)
    with (folder / "hosts.csv").open("w", encoding="utf-8") as stream:
        stream.write(COLUMNS + "\n")
        plain = 10.0**mass
        values = np.column_stack(
            [1.2 * plain, 1e3 * radius, 2e2 * radius, plain, sigma, 0.7 * plain, plain, centre, bulk]
        )
        for name, row in zip(ids, values, strict=True):
            stream.write(f"{name},-1,-1," + ",".join(f"{value:.8g}" for value in row) + "\n")
    owner = np.repeat(np.arange(n_hosts), rng.poisson(40.0 * 10.0 ** (0.95 * (mass - 14.0))))[:n_galaxies]
    kinds = [(name, "i8" if name in ("id", "upid") else "f4") for name in FIELDS]
    table = np.lib.format.open_memmap(folder / "galaxies.npy", "w+", np.dtype(kinds), (n_galaxies,))
    for start in range(0, n_galaxies, ROWS_AT_ONCE):
        stop = min(start + ROWS_AT_ONCE, n_galaxies)
        mine = owner[start:stop]
        n_field = stop - start - mine.size
        groups = rng.uniform(0.0, size, (n_field // 20 + 1, 3))[np.arange(n_field) // 20]
        position = np.concatenate([centre[mine], groups])
        position += (
            0.45
            * np.concatenate([radius[mine], np.full(n_field, 0.6)])[:, None]
            * rng.normal(size=position.shape)
        )
        velocity = rng.normal(size=position.shape)
        velocity *= np.concatenate([sigma[mine], np.full(n_field, 350.0)])[:, None]
        velocity[: mine.size] += bulk[mine]
        part = np.zeros(stop - start, dtype=kinds)
        for axis, name in enumerate("xyz"):
            part[name], part["v" + name] = np.mod(position[:, axis], size), velocity[:, axis]
        part["id"] = 2 * 10**18 + np.arange(start, stop)
        part["upid"] = np.concatenate([ids[mine], 10**17 + np.arange(n_field) // 20])
        part["mvir"] = part["mpeak"] = 2e11
        part["obs_sm"] = 1e10
        # Galaxies of a file lie in the order of trees, not of haloes.
        table[start:stop] = part[rng.permutation(part.size)]
    table.flush()
    return float(size)


def measure(folder: Path, size: float, masses: str) -> dict[str, float]:
    """Cut the box once, in this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    made = simulate_nbody(
        folder / "hosts.csv",
        folder / "galaxies.npy",
        folder / "mocks.parquet",
        masses=masses,  # type: ignore[arg-type]
        box_size=size,
        redshift=REDSHIFT,
        workers=1,
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "peak": peak / 1024,
        "more": (peak - before) / 1024,
        "lines": made.n_lines,
        "clusters": made.n_clusters,
        "galaxies": made.n_galaxies,
        "file": (folder / "mocks.parquet").stat().st_size / 2**20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--galaxies-per-host", type=int, default=200)
    parser.add_argument("--masses", nargs="+", default=["hmf", "flat"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="also write the table here")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        folder, size, masses = arguments.one
        print(json.dumps(measure(Path(folder), float(size), masses)))
        return
    text = header("Mocks out of an N-body box", provenance(arguments.seed))
    text += (
        "\nOne process; memory is its peak, of which about 500 MiB are the package "
        "and its libraries, and it counts the pages of the sorted galaxies that the system has mapped and can "
        "take back.\n\n"
        "| hosts | galaxies | box [Mpc/h] | masses | lines of sight | clusters | their galaxies | wall [s] | CPU [s] "
        "| peak [MiB] | file [MiB] |\n|---|---|---|---|---|---|---|---|---|---|---|\n"
    )
    print(text, end="", flush=True)
    for n_hosts in arguments.hosts:
        with tempfile.TemporaryDirectory() as name:
            n_galaxies = n_hosts * arguments.galaxies_per_host
            size = write_box(Path(name), n_hosts, n_galaxies, arguments.seed)
            for masses in arguments.masses:
                command = [sys.executable, __file__]
                command += ["--one", name, repr(size), masses]
                found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
                row = (
                    f"| {n_hosts} | {n_galaxies} | {math.ceil(size)} | {masses} | {found['lines']} "
                    f"| {found['clusters']} | {found['galaxies']} | {found['wall']:.1f} | {found['cpu']:.1f} "
                    f"| {found['peak']:.0f} | {found['file']:.0f} |\n"
                )
                text += row
                print(row, end="", flush=True)
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

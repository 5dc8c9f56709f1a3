"""Memberships of a model beside a table in R and v, a 3 sigma clip and the 2.7 sigma(R) envelope, on the same mocks.

    python -m benchmarks.memberships --model runs/galaxies --out docs/results/memberships.md

The test clusters are of the mass function above 10^14, the table is made of other ones. A member lies inside R_vir of
the halo. The table holds the share of members in bins of R, |v| over the median absolute deviation, and that
deviation. Clip and envelope say yes or no; their area under the curve is that of one point. Also the expected number
of members, and how well its error covers.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from bayesflowmass.baselines.dispersion import clipped_deviation
from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.catalog.arrays import segment_median
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.mocks import simulate_catalog
from bayesflowmass.selection import remove_interlopers
from benchmarks.provenance import header, provenance

R_EDGES = np.linspace(0.0, 1.6, 17)
SPEED_EDGES = np.array([*np.linspace(0.0, 5.0, 21), np.inf])
SHOWN = {"R": (0.0, 0.4, 0.8, 1.2, 1.6), "speed": (0.0, 500.0, 1000.0, 1500.0, 2500.0)}


def deviation(catalog: ClusterCatalog) -> np.ndarray:
    """1.4826 median |v| of each galaxy's cluster [km/s], at least 50."""
    speed = np.abs(np.asarray(catalog.galaxies("v_los"), dtype=np.float64))
    return 1.4826 * np.maximum(segment_median(speed, catalog.offsets), 34.0)[catalog.galaxy_rows]


def cells(catalog: ClusterCatalog, edges: np.ndarray) -> np.ndarray:
    """Cell of each galaxy in R, |v| over the deviation, and the deviation."""
    mad = deviation(catalog)
    speed = np.abs(np.asarray(catalog.galaxies("v_los"), dtype=np.float64)) / mad
    shape = (len(R_EDGES), len(SPEED_EDGES), len(edges) + 1)
    index = np.digitize(catalog.r_proj, R_EDGES), np.digitize(speed, SPEED_EDGES), np.digitize(mad, edges)
    return np.ravel_multi_index([np.minimum(i, n - 1) for i, n in zip(index, shape, strict=True)], shape)


def table_of(train: ClusterCatalog, test: ClusterCatalog) -> np.ndarray:
    """Share of members in the cell of each test galaxy, one of each added."""
    edges = np.quantile(deviation(train), np.linspace(0.0, 1.0, 9)[1:-1])
    member = np.asarray(train.galaxies("gal_is_member"), dtype=float)
    mine, theirs = cells(train, edges), cells(test, edges)
    size = int(max(mine.max(), theirs.max())) + 1
    counts = np.bincount(mine, minlength=size)
    return ((np.bincount(mine, member, size) + 1.0) / (counts + 2.0))[theirs]


def envelope(catalog: ClusterCatalog) -> np.ndarray:
    """1 for galaxies that `remove_interlopers` keeps, else 0."""
    marked = catalog.with_galaxies(gal_place=np.arange(catalog.n_galaxies_total))
    kept = np.zeros(catalog.n_galaxies_total)
    kept[remove_interlopers(marked).galaxies("gal_place")] = 1.0
    return kept


def clip(catalog: ClusterCatalog) -> np.ndarray:
    """1 for galaxies within 3 sigma of the median velocity of their cluster, sigma clipped."""
    v = np.asarray(catalog.galaxies("v_los"), dtype=np.float64)
    sigma = clipped_deviation(v, catalog.n_galaxies)
    middle = segment_median(v, catalog.offsets)
    rows = catalog.galaxy_rows
    return (np.abs(v - middle[rows]) < 3.0 * sigma[rows]).astype(float)


def area(p: np.ndarray, member: np.ndarray) -> float:
    """Area under the receiver operating characteristic: the chance that a member has the larger p."""
    n, m = int(member.sum()), int((~member).sum())
    if not n or not m:
        return float("nan")
    return float((rankdata(p)[member].sum() - n * (n + 1) / 2) / (n * m))


def reliability(p: np.ndarray, member: np.ndarray) -> float:
    """Largest difference of share and mean p over the tenths of p that hold a thousandth of the galaxies."""
    tenth = np.minimum((10 * p).astype(int), 9)
    chosen = [tenth == k for k in range(10)]
    return float(max(abs(member[c].mean() - p[c].mean()) for c in chosen if c.mean() > 1e-3))


def main() -> None:
    """Measure, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--clusters", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=700)
    parser.add_argument("--out", type=Path, default=Path("docs/results/memberships.md"))
    options = parser.parse_args()
    estimator = MassEstimator.load(options.model, "cpu")
    mocks = {"masses": "hmf", "log10_mass_range": (14.0, 15.6), "progress": False}
    test = simulate_catalog(options.clusters, seed=options.seed, **mocks)
    train = simulate_catalog(options.clusters, seed=options.seed + 1, **mocks)
    found = estimator.memberships(test)
    if found is None:
        raise SystemExit(f"'{options.model}' reads images, which do not say who is a member.")
    member = np.asarray(test.galaxies("gal_is_member"), dtype=bool)
    methods = {
        "network": found.probability,
        "table in R, v/MAD, MAD": table_of(train, test),
        "2.7 sigma(R)": envelope(test),
        "3 sigma clip": clip(test),
    }
    bins = {"R": np.asarray(test.r_proj), "speed": np.abs(np.asarray(test.galaxies("v_los")))}
    names = [f"{key} {a:g}-{b:g}" for key, edges in SHOWN.items() for a, b in pairwise(edges)]
    lines = [
        header(f"Memberships, {len(test)} clusters, {len(member)} galaxies", provenance(options.seed)),
        f"| method | area | Brier | reliability | {' | '.join(f'area, {name}' for name in names)} |",
        "|---" * (4 + len(names)) + "|",
    ]
    for name, p in methods.items():
        parts = []
        for key, edges in SHOWN.items():
            for a, b in pairwise(edges):
                inside = (bins[key] >= a) & (bins[key] < b)
                parts.append(f"{area(p[inside], member[inside]):.3f}")
        brier = float(np.mean((p - member) ** 2))
        lines.append(
            f"| {name} | {area(p, member):.3f} | {brier:.4f} | {reliability(p, member):.3f} | {' | '.join(parts)} |"
        )
    true = np.add.reduceat(member.astype(float), test.offsets[:-1])
    pull = (true - found.number) / found.error
    scatter = float(np.std(np.log10(np.maximum(found.number, 1.0) / np.maximum(true, 1.0))))
    raw = float(np.std(np.log10(test.n_galaxies / np.maximum(true, 1.0))))
    lines += [
        "",
        f"log10 of expected over true members scatters by {scatter:.3f} dex (all galaxies over members: {raw:.3f});"
        f" (true - expected) / error has mean {pull.mean():.2f}, standard deviation {pull.std():.2f}, and lies within"
        f" one in {np.mean(np.abs(pull) < 1.0):.1%} of the clusters.",
    ]
    print("\n".join(lines))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

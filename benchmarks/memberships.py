"""Memberships of a model beside four other ways to choose them, on the same mocks, by place and by kind of galaxy.

    python -m benchmarks.memberships --model runs/galaxies --out docs/results/memberships.md

The test clusters are mocks like those of the model's training, of the mass function above 10^14; a member lies inside
R_vir of the halo. Beside the model: a table of the share of members in bins of R, |v| over the median absolute
deviation, and that deviation, made of other clusters; the caustic (`benchmarks.caustic`, on the first clusters, since
it costs 0.1 s each); 2.7 sigma(R); a 3 sigma clip. The last three say yes or no: p is 1 or 0, and the area under the
curve is that of an order they imply (amplitude over |v|; the narrowest of eight envelopes; sigma over |v|). By kind:
what the mocks know of each galaxy, its component (`mocks.Component`) and, in mocks of the preset `sky`, which a model
trained on others has not seen, its orbit (`mocks.Orbit`). Also the expected number of members.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from enum import IntEnum
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from bayesflowmass.baselines.dispersion import clipped_deviation
from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.catalog.arrays import segment_median
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.estimator.memberships import Memberships
from bayesflowmass.evaluation.test_sets import like_training
from bayesflowmass.mocks import Component, MockParameters, Orbit
from bayesflowmass.selection import remove_interlopers
from benchmarks.caustic import caustic_amplitudes
from benchmarks.provenance import header, provenance

R_EDGES = np.linspace(0.0, 1.6, 17)
SPEED_EDGES = np.array([*np.linspace(0.0, 5.0, 21), np.inf])
Methods = dict[str, tuple[np.ndarray, np.ndarray]]
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


def envelope(catalog: ClusterCatalog, n_sigma: float = 2.7) -> np.ndarray:
    """1 for galaxies that `remove_interlopers` keeps, else 0."""
    marked = catalog.with_galaxies(gal_place=np.arange(catalog.n_galaxies_total))
    kept = np.zeros(catalog.n_galaxies_total)
    kept[remove_interlopers(marked, n_sigma).galaxies("gal_place")] = 1.0
    return kept


def clip(catalog: ClusterCatalog) -> np.ndarray:
    """3 sigma over |v - median v| of each galaxy, sigma that of its cluster, clipped."""
    v = np.asarray(catalog.galaxies("v_los"), dtype=np.float64)
    sigma = clipped_deviation(v, catalog.n_galaxies)
    rows = catalog.galaxy_rows
    return 3.0 * sigma[rows] / np.maximum(np.abs(v - segment_median(v, catalog.offsets)[rows]), 1e-3)


def found_by(
    estimator: MassEstimator, train: ClusterCatalog, test: ClusterCatalog, n_caustic: int
) -> tuple[Methods, Memberships]:
    """p of each galaxy and what orders them, by method; those of the caustic end with its last cluster."""
    network = estimator.memberships(test)
    if network is None:
        raise SystemExit("This model reads images, which do not say who is a member.")
    table = table_of(train, test)
    narrow = sum(envelope(test, n) for n in (1.0, 1.5, 2.0, 2.3, 2.7, 3.2, 4.0, 6.0))
    few = test[:n_caustic]
    speed = np.maximum(np.abs(np.asarray(few.galaxies("v_los"), dtype=np.float64)), 1e-3)
    inside = caustic_amplitudes(few, envelope(few) > 0.0) / speed
    within = clip(test)
    methods = {
        "network": (network.probability, network.probability),
        "table in R, v/MAD, MAD": (table, table),
        "caustic": ((inside > 1.0).astype(float), inside),
        "2.7 sigma(R)": (envelope(test), narrow),
        "3 sigma clip": ((within > 1.0).astype(float), within),
    }
    return methods, network


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


def brier(p: np.ndarray, member: np.ndarray) -> float:
    """Mean squared difference of p and the truth."""
    return float(np.mean((p - member) ** 2))


def overall(methods: Methods, member: np.ndarray) -> list[str]:
    """One row for each method: all galaxies."""
    lines = [
        "| method | galaxies | area | Brier | reliability | members found (p > 0.5) | of those found, members |",
        "|---" * 7 + "|",
    ]
    for name, (p, order) in methods.items():
        true, chosen = member[: len(p)], p > 0.5
        cells = [name, f"{len(p)}", f"{area(order, true):.3f}", f"{brier(p, true):.4f}"]
        cells += [
            f"{reliability(p, true):.3f}",
            f"{100 * chosen[true].mean():.1f} %",
            f"{100 * true[chosen].mean():.1f} %",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def by_bin(methods: Methods, member: np.ndarray, bins: dict[str, np.ndarray]) -> list[str]:
    """Area, Brier score and reliability by bin, a table for each."""
    measures: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], str]] = {
        "area": lambda p, order, true: f"{area(order, true):.3f}",
        "Brier": lambda p, order, true: f"{brier(p, true):.3f}",
        "reliability": lambda p, order, true: f"{reliability(p, true):.3f}",
    }
    names = [f"{key} {a:g}-{b:g}" for key, edges in SHOWN.items() for a, b in pairwise(edges)]
    lines = []
    for measure, of in measures.items():
        lines += ["", f"| {measure} | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
        for name, (p, order) in methods.items():
            cells = []
            for key, edges in SHOWN.items():
                values = bins[key][: len(p)]
                for a, b in pairwise(edges):
                    inside = (values >= a) & (values < b)
                    cells.append(of(p[inside], order[inside], member[: len(p)][inside]))
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def by_kind(methods: Methods, member: np.ndarray, kind: np.ndarray, codes: type[IntEnum]) -> list[str]:
    """Mean p of each kind of galaxy; for interlopers also the area of all members against this kind."""
    lines = [
        f"| kind | share | {' | '.join(f'mean p, {name}' for name in methods)} |"
        f" {' | '.join(f'area, {name}' for name in methods)} |",
        "|---" * (2 + 2 * len(methods)) + "|",
    ]
    for true in (True, False):
        for code in codes:
            chosen = (kind == code) & (member == true)
            if chosen.mean() < 1e-3:
                continue
            word = (
                "never inside, receding" if code == Orbit.INTERLOPER and codes is Orbit else code.name.lower()
            )
            word = word.replace("_", " ")
            cells = [f"{'member' if true else 'interloper'}: {word}", f"{chosen.mean():.3f}"]
            cells += [f"{p[chosen[: len(p)]].mean():.3f}" for p, _ in methods.values()]
            for p, order in methods.values():
                both = (member | chosen)[: len(p)]
                cells.append("-" if true else f"{area(order[both], member[: len(p)][both]):.3f}")
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def counts(test: ClusterCatalog, found: Memberships, member: np.ndarray) -> str:
    """How well the expected number of members, and its error, do."""
    true = np.add.reduceat(member.astype(float), test.offsets[:-1])
    pull = (true - found.number) / found.error
    scatter = float(np.std(np.log10(np.maximum(found.number, 1.0) / np.maximum(true, 1.0))))
    raw = float(np.std(np.log10(test.n_galaxies / np.maximum(true, 1.0))))
    return (
        f"log10 of expected over true members scatters by {scatter:.3f} dex (all galaxies over members: {raw:.3f});"
        f" (true - expected) / error has mean {pull.mean():.2f}, standard deviation {pull.std():.2f}, and lies within"
        f" one in {np.mean(np.abs(pull) < 1.0):.1%} of the clusters."
    )


def main() -> None:
    """Measure, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--clusters", type=int, default=4000)
    parser.add_argument("--caustic", type=int, default=1000, help="clusters that the caustic is drawn for")
    parser.add_argument("--seed", type=int, default=700)
    parser.add_argument("--out", type=Path, default=Path("docs/results/memberships.md"))
    options = parser.parse_args()
    estimator = MassEstimator.load(options.model, "cpu")
    lines = []
    of_sky = (estimator.training_info.config.get("simulate") or {}).get("preset") == "sky"
    for preset in (None,) if of_sky else (None, "sky"):
        mocks: dict[str, Any] = {"masses": "hmf", "log10_mass_range": (14.0, 15.6)}
        if preset:
            mocks["parameters"] = MockParameters.preset(preset)
        train, test = (
            like_training(estimator.training_info, options.clusters, options.seed + k, simulate=mocks)
            for k in (1, 0)
        )
        methods, found = found_by(estimator, train, test, options.caustic)
        member = np.asarray(test.galaxies("gal_is_member"), dtype=bool)
        size = f"{len(test)} clusters, {len(member)} galaxies"
        if not preset:
            bins = {"R": np.asarray(test.r_proj), "speed": np.abs(np.asarray(test.galaxies("v_los")))}
            kind = np.asarray(test.galaxies("gal_component"))
            lines += [header(f"Memberships, {size}", provenance(options.seed))]
            lines += [*overall(methods, member), "", counts(test, found, member)]
            lines += [*by_bin(methods, member, bins), "", *by_kind(methods, member, kind, Component)]
            if of_sky:
                orbit = np.asarray(test.galaxies("gal_orbit"))
                lines += ["", *by_kind(methods, member, orbit, Orbit)]
        else:
            kind = np.asarray(test.galaxies("gal_orbit"))
            lines += ["", f"### The same model on mocks of the preset `{preset}`, {size}", ""]
            lines += [*overall(methods, member), "", counts(test, found, member), ""]
            lines += by_kind(methods, member, kind, Orbit)
    print("\n".join(lines))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

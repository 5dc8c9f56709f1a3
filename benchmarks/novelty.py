"""How often data unlike the training set are noticed, and how often data like it are accused.

    python -m benchmarks.novelty --model runs/novelty/quick [--clusters 1000] [--catalogs 40]

The model is one of quick.yaml (``bayesflowmass train --config quick.yaml --out runs/novelty/quick``). The reverse test,
paper-mode data given to a survey-mode model, needs no second network: a detector is fitted to survey-mode mocks with
the same encoder. Writes docs/results/novelty.{json,md} and docs/figures/novelty_power.png.

Catalogues of 20 and of 100 clusters are drawn without replacement from the clusters of a case, so that different ones
share clusters; alarms are p <= 0.01 throughout.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.estimator import MassEstimator, TrainingInfo
from bayesflowmass.estimator.flags import usable_clusters
from bayesflowmass.mocks import MockParameters, simulate_catalog
from bayesflowmass.novelty import ALARM, Assessment, NoveltyDetector
from bayesflowmass.plots.style import save_figure
from bayesflowmass.selection import completeness, cylinder, remove_interlopers
from bayesflowmass.training.novelty import fit_novelty
from benchmarks.plots.novelty_power import plot_novelty_power
from benchmarks.provenance import header, provenance

SIZES = (20, 100)
COMPLETENESS = (1.0, 0.8, 0.6, 0.4, 0.2, 0.1, 0.05)
VELOCITY_BIAS = (0.9, 0.95, 1.0, 1.05, 1.1)
WIDE = {"r_max": 2.4, "v_max": 3300.0}
HUBBLE = 0.6777
REDSHIFT = 0.117
LIGHT = 299792.458


def noise(like: ClusterCatalog, rng: np.random.Generator) -> ClusterCatalog:
    """Galaxies spread evenly over the cylinder, as many as the clusters have."""
    n = like.n_galaxies_total
    radius, angle = 1.6 * np.sqrt(rng.random(n)), rng.uniform(0.0, 2.0 * np.pi, n)
    return like.with_galaxies(
        x=radius * np.cos(angle), y=radius * np.sin(angle), v_los=rng.uniform(-2500.0, 2500.0, n)
    )


def scaled(wide: ClusterCatalog, r: float = 1.0, v: float = 1.0, offset: float = 0.0) -> ClusterCatalog:
    """Positions and velocities in other units, then taken for ours: cut to the cylinder of the model."""
    changed = wide.with_galaxies(
        x=wide.galaxies("x") * r, y=wide.galaxies("y") * r, v_los=wide.galaxies("v_los") * v + offset
    )
    return cylinder(changed, 1.6, 2500.0)


def measure(
    estimator: MassEstimator, detector: NoveltyDetector, catalog: ClusterCatalog, n_catalogs: int, seed: int
) -> dict[str, Any]:
    """Shares that alarm; clusters without a density are refused, and counted apart."""
    usable = usable_clusters(catalog) == ""
    for row in np.flatnonzero(usable & (catalog.n_galaxies < 20)):
        try:
            estimator.encode(catalog[int(row)])
        except CatalogError:
            usable[row] = False
    result: dict[str, Any] = {"n": len(catalog), "refused": float(np.mean(~usable))}
    if usable.sum() < max(SIZES):
        return result | {"cluster": None} | {str(size): None for size in SIZES}
    clusters = catalog.filter(usable)
    found = detector.assess(clusters, estimator.encode(clusters))
    result["cluster"] = share(found.p_value <= ALARM)
    result["at_5_percent"] = float(np.mean(found.p_value <= 0.05))
    rng = np.random.default_rng(seed)
    for size in SIZES:
        alarms = []
        for trial in range(n_catalogs):
            rows = rng.permutation(len(clusters))[:size]
            part = Assessment(found.p_value[rows], found.score[rows], found.features[rows], found.kind[rows])
            alarms.append(detector.test(part, n_permutations=199, seed=trial).p_value <= ALARM)
        result[str(size)] = share(np.array(alarms))
    return result


def share(alarms: np.ndarray) -> list[float]:
    """Share, and its 68 % interval (Wilson)."""
    low, high = stats.binomtest(int(alarms.sum()), len(alarms)).proportion_ci(0.68, method="wilson")
    return [float(alarms.mean()), float(low), float(high)]


def cases(n: int, seed: int) -> dict[str, ClusterCatalog]:
    """Name -> clusters, of which all but the first two differ from paper-mode mocks."""
    base = simulate_catalog(n, seed=seed)
    wide = simulate_catalog(n, seed=seed + 1, **WIDE)
    survey = simulate_catalog(n, mode="survey", seed=seed + 2)
    hmf = {"masses": "hmf", "log10_mass_range": (13.5, 15.6)}
    return (
        {
            "like the training set": base,
            "of the mass function": simulate_catalog(n, seed=seed + 3, **hmf),
            "survey mode": survey,
            "cleaned of interlopers": remove_interlopers(base),
            "Mpc for Mpc/h": scaled(wide, r=1.0 / HUBBLE),
            "proper for comoving": scaled(wide, r=1.0 / (1.0 + REDSHIFT)),
            "cz without (1 + z)": scaled(wide, v=1.0 + REDSHIFT),
            "noise, no cluster": noise(base, np.random.default_rng(seed)),
            "kpc/h for Mpc/h": scaled(wide, r=1000.0),
            "m/s for km/s": scaled(wide, v=1000.0),
            "cz for v_los": scaled(wide, v=1.0 + REDSHIFT, offset=LIGHT * REDSHIFT),
        }
        | {f"completeness {c:g}": completeness(base, c, seed) for c in COMPLETENESS if c < 1.0}
        | {
            f"velocity bias {b:g}": simulate_catalog(
                n, seed=seed + 4, parameters=MockParameters(velocity_bias=b)
            )
            for b in VELOCITY_BIAS
            if b != 1.0
        }
    )


def detector_of(estimator: MassEstimator, mode: str, seed: int) -> NoveltyDetector:
    """What a model of that mode, with this encoder, would know of its training set."""
    training = simulate_catalog(4000, mode=mode, seed=seed)
    held_out = simulate_catalog(1600, mode=mode, seed=seed + 1)
    info = replace(
        TrainingInfo.from_catalog(training, uses_richness=False), log10_mass_range=(13.2, 15.6), masses="flat"
    )
    found = fit_novelty(estimator.encoder, training, held_out, info, seed=seed, device=estimator.device)
    assert found is not None
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--clusters", type=int, default=1000, help="of each case")
    parser.add_argument("--catalogs", type=int, default=40, help="of each size and case")
    parser.add_argument(
        "--refit", action="store_true", help="measure fresh mocks, not what the model has stored"
    )
    parser.add_argument("--seed", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("docs/results/novelty"))
    parser.add_argument("--figure", type=Path, default=Path("docs/figures/novelty_power"))
    options = parser.parse_args()
    started = time.process_time()
    estimator = MassEstimator.load(options.model, "cpu")
    detector = detector_of(estimator, "paper", options.seed + 20) if options.refit else estimator.novelty
    if detector is None:
        raise SystemExit(
            f"{options.model} was trained without a novelty detector; give --refit, or train it again."
        )
    rows: dict[str, Any] = {}
    for name, catalog in cases(options.clusters, options.seed).items():
        rows[name] = measure(estimator, detector, catalog, options.catalogs, options.seed)
        print(name, rows[name], flush=True)
    reverse = detector_of(estimator, "survey", options.seed + 10)
    paper = simulate_catalog(options.clusters, seed=options.seed + 12)
    rows["paper mode, for a survey-mode model"] = measure(
        estimator, reverse, paper, options.catalogs, options.seed
    )
    seconds = time.process_time() - started
    source = provenance(options.seed)
    result = {**source, "alarm": ALARM, "rows": rows, "seconds": seconds, "held_out": len(detector.log_n)}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    options.out.with_suffix(".md").write_text(table(result, source), encoding="utf-8")
    figure(rows, options.figure)


def table(result: dict[str, Any], source: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        header("Unlike the training set: who notices", source),
        f"Share with p <= {ALARM:g} (68 % binomial interval), of a model of quick.yaml whose p-values come from "
        f"{result['held_out']} held-out clusters. Refused: no galaxies, or no density, in the cylinder of the model: "
        "such rows have no mass.\n",
        "| data | refused | one cluster | 20 clusters | 100 clusters |",
        "|---|---|---|---|---|",
    ]
    for name, row in result["rows"].items():
        cells = [
            "-"
            if row[key] is None
            else f"{100 * row[key][0]:.1f} % ({100 * row[key][1]:.1f}-{100 * row[key][2]:.1f})"
            for key in ("cluster", *map(str, SIZES))
        ]
        lines.append(f"| {name} | {100 * row['refused']:.0f} % | {' | '.join(cells)} |")
    lines.append(f"\n{result['seconds']:.0f} s of processor time.")
    return "\n".join(lines) + "\n"


def figure(rows: dict[str, Any], path: Path) -> None:
    """Power against completeness and velocity bias, and of the other cases."""
    usual = rows["like the training set"]
    curves = {
        "completeness": [
            {"value": c, **(usual if c == 1.0 else rows[f"completeness {c:g}"])} for c in COMPLETENESS
        ],
        "velocity_bias": [
            {"value": b, **(usual if b == 1.0 else rows[f"velocity bias {b:g}"])} for b in VELOCITY_BIAS
        ],
    }
    for name, points in curves.items():
        curves[name] = [point for point in points if point["cluster"] is not None]
    single = [
        {"label": name.replace(", for a survey-mode model", "\nfor survey model"), **row}
        for name, row in rows.items()
        if row["cluster"] is not None and not name.startswith(("completeness", "velocity"))
    ]
    for written in save_figure(plot_novelty_power(curves, single, alpha=ALARM), path):
        if written.suffix == ".pdf" and written.stat().st_size > 60_000:
            written.unlink()


if __name__ == "__main__":
    main()

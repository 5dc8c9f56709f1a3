"""How often the verdict on calibration catches a known fault, and how often it accuses an exact posterior.

Writes docs/results/calibration.{json,md} and the figure of docs/calibration.md.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from scipy import stats

from bayesflowmass.diagnostics import assess_calibration
from bayesflowmass.plots.style import save_figure
from benchmarks.calibration.controls import FAULTS, gaussian_control
from benchmarks.calibration.populations import four_combinations
from benchmarks.plots.populations import plot_populations
from benchmarks.provenance import header, provenance


def rejections(fault: str, n: int, projections: int, trials: int, seed: int) -> dict[str, object]:
    """Share of samples with at least one rejection, and where."""
    missed, overall, expected = 0, 0, 0
    groups: dict[str, int] = {}
    for trial in range(trials):
        control = gaussian_control(fault, n, seed + trial, n_projections=projections)
        result = assess_calibration(
            control.summary,
            halo_id=control.halo_id,
            groups={"richness": control.richness, "redshift": control.redshift},
            population="flat",
            prior="flat",
            n_resamples=2,
            n_simulations=399,
            n_grid=25,
            n_sets=99,
            seed=trial,
        )
        overall += not result["overall"]["inside"]
        bins = {name: any(t and not t["inside"] for t in b["tests"]) for name, b in result["by"].items()}
        for name, hit in bins.items():
            groups[name] = groups.get(name, 0) + hit
        missed += not result["overall"]["inside"] or any(bins.values())
        by_true = result["by_true_mass"]
        adjusted = [v for k, v in by_true.items() if k.startswith("p_holm_") and v is not None]
        expected += min(adjusted) <= 0.05
    low, high = stats.binomtest(missed, trials).proportion_ci(0.95)
    return {
        "fault": fault,
        "n_clusters": n,
        "n_projections": projections,
        "trials": trials,
        "rejected": missed / trials,
        "interval": [float(low), float(high)],
        "all_clusters": overall / trials,
        **{f"by_{name}": count / trials for name, count in groups.items()},
        "by_true_mass": expected / trials,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-clusters", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=40, help="of each fault; five times as many of none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs/results/calibration"))
    parser.add_argument("--figure", type=Path, default=Path("docs/figures/populations"))
    options = parser.parse_args()
    rows = []
    for projections in (1, 3):
        for fault in FAULTS:
            trials = options.trials * (5 if fault == "none" else 1)
            rows.append(rejections(fault, options.n_clusters, projections, trials, options.seed))
            print(rows[-1], flush=True)
    large = gaussian_control("none", 20_000, options.seed, n_projections=3)
    started = time.process_time()
    groups = {"richness": large.richness, "redshift": large.redshift}
    assess_calibration(large.summary, halo_id=large.halo_id, groups=groups, population="flat", prior="flat")
    seconds = time.process_time() - started
    source = provenance(options.seed)
    result = {**source, "rows": rows, "seconds_20000_clusters": seconds}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    columns = ("rejected", "all_clusters", "by_predicted_mass", "by_richness", "by_redshift", "by_true_mass")
    names = (
        "verdict",
        "all clusters",
        "predicted mass",
        "richness",
        "redshift",
        "true mass, beside expectation",
    )
    lines = [
        header(f"Verdicts on {options.n_clusters} clusters of the Gaussian toy", source),
        "Share of samples rejected at a familywise 5 %: by the verdict (95 % interval), and where. The last "
        "column is not part of the verdict.\n",
        f"| fault | projections of each halo | samples | {' | '.join(names)} |",
        "|---" * (3 + len(names)) + "|",
    ]
    for row in rows:
        cells = [f"{100 * row.get(name, np.nan):.1f} %" for name in columns]
        low, high = row["interval"]
        cells[0] += f" ({100 * low:.1f}-{100 * high:.1f})"
        label = FAULTS[str(row["fault"])]
        lines.append(f"| {label} | {row['n_projections']} | {row['trials']} | {' | '.join(cells)} |")
    lines.append(
        f"\n20 000 clusters, three projections of each halo, every number of calibration.json: "
        f"{seconds:.0f} s of processor time."
    )
    options.out.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for path in save_figure(plot_populations(four_combinations(seed=options.seed)), options.figure):
        if path.suffix == ".pdf":
            path.unlink()


if __name__ == "__main__":
    main()

"""Is a model calibrated in every bin of predicted mass, and if not, is it after recalibration?

    python -m benchmarks.recalibration --model runs/results/best_no_richness \\
        --catalog runs/results/hmf_contaminated.parquet

Prior and population are the mass function over the range of the test catalogue. The recalibration is fitted to
fresh mocks of the same population (``--calibration N``, three times the test set by default: with fewer its own
noise would show in the test), and never sees the test set. The verdict is one family of tests: all test clusters,
and each bin of 0.25 dex of the raw posterior median in 14-15, with simultaneous bands and Holm's correction. Writes
docs/results/recalibration.{json,md} and docs/figures/recalibration.png.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.diagnostics import coverage, merged_edges, uniformity
from bayesflowmass.diagnostics.multiplicity import holm
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.evaluation import posteriors
from bayesflowmass.mocks import MockParameters, simulate_catalog
from bayesflowmass.plots.style import save_figure
from bayesflowmass.recalibrate import describe, recalibrate
from benchmarks.plots.recalibration import plot_recalibration
from benchmarks.provenance import header, provenance

ALPHA = 0.05
MASSES = (14.0, 15.0)
LEVELS = (0.68, 0.95)


def predictions(
    estimator: MassEstimator, catalog: ClusterCatalog, limits: tuple[float, float]
) -> dict[str, np.ndarray]:
    """PIT, log score and coverage of the intervals, raw and recalibrated, and the raw median."""
    parts: list[dict[str, np.ndarray]] = []
    for batch in posteriors(
        estimator, catalog, "hmf", log10_mass_range=limits, recalibrated=True, progress=True
    ):
        after = batch.posterior
        if after is None or not batch.usable.all():
            raise SystemExit("a test cluster cannot have a mass; simulate another set")
        true = np.asarray(batch.clusters.column("log10_mass"), dtype=np.float64)
        part = {"median": after.raw.median}
        for name, posterior in (("raw", after.raw), ("recalibrated", after)):
            part[f"pit_{name}"] = np.clip(posterior.cdf(true), 0.0, 1.0)
            part[f"score_{name}"] = posterior.log_pdf(true)
            part[f"sigma_{name}"] = posterior.sigma
        for level in LEVELS:
            low, high = after.interval(level, "conformal")
            part[f"conformal_{level:g}"] = ((true >= low) & (true <= high)).astype(float)
        parts.append(part)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def family(
    found: dict[str, np.ndarray], name: str, halo: np.ndarray, edges: np.ndarray, seed: int
) -> dict[str, Any]:
    """Tests of all clusters and of each bin, as `assess_calibration` states them."""
    bins = np.searchsorted(edges, found["median"], side="right") - 1
    groups = [np.ones(len(bins), dtype=bool), *(bins == i for i in range(len(edges) - 1))]
    tests = []
    for rows in groups:
        u = found[f"pit_{name}"][rows]
        test = uniformity(u, halo[rows], probability=1.0 - ALPHA, seed=seed)
        tests.append(
            {
                "n_clusters": test.n,
                "p_value": test.p_value,
                **{f"coverage_{100 * level:.0f}": coverage(u, level) for level in LEVELS},
                **{f"conformal_{100 * q:.0f}": float(found[f"conformal_{q:g}"][rows].mean()) for q in LEVELS},
                "mean_log_density": float(found[f"score_{name}"][rows].mean()),
                "sigma": float(np.median(found[f"sigma_{name}"][rows])),
                "grid": test.grid.tolist(),
                "difference": test.difference.tolist(),
                "lower": test.lower.tolist(),
                "upper": test.upper.tolist(),
            }
        )
    for test, adjusted in zip(tests, holm([test["p_value"] for test in tests]), strict=True):
        test |= {"p_holm": float(adjusted), "inside": bool(adjusted > ALPHA)}
    return {"edges": edges.tolist(), "overall": tests[0], "tests": tests[1:]}


def verdict(name: str, result: dict[str, Any]) -> str:
    """One sentence."""
    missed = [
        f"{low:.2f}-{high:.2f}"
        for low, high, test in zip(result["edges"][:-1], result["edges"][1:], result["tests"], strict=True)
        if not test["inside"]
    ]
    missed = (["all clusters together"] if not result["overall"]["inside"] else []) + missed
    if not missed:
        return f"The {name} model is inside the simultaneous bands in all {len(result['tests'])} bins and overall."
    return f"The {name} model is **outside** the simultaneous bands: {', '.join(missed)}."


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--catalog", type=Path, required=True, help="test set of the mass function")
    parser.add_argument(
        "--calibration", type=int, help="clusters to recalibrate on; default: three times the test set"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs/results/recalibration"))
    parser.add_argument("--figure", type=Path, default=Path("docs/figures/recalibration"))
    options = parser.parse_args()
    started = time.process_time()
    estimator = MassEstimator.load(options.model, "cpu")
    test = ClusterCatalog.read(options.catalog)
    masses = test.metadata.masses or {}
    if masses.get("distribution") != "hmf":
        parser.error(
            f"--catalog holds masses of population {masses.get('distribution')!r}; the mass function is needed."
        )
    info = estimator.training_info
    limits = (
        max(info.log10_mass_range[0], float(masses["log10_mass_min"])),
        min(info.log10_mass_range[1], float(masses["log10_mass_max"])),
    )
    redshift = info.redshift_range
    fresh = simulate_catalog(
        options.calibration or 3 * len(test),
        masses="hmf",
        log10_mass_range=limits,
        kind=test.metadata.kind or "contaminated",
        mode=test.metadata.mode or "paper",
        redshift=redshift[0] if redshift[0] == redshift[1] else redshift,
        parameters=MockParameters.from_dict(test.metadata.extra.get("mock_parameters") or {}),
        # The seeds of test sets in benchmarks/results.sh are 101 to 104.
        seed=9000 + options.seed,
    )
    print(f"{len(fresh)} clusters to recalibrate on", file=sys.stderr, flush=True)
    model, report = recalibrate(
        estimator, fresh, prior="hmf", min_count=1000, seed=options.seed, progress=True
    )
    found = predictions(model, test, limits)
    halo = np.asarray(test.column("halo_id" if test.has("halo_id") else "cluster_id"))
    inside = (found["median"] >= MASSES[0]) & (found["median"] < MASSES[1])
    inner = merged_edges(found["median"][inside], 0.25, 50)
    results = {name: family(found, name, halo, inner, options.seed) for name in ("raw", "recalibrated")}
    gain = found["score_recalibrated"] - found["score_raw"]
    source = provenance(options.seed)
    summary = {
        **source,
        "model": str(options.model),
        "n_test": len(test),
        "recalibration": report,
        "gain": float(gain.mean()),
        "gain_se": float(gain.std() / np.sqrt(len(gain))),
        "verdicts": {name: verdict(name, result) for name, result in results.items()},
        "results": results,
        "seconds": time.process_time() - started,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    options.out.with_suffix(".md").write_text(table(summary, source), encoding="utf-8")
    print("\n".join(summary["verdicts"].values()))
    title = "mass-function set and prior, by predicted log10 mass"
    for path in save_figure(
        plot_recalibration(results["raw"], results["recalibrated"], title=title), options.figure
    ):
        if path.suffix == ".pdf" and path.stat().st_size > 60_000:
            path.unlink()


def table(summary: dict[str, Any], source: dict[str, Any]) -> str:
    """Markdown."""
    results = summary["results"]
    lines = [
        header(
            f"Recalibration of {Path(summary['model']).name}, {summary['n_test']} clusters of the mass function",
            source,
        ),
        *(f"{sentence}\n" for sentence in summary["verdicts"].values()),
        "Prior and population: the mass function. Bins of the raw posterior median, log10 M200c [Msun/h]; p after "
        "Holm's correction over the column. Conformal intervals are those of the recalibrated model.\n",
        "| predicted | clusters | raw: p | in 68 % | in 95 % | recalibrated: p | in 68 % | in 95 % "
        "| conformal 68 % | 95 % |",
        "|---" * 10 + "|",
    ]
    names = [
        "all",
        *(
            f"{a:.2f}-{b:.2f}"
            for a, b in zip(results["raw"]["edges"][:-1], results["raw"]["edges"][1:], strict=True)
        ),
    ]
    rows = [[r["overall"], *r["tests"]] for r in (results["raw"], results["recalibrated"])]
    for name, before, after in zip(names, *rows, strict=True):
        lines.append(
            f"| {name} | {before['n_clusters']} | {_cells(before)} | {_cells(after)} | "
            f"{100 * after['conformal_68']:.1f} % | {100 * after['conformal_95']:.1f} % |"
        )
    lines += [
        f"\nGain of the recalibration in mean log density: {summary['gain']:+.4f} +- {summary['gain_se']:.4f} nats "
        "per cluster.",
        "\n" + "\n".join(f"    {line}" for line in describe(summary["recalibration"])),
        f"\n{summary['seconds']:.0f} s of processor time.",
    ]
    return "\n".join(lines) + "\n"


def _cells(test: dict[str, Any]) -> str:
    p = f"{test['p_holm']:.3f}" + ("" if test["inside"] else " **miss**")
    return f"{p} | {100 * test['coverage_68']:.1f} % | {100 * test['coverage_95']:.1f} %"


if __name__ == "__main__":
    main()

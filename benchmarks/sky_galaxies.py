"""A model of galaxies beside the image for observed clusters: sky_galaxies.yaml and sky.yaml, trained alike.

    python -m benchmarks.sky_galaxies --data ../shared/data [--work runs/sky_galaxies_study]

Written down before the run: three trainings of each, seeds 0, 1 and 2, by maximum likelihood alone (no posterior of the
weights on either side), each with mocks of its own. Primary numbers, over the mocks of training, flat in mass, told
what training was told: difference of the mean log score, and ratio of the mean sigma. Then coverage, the same mocks
changed in one thing (nothing told), and the real samples of `benchmarks.real_sky.samples`, each under its own prior:
medians averaged over the trainings, differences on resampled clusters. The model of galaxies is one to ship if it is
better on the mocks and, beside real references, no worse in scatter over slope and in rank by two standard errors.
What exists in WORK is not made again. About forty minutes of processor time.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.diagnostics.paired import Influence, crossed_estimate, mean_influence, scatter_influence
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.evaluation import like_training, posterior_columns
from bayesflowmass.train import main as train
from benchmarks.provenance import header, provenance
from benchmarks.real_sky.samples import Sample, samples, statistics

SEEDS = (0, 1, 2)
CONFIGS = {"galaxies": "sky_galaxies.yaml", "image": "sky.yaml"}
CLUSTERS, CHANGED_CLUSTERS, RESAMPLES = 8000, 3000, 500
# What is changed: name -> (mode or parameters of the mocks, fixed; what is done to the observation).
CHANGES: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "central galaxies not seen (survey)": ({"mode": "survey"}, {}),
    "all of them seen (paper)": ({"mode": "paper"}, {}),
    **{
        f"{name} = {value:g}": ({name: value}, {})
        for name, ends in {
            "richness_at_1e14": (32.0, 70.0),
            "orbit_loss": (0.35, 0.75),
            "infall_amplitude": (0.8, 1.2),
            "infall_region_amplitude": (0.4, 1.5),
            "velocity_bias": (0.95, 1.1),
            "satellite_cutoff_mass": (1e11, 2e12),
            "filament_share": (0.0, 0.6),
        }.items()
        for value in ends
    },
    "a tenth of the galaxies": ({}, {"completeness": (0.1, 0.1)}),
    "all galaxies": ({}, {"completeness": (1.0, 1.0)}),
    "depth M_r < -21": ({}, {"magnitude_limit": (-21.0, -21.0)}),
    "fibres 55 arcsec apart": ({}, {"fibre_collisions": (55.0, 55.0)}),
    "field of 0.6 Mpc/h": ({}, {"aperture": (0.6, 0.6)}),
    "centre off by 0.1 Mpc/h, 300 km/s": ({}, {"miscentre_r": (0.1, 0.1), "miscentre_v": (300.0, 300.0)}),
}


def model_of(work: Path, name: str, seed: int) -> MassEstimator:
    """The model of that name and seed, trained or resumed if it is not there."""
    folder = work / f"{name}_{seed}"
    flags = ["--config", CONFIGS[name], "--out", str(folder), "--seed", str(seed), "--weights", "point"]
    flags += ["--device", "cpu", "--no-progress", "--resume"]
    if not (folder / "model.json").is_file() and train(flags) != 0:
        raise SystemExit(f"training of '{folder}' failed")
    return MassEstimator.load(folder, "cpu")


def changed(estimator: MassEstimator, name: str) -> ClusterCatalog:
    """Mocks of training, of which one thing is fixed and nothing is told."""
    fixed, observed = CHANGES[name]
    known = {"known": dict.fromkeys(estimator.training_info.config["augmentation"]["known"], 0.0)}
    trained = estimator.training_info.config["simulate"]
    simulate: dict[str, Any] = {}
    for key, value in fixed.items():
        if key in trained["randomise"]:
            simulate["randomise"] = trained["randomise"] | {key: (value, value)}
        elif key in trained["parameters"]:
            simulate["parameters"] = trained["parameters"] | {key: value}
        else:
            simulate[key] = value
    return like_training(
        estimator.training_info, CHANGED_CLUSTERS, 202, simulate=simulate, augmentation={**observed, **known}
    )


def judged(estimator: MassEstimator, catalog: ClusterCatalog, prior: str = "flat") -> dict[str, np.ndarray]:
    """Median, sigma, and where the truth is known log score and cdf, of every cluster."""
    columns = {"median": lambda p, _: p.median, "sigma": lambda p, _: p.sigma}
    if catalog.has("log10_mass"):
        columns["score"] = lambda p, part: p.log_pdf(part.column("log10_mass"))
        columns["pit"] = lambda p, part: p.cdf(part.column("log10_mass"))
    return posterior_columns(estimator, catalog, columns, prior)


def measure(work: Path, data: Path | None) -> dict[str, Any]:
    """Name of a population -> models: truth and numbers of each cluster, a dictionary for each training."""
    models = {name: [model_of(work, name, seed) for seed in SEEDS] for name in CONFIGS}
    first = models["galaxies"][0]
    real = {one.name: one for one in samples(first, data)} if data else {}
    result: dict[str, Any] = {}
    for name in ("mixture", *CHANGES, *real):
        sample = real.get(name)
        catalog: ClusterCatalog | None = None
        row: dict[str, Any] = {"models": {}} | ({"prior": sample.prior} if sample else {})
        for (model, trained), seed in itertools.product(models.items(), SEEDS):
            path = work / "measured" / f"{name.replace('/', ' ')}-{model}-{seed}.npz"
            if not path.is_file():
                catalog = catalog or population(first, name, sample)
                found = judged(trained[seed], catalog, sample.prior if sample else "flat")
                truth = sample.reference if sample else catalog.column("log10_mass")
                path.parent.mkdir(parents=True, exist_ok=True)
                np.savez(path, truth=np.asarray(truth, dtype=np.float64), **found)
            with np.load(path) as stored:
                row["models"].setdefault(model, []).append(dict(stored))
        result[name] = row
        print(name, flush=True)
    return result


def population(estimator: MassEstimator, name: str, sample: Sample | None) -> ClusterCatalog:
    """The clusters of that name."""
    if sample:
        return sample.catalog
    return (
        changed(estimator, name) if name in CHANGES else like_training(estimator.training_info, CLUSTERS, 201)
    )


def over_seeds(found: Sequence[Influence], inside: np.ndarray) -> tuple[float, float]:
    """Mean over trainings, and its standard error over clusters and trainings."""
    estimate = crossed_estimate(found, np.arange(len(inside)), inside)
    return estimate.value, estimate.error


def numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    """Of mocks: bias, scatter, sigma, log score and coverage of each model, and galaxies minus image."""
    sides = row["models"]
    inside = np.logical_and.reduce([np.isfinite(one["median"]) for side in sides.values() for one in side])
    parts: dict[str, dict[str, list[Influence]]] = {}
    for model, side in sides.items():
        cells = parts[model] = {key: [] for key in ("bias", "scatter", "sigma", "score", "in_68", "in_95")}
        for one in side:
            residual = one["median"] - one["truth"]
            cells["bias"].append(mean_influence(residual, inside))
            cells["scatter"].append(scatter_influence(residual, inside))
            for key in ("sigma", "score"):
                cells[key].append(mean_influence(one[key], inside))
            for level in (68, 95):
                covered = np.abs(one["pit"] - 0.5) < 0.005 * level
                cells[f"in_{level}"].append(mean_influence(100.0 * covered, inside))
    result: dict[str, Any] = {
        model: {key: over_seeds(found, inside) for key, found in cells.items()}
        for model, cells in parts.items()
    }
    ours, theirs = (parts[model] for model in CONFIGS)
    result["minus"] = {
        key: over_seeds([a - b for a, b in zip(ours[key], theirs[key], strict=True)], inside) for key in ours
    }
    return result | {"n": int(inside.sum())}


def beside_references(row: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Of real clusters: statistics of the medians averaged over trainings, and galaxies minus image."""
    means = {
        model: {key: np.mean([one[key] for one in side], axis=0) for key in ("median", "sigma", "truth")}
        for model, side in row["models"].items()
    }
    usable = np.logical_and.reduce([np.isfinite(one["median"]) for one in means.values()])
    rows = np.flatnonzero(usable)
    rng = np.random.default_rng(seed)
    picks = [rows, *(rng.choice(rows, len(rows)) for _ in range(RESAMPLES))]
    found = {
        model: [statistics(one["median"][p], one["sigma"][p], one["truth"][p]) for p in picks]
        for model, one in means.items()
    }
    result: dict[str, Any] = {"n": len(rows), "prior": row["prior"]}
    for model, draws in found.items():
        result[model] = {key: (draws[0][key], spread([d[key] for d in draws[1:]])) for key in draws[0]}
    ours, theirs = (found[model] for model in CONFIGS)
    pairs = [{key: a[key] - b[key] for key in a} for a, b in zip(ours, theirs, strict=True)]
    result["minus"] = {key: (pairs[0][key], spread([p[key] for p in pairs[1:]])) for key in pairs[0]}
    return result


def spread(values: Sequence[float]) -> float:
    """Half of the central 68 %: a ratio whose denominator comes near zero has no standard deviation."""
    return float(np.diff(np.nanquantile(values, [0.16, 0.84]))[0] / 2.0)


def line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def signed(pair: tuple[float, float], digits: int = 3) -> str:
    return f"{pair[0]:+.{digits}f} ± {pair[1]:.{digits}f}"


def plain(pair: tuple[float, float], digits: int = 3) -> str:
    return f"{pair[0]:.{digits}f} ± {pair[1]:.{digits}f}"


def page(mocks: Mapping[str, Any], real: Mapping[str, Any]) -> list[str]:
    """The tables."""
    text = ["Mocks of training, flat in mass, flat prior; errors over clusters and trainings.", ""]
    text += [
        line(["model", "clusters", "log score", "mean sigma", "scatter", "bias", "in 68 %", "in 95 %"]),
        "|---" * 8 + "|",
    ]
    mixture = mocks["mixture"]
    for model in (*CONFIGS, "minus"):
        one = mixture[model]
        label = "galaxies - image" if model == "minus" else model
        show = signed if model == "minus" else plain
        cells = [label, str(mixture["n"]), signed(one["score"])]
        cells += [show(one[key]) for key in ("sigma", "scatter")] + [signed(one["bias"])]
        text.append(line([*cells, *(show(one[key], 1) for key in ("in_68", "in_95"))]))
    text += [
        "",
        "One thing changed, nothing told: bias [dex] | mean sigma [dex] | in 68 % for each model.",
        "",
    ]
    text += [
        line(
            ["mocks", "clusters", *(f"{model}: bias | sigma | 68 %" for model in CONFIGS), "log score, minus"]
        )
    ]
    text += ["|---" * (3 + 3 * len(CONFIGS)) + "|"]
    for name, row in mocks.items():
        cells = [name, str(row["n"])]
        for model in CONFIGS:
            one = row[model]
            cells += [signed(one["bias"]), f"{one['sigma'][0]:.3f}", f"{one['in_68'][0]:.1f}"]
        text.append(line([*cells, signed(row["minus"]["score"])]))
    for name, row in real.items():
        text += ["", f"{name}: {row['n']} clusters, prior of the sample `{row['prior']}`.", ""]
        keys = ("median", "scatter", "slope", "scatter_over_slope", "rank", "pull_sd", "in_68", "in_95")
        text += [line(["model", *(key.replace("_", " ") for key in keys)]), "|---" * (1 + len(keys)) + "|"]
        for model in (*CONFIGS, "minus"):
            label = "galaxies - image" if model == "minus" else model
            show = signed if model == "minus" else plain
            text.append(line([label, *(show(row[model][key], 2) for key in keys)]))
    return text


def main() -> None:
    """Train what is not there, measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/sky_galaxies_study"))
    parser.add_argument("--data", type=Path, help="folder of real catalogues")
    parser.add_argument("--out", type=Path, default=Path("docs/results/sky_galaxies"))
    options = parser.parse_args()
    found = measure(options.work, options.data)
    mocks = {name: numbers(row) for name, row in found.items() if "prior" not in row}
    real = {name: beside_references(row, 0) for name, row in found.items() if "prior" in row}
    source = provenance(None)
    lines = [
        header("A model of galaxies for observed clusters, beside the image", source),
        *page(mocks, real),
    ]
    options.out.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    whole = json.dumps(source | {"mocks": mocks, "real": real}, indent=1)
    options.out.with_suffix(".json").write_text(whole + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()

"""Where the information comes from: one network, trained on parts of what a cluster shows.

Each variant keeps the architecture, the settings of the training and the clusters, and destroys a part of
the data by replacing it, galaxy by galaxy, with draws from the pool of all training galaxies:

    richness only     positions and velocities replaced; the image scaled by richness
    R only            velocities replaced; richness-free image
    v only            positions replaced; richness-free image
    R and v           nothing replaced; richness-free image
    v shuffled        velocities replaced; image scaled by richness (richness and R remain)
    everything        nothing replaced; image scaled by richness

Beside the accuracy stands the slope of log10 M_predicted on log10 of a factor by which all velocities of a
cluster are multiplied (0.9-1.1): about 3 for a dynamical estimator, since M scales as sigma^3, and near 0
for one that counts.

    python -m benchmarks.information_budget --config default.yaml --seed 0 --out
    docs/results/information_budget

writes OUT.md and OUT.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from bayesflowmass.baselines.richness import fit_richness
from bayesflowmass.command import load_yaml
from bayesflowmass.diagnostics import log_density_gaussian, summarise
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.evaluation import predict
from bayesflowmass.mocks import simulate_catalog
from bayesflowmass.train import main as train
from benchmarks.provenance import header, provenance

FACTORS = (0.9, 0.95, 1.0, 1.05, 1.1)
# Name -> (columns replaced, whether the image is scaled by richness; else as the configuration says).
VARIANTS = {
    "richness only": (("x", "y", "v_los"), True),
    "R only": (("v_los",), False),
    "v only": (("x", "y"), False),
    "R and v": ((), False),
    "v shuffled": (("v_los",), True),
    "everything": ((), True),
}


KEYS = ("mean_residual", "scatter", "slope", "scatter_14_15", "slope_14_15", "scatter_over_slope_14_15")


def replaced(catalog, columns, pool, seed):
    """Galaxies whose columns are drawn, with replacement, from the galaxies of a pool; one draw for all
    columns.
    """
    if not columns:
        return catalog
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, pool.n_galaxies_total, catalog.n_galaxies_total)
    return catalog.with_galaxies(**{name: pool.galaxies(name)[drawn] for name in columns})


def scaled(catalog, factor):
    """All velocities of every cluster multiplied."""
    return catalog.with_galaxies(v_los=catalog.galaxies("v_los") * np.float32(factor))


def velocity_response(estimator, catalog, columns, pool, seed):
    """d log10 M / d log10 v: mean and standard error over clusters of 14 <= log10 M <= 15."""
    mass = catalog.column("log10_mass")
    few = catalog.filter((mass >= 14) & (mass <= 15))
    medians = np.stack(
        [estimator.posterior(replaced(scaled(few, factor), columns, pool, seed)).median for factor in FACTORS]
    )
    slopes = np.polyfit(np.log10(FACTORS), medians, 1)[0]
    return float(slopes.mean()), float(slopes.std(ddof=1) / np.sqrt(slopes.size))


def measure(name, training, test, flat_test, config, overrides, seed):
    """Train one variant and measure it."""
    columns, richness = VARIANTS[name]
    if richness:
        scaling = ["--encoder.scaling", "log1p_richness", "--encoder.constant", "null"]
    elif load_yaml(config).get("encoder", {}).get("scaling") == "log1p_richness":
        scaling = ["--encoder.scaling", "mean", "--encoder.constant", "null"]
    else:
        scaling = []
    with tempfile.TemporaryDirectory() as folder:
        data, model = Path(folder) / "train.parquet", Path(folder) / "model"
        replaced(training, columns, training, seed).write(data)
        flags = ["--config", config, "--catalog", str(data), "--out", str(model), "--seed", str(seed)]
        flags += [*scaling, "--no-progress", *overrides]
        if train(flags) != 0:
            raise SystemExit(f"training of '{name}' failed")
        estimator = MassEstimator.load(model)
    shown = replaced(test, columns, training, seed + 1)
    guess = predict(estimator, shown).summary
    flat = predict(estimator, replaced(flat_test, columns, training, seed + 2)).summary
    truth = test.column("log10_mass")
    summary = summarise(
        truth,
        guess.median,
        halo_id=test.column("halo_id"),
        sigma=guess.sigma,
        n_resamples=100,
    )
    response, error = velocity_response(estimator, test, columns, training, seed + 1)
    return {
        **{key: summary[key] for key in (*KEYS, *(f"{key}_se" for key in KEYS))},
        "nll_flat": float(-flat.log_density.mean()),
        "nll_flat_se": float(flat.log_density.std() / np.sqrt(len(flat_test))),
        "dlogM_dlogv": response,
        "dlogM_dlogv_se": error,
    }


def count_alone(training, test, flat_test):
    """The polynomial in the galaxy count: what counting gives without a network, and without noisy images."""
    count = fit_richness(training.n_galaxies, training.column("log10_mass"))
    summary = summarise(
        test.column("log10_mass"),
        count.predict(test.n_galaxies),
        halo_id=test.column("halo_id"),
        n_resamples=100,
    )
    flat = log_density_gaussian(
        flat_test.column("log10_mass"), count.predict(flat_test.n_galaxies), count.scatter
    )
    return {
        **{key: summary[key] for key in (*KEYS, *(f"{key}_se" for key in KEYS))},
        "nll_flat": float(-flat.mean()),
        "nll_flat_se": float(flat.std() / np.sqrt(flat.size)),
        "dlogM_dlogv": 0.0,
        "dlogM_dlogv_se": 0.0,
    }


def table(results):
    lines = [
        "| network sees | scatter 14-15 | slope 14-15 | scatter / slope | scatter | mean | NLL, flat set "
        "[nats] "
        "| d log M / d log v |",
        "|---|---|---|---|---|---|---|---|",
    ]
    keys = ("scatter_14_15", "slope_14_15", "scatter_over_slope_14_15", "scatter", "mean_residual")
    for name, entry in results.items():
        cells = [f"{entry[key]:.3f} ± {entry[f'{key}_se']:.3f}" for key in (*keys, "nll_flat")]
        response = f"{round(entry['dlogM_dlogv'], 2) + 0.0:.2f} ± {entry['dlogM_dlogv_se']:.2f}"
        lines.append(f"| {name} | " + " | ".join([*cells, response]) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="default.yaml", help="settings of the training runs")
    parser.add_argument("--n-train", type=int, default=20000, help="training clusters, flat in log mass")
    parser.add_argument("--n-test", type=int, default=10000, help="mass-function test clusters")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs/results/information_budget"))
    arguments, overrides = parser.parse_known_args()
    seed = arguments.seed
    training = simulate_catalog(arguments.n_train, masses="flat", seed=seed)
    test = simulate_catalog(arguments.n_test, masses="hmf", log10_mass_range=(13.5, 15.6), seed=seed + 1)
    flat_test = simulate_catalog(max(1000, arguments.n_test // 4), masses="flat", seed=seed + 2)
    results = {"galaxy count, no network": count_alone(training, test, flat_test)}
    for name in arguments.variants:
        results[name] = measure(name, training, test, flat_test, arguments.config, overrides, seed)
        print(name, json.dumps(results[name]), flush=True)
    source = provenance(seed)
    text = "\n".join(
        [
            header("Information budget", source),
            f"{arguments.n_train} training clusters, flat; {arguments.n_test} contaminated test clusters "
            "of the mass "
            "function above 10^13.5 Msun/h, flat prior. What a network does not see was replaced by "
            "draws from the "
            "galaxies of the training set.\n",
            table(results),
        ]
    )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    arguments.out.with_suffix(".json").write_text(
        json.dumps({**source, "results": results}, indent=1) + "\n", encoding="utf-8"
    )
    print(text)


if __name__ == "__main__":
    main()

r"""Deterministic against Bayesian on massive clusters: models, predictions and the table.

    python -m benchmarks.flagship --work runs/flagship --out docs/results/flagship
    python -m benchmarks.flagship --work runs/flagship --only flat500 few_haloes --seeds 2   # a part of it
    # More trainings of two methods, as in docs/results:
    python -m benchmarks.flagship --methods point variational --seeds 13 --only flat500 flat2000 few_haloes \
        thinned_known

Trains, on each training set of ``data.py`` and each seed, a point model (maximum likelihood) and four
weight posteriors that start from it, with the settings of ``configs/flagship.yaml``; an ensemble has members of
its own. Each model is a model folder, WORK/SET/METHOD-SEED, with its predictions of the shared test set in
``predictions.parquet``. What exists is not made again: an interrupted run goes on. Two processes with disjoint
``--only`` share one work folder. ``--tables-only`` reads what is there.

About two hours of processor time, and an hour for the thirteen trainings. Writes OUT.md, OUT.json and the
figure OUT.png / OUT.pdf.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.diagnostics.scores import crps_from_density
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.posterior import MassPosterior
from bayesflowmass.train import main as train
from benchmarks.flagship.data import (
    MASS_RANGE,
    SELECTION,
    SETS,
    TEST_RANGE,
    population,
    simulate_test,
    simulate_training,
)
from benchmarks.flagship.tables import write_tables
from benchmarks.provenance import provenance

CONFIG = "configs/flagship.yaml"
# Method -> flags of the command `train`, on top of the configuration.
METHODS = {
    "point": [],
    "variational": ["--variational"],
    # Nearly all weights end at their prior, so it starts near it: from narrow scales the bound takes far longer.
    "mean_field_all": [
        *("--weights", "variational", "--weights.which", "all", "--weights.guide", "mean_field"),
        *("--weights.options", "guide_options={init_scale: 0.5}", "estimator=local", "--weights.fit"),
        *("max_updates=3000", "learning_rate=2e-3", "betas=[0.9,0.99]", "clip_norm=null"),
    ],
    "laplace": ["--weights", "laplace"],
    "ensemble": ["--weights", "ensemble:5"],
}
OWN_TRAINING = ("point", "ensemble")
# Ways to tell the network of the thinning were compared on seeds 0 to 2, which are left out.
FIRST_SEED = {"thinned_known": 3}
N_DRAWS = 16
_BATCH = 1000


def once(path, make):
    """The catalogue in a file, simulated and written if it is not there."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        make().write(path)
    return ClusterCatalog.read(path)


def train_model(folder, method, data, point, seed):
    """A finished model folder; an interrupted training goes on."""
    if (folder / "model.json").is_file():
        return
    flags = ["--config", CONFIG, "--catalog", str(data), "--out", str(folder), "--seed", str(seed)]
    flags += ["--no-progress", "--resume", *METHODS[method]]
    if data.parent.name == "thinned_known":
        table = data.with_name("selection.csv")
        table.write_text(
            "log10_mass,probability\n" + "".join(f"{m},{p}\n" for m, p in SELECTION), encoding="utf-8"
        )
        flags += ["--fit.population", "flat", "--fit.selection", str(table)]
    if method not in OWN_TRAINING:
        flags += ["--weights.start", str(point)]
    start = time.process_time()
    if train(flags) != 0:
        raise SystemExit(f"training {folder} failed")
    (folder / "seconds.json").write_text(
        json.dumps({"processor_seconds": time.process_time() - start}), encoding="utf-8"
    )


def predictions(estimator, catalog, prior, correct):
    """One row per cluster. ``correct``: divide each PDF by the density of the training masses.

    The prior ends where the test masses do: beyond, a perfect posterior would not be nominal near the ends.
    """
    parts = []
    for start in range(0, len(catalog), _BATCH):
        batch = catalog[start : start + _BATCH]
        given = estimator.posterior(batch, n_draws=N_DRAWS, seed=0)
        posterior = MassPosterior(
            list(given.flow_density.blocks),
            log10_mass_range=MASS_RANGE,
            training_prior=prior,
            redshift=batch.column("redshift"),
        )
        posterior = posterior.with_prior(population("flat" if correct else "thinned", TEST_RANGE))
        truth = np.asarray(batch.column("log10_mass"), dtype=np.float64)
        nodes = posterior.table
        low, q16, median, q84, high = posterior.quantile([0.025, 0.16, 0.5, 0.84, 0.975])
        nothing = np.zeros(len(batch))
        epistemic = posterior.sigma_epistemic
        parts.append(
            {
                "log10_mass": truth,
                "median": median,
                "q025": low,
                "q16": q16,
                "q84": q84,
                "q975": high,
                "sigma": posterior.sigma,
                "sigma_epistemic": nothing if epistemic is None else epistemic,
                "pit": np.clip(posterior.cdf(truth), 0.0, 1.0),
                "log_density": posterior.log_pdf(truth),
                "crps": crps_from_density(truth, nodes.x.numpy(), nodes.cdf.numpy(), nodes.pdf.numpy()),
            }
        )
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return {"cluster_id": catalog.column("cluster_id"), **columns}


def run(name, seed, methods, work, test):
    """All models of one training set and seed."""
    data = work / name / f"train-{seed}.parquet"
    once(data, lambda: simulate_training(name, seed))
    for method in methods:
        folder = work / name / f"{method}-{seed}"
        train_model(folder, method, data, work / name / f"point-{seed}", seed)
        versions = {"predictions": True}
        if name == "thinned" and method in ("point", "variational"):
            versions["predictions_uncorrected"] = False
        for file, correct in versions.items():
            path = folder / f"{file}.parquet"
            if not path.is_file():
                table = predictions(MassEstimator.load(folder), test, population(name), correct)
                pq.write_table(pa.table(table), path)
        print(f"{name} {method} {seed} done, {time.strftime('%H:%M:%S')}", file=sys.stderr, flush=True)


def exact_under_thinning(work, test):
    """What an exact posterior under the thinned prior looks like: the best flat model times that prior."""
    folder = work / "flat20000" / "point-0"
    path = folder / "predictions_thinned_prior.parquet"
    if (folder / "model.json").is_file() and not path.is_file():
        estimator, prior = MassEstimator.load(folder), population("thinned", TEST_RANGE)
        parts = []
        for start in range(0, len(test), _BATCH):
            batch = test[start : start + _BATCH]
            truth = np.asarray(batch.column("log10_mass"), dtype=np.float64)
            posterior = estimator.posterior(batch).with_prior(prior)
            low, q16, median, q84, high = posterior.quantile([0.025, 0.16, 0.5, 0.84, 0.975])
            parts.append(
                {
                    "log10_mass": truth, "median": median, "q025": low, "q16": q16, "q84": q84, "q975": high,
                    "sigma": posterior.sigma, "log_density": posterior.log_pdf(truth),
                }
            )  # fmt: skip
        columns = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        pq.write_table(pa.table(columns), path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--work", type=Path, default=Path("runs/flagship"))
    parser.add_argument("--only", nargs="+", choices=list(SETS), default=list(SETS), help="training sets")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=5, help="training seeds of each set (5)")
    parser.add_argument("--tables-only", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    source = provenance(0)
    test = once(arguments.work / "test.parquet", simulate_test)
    if not arguments.tables_only:
        for name in arguments.only:
            first = FIRST_SEED.get(name, 0)
            for seed in range(first, first + arguments.seeds):
                run(name, seed, arguments.methods, arguments.work, test)
    exact_under_thinning(arguments.work, test)
    if arguments.out is not None:
        write_tables(arguments.work, list(SETS), list(METHODS), arguments.out, source)


if __name__ == "__main__":
    main()

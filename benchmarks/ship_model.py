"""Put a trained model into the package, with its matrices in float16, and check what that changes.

    python -m benchmarks.ship_model runs/sky bayesflowmass/models/sky

Refuses where a quantile of a posterior moves by 0.002 dex, or where all shipped models together exceed 8 MB.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.evaluation.test_sets import like_training

LIMIT, MEGABYTES = 0.002, 8.0
QUANTILES = [0.025, 0.16, 0.5, 0.84, 0.975]


def largest_shift(one: MassEstimator, other: MassEstimator, catalog: ClusterCatalog) -> float:
    """Largest difference between quantiles of two models, dex."""
    quantiles = [m.posterior(catalog, n_draws=8).quantile(QUANTILES) for m in (one, other)]
    return float(np.abs(quantiles[0] - quantiles[1]).max())


def size(folder: Path) -> float:
    """Megabytes of the files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="trained model folder")
    parser.add_argument("target", type=Path, help="folder in bayesflowmass/models")
    parser.add_argument("--n-clusters", type=int, default=1000, help="mocks to compare on")
    options = parser.parse_args()
    torch.set_num_threads(1)
    trained = MassEstimator.load(options.run, "cpu")
    catalog = like_training(trained.training_info, options.n_clusters, seed=771, exact=True)
    with tempfile.TemporaryDirectory() as folder:
        stored = MassEstimator.load(trained.save(folder, half=True), "cpu")
    shift = largest_shift(trained, stored, catalog)
    if shift > LIMIT:
        raise SystemExit(f"float16 moves a quantile by {shift:.5f} dex; the limit is {LIMIT}.")
    trained.save(options.target, half=True)
    total = size(options.target.parent)
    if total > MEGABYTES:
        raise SystemExit(f"{options.target.parent} holds {total:.1f} MB; the limit is {MEGABYTES}.")
    print(
        f"{options.target}: {size(options.target):.2f} MB of {total:.2f} MB; float16 moves no quantile of"
        f" {len(catalog)} clusters by more than {shift:.5f} dex."
    )


if __name__ == "__main__":
    main()

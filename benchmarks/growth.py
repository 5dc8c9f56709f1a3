"""How the processor time of the verbs grows with clusters, galaxies and draws of the weights: exponents with errors.

    python -m benchmarks.growth

One thread; each time is the least of three. The exponent is the slope of ln t over ln n for the three largest n, so
that what a call costs whatever its size counts little; its error is that of the least-squares line.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch

from bayesflowmass.catalog import CatalogMetadata, ClusterCatalog
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.estimator.shipped import choose_model
from bayesflowmass.infer import infer
from bayesflowmass.mocks import simulate_catalog


def clusters(n: int, n_galaxies: int) -> ClusterCatalog:
    """Gaussian members that fill the cylinder."""
    rng = np.random.default_rng(0)
    total = n * n_galaxies
    galaxies = {
        "x": rng.normal(0, 0.4, total),
        "y": rng.normal(0, 0.4, total),
        "v_los": rng.normal(0, 700, total),
    }
    columns = {"cluster_id": np.arange(n), "redshift": np.full(n, 0.1)}
    metadata = CatalogMetadata(kind="contaminated", selection={"r_max": 1.6, "v_max": 2500.0})
    return ClusterCatalog.from_arrays(columns, galaxies, np.full(n, n_galaxies), metadata)


def seconds(call: Callable[[], object]) -> float:
    """Least processor time of three calls."""
    times = []
    for _ in range(3):
        begun = time.process_time()
        call()
        times.append(time.process_time() - begun)
    return min(times)


def row(name: str, sizes: Sequence[int], make: Callable[[int], Callable[[], object]], unit: int = 1) -> None:
    """Print a row: cost of one at the largest size, exponent and error."""
    times = [seconds(make(n)) for n in sizes]
    x, y = np.log(sizes[-3:]), np.log(times[-3:])
    line = np.polyfit(x, y, 1)
    error = np.sqrt(np.sum((y - np.polyval(line, x)) ** 2) / np.sum((x - x.mean()) ** 2))
    each = 1e3 * times[-1] / sizes[-1] / unit
    print(f"| {name} | {sizes[0]}-{sizes[-1]} | {each:.4g} | {line[0]:.2f} +- {error:.2f} |", flush=True)


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    sky = MassEstimator.load(choose_model(None, False), "cpu")
    point = MassEstimator(sky.encoder, sky.flow, sky.training_info, "cpu", None, sky.novelty)
    infer(sky, clusters(64, 50), seed=0)
    print("| verb, and what grows | from-to | ms of processor time for one | exponent |\n|---|---|---|---|")
    row("`simulate`, clusters", (500, 1000, 2000, 4000), lambda n: partial(simulate_catalog, n))
    many = (250, 500, 1000, 2000)
    row("`infer`, point model, clusters of 50", many, lambda n: partial(infer, point, clusters(n, 50)))
    row("`infer`, `sky`, 31 draws, clusters of 50", many, lambda n: partial(infer, sky, clusters(n, 50)))
    rich = (100, 400, 1600, 6400)
    row(
        "`infer`, point model, galaxies of 100 clusters",
        rich,
        lambda n: partial(infer, point, clusters(100, n)),
        100,
    )
    some = clusters(250, 50)
    row(
        "`infer`, `sky`, draws for 250 clusters",
        (8, 16, 32, 64),
        lambda n: partial(infer, sky, some, n_draws=n),
        250,
    )


if __name__ == "__main__":
    main()

"""How the processor time of the verbs grows with clusters, galaxies and draws of the weights: exponents with errors.

    python -m benchmarks.growth [--page docs/scale.md]

One thread; each time is the least of three. The exponent is the slope of ln t over ln n for the three largest n, so
that what a call costs whatever its size counts little; its error is that of the least-squares line. From the cost of
one cluster at the largest size follows what 10^6 and 10^8 cost. All of it is written into the page, between two marks.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from astropy.table import Table, vstack

from bayesflowmass.baselines import fit_baselines
from bayesflowmass.catalog import CatalogMetadata, ClusterCatalog
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.estimator.shipped import choose_model
from bayesflowmass.evaluation.results import write_results
from bayesflowmass.evaluation.tested import put_to_test
from bayesflowmass.infer import infer
from bayesflowmass.mocks import simulate_catalog
from bayesflowmass.posterior.write_table import write_table
from bayesflowmass.report import report
from benchmarks.provenance import provenance

BEGIN, END = "<!-- benchmarks.growth -->", "<!-- end of benchmarks.growth -->"
MACHINES = {"laptop, 8 cores": 8, "node, 64 cores": 64, "cluster, 1024 cores": 1024}


@dataclass(frozen=True)
class Cost:
    """Time of one cluster (or galaxy, or draw) at the largest size [s], and how it grows.

    Attributes:
        name: of the verb, and what grows.
        sizes: smallest and largest.
        seconds: of processor time for one.
        exponent, error: of the growth.
    """

    name: str
    sizes: tuple[int, int]
    seconds: float
    exponent: float
    error: float

    def __str__(self) -> str:
        first, last = self.sizes
        numbers = f"{1e3 * self.seconds:.4g} | {self.exponent:.2f} +- {self.error:.2f}"
        return f"| {self.name} | {first}-{last} | {numbers} |"


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


def cost(name: str, sizes: Sequence[int], make: Callable[[int], Callable[[], object]], unit: int = 1) -> Cost:
    """Measure, and print the row."""
    times = [seconds(make(n)) for n in sizes]
    x, y = np.log(sizes[-3:]), np.log(times[-3:])
    line = np.polyfit(x, y, 1)
    error = np.sqrt(np.sum((y - np.polyval(line, x)) ** 2) / np.sum((x - x.mean()) ** 2))
    found = Cost(name, (sizes[0], sizes[-1]), times[-1] / sizes[-1] / unit, float(line[0]), float(error))
    print(found, flush=True)
    return found


def evaluation(point: MassEstimator, folder: Path) -> tuple[Callable[[int], Callable[[], object]], ...]:
    """The two halves of `evaluate`: what is said of each cluster, and the statistics with 200 resamples."""
    baselines = fit_baselines(mocks(1000))

    def predict(n: int) -> Callable[[], object]:
        return partial(put_to_test, point, mocks(n), baselines)

    def judge(n: int) -> Callable[[], object]:
        catalog = mocks(n)
        tested = put_to_test(point, catalog, baselines)
        options = {"prior": "flat", "prior_range": None, "baseline_selection": {}, "n_draws": None}
        options |= {"n_resamples": 200, "seed": 0, "figures": False}
        return partial(write_results, folder, point, tested, baselines, catalog.__getitem__, **options)

    return predict, judge


def mocks(n: int) -> ClusterCatalog:
    """Contaminated clusters, flat in log mass."""
    return simulate_catalog(n, masses="flat", kind="contaminated", seed=n)


def pages(masses: Table, folder: Path) -> Callable[[int], Callable[[], object]]:
    """`report` on a table of many rows."""

    def make(n: int) -> Callable[[], object]:
        place = folder / str(n)
        place.mkdir(exist_ok=True)
        write_table(vstack([masses] * (n // len(masses)), metadata_conflicts="silent"), place / "m.parquet")
        return partial(report, place)

    return make


def measured(folder: Path) -> tuple[list[Cost], dict[str, float]]:
    """Costs, and bytes on disk of one cluster by the verb that writes it."""
    sky = MassEstimator.load(choose_model(None, False), "cpu")
    point = MassEstimator(sky.encoder, sky.flow, sky.training_info, "cpu", None, sky.novelty)
    masses = infer(sky, clusters(1000, 50), seed=0)
    predict, judge = evaluation(point, folder)
    many, rich = (250, 500, 1000, 2000), (100, 400, 1600, 6400)
    some = clusters(250, 50)
    of_draws = partial(partial, infer, sky, some)
    costs = [
        cost("`simulate`, clusters", (500, 1000, 2000, 4000), lambda n: partial(simulate_catalog, n)),
        cost("`infer`, point model, clusters of 50", many, lambda n: partial(infer, point, clusters(n, 50))),
        cost("`infer`, `sky`, 31 draws, clusters of 50", many, lambda n: partial(infer, sky, clusters(n, 50))),
        cost("`evaluate`, point model, predictions and baselines", many, predict),
        cost("`evaluate`, statistics, 200 resamples", (2000, 4000, 8000, 16000), judge),
        cost("`report`, rows of a masses table", (10_000, 20_000, 40_000, 80_000), pages(masses, folder)),
        cost(
            "`infer`, point model, galaxies of 100 clusters",
            rich,
            lambda n: partial(infer, point, clusters(100, n)),
            100,
        ),
        cost("`infer`, `sky`, draws for 250 clusters", (8, 16, 32, 64), lambda n: of_draws(n_draws=n), 250),
    ]  # fmt: skip
    simulate_catalog(4000).write(folder / "mocks.parquet")
    # Rows that repeat would take next to nothing.
    write_table(masses, folder / "masses.parquet")
    disk = {
        "`simulate`": (folder / "mocks.parquet").stat().st_size / 4000,
        "`infer`": (folder / "masses.parquet").stat().st_size / len(masses),
    }
    return costs, disk


def span(time_s: float) -> str:
    """A time in words."""
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if time_s >= 2.0 * length:
            return (
                f"{time_s / length:.2g} {unit}" if time_s < 10 * length else f"{time_s / length:.0f} {unit}"
            )
    return f"{max(time_s, 1.0):.0f} s"


def projected(costs: Sequence[Cost], disk: dict[str, float]) -> list[str]:
    """Rows of 10^6 and 10^8 clusters; the statistics and the page are made by one process."""
    lines = [f"| clusters | work | {' | '.join(MACHINES)} | on disk |", "|---" * (3 + len(MACHINES)) + "|"]
    for n, label in ((1e6, "10^6"), (1e8, "10^8")):
        for one in costs[:6]:
            alone = "statistics" in one.name or "`report`" in one.name
            times = [span(n * one.seconds / (1 if alone else cores)) for cores in MACHINES.values()]
            size = disk.get(one.name.split(",")[0])
            on_disk = "" if size is None else f"{n * size / 1e9:.3g} GB"
            lines.append(f"| {label} | {one.name} | {' | '.join(times)} | {on_disk} |")
    return lines


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--page", type=Path, default=Path("docs/scale.md"))
    page = parser.parse_args().page
    torch.set_num_threads(1)
    source = provenance(None)
    with tempfile.TemporaryDirectory() as folder:
        costs, disk = measured(Path(folder))
    lines = [
        f"`{source['command']}`: {source['date']}, {source['machine']}.",
        "",
        "| verb, and what grows | from-to | ms of processor time for one | exponent |",
        "|---|---|---|---|",
        *map(str, costs),
        "",
        "What this makes of 10^6 and 10^8 clusters, with nothing lost between processes; the statistics of `evaluate`"
        " and the page of `report` are made by one process:",
        "",
        *projected(costs, disk),
    ]
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    text = "\n".join(lines)
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()

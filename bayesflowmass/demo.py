"""All of it in a few minutes: simulate, train, evaluate, infer the masses of a table of galaxies, report.

``bayesflowmass demo`` runs the commands that one would type, and prints each of them. Steps whose result
is already in the folder are not repeated, so that an interrupted demo goes on where it was.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from bayesflowmass import evaluate as evaluate_verb
from bayesflowmass import infer as infer_verb
from bayesflowmass import report as report_verb
from bayesflowmass import simulate as simulate_verb
from bayesflowmass import train as train_verb
from bayesflowmass.command import Settings, run_command
from bayesflowmass.command.limits import Clusters, Device, Seed
from bayesflowmass.command.paths import OutFolder
from bayesflowmass.common.terminal import say

# The rest is imported where it is used: --help, and an error in the input, should not wait for torch.
if TYPE_CHECKING:
    from bayesflowmass.catalog import ClusterCatalog

__all__ = ["demo", "main", "write_example_tables"]

Verb = Callable[[Sequence[str] | None], int]


class DemoSettings(Settings):
    """`bayesflowmass demo`: mocks, a trained model, its accuracy and the masses of a table, in minutes."""

    out: OutFolder = Field(Path("demo"), description="folder to write into")
    train_config: str = Field("quick.yaml", description="settings of the training run")
    n_test: Clusters = Field(5000, gt=20, description="test clusters, drawn from the mass function")
    seed: Seed = Field(0, description="random seed")
    device: Device = Field("auto", description="auto, cpu or cuda")
    progress: bool = Field(True, description="show progress bars")


def demo(
    out: str | Path = "demo",
    *,
    train_config: str = "quick.yaml",
    n_test: int = 5000,
    seed: int = 0,
    device: str = "auto",
    progress: bool = True,
) -> int:
    """Simulate, train, evaluate and infer in one folder; print the comparison table and the paths of the
    figures.

    Args:
        out: folder to write into.
        train_config: settings of the training run, a file or the name of one that comes with the package.
        n_test: test clusters, drawn from the mass function above 10^13.5 Msun/h.
        seed: of everything random.
        device: auto, cpu or cuda.
        progress: show bars.

    Returns:
        The exit code of the first command that failed, or 0.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    model, test = folder / "model", folder / "test.parquet"
    galaxies, clusters, masses = (folder / f"{n}.csv" for n in ("my_galaxies", "my_clusters", "masses"))
    masses = masses.with_suffix(".ecsv")
    bars = [] if progress else ["--no-progress"]
    common = ["--seed", str(seed), *bars]
    on_device = ["--device", device, *common]
    # A finished or interrupted run of this folder is taken up, not repeated.
    train = ["--config", train_config, "--out", str(model), "--resume", *on_device]
    simulate = ["--out", str(test), "--n-clusters", str(n_test), "--masses", "hmf"]
    simulate += ["--log10-mass-range", "13.5", "15.6", "--seed", str(seed + 1), *bars]
    evaluate = [
        "--model",
        str(model),
        "--catalog",
        str(test),
        "--out",
        str(folder / "evaluation"),
        *on_device,
    ]
    infer = ["--model", str(model), "--galaxies", str(galaxies), "--clusters", str(clusters)]
    # The example galaxies are those of mocks, without the central galaxies that a survey would see.
    infer += ["--out", str(masses), "--mode", "paper", *on_device]
    steps: list[tuple[str, Verb, list[str], Path | None]] = [
        ("Train a model on mock clusters, flat in log mass", train_verb.main, train, None),
        ("Masses of a table of galaxies", infer_verb.main, infer, None),
        ("Simulate test clusters that follow the mass function", simulate_verb.main, simulate, test),
        ("Accuracy on them, beside simpler estimators", evaluate_verb.main, evaluate, None),
        ("All of it on one page", report_verb.main, [str(folder)], None),
    ]
    for number, (title, verb, arguments, result) in enumerate(steps, start=1):
        name = verb.__module__.rsplit(".", 1)[-1]
        say(f"\n[{number}/{len(steps)}] {title}\n$ bayesflowmass {name} {' '.join(arguments)}")
        if result is not None and result.exists():
            say(f"{result} is there already.")
            continue
        if verb is infer_verb.main:
            write_example_tables(galaxies, clusters, seed=seed + 2)
        code = verb(arguments)
        if code != 0:
            return code
        if verb is infer_verb.main:
            _show(masses, clusters)
    say(f"\nDone in {time.monotonic() - started:.0f} s. For your own galaxies write a table like {galaxies}")
    say("and run the second command, with --mode survey if it holds the central galaxies of clusters.")
    return 0


def write_example_tables(
    galaxies: Path, clusters: Path, *, seed: int, n_clusters: int = 12
) -> ClusterCatalog:
    """Write a flat table of galaxies and one of clusters, as a user would have them.

    Args:
        galaxies: csv of ``cluster_id, x, y`` [comoving Mpc/h] and ``v_los`` [km/s].
        clusters: csv of ``cluster_id, redshift`` and the true ``log10_mass`` [Msun/h], to compare with.
        seed: of the mock clusters.
        n_clusters: how many.

    Returns:
        The clusters.
    """
    from astropy.table import Table

    from bayesflowmass.mocks import simulate_catalog

    catalog = simulate_catalog(n_clusters, masses="flat", log10_mass_range=(13.8, 15.2), seed=seed)
    names = np.array([f"cluster-{i + 1:02d}" for i in range(len(catalog))])
    rows: dict[str, Any] = {"cluster_id": np.repeat(names, catalog.n_galaxies)}
    for column, digits in (("x", 4), ("y", 4), ("v_los", 1)):
        rows[column] = np.round(np.asarray(catalog.galaxies(column), dtype=np.float64), digits)
    Table(rows).write(galaxies, format="ascii.csv", overwrite=True)
    truth = {
        "cluster_id": names,
        "redshift": np.round(np.asarray(catalog.column("redshift"), dtype=np.float64), 5),
        "log10_mass": np.round(np.asarray(catalog.column("log10_mass"), dtype=np.float64), 4),
    }
    Table(truth).write(clusters, format="ascii.csv", overwrite=True)
    return catalog


def _show(masses: Path, clusters: Path) -> None:
    """Print the table of masses, with the truth that a mock knows beside it."""
    from astropy.table import Table

    table = Table.read(masses, format="ascii.ecsv")
    truth = Table.read(clusters, format="ascii.csv")
    known = {str(row["cluster_id"]): float(row["log10_mass"]) for row in truth}
    say(f"\n{masses}: log10 M200c [Msun/h], median and central 68 %")
    say(f"{'cluster_id':12} {'galaxies':>8} {'true':>7} {'median':>7} {'16 %':>7} {'84 %':>7}  flags")
    for row in table:
        numbers = (known[str(row["cluster_id"])], *(float(row[c]) for c in ("log10_mass", "q16", "q84")))
        # An empty text comes back from ecsv as masked.
        flags = "" if np.ma.is_masked(row["flags"]) else row["flags"]
        cells = " ".join(f"{number:7.2f}" for number in numbers)
        say(f"{row['cluster_id']!s:12} {int(row['n_galaxies']):8d} {cells}  {flags}".rstrip())


def main(argv: Sequence[str] | None = None) -> int:
    """``bayesflowmass demo``; returns the exit code."""
    code = 0

    def body(settings: DemoSettings) -> None:
        nonlocal code
        code = demo(**settings.model_dump())

    return run_command(DemoSettings, body, argv, prog="bayesflowmass demo") or code


if __name__ == "__main__":
    sys.exit(main())

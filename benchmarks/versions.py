"""What commands cost, beside those of another checkout: processor time of whole commands, taken in turns.

    git worktree add ../before COMMIT
    python -m benchmarks.versions --before ../before [--repeats 5] [--out docs/results/versions]

The table is written after each repeat.
Simulation, kernel densities (an encoder over a catalogue), inference by the shipped model and by a point model,
training and the variational phase, each in processes of its own with one thread, so imports count. The ratio is that
of the smallest times; beside it stand the smallest and the largest ratio of a pair.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.provenance import header, provenance

ENCODE = """
import sys, torch
from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.encoders import ContextEncoder, KDEEncoder
torch.set_num_threads(1)
catalog = ClusterCatalog.read(sys.argv[1])
encoder = ContextEncoder([KDEEncoder(convention=name) for name in ("covariance", "scipy")])
for _ in range(3):
    encoder.encode(catalog)
"""
READ = """
import sys
from bayesflowmass.io import load_catalog
load_catalog(sys.argv[1])
"""
VERB = "import sys; from bayesflowmass.cli import main; sys.exit(main())"
QUICK = ("--config", "quick.yaml", "--device", "cpu", "--no-progress", "--seed", "1")
COMMANDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "simulate 20 000": (VERB, ("simulate", "--n-clusters", "20000", "--seed", "5", "--out", "{out}.parquet")),
    "kernel densities, 3 x 20 000": (ENCODE, ("{catalog}",)),
    "train, quick.yaml": (VERB, ("train", *QUICK, "--catalog", "{catalog}", "--out", "{out}")),
    "train --variational": (
        VERB,
        (
            "train",
            *QUICK,
            "--catalog",
            "{catalog}",
            "--variational",
            "--fit.max-updates",
            "120",
            "--out",
            "{out}",
        ),
    ),
    "infer, point model, 20 000": (
        VERB,
        ("infer", "--model", "{point}", "--galaxies", "{catalog}", "--out", "{out}.parquet"),
    ),
    "read 10^6 rows of csv": (READ, ("{table}",)),
    "infer, shipped model, 1 000": (VERB, ("infer", "--galaxies", "{small}", "--out", "{out}.parquet")),
}


def write_table(path: Path, clusters: int = 10_000, galaxies: int = 100) -> None:
    """Galaxies ``cluster_id, x, y, v_los`` of clusters without structure, and their redshift."""
    rng = np.random.default_rng(0)
    n = clusters * galaxies
    columns = [
        np.repeat(np.arange(clusters), galaxies),
        *rng.normal(0.0, 0.5, (2, n)),
        rng.normal(0.0, 800.0, n),
    ]
    columns.append(np.full(n, 0.1))
    form = ["%d", "%.5f", "%.5f", "%.1f", "%.2f"]
    np.savetxt(path, np.stack(columns, 1), form, ",", header="cluster_id,x,y,v_los,redshift", comments="")


def run(tree: Path, code: str, arguments: list[str]) -> float:
    """Processor seconds of a Python process that imports the package of that tree."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        cwd=tree,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"{tree}: {' '.join(arguments)}: {done.stderr.strip()[-500:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="the other checkout")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=[*COMMANDS], default=[*COMMANDS])
    parser.add_argument("--out", type=Path, default=Path("docs/results/versions"))
    options = parser.parse_args()
    trees = {"before": options.before.resolve(), "now": Path(__file__).resolve().parents[1]}
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=trees["before"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    times: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        places = {name: str(root / name) for name in ("catalog", "small", "point")}
        places["table"] = str(root / "galaxies.csv")
        write_table(Path(places["table"]))
        for name, clusters in (("catalog", "20000"), ("small", "1000")):
            places[name] += ".parquet"
            run(
                trees["before"],
                VERB,
                ["simulate", "--n-clusters", clusters, "--mode", "survey", "--out", places[name]],
            )
        # Of the older version, which both can read.
        run(
            trees["before"],
            VERB,
            [
                "train",
                *QUICK,
                "--fit.max-updates",
                "120",
                "--catalog",
                places["catalog"],
                "--out",
                places["point"],
            ],
        )
        for repeat in range(options.repeats):
            for name in options.only:
                code, arguments = COMMANDS[name]
                for k, (which, tree) in enumerate(trees.items()):
                    out = str(root / f"{repeat}{k}{[*COMMANDS].index(name)}")
                    filled = [argument.format(out=out, **places) for argument in arguments]
                    times.setdefault(name, {}).setdefault(which, []).append(run(tree, code, filled))
                print(
                    name, {which: round(values[-1], 2) for which, values in times[name].items()}, flush=True
                )
            write(options.out, commit, times)


def write(out: Path, commit: str, times: dict[str, dict[str, list[float]]]) -> None:
    """The table of what has been measured so far."""
    source = provenance(None)
    lines = [
        header(f"Processor time of commands, beside {commit}", source),
        f"| command | {commit} [s] | now [s] | ratio | ratios of pairs |",
        "|---|---|---|---|---|",
    ]
    for name, both in times.items():
        before, now = np.array(both["before"]), np.array(both["now"])
        pairs = now / before
        lines.append(
            f"| {name} | {before.min():.2f} | {now.min():.2f} | {now.min() / before.min():.2f} |"
            f" {pairs.min():.2f}-{pairs.max():.2f} |"
        )
    print("\n".join(lines), flush=True)
    out.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    out.with_suffix(".json").write_text(json.dumps(source | {"seconds": times}) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

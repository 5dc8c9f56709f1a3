"""Tables of accuracy: models on test catalogues, with the baselines of each catalogue and published values.

    python -m benchmarks.results_tables --model best=runs/best --model paper=runs/paper \\
        --catalog "mass function=test_hmf.parquet" --prior flat --out docs/results/accuracy

    python -m benchmarks.results_tables --model best=runs/best --catalog flat=test_flat.parquet \\
        --catalog hmf=test_hmf.parquet --prior matching --out docs/results/coverage

``--prior matching`` takes for each catalogue the prior of its population, the only pairs whose coverage
can be nominal. Writes OUT.md and OUT.json; figures and predictions of each pair go to --work, where one is
given.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from pathlib import Path

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.evaluate import evaluate
from bayesflowmass.evaluation.table import COLUMNS, comparison_rows, format_cells
from benchmarks.provenance import header, provenance

BIG = ("bins_true", "bins_predicted")


def named(text):
    """NAME=PATH."""
    name, equals, path = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"'{text}' should be NAME=PATH")
    return name, Path(path)


def folder_name(*parts):
    return "-".join(re.sub(r"\W+", "_", part) for part in parts)


def line(name, numbers, errors):
    cells = [
        cell
        if cell == "-" or errors.get(f"{key}_se") is None
        else f"{cell} ± {_error(key, errors[f'{key}_se'])}"
        for key, cell in zip(COLUMNS, format_cells(numbers), strict=True)
    ]
    return f"| {name} | " + " | ".join(cells) + " |"


def _error(key, value):
    return f"{100 * value:.1f}%" if key.startswith("coverage") else f"{value:.3f}"


def block(catalogue, prior, runs):
    """One table: every model on one catalogue, then what does not depend on the model."""
    first = next(iter(runs.values()))
    equation = first["equation_8"] or {}
    low, high = equation.get("log10_mass_range", first["log10_mass_range"])
    lines = [
        f"**{catalogue}**: {first['n_clusters']} clusters, population {first['population']}, prior {prior}, "
        f"{first['kind']} ({first['mode']}), log10 M = {low:.2f}-{high:.2f}, median "
        f"{first['median_n_galaxies']:.0f} "
        f"galaxies. {first['coverage_statement']} N of equation 8: {first['n_members_definition']}, median "
        f"{equation.get('n_median', float('nan')):.0f}.",
        "",
        "| estimator | " + " | ".join(COLUMNS.values()) + " |",
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    lines += [line(name, {key: run.get(key) for key in COLUMNS}, run) for name, run in runs.items()]
    baselines = list(first["baselines"].values())
    for i, (name, numbers) in enumerate(comparison_rows(first)[1:]):
        lines.append(line(name, numbers, baselines[i] if i < len(baselines) else {}))
    return "\n".join([*lines, ""])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=named, action="append", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--catalog", type=named, action="append", required=True, metavar="NAME=FILE")
    parser.add_argument(
        "--baseline-catalog", type=Path, help="to fit the baselines on; simulated when absent"
    )
    parser.add_argument("--prior", choices=("flat", "hmf", "matching"), default="flat")
    parser.add_argument("--title", default="Accuracy")
    parser.add_argument("--bootstrap", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="keep figures and predictions here")
    parser.add_argument("--out", type=Path, required=True, help="without suffix")
    arguments = parser.parse_args()
    training = None if arguments.baseline_catalog is None else ClusterCatalog.read(arguments.baseline_catalog)
    blocks, stored = [], []
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        for catalogue, path in arguments.catalog:
            catalog = ClusterCatalog.read(path)
            population = (catalog.metadata.masses or {}).get("distribution", "flat")
            prior = population if arguments.prior == "matching" else arguments.prior
            runs = {}
            for name, folder in arguments.model:
                runs[name] = evaluate(
                    MassEstimator.load(folder),
                    catalog,
                    work / folder_name(name, catalogue, prior),
                    prior=prior,
                    baseline_catalog=training,
                    n_resamples=arguments.bootstrap,
                    seed=arguments.seed,
                    figures=arguments.work is not None,
                )
            blocks.append(block(catalogue, prior, runs))
            stored.append({"catalog": catalogue, "prior": prior, "models": runs})
    source = provenance(arguments.seed)
    notes = (
        "Residual = log10(M_true / M_pred) [dex], M_pred the posterior median; errors: bootstrap over "
        "haloes. b: slope of "
        "predicted on true; 14-15: scatter for 14 <= log10 M_true <= 15, then b and their ratio there; "
        "abs 15: mean "
        "|residual| for 14.8-15.2; s_N, s_0: equation 8. [...]: published, on other mocks of the same kind.\n"
    )
    text = "\n".join([header(arguments.title, source), notes, *blocks])
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.with_suffix(".md").write_text(text, encoding="utf-8")
    for entry in stored:
        for run in entry["models"].values():
            for part in (run, *run["baselines"].values()):
                for key in BIG:
                    part.pop(key, None)
    arguments.out.with_suffix(".json").write_text(
        json.dumps({**source, "tables": stored}, indent=1) + "\n", encoding="utf-8"
    )
    print(text)


if __name__ == "__main__":
    main()

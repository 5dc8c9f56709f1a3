"""A convolutional network of Ho et al. 2019's size against the flows, on one mock: is the flow 33 % better?

    python -m benchmarks.cnn --work runs/cnn --seeds 3 --out docs/results/cnn
    python -m benchmarks.cnn --work runs/cnn --models cnn paper --tables-only --out docs/results/cnn

Trains what WORK lacks (LABEL-SEED, each a model folder; an interrupted training goes on), lets every model predict
one catalogue of the mass function under a flat prior, as the paper does, compares them with
``bayesflowmass.compare`` (PDFs under the mass-function prior) and writes OUT.md, OUT.json and OUT_accuracy.png, .pdf.
About two minutes of processor time for each training of the paper's mock, four for ``default``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path

import numpy as np
import torch

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.compare import CompareSettings
from bayesflowmass.compare import run as compare
from bayesflowmass.comparison.alignment import align
from bayesflowmass.comparison.report import format_first_page, format_tables
from bayesflowmass.comparison.statistics import Bin, Comparison, Method, influence, pair_runs
from bayesflowmass.diagnostics.paired import crossed_estimate
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.evaluation import read_predictions
from bayesflowmass.mocks import simulate_catalog
from bayesflowmass.train import main as train
from benchmarks.provenance import header, provenance

# Label -> what it is, flags of `train`.
MODELS = {
    "cnn": ("CNN of Ho et al., kernels of all R x 5 v", ("--config", "cnn.yaml")),
    "paper": ("flow of the paper", ("--config", "paper.yaml")),
    "cnn-square": (
        "CNN of that size, kernels 5 x 5 and 3 x 3",
        ("--config", "cnn.yaml", "--flow.options", "kernels=[5, 3]", "pooling=[2, 2]"),
    ),
    "ours20000": (
        "default.yaml's image and network, 20 000 clusters",
        ("--config", "quick.yaml", "--simulate.n-clusters", "20000", "--fit.max-updates", "1600"),
    ),
    "default": ("default.yaml, 44 000 clusters", ("--config", "default.yaml")),
}
REFERENCE = "cnn"
CLAIMED = 33.0
HO_RANGE = Bin(14.0, 15.0)
TEST = {"masses": "hmf", "log10_mass_range": (13.5, 15.2), "seed": 201}
EDGES = (14.0, 14.3, 14.7, 15.2)


def trained(work, label, seed):
    """A finished model folder."""
    folder = work / f"{label}-{seed}"
    if not (folder / "model.json").is_file():
        start = time.process_time()
        flags = [*MODELS[label][1], "--out", str(folder), "--seed", str(seed), "--no-progress", "--resume"]
        if train(flags) != 0:
            raise SystemExit(f"training {folder} failed")
        (folder / "seconds.json").write_text(
            json.dumps({"processor_seconds": time.process_time() - start}), encoding="utf-8"
        )
    return folder


def gains(work, runs, catalog):
    """Scatter in 14-15 of each method, and by how many percent it is below that of the CNN."""
    labels = list(runs)
    found = [
        read_predictions(work / "comparison_flat" / f"{label}-{seed}" / "predictions.parquet", seed)
        for label in labels
        for seed in runs[label]
    ]
    aligned, halo = align(found, catalog)
    each = iter(aligned)
    methods = {label: Method(label, tuple(next(each) for _ in runs[label])) for label in labels}
    comparison = Comparison(list(methods.values()), halo, REFERENCE)
    inside = HO_RANGE.holds(comparison.truth)
    result = {}
    for label, method in methods.items():
        alone = comparison.alone(label, "scatter", HO_RANGE, "true")
        mean = comparison.alone(label, "mean_residual", HO_RANGE, "true")
        entry = {
            "scatter": alone.value,
            "error": alone.error,
            "mean_residual": mean.value,
            "mean_error": mean.error,
        }
        if label != REFERENCE:
            # ln of the ratio of scatters: d ln s = d s / s.
            seeds = []
            for run, other in pair_runs(method, methods[REFERENCE]):
                a, b = (influence(r, "scatter", inside) for r in (run, other))
                ratio = a.scaled(1.0 / a.value, np.log(a.value) - 1.0) - b.scaled(
                    1.0 / b.value, np.log(b.value) - 1.0
                )
                seeds.append(ratio)
            log_ratio = crossed_estimate(seeds, halo, inside)
            factor = float(np.exp(log_ratio.value))
            claim = np.log(1.0 - CLAIMED / 100.0)
            entry |= {
                "better_by_percent": 100.0 * (1.0 - factor),
                "better_by_percent_error": 100.0 * factor * log_ratio.error,
                "n_pairs": len(seeds),
                # One-sided: that the flow is at least as much better as was claimed.
                "p_at_least_claimed": log_ratio.p_above(claim),
            }
        result[label] = entry
    return result


def sentence(label, entry):
    """What the scatter says of the claim."""
    gain, error, p = entry["better_by_percent"], entry["better_by_percent_error"], entry["p_at_least_claimed"]
    verb = "lower" if gain > 0 else "higher"
    text = f"{MODELS[label][0]}: scatter {abs(gain):.1f} ± {error:.1f} % {verb} than the CNN's"
    if entry["n_pairs"] == 1:
        text += " (error over haloes alone: one training of each)"
    if p < 0.05:
        return (
            f"{text}; a gain of {CLAIMED:.0f} % is excluded (p {'< 0.001' if p < 0.001 else f'= {p:.3f}'})."
        )
    return f"{text}; a gain of {CLAIMED:.0f} % is not excluded."


def describe(work, runs, numbers):
    """One row per method: size, cost, accuracy."""
    lines = [
        "| model | label | parameters | trainings | processor time of one [s] | mean residual 14-15 | scatter 14-15 |",
        "|---|---|---|---|---|---|---|",
    ]
    for label, seeds in runs.items():
        folders = [work / f"{label}-{seed}" for seed in seeds]
        flow = MassEstimator.load(folders[0], "cpu").flow
        files = [folder / "seconds.json" for folder in folders if (folder / "seconds.json").is_file()]
        seconds = [json.loads(file.read_text(encoding="utf-8"))["processor_seconds"] for file in files]
        cost = f"{np.mean(seconds):.0f}" if seconds else "-"
        entry = numbers[label]
        lines.append(
            f"| {MODELS[label][0]} | {label} | {sum(p.numel() for p in flow.parameters())} | {len(seeds)} | {cost} | "
            f"{entry['mean_residual']:+.3f} ± {entry['mean_error']:.3f} | "
            f"{entry['scatter']:.4f} ± {entry['error']:.4f} |"
        )
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--work", type=Path, default=Path("runs/cnn"))
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each model")
    parser.add_argument("--n-test", type=int, default=10000, help="test clusters")
    parser.add_argument("--tables-only", action="store_true", help="compare what is trained, train nothing")
    parser.add_argument("--out", type=Path, default=Path("docs/results/cnn"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    source, work = provenance(0), arguments.work
    test = work / "test.parquet"
    if not test.is_file():
        work.mkdir(parents=True, exist_ok=True)
        simulate_catalog(arguments.n_test, **TEST).write(test)
    if not arguments.tables_only:
        for seed in range(arguments.seeds):
            for label in arguments.models:
                trained(work, label, seed)
    runs = {
        label: [str(s) for s in range(arguments.seeds) if (work / f"{label}-{s}" / "model.json").is_file()]
        for label in arguments.models
    }
    runs = {label: seeds for label, seeds in runs.items() if seeds}
    words = [
        f"{label}={','.join(str(work / f'{label}-{seed}') for seed in seeds)}"
        for label, seeds in runs.items()
    ]
    results = {}
    for prior in ("flat", "hmf"):
        settings = CompareSettings(
            models=tuple(words), catalog=test, out=work / f"comparison_{prior}", prior=prior, reference=REFERENCE,
            edges=EDGES, baselines=prior == "flat", device="cpu", progress=False,
        )  # fmt: skip
        results[prior] = compare(settings)
    numbers = gains(work, runs, ClusterCatalog.read(test))
    command = (
        "bayesflowmass compare --models " + " ".join(words) + f" --catalog {test} --reference {REFERENCE}"
    )
    command += f" --edges {' '.join(map(str, EDGES))}"
    lines = [
        header("A convolutional network and the flows", source),
        "The paper reports a scatter of 0.089 dex in 14-15 against 0.131 of the CNN of Ho et al. 2019, "
        f"{CLAIMED:.0f} % less, each on its own set of the same kind. Here all see the same mock. The CNN reads the "
        "image of the paper and is trained as its authors did (Adam at 1e-3, twenty epochs, mirrored velocities), but "
        "for a Gaussian likelihood in place of least squares. Mass-function set, flat prior, residuals of the median; "
        "`configs/cnn.yaml` says what else differs from the published network."
        + (
            " `paper` reads the same images of the same clusters, in the training of the paper."
            if "paper" in runs
            else ""
        ),
        "",
        *describe(work, runs, numbers),
        "",
        *[f"- {sentence(label, entry)}" for label, entry in numbers.items() if label != REFERENCE],
        "",
        "#### PDFs, under the prior of the set",
        "",
        f"`{command} --prior hmf` (`docs/comparison.md` says how to read it):",
        "",
        *format_first_page(results["hmf"], level=5, figures=False),
        "#### Residuals, under the flat prior",
        "",
        f"`{command} --baselines`:",
        "",
        *format_tables(results["flat"], ("true",), level=5, figures=False),
        f"Figure: `{arguments.out}_accuracy.png`.",
        "",
    ]
    verdicts = {prior: result["sections"][0]["verdicts"] for prior, result in results.items()}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.with_suffix(".md").write_text("\n".join(lines), encoding="utf-8")
    arguments.out.with_suffix(".json").write_text(
        json.dumps({**source, "scatter_14_15": numbers, "verdicts": verdicts}, indent=1),
        encoding="utf-8",
    )
    for extension in ("pdf", "png"):
        figure = work / "comparison_flat" / f"accuracy.{extension}"
        shutil.copyfile(figure, arguments.out.with_name(f"{arguments.out.name}_accuracy.{extension}"))
    print("\n".join(lines))


if __name__ == "__main__":
    main()

"""The robustness tests of the paper over a whole test set: fewer galaxies, noisier velocities, other bandwidths.

    python -m benchmarks.robustness --work runs/robustness --out docs/results/robustness

Trains three models (``quick.yaml``'s network with and without augmentation, and ``paper.yaml``) and one small model
for each bandwidth and convention, then measures each on one test catalogue as it is, thinned and with noise added.
What exists in WORK is not made again: an interrupted run goes on. ``--only models`` or ``--only bandwidth`` does a
part. About twenty minutes of processor time. Writes OUT.md, OUT.json and the figures OUT.png and OUT_bandwidth.png.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.diagnostics import summarise
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.estimator.flags import usable_clusters
from bayesflowmass.mocks import simulate_catalog
from bayesflowmass.plots.style import save_figure
from bayesflowmass.selection import completeness, cylinder, velocity_errors
from bayesflowmass.train import main as train
from benchmarks.plots.robustness import plot_bandwidth, plot_robustness
from benchmarks.provenance import header, provenance

TEST_RANGE = (13.5, 15.2)
# The wider mocks of the test: galaxies that noise scatters into the cylinder exist.
WIDE = 3500.0
R_MAX, V_MAX = 1.6, 2500.0
FEW = 10
KEPT = (1.0, 0.67, 0.5, 0.33, 0.2, 0.1)
NOISE = (0, 50, 100, 200, 300)
# In the order in which an interrupted run is worth most.
BANDWIDTHS = (0.15, 0.03, 0.6, 0.07, 0.3)
CONVENTIONS = ("covariance", "scipy")
AUGMENTATION = ("--augmentation.completeness", "0.1", "1.0", "--augmentation.velocity-error", "0", "300")
SIZE = ("--simulate.n-clusters", "20000", "--fit.max-updates", "1600")
# Name -> flags of `train`.
MODELS = {
    "no augmentation": ("--config", "quick.yaml", *SIZE),
    "augmented": ("--config", "quick.yaml", *SIZE, *AUGMENTATION, "--fit.redraw-every", "3"),
    "paper": ("--config", "paper.yaml"),
}
SMALL = ("--config", "quick.yaml", "--simulate.n-clusters", "6000", "--fit.max-updates", "400")
KEYS = ("mean_residual", "scatter", "slope", "scatter_14_15", "slope_14_15", "coverage_68", "coverage_95")


def folder_of(name):
    return name.replace(" ", "_").replace("=", "_").replace(",", "")


def bandwidth_models():
    """Name -> (convention, h0, flags)."""
    return {
        f"{convention}, h0={h0:g}": (
            convention,
            h0,
            (*SMALL, "--encoder.kernels", f"{{bandwidth: {h0}, convention: {convention}}}"),
        )
        for h0 in BANDWIDTHS
        for convention in CONVENTIONS
    }


def trained(name, flags, work, seed):
    """The model of that name, trained or resumed if it is not there."""
    folder = work / folder_of(name)
    if not (folder / "model.json").is_file():
        started = time.process_time()
        if train([*flags, "--out", str(folder), "--seed", str(seed), "--no-progress", "--resume"]) != 0:
            raise SystemExit(f"training of '{name}' failed")
        (folder / "seconds.json").write_text(json.dumps(time.process_time() - started), encoding="utf-8")
    return MassEstimator.load(folder)


def test_catalog(work, n, seed):
    """Clusters of the mass function in a cylinder wider than any model sees."""
    path = work / f"test-{n}-{seed}.parquet"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        simulate_catalog(n, masses="hmf", log10_mass_range=TEST_RANGE, v_max=WIDE, seed=seed + 977).write(
            path
        )
    return ClusterCatalog.read(path)


def observed(catalog, kept, noise, seed):
    """Noise is added before the cylinder is cut, as a survey does it, and galaxies are lost at random."""
    if noise > 0:
        catalog = velocity_errors(catalog, float(noise), seed)
    catalog = cylinder(catalog, R_MAX, V_MAX)
    return completeness(catalog, kept, seed) if kept < 1.0 else catalog


def predicted(estimator, catalog):
    """Medians under the flat prior, pit under the mass function within the limits of the test set."""
    median, pit = np.empty(len(catalog)), np.empty(len(catalog))
    low, high = estimator.training_info.log10_mass_range
    limits = max(low, TEST_RANGE[0]), min(high, TEST_RANGE[1])
    for start in range(0, len(catalog), 2000):
        rows = slice(start, start + 2000)
        median[rows], pit[rows] = both_or_nan(estimator, catalog[rows], limits)
    return median, np.clip(pit, 0.0, 1.0)


def both_or_nan(estimator, catalog, limits):
    """NaN for a cluster whose few galaxies are so aligned that they have no density."""
    try:
        posterior = estimator.posterior(catalog)
    except CatalogError:
        if len(catalog) == 1:
            return np.full((2, 1), np.nan)
        half = len(catalog) // 2
        return np.hstack([both_or_nan(estimator, part, limits) for part in (catalog[:half], catalog[half:])])
    truth = np.asarray(catalog.column("log10_mass"), dtype=np.float64)
    return np.stack([posterior.median, posterior.with_prior("hmf", limits).cdf(truth)])


def numbers(truth, median, pit, halo_id, seed):
    if truth.size < 30:
        return {"n": int(truth.size)}
    summary = summarise(truth, median, halo_id=halo_id, pit=pit, n_resamples=100, seed=seed)
    return {
        "n": int(truth.size),
        **{k: summary[k] for k in KEYS},
        **{f"{k}_se": summary[f"{k}_se"] for k in KEYS},
    }


def measure(name, estimator, catalog, conditions, work, seed):
    """One entry for each (kept, noise); cached in WORK."""
    entries, whole = [], None
    for kept, noise in conditions:
        cache = work / "measured" / f"{folder_of(name)}-{len(catalog)}-{seed}-{kept:g}-{noise:g}.json"
        if cache.is_file():
            stored = json.loads(cache.read_text(encoding="utf-8"))
        else:
            shown = observed(catalog, kept, noise, seed)
            count = np.asarray(shown.n_galaxies)
            usable = usable_clusters(shown) == ""
            median, pit = np.full(len(shown), np.nan), np.full(len(shown), np.nan)
            median[usable], pit[usable] = predicted(estimator, shown.filter(usable))
            stored = {"n_galaxies": count.tolist(), "median": median.tolist(), "pit": pit.tolist()}
            cache.parent.mkdir(parents=True, exist_ok=True)
            cache.write_text(json.dumps(stored), encoding="utf-8")
        count, median, pit = (np.array(stored[k], dtype=float) for k in ("n_galaxies", "median", "pit"))
        truth = np.asarray(catalog.column("log10_mass"), dtype=np.float64)
        halo = np.asarray(catalog.column("halo_id"))
        known = np.isfinite(median)
        enough, few = known & (count >= FEW), known & (count < FEW)
        if whole is None:
            whole = median
        both = enough & np.isfinite(whole)
        shift = median[both] - whole[both]
        entries.append(
            {
                "model": name,
                "kept": kept,
                "noise": noise,
                **numbers(truth[enough], median[enough], pit[enough], halo[enough], seed),
                "shift": float(shift.mean()),
                "shift_se": float(shift.std(ddof=1) / np.sqrt(shift.size)),
                "few": numbers(truth[few], median[few], pit[few], halo[few], seed),
                "n_without_mass": int((~known).sum()),
            }
        )
        print(name, kept, noise, {k: entries[-1].get(k) for k in ("n", *KEYS)}, flush=True)
    return entries


def cells(entry):
    if "slope" not in entry:
        return ["-"] * 7
    text = [
        f"{entry['mean_residual']:+.3f} ± {entry['mean_residual_se']:.3f}",
        f"{entry['scatter']:.3f} ± {entry['scatter_se']:.3f}",
        f"{entry['slope']:.3f} ± {entry['slope_se']:.3f}",
        "-"
        if entry["scatter_14_15"] is None
        else f"{entry['scatter_14_15']:.3f} ± {entry['scatter_14_15_se']:.3f}",
        "-" if entry["slope_14_15"] is None else f"{entry['slope_14_15']:.3f}",
    ]
    return text + [
        f"{100 * entry[k]:.1f} ± {100 * entry[f'{k}_se']:.1f}" for k in ("coverage_68", "coverage_95")
    ]


HEADINGS = (
    "mean residual",
    "scatter",
    "slope",
    "scatter 14-15",
    "slope 14-15",
    "68 % holds [%]",
    "95 % holds [%]",
)


def table(entries, first, label):
    lines = [
        "| " + " | ".join([*first, "clusters", *HEADINGS, "shift"]) + " |",
        "|---" * (len(first) + 9) + "|",
    ]
    for entry in entries:
        row = [*label(entry), str(entry["n"]), *cells(entry), f"{entry['shift']:+.3f}"]
        lines.append("| " + " | ".join(row) + " |")
    return lines


def few_table(entries):
    lines = [
        "| model | kept | noise [km/s] | fewer than ten | mean residual | scatter | slope | 68 % holds [%] | "
        "95 % holds [%] | no mass |",
        "|---" * 10 + "|",
    ]
    for entry in entries:
        few = entry["few"]
        got = cells(few)
        row = [entry["model"], f"{100 * entry['kept']:.0f} %", f"{entry['noise']}", str(few["n"])]
        row += [*got[:3], *got[5:], str(entry["n_without_mass"])]
        lines.append("| " + " | ".join(row) + " |")
    return lines


def write(entries, bandwidth, arguments, seconds):
    source = provenance(arguments.seed)
    out = arguments.out
    lines = [
        header("Fewer galaxies, noisier velocities" + ", other bandwidths" * bool(bandwidth), source),
        f"{arguments.n_test} test clusters of the mass function, log10 M = {TEST_RANGE[0]}-{TEST_RANGE[1]}, "
        "contaminated (paper mode), z = 0.117. Noise is added to every velocity of a cylinder of "
        f"{WIDE:.0f} km/s, which is then cut at {V_MAX:.0f} km/s. Residual = log10(M_true / M_pred), M_pred the "
        "median under the flat prior; slope: of predicted on true; coverage: central intervals under the mass "
        "function, the prior of this population. Shift: mean of log10(M_pred / M_pred of the same clusters as they "
        "are). Errors: bootstrap over haloes. Only clusters that still have ten galaxies, as in training; the "
        "others follow in a table of their own.\n",
    ]
    if entries:
        of_kept = [e for e in entries if e["noise"] == 0]
        of_noise = [e for e in entries if e["kept"] == 1.0]
        lines += ["**Galaxies kept**\n"]
        lines += table(of_kept, ["model", "kept"], lambda e: [e["model"], f"{100 * e['kept']:.0f} %"])
        lines += ["\n**Velocity noise**\n"]
        lines += table(of_noise, ["model", "noise [km/s]"], lambda e: [e["model"], f"{e['noise']}"])
        lines += ["\n**Clusters left with fewer than ten galaxies**, which `infer` flags `few_galaxies`; no mass: "
                  "fewer than three, or no density\n"]  # fmt: skip
        lines += few_table([e for e in entries if e["few"]["n"] + e["n_without_mass"] > 0])
        save(plot_robustness(entries), out)
    if bandwidth:
        lines += [
            "\n**Bandwidth**: one kernel, 6000 clusters, 400 updates each, the same clusters and seed; the first "
            f"{arguments.n_test_bandwidth} test clusters; kernel width in standard deviations of the cluster\n"
        ]

        def label(e):
            return [
                e["convention"],
                f"{e['h0']:g}",
                f"{e['width']:.2f}",
                f"{100 * e['kept']:.0f} %",
                f"{e['noise']}",
            ]

        lines += table(bandwidth, ["convention", "h0", "width", "kept", "noise [km/s]"], label)
        save(plot_bandwidth(bandwidth), out.with_name(f"{out.name}_bandwidth"))
    lines.append(
        "\nProcessor time of the trainings: " + "; ".join(f"{n} {s:.0f} s" for n, s in seconds.items()) + "."
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    result = {**source, "models": entries, "bandwidth": bandwidth, "processor_seconds": seconds}
    out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def save(figure, stem):
    figures = stem.parent.parent / "figures" if stem.parent.name == "results" else stem.parent
    for path in save_figure(figure, figures / stem.name):
        if path.suffix == ".pdf":
            path.unlink()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n-test", type=int, default=6000)
    parser.add_argument("--n-test-bandwidth", type=int, default=2000, help="of them, for the bandwidths")
    parser.add_argument("--only", choices=("models", "bandwidth"))
    parser.add_argument(
        "--tables-only", action="store_true", help="leave out models that are not trained yet"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("runs/robustness"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/robustness"))
    arguments = parser.parse_args()
    work, seed = arguments.work, arguments.seed
    test = test_catalog(work, arguments.n_test, seed)
    conditions = [(kept, 0) for kept in KEPT] + [(1.0, noise) for noise in NOISE[1:]]
    entries, bandwidth = [], []
    if arguments.only != "bandwidth":
        for name, flags in MODELS.items():
            if arguments.tables_only and not (work / folder_of(name) / "model.json").is_file():
                continue
            entries += measure(name, trained(name, flags, work, seed), test, conditions, work, seed)
    if arguments.only != "models":
        for name, (convention, h0, flags) in bandwidth_models().items():
            if arguments.tables_only and not (work / folder_of(name) / "model.json").is_file():
                continue
            estimator = trained(name, flags, work, seed)
            few = test[: arguments.n_test_bandwidth]
            found = measure(name, estimator, few, [(1.0, 0), (0.33, 0), (1.0, 100)], work, seed)
            width = np.sqrt(h0) if convention == "covariance" else h0
            bandwidth += [{**e, "convention": convention, "h0": h0, "width": float(width)} for e in found]
    folders = [work / folder_of(name) for name in (*MODELS, *bandwidth_models())]
    seconds = {
        folder.name: json.loads((folder / "seconds.json").read_text(encoding="utf-8"))
        for folder in folders
        if (folder / "seconds.json").is_file()
    }
    write(entries, bandwidth, arguments, seconds)


if __name__ == "__main__":
    main()

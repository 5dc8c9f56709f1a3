"""What the masses rest on: interlopers found by attribution, residuals against latent truths, maps, times.

    python -m benchmarks.interpretation --work runs/robustness --out docs/results/interpretation

Takes the model "no augmentation" of ``robustness.py`` and a small one of pure clusters, trained in WORK if they are
not there. Attributions are kept there too: an interrupted run goes on. Some four minutes of processor time beside
the trainings. Writes OUT.md, OUT.json and the figures saliency, attribution and residuals_physics.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from bayesflowmass.evaluation import posterior_columns
from bayesflowmass.mocks import simulate_catalog
from bayesflowmass.plots.paper.saliency import plot_saliency
from bayesflowmass.saliency import galaxy_gradients, leave_one_out, masked_map
from benchmarks.interpretation.interlopers import fit_interloper_score, phase_space_features, roc_areas
from benchmarks.interpretation.residuals import LATENT_TRUTHS, latent_truths, partial_correlations
from benchmarks.plots.attribution import plot_attribution
from benchmarks.plots.residuals_physics import plot_residuals_physics
from benchmarks.provenance import header, provenance
from benchmarks.robustness import MODELS, save, trained

MASS_RANGE = (14.0, 15.2)
# Enough for a map of members alone.
PURE = (
    *("--config", "quick.yaml", "--simulate.kind", "pure", "--simulate.n-clusters", "4000"),
    *("--fit.max-updates", "300", "--encoder.kernels", "{bandwidth: 0.15, convention: covariance}"),
    *("--flow.options", "shared=true", "hidden=[128,64]", "activation=gelu"),
)
REFERENCE = "|v| with R"
# Score -> features of a logistic regression on other clusters, of the sort that knows nothing of a network ...
WITHOUT = {
    "R": ("r_proj",),
    REFERENCE: ("speed", "r_proj"),
    "|v| / dispersion with R": ("speed", "r_proj", "dispersion"),
    "|v| / dispersion with R, richness": ("speed", "r_proj", "dispersion", "log10_richness"),
}
# ... and of the sort that takes the estimator's attributions or its mass.
WITH = {
    "attributions alone": ("attribution", "gradient_v", "gradient_r"),
    "|v| with R, attribution": ("speed", "r_proj", "attribution"),
    "|v| / V200 with R / R200": ("v_scaled", "r_scaled"),
    "|v| / V200 with R / R200, attribution": ("v_scaled", "r_scaled", "attribution"),
    "all of these, mass, richness": (
        "v_scaled",
        "r_scaled",
        "attribution",
        "log10_mass",
        "log10_richness",
    ),
}


def attributed(estimator, n, seed, work):
    """A catalogue of massive clusters, its features and attributions."""
    catalog = simulate_catalog(n, masses="hmf", log10_mass_range=MASS_RANGE, seed=seed)
    path = work / f"attributions-{n}-{seed}.npz"
    if not path.is_file():
        started = time.process_time()
        change = leave_one_out(estimator, catalog)
        print(f"{n} clusters left out: {time.process_time() - started:.1f} s of processor time", flush=True)
        gradients = galaxy_gradients(estimator, catalog)
        np.savez(
            path,
            change=change,
            r=gradients.r_proj,
            v=gradients.v_los,
            mass=gradients.log10_mass,
            response=gradients.log10_velocity,
        )
    stored = np.load(path)
    rows = catalog.galaxy_rows
    count = catalog.n_galaxies[rows]
    features = phase_space_features(catalog, stored["mass"], stored["change"])
    # Away from zero velocity, in dex per 1000 km/s and galaxy, of order one for all clusters.
    features["gradient_v"] = 1000.0 * np.sign(catalog.galaxies("v_los")) * stored["v"] * count
    features["gradient_r"] = stored["r"] * count
    features["log10_mass"] = stored["mass"][rows]
    return catalog, features, stored


def interlopers(fit_set, test_set, within_r_vir, n_resamples, seed):
    """Areas under the curve of every score, on clusters that none was fitted on."""
    parts = []
    for catalog, features, _ in (fit_set, test_set):
        keep = np.ones(catalog.n_galaxies_total, dtype=bool)
        if within_r_vir:
            keep = features["r_proj"] < catalog.column("r_vir")[catalog.galaxy_rows]
        truth = ~catalog.galaxies("gal_is_member").astype(bool)
        parts.append(({k: v[keep] for k, v in features.items()}, truth[keep], catalog.galaxy_rows[keep]))
    (train, of_train, _), (test, of_test, rows) = parts
    scores = {
        "|v|": test["speed"],
        "leave-one-out, sign reversed": -test["attribution"],
        "|leave-one-out|": np.abs(test["attribution"]),
        "gradient along R, sign reversed": -test["gradient_r"],
        "gradient along |v|, sign reversed": -test["gradient_v"],
    }
    for name, features in {**WITHOUT, **WITH}.items():
        score = fit_interloper_score({key: train[key] for key in features}, of_train)
        scores[name] = score.log_odds(test)
    halo = test_set[0].column("halo_id")
    areas = roc_areas(scores, of_test, rows, halo, reference=REFERENCE, n_resamples=n_resamples, seed=seed)
    return {"share": float(of_test.mean()), "n_galaxies": int(of_test.size), "areas": areas}


def area_table(result):
    lines = [
        f"| score | uses the model | area | within clusters | area - that of {REFERENCE} | within - that |",
        "|---" * 6 + "|",
    ]
    for name, row in result["areas"].items():
        uses = "yes" if name in WITH or "leave" in name or "gradient" in name else "no"
        cells = [f"{row[k]:.4f} ± {row[f'{k}_se']:.4f}" for k in ("area", "within")]
        cells += [f"{row[k]:+.4f} ± {row[f'{k}_se']:.4f}" for k in ("difference", "difference_within")]
        lines.append(
            "| " + " | ".join([name.replace("|", "\\|"), uses, *cells]).replace(REFERENCE, REFERENCE) + " |"
        )
    lines[0] = lines[0].replace(f"that of {REFERENCE}", "that of \\|v\\| with R")
    return lines


def components(test_set):
    """What galaxies of each origin are worth, and how many of them raise the mass."""
    catalog, _, stored = test_set
    kinds = {0: "smooth members", 1: "members in clumps", 2: "outskirts", 3: "satellites of other haloes"}
    code, change = catalog.galaxies("gal_component"), 1000.0 * stored["change"]
    speed = np.abs(catalog.galaxies("v_los"))
    scale = np.sqrt(np.bincount(catalog.galaxy_rows, speed.astype(float) ** 2) / catalog.n_galaxies)
    fast = speed > 1.5 * scale[catalog.galaxy_rows]
    table = {}
    for value, name in kinds.items():
        for label, some in (("slow", ~fast), ("fast", fast)):
            mine = change[(code == value) & some]
            table[f"{name}, {label}"] = {
                "n": int(mine.size),
                "mean": float(mine.mean()),
                "mean_se": float(mine.std() / np.sqrt(mine.size)),
                "rms": float(np.sqrt((mine**2).mean())),
                "share_raising": float((mine > 0).mean()),
            }
    return table


def residuals(estimator, n, n_resamples, seed):
    catalog = simulate_catalog(n, masses="hmf", log10_mass_range=MASS_RANGE, seed=seed)
    truth = np.asarray(catalog.column("log10_mass"), dtype=np.float64)
    guess = posterior_columns(estimator, catalog, {"median": lambda posterior, _: posterior.median})["median"]
    latents, halo = latent_truths(catalog), catalog.column("halo_id")
    return {
        label: partial_correlations(
            truth - guess, latents, mass, halo_id=halo, n_resamples=n_resamples, seed=seed
        )
        for label, mass in (("fixed true mass", truth), ("fixed estimate", guess))
    }


def residual_table(tables):
    lines = [
        "| latent truth | held fixed | partial correlation | others fixed too | slope [dex per sigma] |",
        "|---" * 5 + "|",
    ]
    for name, words in LATENT_TRUTHS.items():
        for label, table in tables.items():
            row = table[name]
            cells = [f"{row[k]:+.3f} ± {row[f'{k}_se']:.3f}" for k in ("alone", "joint")]
            cells.append(f"{row['slope']:+.4f} ± {row['slope_se']:.4f}")
            lines.append("| " + " | ".join([words.replace("|", "\\|"), label, *cells]) + " |")
    return lines


def times(estimator, n, seed):
    """Processor seconds on one thread, and wall-clock seconds as the machine was."""
    catalog = simulate_catalog(2 * n, masses="flat", log10_mass_range=MASS_RANGE, seed=seed)
    catalog = catalog.filter(catalog.n_galaxies >= 60)[:n]
    place = np.arange(catalog.n_galaxies_total) - catalog.offsets[:-1][catalog.galaxy_rows]
    catalog = catalog.filter_galaxies(place < 60)
    masked_map(estimator, catalog, 0)
    result = {}
    for name, work in (
        ("masked_map", lambda: masked_map(estimator, catalog, 1)),
        ("leave_one_out", lambda: leave_one_out(estimator, catalog)),
        ("galaxy_gradients", lambda: galaxy_gradients(estimator, catalog)),
    ):
        wall, processor = time.perf_counter(), time.process_time()
        work()
        result[name] = {
            "processor": time.process_time() - processor,
            "wall": time.perf_counter() - wall,
        }
    return {"n_clusters": len(catalog), "n_galaxies": 60, "threads": torch.get_num_threads(), **result}


def draw(estimator, pure, test_set, tables, out):
    catalog, _, stored = test_set
    # Massive enough to show structure, poor enough to see single galaxies, and contaminated.
    mass, share = catalog.column("log10_mass"), catalog.column("interloper_fraction")
    row = int(np.argmin(np.abs(mass - 14.6) + np.abs(share - 0.25)))
    entries = {}
    for title, model, cluster in (
        (
            "pure",
            pure,
            catalog[row : row + 1].filter_galaxies(catalog[row].galaxies("gal_is_member").astype(bool)),
        ),
        ("contaminated", estimator, catalog[row : row + 1]),
    ):
        found = masked_map(model, cluster)
        entries[title] = {
            "r_proj": cluster.r_proj,
            "v_los": cluster.galaxies("v_los"),
            "is_member": cluster.galaxies("gal_is_member"),
            "image": found.image,
            # The mode of a spline's density jumps from knot to knot; for the paper's Gaussian both are one.
            "change": found.change["median"],
            "extent": found.extent,
            "note": rf"$\log_{{10}} M = {found.log10_mass['median']:.2f}$ (true {mass[row]:.2f})",
        }
    save(plot_saliency(entries), out.with_name("saliency"))
    mine = slice(int(catalog.offsets[row]), int(catalog.offsets[row + 1]))
    figure = plot_attribution(
        catalog.r_proj[mine],
        catalog.galaxies("v_los")[mine],
        stored["change"][mine],
        is_member=catalog.galaxies("gal_is_member")[mine],
        title=rf"true $\log_{{10}} M = {mass[row]:.2f}$, estimate {stored['mass'][row]:.2f}",
    )
    save(figure, out.with_name("attribution"))
    save(plot_residuals_physics(tables), out.with_name("residuals_physics"))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--n-clusters", type=int, default=250, help="to fit scores on, and as many to test them"
    )
    parser.add_argument("--n-residuals", type=int, default=3000)
    parser.add_argument(
        "--n-timing", type=int, default=20, help="clusters of 60 galaxies; 0 leaves times out"
    )
    parser.add_argument("--bootstrap", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("runs/robustness"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/interpretation"))
    arguments = parser.parse_args()
    seed, work, out = arguments.seed, arguments.work, arguments.out
    estimator = trained("no augmentation", MODELS["no augmentation"], work, seed)
    pure = trained("pure", PURE, work, seed)
    fit_set, test_set = (attributed(estimator, arguments.n_clusters, seed + k, work) for k in (11, 12))
    found = {
        name: interlopers(fit_set, test_set, inside, arguments.bootstrap, seed)
        for name, inside in (("all galaxies of the cylinder", False), ("galaxies with R < R_vir", True))
    }
    origin = components(test_set)
    tables = residuals(estimator, arguments.n_residuals, arguments.bootstrap, seed + 13)
    response = test_set[2]["response"]
    seconds = times(estimator, arguments.n_timing, seed + 14) if arguments.n_timing else None
    draw(estimator, pure, test_set, tables, out)
    source = provenance(seed)
    lines = [
        header("What the masses rest on", source),
        f"Model: {' '.join(MODELS['no augmentation'])}. {arguments.n_clusters} clusters of the mass function, "
        f"log10 M = {MASS_RANGE[0]:g}-{MASS_RANGE[1]:g}, contaminated (paper mode), to test scores on, as many others "
        "to fit those with more than one feature (cubic logistic regression). Errors: bootstrap over haloes. "
        "Interlopers: outside R_vir in three dimensions.\n",
    ]
    for name, result in found.items():
        lines += [
            f"**Interlopers among {name}** ({result['n_galaxies']}, {100 * result['share']:.0f} % interlopers): area "
            "under the ROC curve\n",
            *area_table(result),
            "",
        ]
    lines += [
        "**What a galaxy is worth**, log10 M(all) - log10 M(without it), by its origin; fast: |v| above 1.5 times the "
        "dispersion of its cluster\n",
        "| galaxies | number | mean [1e-3 dex] | rms [1e-3 dex] | share that raises the mass |",
        "|---" * 5 + "|",
        *(
            f"| {name} | {row['n']} | {row['mean']:+.2f} ± {row['mean_se']:.2f} | {row['rms']:.2f} | "
            f"{100 * row['share_raising']:.0f} % |"
            for name, row in origin.items()
        ),
        f"\nd log10 M / d log10 v, all velocities of a cluster scaled: mean {response.mean():.2f}, standard deviation "
        f"{response.std():.2f} over {response.size} clusters (3 for a dynamical mass).\n",
        f"**Residuals** log10(M_true / M_pred) of {arguments.n_residuals} such clusters against latent truths: partial "
        "rank correlations. All latents together explain "
        + " and ".join(
            f"{100 * t['all']['explained']:.1f} ± {100 * t['all']['explained_se']:.1f} % of the variance at {label}"
            for label, t in tables.items()
        )
        + ".\n",
        *residual_table(tables),
    ]
    if seconds is not None:
        lines.append(
            f"\n**Times**, {seconds['threads']} thread(s), processor (wall-clock) seconds: masked map of one cluster, "
            f"2500 images {seconds['masked_map']['processor']:.2f} ({seconds['masked_map']['wall']:.2f}); "
            f"leave-one-out of {seconds['n_clusters']} clusters of {seconds['n_galaxies']} galaxies "
            f"{seconds['leave_one_out']['processor']:.1f} ({seconds['leave_one_out']['wall']:.1f}); gradients of the "
            f"same {seconds['galaxy_gradients']['processor']:.1f} ({seconds['galaxy_gradients']['wall']:.1f})."
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    result = {
        **source,
        "interlopers": found,
        "origin": origin,
        "residuals": tables,
        "velocity_response": {"mean": float(response.mean()), "std": float(response.std())},
        "seconds": seconds,
    }
    out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

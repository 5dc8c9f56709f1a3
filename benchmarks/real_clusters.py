"""Masses of SDSS clusters and of Coma beside published ones and beside M-sigma.

    python -m benchmarks.real_clusters --model runs/survey --data ../shared/data [--prior flat] [--out OUT]

SDSS: the GalWCat19 clusters with at least 20 galaxies in the cylinder of the model, against their published
virial masses and against 1.45 M500 of MCXC (X-rays; H0 = 70). For each estimator: median and scatter of
log10(M_est / M_ref), slope of log M_est on log M_ref, pull log10(M_est / M_ref) / sigma_est, with bootstrap
errors over clusters; and, on the same resampled clusters, the scatter of ours minus that of M-sigma. The
M-sigma relations are fitted on mocks made and selected as those that the model was trained on. Published
masses are no truth: they share galaxies with ours. No threshold is set on any median.

Coma: the DESI galaxies, from which interlopers were removed: a model of contaminated clusters is used outside
what it knows, and must say so (flag `cleaned`).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from bayesflowmass.baselines import fit_baselines, predict_baselines
from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.estimator import MassEstimator, TrainingInfo
from bayesflowmass.infer import infer, read_observations
from bayesflowmass.mocks import MockParameters, simulate_catalog
from bayesflowmass.selection import cylinder, richness_limits
from bayesflowmass.training.augmentation import Augmentation
from benchmarks.provenance import header, provenance

LEAST = 20
# M200c / M500c of an NFW halo of c = 4, and the h of MCXC.
TO_M200, MCXC_H = 1.45, 0.7
RESAMPLES = 2000
COMA_REDSHIFT = 0.0231


def mocks_like(info: TrainingInfo, n: int, seed: int) -> ClusterCatalog:
    """Mocks as the model was trained on, cut to the richness of the sample."""
    simulate = dict(info.config.get("simulate") or {})
    augmentation = Augmentation(**(info.config.get("augmentation") or {}))
    if isinstance(simulate.get("parameters"), dict):
        simulate["parameters"] = MockParameters.from_dict(simulate["parameters"])
    r_max, v_max = (float(info.selection[key]) for key in ("r_max", "v_max"))
    wider = augmentation.margins()
    simulate |= {
        "n_clusters": n,
        "seed": seed,
        "progress": False,
        "r_max": r_max + wider[0],
        "v_max": v_max + wider[1],
        "magnitudes": augmentation.magnitude_limit is not None,
    }
    catalog = augmentation.apply(
        simulate_catalog(**simulate), np.random.default_rng(seed), r_max=r_max, v_max=v_max
    )
    return richness_limits(cylinder(catalog, r_max, v_max), LEAST)


def statistics(estimate: np.ndarray, sigma: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Median, scatters, slope and pull of one estimator on one set of clusters."""
    residual = estimate - reference
    low, high = np.quantile(residual, [0.16, 0.84])
    slope = float(np.cov(reference, estimate)[0, 1] / reference.var(ddof=1))
    pull = residual / sigma
    return {
        "median": float(np.median(residual)),
        "scatter": float(residual.std(ddof=1)),
        "scatter_16_84": float(0.5 * (high - low)),
        "slope": slope,
        "pull_mean": float(pull.mean()),
        "pull_sd": float(pull.std(ddof=1)),
    }


def compare(
    estimates: dict[str, tuple[np.ndarray, np.ndarray]], reference: np.ndarray, seed: int
) -> dict[str, Any]:
    """Statistics with bootstrap errors, and paired differences of scatter from the first estimator."""
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(reference), (RESAMPLES, len(reference)))
    ours = next(iter(estimates))
    scatter: dict[str, np.ndarray] = {}
    result: dict[str, Any] = {}
    for name, (estimate, sigma) in estimates.items():
        value = statistics(estimate, sigma, reference)
        draws = [statistics(estimate[p], sigma[p], reference[p]) for p in picks]
        scatter[name] = np.array([d["scatter"] for d in draws])
        errors = {key: float(np.std([d[key] for d in draws])) for key in value}
        result[name] = {"value": value, "error": errors}
        if name != ours:
            difference = scatter[ours] - scatter[name]
            result[name]["ours_minus_this"] = {
                "value": result[ours]["value"]["scatter"] - value["scatter"],
                "error": float(difference.std()),
                "share_smaller": float(np.mean(difference < 0.0)),
            }
    return result


def markdown(title: str, n: int, result: dict[str, Any]) -> str:
    """One table of results."""
    lines = [
        f"\n{title}: {n} clusters; the last column is the difference of scatters\n",
        "| estimator | median | scatter | (q84 - q16)/2 | slope | pull mean | pull sd | ours - this |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, entry in result.items():
        cells = [f"{entry['value'][key]:.3f} ± {entry['error'][key]:.3f}" for key in entry["value"]]
        paired = entry.get("ours_minus_this")
        cells.append(
            ""
            if paired is None
            else f"{paired['value']:+.3f} ± {paired['error']:.3f}"
            f" (smaller in {100 * paired['share_smaller']:.1f} % of resamples)"
        )
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def sdss(
    estimator: MassEstimator, data: Path, prior: str, n_mocks: int, seed: int
) -> tuple[str, dict[str, Any]]:
    """Both comparisons of the SDSS clusters."""
    folder = data / "sdss_galwcat"
    catalog = read_observations(
        estimator,
        folder / "galaxies_dev.csv",
        folder / "clusters_dev.csv",
        column={"cluster_id": "ClID"},
    )
    catalog = richness_limits(catalog, LEAST)
    table = infer(estimator, catalog, prior=prior)
    baselines = fit_baselines(mocks_like(estimator.training_info, n_mocks, seed))
    simple = predict_baselines(baselines, catalog)
    n = len(catalog)
    estimates = {"this model": (np.asarray(table["log10_mass"]), np.asarray(table["sigma"]))}
    for name, prediction in simple.items():
        estimates[name] = (prediction.log10_mass, np.full(n, prediction.sigma))
    published = np.asarray(catalog.column("logM200_Msunh"), dtype=np.float64)
    text, results = "", {}
    xray = Table.read(folder / "mcxc_dev.csv", format="ascii.csv")
    m500 = dict(zip(xray["ClID"].tolist(), xray["M500_1e14Msun"].tolist(), strict=True))
    matched = np.array([name in m500 for name in catalog.column("cluster_id").tolist()])
    m200 = np.array([m500.get(name, np.nan) for name in catalog.column("cluster_id").tolist()])
    references = {
        "GalWCat19 virial masses": (published, np.ones(n, dtype=bool)),
        "GalWCat19 virial masses above 10^14": (published, published > 14.0),
        "MCXC, 1.45 M500": (np.log10(m200 * 1e14 * TO_M200 * MCXC_H), matched),
    }
    for name, (reference, chosen) in references.items():
        some = {key: (a[chosen], b[chosen]) for key, (a, b) in estimates.items()}
        results[name] = compare(some, reference[chosen], seed)
        text += markdown(f"{name}, {prior} prior", int(chosen.sum()), results[name])
    flags: dict[str, int] = {}
    for row in table["flags"]:
        for flag in filter(None, str(row).split(",")):
            flags[flag] = flags.get(flag, 0) + 1
    text += f"\nFlags: {', '.join(f'{k} {v}' for k, v in flags.items()) or 'none'}.\n"
    return text, results | {"flags": flags, "n_clusters": n}


def coma(estimator: MassEstimator, data: Path, prior: str) -> tuple[str, dict[str, Any]]:
    """The DESI galaxies of Coma, declared cleaned and not declared."""
    rows = np.loadtxt(data / "coma_desi" / "data_DESI.dat")
    galaxies = Table({"r_proj": rows[:, 0], "v_los": rows[:, 1], "v_err": rows[:, 2]})
    catalog = read_observations(
        estimator, galaxies, unit={"r_proj": "proper kpc"}, cluster_id="Coma", redshift=COMA_REDSHIFT
    )
    row = infer(estimator, catalog, prior=prior)[0]
    text = (
        f"\nComa (DESI, cleaned before it came to us), {prior} prior: log10 M200c [Msun/h] = "
        f"{row['log10_mass']:.3f} (68 %: {row['q16']:.3f} to {row['q84']:.3f}), "
        f"{row['n_galaxies']} galaxies, flags from its galaxies alone: {row['flags'] or 'none'}.\n"
    )
    masses = {key: row[key].item() for key in ("log10_mass", "q16", "q84")}
    return text, masses | {"flags": str(row["flags"])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder of real catalogues")
    parser.add_argument("--prior", choices=("flat", "hmf"), default="flat")
    parser.add_argument("--mocks", type=int, default=12000, help="clusters that M-sigma is fitted on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="also write OUT.md and OUT.json")
    arguments = parser.parse_args()
    estimator = MassEstimator.load(arguments.model)
    text, results = sdss(estimator, arguments.data, arguments.prior, arguments.mocks, arguments.seed)
    more, results["coma"] = coma(estimator, arguments.data, arguments.prior)
    source = provenance(arguments.seed)
    text = header("Real clusters", source) + text + more
    print(text)
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.with_suffix(".md").write_text(text, encoding="utf-8")
        arguments.out.with_suffix(".json").write_text(
            json.dumps(source | results, indent=1), encoding="utf-8"
        )


if __name__ == "__main__":
    main()

"""The card of the shipped models: what they were trained on, how well calibrated they are, where they end.

    python -m benchmarks.model_card [--models sky sky_galaxies] [--n-clusters 8000] [--out docs/model_card.md]

Fresh mocks, made and observed as those of training but with another seed, flat in mass, flat prior; of each cluster
the model is told what it would have been told in training.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.common.sealed import hash_bytes
from bayesflowmass.diagnostics import PosteriorSummary, assess_calibration
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.estimator.shipped import SHIPPED, shipped_models
from bayesflowmass.estimator.systematic import sigma_systematic
from bayesflowmass.evaluation import like_training, posteriors
from bayesflowmass.mocks import PRIORS
from benchmarks.provenance import header, provenance

LEVELS = (0.68, 0.95)
PACKAGES = ("torch", "pyro-ppl", "numpy", "scipy", "astropy", "colossus")


def summarise(
    estimator: MassEstimator, catalog: ClusterCatalog, draws: int
) -> tuple[PosteriorSummary, dict[str, np.ndarray]]:
    """Posteriors of all clusters, and the parts of their widths."""
    parts, widths = [], []
    for batch in posteriors(estimator, catalog, n_draws=draws):
        posterior = batch.posterior
        if posterior is None or not batch.usable.all():
            raise SystemExit("a test cluster cannot have a mass; simulate another set")
        parts.append(PosteriorSummary.from_posterior(posterior, batch.clusters.column("log10_mass")))
        widths.append(np.stack([posterior.sigma, posterior.sigma_aleatoric, posterior.sigma_epistemic]))
    sigma, aleatoric, epistemic = np.concatenate(widths, axis=1)
    few = catalog[: min(500, len(catalog))]
    unknown = few.without(*[n for n in estimator.encoder.optional.names if few.has(n)])
    systematic = sigma_systematic(estimator, unknown.with_metadata(mode="mixed"))
    return PosteriorSummary.concatenate(parts), {
        "sigma": sigma,
        "sigma_aleatoric": aleatoric,
        "sigma_epistemic": epistemic,
        "sigma_systematic": np.zeros(0) if systematic is None else systematic,
    }


def groups(catalog: ClusterCatalog, summary: PosteriorSummary) -> dict[str, list[tuple[str, np.ndarray]]]:
    """Names of bins and the clusters in them."""

    def between(values: np.ndarray, edges: list[float], form: str) -> list[tuple[str, np.ndarray]]:
        values = np.asarray(values)
        return [
            (f"{form.format(low)}-{form.format(high)}", (values >= low) & (values < high))
            for low, high in itertools.pairwise(edges)
        ]

    mode = np.asarray(catalog.column("true_mode"))
    cleaned = np.asarray(catalog.column("true_cleaned"), dtype=bool)
    result = {
        "predicted log10 mass": between(summary.median, [13.2, 13.8, 14.2, 14.6, 15.0, 15.6], "{:.1f}"),
        "galaxies": between(catalog.n_galaxies, [10, 15, 25, 50, 100, 1000], "{:.0f}"),
        "redshift": between(catalog.column("redshift"), [0.01, 0.1, 0.3, 0.6, 0.9, 1.2001], "{:.2f}"),
        "interloper mode": [(f"{m}", mode == m) for m in ("paper", "survey")],
        "interlopers": [("removed", cleaned), ("kept", ~cleaned)],
    }
    completeness = np.asarray(catalog.column("true_completeness"))
    if completeness.min() < 0.5:
        result["completeness"] = between(completeness, [0.05, 0.1, 0.2, 0.4, 1.0001], "{:.2f}")
    return result


def table(catalog: ClusterCatalog, summary: PosteriorSummary) -> tuple[str, list[dict[str, Any]]]:
    """Coverage and bias overall and by group."""
    lines = ["| clusters | n | bias [dex] | scatter | 68 % | 95 % |", "|---|---|---|---|---|---|"]
    rows = []
    everything = {"all": [("", np.ones(len(summary), dtype=bool))]}
    for kind, bins in (everything | groups(catalog, summary)).items():
        for name, chosen in bins:
            n = int(chosen.sum())
            if n < 50:
                continue
            residual = (summary.median - summary.log10_true)[chosen]
            row = {"group": kind, "bin": name, "n": n, "bias": float(residual.mean())}
            row |= {"bias_error": float(residual.std() / np.sqrt(n)), "scatter": float(residual.std())}
            cells = [f"{row['bias']:+.3f} ± {row['bias_error']:.3f}", f"{row['scatter']:.3f}"]
            for level in LEVELS:
                share = float((np.abs(summary.pit[chosen] - 0.5) < 0.5 * level).mean())
                error = float(np.sqrt(level * (1 - level) / n))
                row[f"coverage_{round(100 * level)}"] = share
                cells.append(f"{100 * share:.1f} ± {100 * error:.1f}")
            rows.append(row)
            lines.append(f"| {f'{kind} {name}'.strip()} | {n} | " + " | ".join(cells) + " |")
    return "\n".join(lines), rows


def priors(estimator: MassEstimator) -> str:
    """What was drawn for each training cluster, as a table."""
    config = estimator.training_info.config
    made, seen = config["simulate"], config["augmentation"]
    low, high = made["log10_mass_range"]
    share = "flat in its logarithm" if seen.get("completeness_log") else "flat"
    rows = [
        ("log10 M200c [Msun/h]", f"{low}-{high}", "flat; this is the prior `flat`"),
        ("redshift", "{}-{}".format(*made["redshift"]), "flat"),
        ("interloper mode", "paper or survey", "half each"),
    ]
    rows += [(name, f"{a}-{b}", PRIORS[name][2]) for name, (a, b) in made["randomise"].items()]
    rows += [
        ("faintest M_r - 5 log10 h", "{} to {}".format(*seen["magnitude_limit"]), "flat"),
        ("completeness", "{}-{}".format(*seen["completeness"]), share),
        ("losses at the centre", "{}-{}".format(*seen["central_losses"]), "flat; half at 0.1 Mpc/h"),
        ("velocity error [km/s]", "{}-{}".format(*seen["velocity_error"]), "flat"),
        ("error of the centre [Mpc/h]", "{}-{}".format(*seen["miscentre_r"]), "standard deviation, flat"),
        (
            "error of the velocity centre [km/s]",
            "{}-{}".format(*seen["miscentre_v"]),
            "standard deviation, flat",
        ),
        ("interlopers removed", f"{100 * seen['cleaning']:.0f} % of the clusters", "2.7 sigma(R) envelope"),
    ]
    told = ", ".join(f"{name} ({100 * chance:.0f} %)" for name, chance in seen["known"].items())
    lines = ["| what | range | distribution, reason |", "|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return (
        "\n".join(lines)
        + f"\n\nTold to the model, for that share of the clusters: {told}. Redshift: always.\n"
    )


def section(name: str, folder: Path, options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """The card of one model."""
    estimator = MassEstimator.load(folder, "cpu")
    info = estimator.training_info
    full = like_training(info, options.n_clusters, options.seed, augmentation={"known": {}}, exact=True)
    full = full.with_columns(
        true_mode=full.column("mode"),
        true_cleaned=full.column("cleaned"),
        true_completeness=full.column("completeness"),
    )
    known = {key: float(value) for key, value in info.config["augmentation"]["known"].items()}
    catalog = hide(full, known, np.random.default_rng([options.seed, 2]))
    summary, widths = summarise(estimator, catalog, options.draws)
    calibration = assess_calibration(
        summary,
        halo_id=catalog.column("cluster_id"),
        groups={"redshift": catalog.column("redshift")},
        population="flat",
        prior="flat",
        n_resamples=50,
        n_sets=100,
        seed=options.seed,
    )
    text, rows = table(catalog, summary)
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    digest = hash_bytes((folder / "model.safetensors").read_bytes())
    width = ", ".join(
        f"{key} {np.sqrt(np.mean(value**2)):.3f}" for key, value in widths.items() if value.size
    )
    lines = [
        f"## {name}\n",
        f"For {SHIPPED[name]}. Trained on {info.n_train} clusters (as first observed; every second epoch observes"
        f" them anew) by `bayesflowmass train --config {name}.yaml`, seed {info.seed}, version {info.version};"
        f" {size:.1f} MB, SHA-256 `{digest[:16]}`. Counts galaxies: {'yes' if info.uses_richness else 'no'}.\n",
        "### Training prior\n",
        priors(estimator),
        "### Calibration on fresh mocks\n",
        f"{calibration['verdict']}\n"
        if isinstance(calibration["verdict"], str)
        else json.dumps(calibration["verdict"]),
        text,
        f"\nWidths, root mean square [dex]: {width} (the last with nothing told).\n\n",
    ]
    return "\n".join(lines), {
        "rows": rows,
        "widths": {key: float(np.sqrt(np.mean(v**2))) for key, v in widths.items() if v.size},
        "verdict": calibration["verdict"],
        "overall": calibration["overall"],
        "sha256": digest,
        "megabytes": size,
    }


def hide(catalog: ClusterCatalog, known: dict[str, float], rng: np.random.Generator) -> ClusterCatalog:
    """Tell the model what it was told in training, for that share of the clusters."""
    for name, chance in known.items():
        told = rng.random(len(catalog)) < chance
        values = catalog.column(name)
        if values.dtype.kind == "U":
            catalog = catalog.with_columns(**{name: np.where(told, values, "mixed")})
        else:
            column = f"known_{name}" if name in PRIORS else name
            catalog = catalog.with_columns(**{column: np.where(told, values, np.nan)})
    return catalog


INTRODUCTION = """# Model card of the shipped models

Masses of galaxy clusters, log10 M200c [Msun/h], from the positions and velocities of galaxies in a cylinder of
1.6 comoving Mpc/h and 2500 km/s, with PDFs; for catalogues of observed clusters. `infer` uses `sky` unless told
otherwise. [sky_training.md](sky_training.md) says how and why they were trained so,
[results/shift.md](results/shift.md) what happens where the sky differs from the mixture of training.
"""

LIMITS = """## Limits

- They know mock clusters only. What the mocks lack (mergers in full, galaxies that are not in haloes, other
  cosmologies) is not in their widths; the flags ([flags.md](flags.md)) say where a cluster is unlike the mocks.
- `sigma_systematic` holds the interloper mode, the velocity bias, the richness at fixed depth, the concentration of
  galaxies and the segregation of bright ones. They are averaged over priors that are estimates, not measurements; a
  mass at fixed velocity bias needs `--assume velocity_bias=1.0`.
- Fewer than ten galaxies, redshifts outside 0.01-1.2 and masses outside 13.2-15.6 are extrapolations, and flagged.
- At fixed completeness or fixed true mass a calibrated posterior is biased ([priors.md](priors.md)): a sparse sample
  shows massive clusters only, and a model that does not know how sparse it is expects lighter ones. A sample that is
  nearly complete and deep comes out heavy, a sparse one light, by up to 0.17 dex, where the model is not told
  `completeness`: the widths allow for it over the mixture, not for one survey. Tell it, and the depth with it.
- `sky_complete` is wrong by the error of the galaxy count where galaxies are missing, and where the sample is deeper
  than M_r - 5 log10 h = -18 or its depth is not told: to that limit it is then 0.13 dex heavy.
- `sky_galaxies` tells interlopers by how they clump in the mocks; where it was tried beside real references its pulls
  are wider than those of `sky` ([galaxies.md](galaxies.md)).
- One point network below the random last layer: what it fails to extract is not in `sigma_epistemic`
  ([weights.md](weights.md)).

## Retraining

`make model` trains all three from their configurations and puts them into the package (twenty minutes of processor
time); `python -m benchmarks.model_card` writes this page, `python -m benchmarks.shift` the shift test.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=sorted(shipped_models()))
    parser.add_argument("--n-clusters", type=int, default=8000, help="simulated for each model")
    parser.add_argument("--seed", type=int, default=31415)
    parser.add_argument("--draws", type=int, default=8, help="draws of the weights")
    parser.add_argument("--out", type=Path, default=Path("docs/model_card.md"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    record = options.out.parent / "results" / "model_card.json"
    # Models that are not measured again keep their part of the card.
    cards: dict[str, Any] = (
        json.loads(record.read_text(encoding="utf-8"))["models"] if record.is_file() else {}
    )
    for name in options.models:
        began = time.process_time()
        source = provenance(options.seed)
        folder = shipped_models().get(name, Path(name))
        text, numbers = section(folder.name, folder, options)
        text += header("Where these numbers come from", source)
        installed = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
        text += f"{installed}. Processor time {time.process_time() - began:.0f} s.\n"
        cards[folder.name] = numbers | {"source": source, "text": text}
        print(text, flush=True)
    texts = [INTRODUCTION, *(cards[name]["text"] for name in SHIPPED if name in cards), LIMITS]
    options.out.write_text("\n".join(texts), encoding="utf-8")
    record.write_text(json.dumps({"models": cards}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

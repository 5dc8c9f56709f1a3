"""What limits the mass estimate: one change at a time, on the same training and test clusters.

No variant is told the number of galaxies, except the one named so. An image need not be: its noise, the finer
the kernel the more, shows how many galaxies made it. The last column says how far a network relies on that:
the mean of log10(M_pred with a random half of the galaxies / M_pred with all of them), which is zero for an
estimator that does not count.

    python -m benchmarks.ablation --seed 0 --out docs/results/ablation

writes OUT.md and OUT.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from bayesflowmass import selection
from bayesflowmass.diagnostics import summarise
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.evaluation import predict
from bayesflowmass.mocks import simulate_catalog
from bayesflowmass.train import main as train
from benchmarks.provenance import header, provenance

ONE = "{bandwidth: 0.15, convention: covariance}"
NARROW = "{bandwidth: 0.15, convention: scipy}"
NARROWER = "{bandwidth: 0.08, convention: scipy}"
MEAN = ("--encoder.scaling", "mean", "--encoder.constant", "1000")
PAPER_FLOW = (
    "--flow.kind",
    "affine",
    "--flow.options",
    "shared=false",
    "hidden=[512,64,512]",
    "activation=tanh",
)
CONV = ("--flow.options", "trunk=conv", "channels=[16,32,64]", "hidden=[256,128]")
# Name -> (configuration, flags, share of the training clusters, members only).
VARIANTS = {
    "paper.yaml": ("paper.yaml", (), 1.0, False),
    "paper's image, our network and training": (
        "default.yaml",
        (*MEAN, "--encoder.kernels", ONE),
        1.0,
        False,
    ),
    "+ square root of the image": ("default.yaml", ("--encoder.kernels", ONE), 1.0, False),
    "+ second, narrower kernel (default.yaml)": ("default.yaml", (), 1.0, False),
    "default, still narrower kernel": (
        "default.yaml",
        ("--encoder.kernels", ONE, NARROW, NARROWER),
        1.0,
        False,
    ),
    "default, paper's flow and networks": ("default.yaml", PAPER_FLOW, 1.0, False),
    "default, convolutions": ("default.yaml", CONV, 1.0, False),
    "default, a quarter of the clusters": ("default.yaml", (), 0.25, False),
    "default, completeness 0.15-1 in training": (
        "default.yaml",
        ("--augmentation.completeness", "0.15", "1.0", "--fit.redraw-every", "4"),
        1.0,
        False,
    ),
    "default, told the number of galaxies": (
        "default.yaml",
        ("--encoder.scaling", "log1p_richness", "--encoder.constant", "25"),
        1.0,
        False,
    ),
    "default, interlopers removed by an oracle": ("default.yaml", (), 1.0, True),
}


def observed(catalog, members_only):
    """The catalogue, or what an oracle would make of it."""
    if not members_only:
        return catalog
    return selection.richness_limits(catalog.filter_galaxies(catalog.galaxies("gal_is_member")), minimum=10)


def measure(name, training, test, seed, overrides):
    """Train one variant and measure it."""
    config, flags, share, members_only = VARIANTS[name]
    with tempfile.TemporaryDirectory() as folder:
        data, model = Path(folder) / "train.parquet", Path(folder) / "model"
        observed(training[: int(share * len(training))], members_only).write(data)
        words = ["--config", config, "--catalog", str(data), "--out", str(model), "--seed", str(seed)]
        if train([*words, "--no-progress", *flags, *overrides]) != 0:
            raise SystemExit(f"training of '{name}' failed")
        estimator = MassEstimator.load(model)
    shown = observed(test, members_only)
    truth = shown.column("log10_mass")
    guess = predict(estimator, shown).summary
    summary = summarise(
        truth,
        guess.median,
        halo_id=shown.column("halo_id"),
        sigma=guess.sigma,
        n_resamples=100,
    )
    thin = selection.completeness(shown, 0.5, seed=seed)
    enough = thin.n_galaxies >= 5
    shift = estimator.posterior(thin.filter(enough)).median - guess.median[enough]
    shift = shift[(truth[enough] >= 14) & (truth[enough] <= 15)]
    keys = ("scatter_14_15", "slope_14_15", "scatter_over_slope_14_15", "mean_residual")
    nll = -guess.log_density
    return {
        **{key: summary[key] for key in keys},
        **{f"{key}_se": summary[f"{key}_se"] for key in keys},
        "nll": float(nll.mean()),
        "nll_se": float(nll.std() / np.sqrt(nll.size)),
        "shift_half": float(shift.mean()),
        "shift_half_se": float(shift.std() / np.sqrt(shift.size)),
    }


COLUMNS = {
    "scatter_14_15": "scatter 14-15",
    "slope_14_15": "slope",
    "scatter_over_slope_14_15": "scatter / slope",
    "mean_residual": "mean residual",
    "nll": "NLL [nats]",
    "shift_half": "shift, half the galaxies",
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n-train", type=int, default=60000, help="training clusters, flat in log mass")
    parser.add_argument(
        "--n-test", type=int, default=6000, help="test clusters of the mass function above 10^14"
    )
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs/results/ablation"))
    arguments, overrides = parser.parse_known_args()
    seed = arguments.seed
    training = simulate_catalog(arguments.n_train, masses="flat", seed=seed)
    test = simulate_catalog(arguments.n_test, masses="hmf", log10_mass_range=(14.0, 15.6), seed=seed + 1)
    results = {}
    for name in arguments.variants:
        results[name] = measure(name, training, test, seed, overrides)
        print(name, json.dumps(results[name]), flush=True)
    rows = [
        f"| {name} | " + " | ".join(f"{r[key]:.3f} ± {r[f'{key}_se']:.3f}" for key in COLUMNS) + " |"
        for name, r in results.items()
    ]
    source = provenance(seed)
    text = "\n".join(
        [
            header("What limits the estimate", source),
            f"{arguments.n_train} training clusters flat in 13.2-15.6; "
            f"{arguments.n_test} contaminated test clusters of the mass function above 10^14 Msun/h, flat "
            "prior. Shift: mean of log10(M_pred with half of the galaxies / M_pred with all) in 14-15.\n",
            "| variant | " + " | ".join(COLUMNS.values()) + " |",
            "|---" * (len(COLUMNS) + 1) + "|",
            *rows,
        ]
    )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    arguments.out.with_suffix(".json").write_text(
        json.dumps({**source, "results": results}, indent=1) + "\n", encoding="utf-8"
    )
    print(text)


if __name__ == "__main__":
    main()

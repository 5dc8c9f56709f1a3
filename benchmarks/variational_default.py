"""
Is the default of ``train --variational`` well posed? Convergence, initial scale, log score, other choices.

    python -m benchmarks.variational_default [--n-clusters 44000] [--updates 3000] [--out docs/results]

Trains `default.yaml` by maximum likelihood once, then fits from its weights: the default variational posterior from
three initial scales, other random weights and guides, and for the smallest choice of weights Laplace's approximation
under the same prior, an independent calculation of the same posterior. Writes variational_default.json and .md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from bayesflowmass.command import TrainSettings
from bayesflowmass.command.run import parse_settings
from bayesflowmass.estimator.weight_draws import condition_draws
from bayesflowmass.flows import build_flow
from bayesflowmass.posterior import number_of_draws
from bayesflowmass.train import train_arguments
from bayesflowmass.training.augmentation import Augmentation
from bayesflowmass.training.fit import fit
from bayesflowmass.training.preparation import prepare
from bayesflowmass.training.random_state import derive_seed
from bayesflowmass.training.weights import fit_weights
from benchmarks.provenance import header, provenance

BINS = (13.2, 13.8, 14.4, 15.0, 15.3, 15.6)
BOUND = ("nll", "kl_per_cluster", "share_at_prior", "gain", "gain_se")
# Of the flow of default.yaml: a shared trunk, a spline, an affine block.
LOCATION = ("transforms.1.nn.0.*",)
FITS = {
    "default": {},
    "initial scale 0.01": {"options": {"guide_options": {"init_scale": 0.01}}},
    "initial scale 1": {"options": {"guide_options": {"init_scale": 1.0}}},
    "mean field": {"guide": "mean_field", "options": {"estimator": "local"}},
    "last layers": {"which": "last"},
    "last layers of location and width": {"which": LOCATION},
    "the same, Laplace": {"method": "laplace", "options": {"relative_precision": 1.0}},
}


class Clock:
    """Wall and processor time [s] of the steps of this run."""

    def __init__(self) -> None:
        self.steps: dict[str, list[float]] = {}

    def time(self, name, function):
        wall, processor = time.perf_counter(), time.process_time()
        result = function()
        self.steps[name] = [time.perf_counter() - wall, time.process_time() - processor]
        print(f"{name}: {self.steps[name][0]:.0f} s, {self.steps[name][1]:.0f} s of processor", flush=True)
        return result


@torch.no_grad()
def judge(flow, posterior, validation, n_draws):
    """Log score [nats] of each validation cluster; epistemic and aleatoric standard deviations [dex]."""
    scores, epistemic, aleatoric = [], [], []
    draws = {} if posterior is None else posterior.draw(n_draws, 0)
    for context, mass in zip(*(part.split(500) for part in validation), strict=True):
        each = condition_draws(flow, draws, context)
        log_density = each.log_prob(mass.double())
        scores.append(log_density.logsumexp(0) - np.log(len(log_density)))
        if posterior is not None:
            epistemic.append(each.mean.std(0))
            aleatoric.append(each.variance.mean(0).sqrt())
    return [torch.cat(part).numpy() if part else None for part in (scores, epistemic, aleatoric)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument(
        "--n-clusters", type=int, help="clusters, validation included (those of default.yaml)"
    )
    parser.add_argument("--updates", type=int, help="updates of maximum likelihood (those of default.yaml)")
    parser.add_argument("--seed", type=int, default=0, help="seed (0)")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (2)")
    parser.add_argument("--fits", nargs="+", default=list(FITS), help="which (all)")
    parser.add_argument("--out", type=Path, default=Path("docs/results"), help="folder (docs/results)")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    settings = parse_settings(TrainSettings, [], prog="", default_config="default.yaml")
    arguments = train_arguments(settings)
    simulate, options, encoder = arguments["simulate"], arguments["options"], arguments["encoder"]
    simulate["n_clusters"] = a.n_clusters or simulate["n_clusters"]
    options["max_updates"] = a.updates or options["max_updates"]
    device, clock = torch.device("cpu"), Clock()
    data = clock.time(
        "simulate and encode",
        lambda: prepare(
            None, simulate, encoder, augmentation=Augmentation(), seed=a.seed, device=device, progress=False,
            validation_fraction=arguments["validation_fraction"],
        ),
    )  # fmt: skip
    target = data.seen.column("log10_mass")
    flow = build_flow(
        context_dim=encoder.context_dim, loc=float(target.mean()), scale=float(target.std()),
        **({"seed": derive_seed(a.seed, "weights")} | arguments["flow"]),
    )  # fmt: skip
    shared = {"seed": a.seed, "device": device, "progress": False}
    flip = encoder.flip_velocity
    clock.time(
        "maximum likelihood",
        lambda: fit(flow, data.source, data.validation, flip_velocity=flip, **shared, **options),
    )
    flow.eval()
    trained = {name: value.clone() for name, value in flow.state_dict().items()}
    mass = data.validation[1].numpy().astype(float)
    n_draws = number_of_draws()
    point = judge(flow, None, data.validation, 1)[0]
    rows = {}
    for name in a.fits:
        changes = {"method": "variational"} | FITS[name]
        flow.load_state_dict(trained)
        with tempfile.TemporaryDirectory() as folder:
            posterior, _ = clock.time(
                name,
                lambda changes=changes, folder=folder: fit_weights(
                    flow, changes, data.source, data.validation, encoder=encoder, flip_velocity=True,
                    fit_options=options, settings={}, folder=Path(folder) / "phases", resume=False, **shared,
                ),
            )  # fmt: skip
        score, epistemic, aleatoric = judge(flow, posterior, data.validation, n_draws)
        share = epistemic**2 / (epistemic**2 + aleatoric**2)
        bins = np.digitize(mass, BINS[1:-1])
        gain = score - point
        described = posterior.describe()
        rows[name] = {
            "n_random": sum(flow.get_parameter(n).numel() for n in posterior.names),
            **{key: described[key] for key in BOUND if key in described},
            "log_score": float(score.mean()), "point_log_score": float(point.mean()),
            "difference": float(gain.mean()), "difference_se": float(gain.std() / np.sqrt(len(gain))),
            "sigma_epistemic": float(epistemic.mean()), "sigma_aleatoric": float(aleatoric.mean()),
            "sigma_epistemic_by_mass": [float(epistemic[bins == k].mean()) for k in range(len(BINS) - 1)],
            "epistemic_share_by_mass": [float(share[bins == k].mean()) for k in range(len(BINS) - 1)],
            "seconds": clock.steps[name],
        }  # fmt: skip
        write(a, rows, clock, data, n_draws)


def write(a, rows, clock, data, n_draws) -> None:
    """JSON and Markdown, again after each fit."""
    source = provenance(a.seed)
    content = {
        "source": source, "n_train": len(data.seen), "n_validation": len(data.validation[1]),
        "n_draws": n_draws, "bins": BINS, "steps": clock.steps, "fits": rows,
    }  # fmt: skip
    a.out.mkdir(parents=True, exist_ok=True)
    (a.out / "variational_default.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    lines = [header("The default of --variational", source)]
    lines += [
        f"Trained on {content['n_train']} clusters, judged on {content['n_validation']} others with {n_draws} draws of"
        " the weights. NLL, KL/N: of the ELBO per training cluster [nats]. Gain: of the ELBO by as many more"
        " updates [nats]. Log score: less that of the point model on the same validation clusters [nats]. sigma:"
        " mean epistemic and aleatoric standard deviation [dex].\n",
        "| fit | weights | NLL | KL/N | at prior | gain | log score - point | sigma_epi | sigma_ale | processor s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, r in rows.items():
        bound = (
            f"{r['nll']:.3f} | {r['kl_per_cluster']:.4f} | {r['share_at_prior']:.2f}"
            f" | {r['gain']:+.4f} ± {r['gain_se']:.4f}"
            if "gain" in r
            else "- | - | - | -"
        )
        lines.append(
            f"| {name} | {r['n_random']} | {bound} | {r['difference']:+.4f} ± {r['difference_se']:.4f} |"
            f" {r['sigma_epistemic']:.5f} | {r['sigma_aleatoric']:.4f} | {r['seconds'][1]:.0f} |"
        )
    lines += [
        "",
        f"Log score of the point model: {next(iter(rows.values()))['point_log_score']:.4f} nats.",
        "",
    ]
    lines += ["Epistemic standard deviation [dex] (share of the variance) by true log10 mass:", ""]
    lines += ["| fit | " + " | ".join(f"{lo}-{hi}" for lo, hi in itertools.pairwise(BINS)) + " |"]
    lines += ["|---" * len(BINS) + "|"]
    for name, r in rows.items():
        both = zip(r["sigma_epistemic_by_mass"], r["epistemic_share_by_mass"], strict=True)
        lines.append(f"| {name} | " + " | ".join(f"{s:.4f} ({100 * q:.1f} %)" for s, q in both) + " |")
    scales = [
        rows[n]["sigma_epistemic"] for n in ("default", "initial scale 0.01", "initial scale 1") if n in rows
    ]
    if len(scales) > 1:
        lines += [
            "",
            f"Epistemic standard deviation over initial scales of 0.01 to 1 of the prior's: largest over smallest"
            f" {max(scales) / min(scales):.3f}.",
        ]
    lines += ["", "Time of each step, wall / processor [s]: "]
    lines += [
        "; ".join(f"{name} {wall:.0f} / {cpu:.0f}" for name, (wall, cpu) in clock.steps.items()) + ".",
        "",
    ]
    (a.out / "variational_default.md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()

"""Every weight posterior against exact sampling: a flow of 26 weights, one context with a gap in the data, float64.

All methods get the same 60 clusters, the same normal prior with fan-in scales and the same likelihood; only the
ensemble, SWAG and dropout have a freedom that Bayes' theorem does not know (initialisations, rate of the descent,
rate of dropout). The reference is NUTS. Two steps; the first takes about half an hour for each file:

    python benchmarks/gold_standard.py draws --which draws
    python benchmarks/gold_standard.py draws --which again
    python benchmarks/gold_standard.py table
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from provenance import header, provenance
from pyro.ops.stats import effective_sample_size, split_gelman_rubin
from torch import Tensor, nn

from bayesflowmass.bayes import (
    WEIGHT_POSTERIORS,
    NormalPrior,
    NUTSPosterior,
    PenalisedLikelihood,
    WeightPosterior,
)
from bayesflowmass.bayes.application import condition_draws
from bayesflowmass.bayes.choice import choose
from bayesflowmass.bayes.layout import WeightLayout
from bayesflowmass.flows import ConditionalFlow, build_flow

OUT = Path(__file__).resolve().parents[1] / "docs/results/gold_standard"
PRIOR = NormalPrior(gain=1.5)
HIDDEN, N_TRAIN, N_TEST, N_DRAWS = 6, 60, 2000, 1000
LOC, SCALE = 14.3, 0.27
GAP, EDGE = 0.8, 2.0
GRID = torch.linspace(-3.0, 3.0, 61, dtype=torch.float64)
MASSES = torch.linspace(11.0, 17.6, 1321, dtype=torch.float64)
REGIONS = {
    "inside": (GRID.abs() >= GAP) & (GRID.abs() <= EDGE),
    "gap": GRID.abs() < GAP - 0.25,
    "beyond": GRID.abs() > EDGE + 0.25,
}

# Name of the row -> method, options of its fit.
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "point (maximum a posteriori)": ("point", {}),
    "variational, mean field, all weights": ("variational", {"which": "all", "guide": "mean_field"}),
    "variational, low rank 5, all weights": (
        "variational",
        {"which": "all", "guide": "low_rank", "guide_options": {"rank": 5}},
    ),
    "variational, full covariance, all weights": (
        "variational",
        {"which": "all", "guide": "full_covariance"},
    ),
    "variational, mean field, last layer": ("variational", {"guide": "mean_field"}),
    "variational, eigenbasis, last layer": ("variational", {"guide": "eigenbasis"}),
    "variational, eigenbasis, last layer, rest frozen": (
        "variational",
        {"guide": "eigenbasis", "freeze": True},
    ),
    "variational, full covariance, last layer": ("variational", {"guide": "full_covariance"}),
    "variational, full covariance, last layer, rest frozen": (
        "variational",
        {"guide": "full_covariance", "freeze": True},
    ),
    "Laplace, last layer": ("laplace", {"relative_precision": 1.0}),
    "Laplace, last layer, prior by marginal likelihood": ("laplace", {}),
    "Laplace, all weights": ("laplace", {"which": "all", "relative_precision": 1.0}),
    "ensemble of 10": ("ensemble", {"members": 10}),
    "SWAG": ("swag", {"learning_rate": 0.003, "batch_size": 20, "snapshots": 200, "updates": 20}),
    "MC dropout 0.1": ("dropout", {}),
}


def truth(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of log10 mass [dex] at contexts x."""
    return 14.3 + 0.3 * torch.sin(1.5 * x), 0.15 * (1 + 0.3 * torch.tanh(x))


def clusters(n: int, seed: int, region: tuple[float, float] = (GAP, EDGE)) -> tuple[Tensor, Tensor]:
    """Contexts (n, 1), |x| uniform in a region, and log10 masses (n,)."""
    generator = torch.Generator().manual_seed(seed)
    magnitude, sign, noise = (
        kind(n, generator=generator, dtype=torch.float64) for kind in (torch.rand, torch.rand, torch.randn)
    )
    x = (region[0] + (region[1] - region[0]) * magnitude) * (sign - 0.5).sign()
    mean, sd = truth(x)
    return x[:, None], mean + sd * noise


def flow_of(seed: int, dropout: float = 0.0) -> ConditionalFlow:
    """The flow: one affine block, context 1 - 6 tanh - 2 outputs."""
    return build_flow(
        "affine", 1, LOC, SCALE, affine_blocks=1, hidden=(HIDDEN,), dropout=dropout, seed=seed
    ).double()


def maximise(data: tuple[Tensor, Tensor], updates: dict[str, int]) -> Callable[..., None]:
    """A training loop on all clusters at once: Adam, its rate falling as a cosine; nothing stops it early."""

    def train(objective: nn.Module, *, seed: int, name: str, **options: Any) -> None:
        n = updates["variational" if name == "variational" else "point"]
        weights = [p for p in objective.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(weights, lr=0.02)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n)
        objective.train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for _ in range(n):
                optimizer.zero_grad()
                loss: Tensor = -objective.log_prob(data[1], data[0]).mean()  # type: ignore[operator]
                loss.backward()
                optimizer.step()
                schedule.step()

    return train


def functions(flow: ConditionalFlow, draws: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Means and standard deviations (D, grid) of log10 mass under each draw."""
    with torch.no_grad():
        found = condition_draws(flow, draws, GRID[:, None])
    return found.mean, found.variance.sqrt()


def compare(flow: ConditionalFlow, draws: dict[str, Tensor], reference: dict[str, Any]) -> dict[str, float]:
    """The numbers of one row."""
    mean, _ = functions(flow, draws)
    epistemic = mean.std(0, correction=0)
    distance = wasserstein(predictive_cdf(flow, draws), reference["cdf"])
    row = {}
    for name, where in REGIONS.items():
        row[f"wasserstein_{name}"] = float(distance[where].mean())
        row[f"epistemic_{name}"] = float(epistemic[where].square().mean().sqrt())
        row[f"ratio_{name}"] = row[f"epistemic_{name}"] / float(
            reference["epistemic"][where].square().mean().sqrt()
        )
    for name, region in (("inside", (GAP, EDGE)), ("gap", (0.0, GAP))):
        row[f"log_score_{name}"], row[f"log_score_{name}_se"] = log_score(flow, draws, region)
    return row


def predictive_cdf(flow: ConditionalFlow, draws: dict[str, Tensor]) -> Tensor:
    """The cdf (masses, grid) of the mixture over draws."""
    with torch.no_grad():
        found = condition_draws(flow, draws, GRID[:, None])
        return torch.stack([found.cdf(mass).mean(0) for mass in MASSES])


def wasserstein(first: Tensor, second: Tensor) -> Tensor:
    """W1 [dex] at each grid point: the integral over mass of the difference of two cdfs (masses, grid)."""
    return torch.trapezoid((first - second).abs(), MASSES, dim=0)


def log_score(
    flow: ConditionalFlow, draws: dict[str, Tensor], region: tuple[float, float]
) -> tuple[float, float]:
    """Mean log predictive density [nats] of new clusters of a region, and its standard error."""
    context, mass = clusters(N_TEST, 12345, region)
    with torch.no_grad():
        each = condition_draws(flow, draws, context).log_prob(mass)
    score = each.logsumexp(0) - math.log(len(each))
    return float(score.mean()), float(score.std() / math.sqrt(len(score)))


def sample(
    seed: int, chains: int, warmup: int, samples: int, tree_depth: int
) -> tuple[Tensor, dict[str, Any]]:
    """NUTS draws (chains, samples, P) and what convergence they reached on the predictive functions."""
    flow = flow_of(0)
    posterior = NUTSPosterior.fit(
        flow,
        clusters(N_TRAIN, 0),
        maximise=maximise(clusters(N_TRAIN, 0), {}),
        prior=PRIOR,
        seed=seed,
        chains=chains,
        warmup=warmup,
        samples=samples,
        max_tree_depth=tree_depth,
        progress=True,
    )
    return posterior.samples, {**convergence(flow, posterior.samples), **posterior.found}


def convergence(flow: ConditionalFlow, samples: Tensor) -> dict[str, float]:
    """Largest split R-hat and smallest effective number of draws of mean and log standard deviation on the grid."""
    layout = WeightLayout(flow, choose(flow, "all"))
    mean, sd = functions(flow, layout.split(samples.flatten(0, 1)))
    values = torch.cat([mean, sd.log()], -1).reshape(*samples.shape[:2], -1)
    return {
        "r_hat": float(split_gelman_rubin(values, 0, 1).max()),
        "effective_draws": float(effective_sample_size(values, 0, 1).min()),
    }


def reference_of(flow: ConditionalFlow, samples: Tensor) -> dict[str, Any]:
    """What rows are compared with, of NUTS draws (chains, samples, P)."""
    draws = WeightLayout(flow, choose(flow, "all")).split(samples.flatten(0, 1))
    mean, _ = functions(flow, draws)
    return {"cdf": predictive_cdf(flow, draws), "epistemic": mean.std(0, correction=0), "draws": draws}


def fit_row(
    name: str, point: ConditionalFlow, seed: int, updates: dict[str, int]
) -> tuple[Any, WeightPosterior]:
    """Flow and posterior of one row; those that start from trained weights start from ``point``."""
    method, options = ROWS[name]
    data = clusters(N_TRAIN, 0)
    options = dict(options)
    flow = deepcopy(point)
    if method == "dropout":
        flow = flow_of(seed, dropout=0.1)
        options |= {"train_prior": PRIOR}
    elif method == "ensemble":
        options |= {"prior": PRIOR, "trained": True}
    elif method == "swag":
        options |= {"train_prior": PRIOR, "trained": True}
    else:
        options |= {"prior": PRIOR, "trained": True}
    fit = WEIGHT_POSTERIORS[method].fit
    return flow, fit(flow, data, maximise=maximise(data, updates), seed=seed, **options)


def draw_step(arguments: argparse.Namespace) -> None:
    """Sample the reference, and again with another seed; write the draws."""
    settings = (arguments.chains, arguments.warmup, arguments.samples, arguments.tree_depth)
    seed = {"draws": 0, "again": 1}[arguments.which]
    samples, found = sample(seed, *settings)
    path = OUT.with_name(f"{OUT.name}_{arguments.which}.npz")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Single precision and every second draw: 1e-7 of a weight is far below the Monte Carlo error.
    thinned = samples[:, ::2].numpy().astype(np.float32)
    np.savez_compressed(path, samples=thinned, found=np.array(json.dumps({**provenance(seed), **found})))
    print(json.dumps(found))


def load_draws(which: str) -> tuple[Tensor, dict[str, Any]]:
    """Draws (chains, samples, P) and their provenance, from the committed file."""
    with np.load(OUT.with_name(f"{OUT.name}_{which}.npz"), allow_pickle=False) as file:
        return torch.from_numpy(file["samples"]).double(), json.loads(str(file["found"]))


COLUMNS = {
    "wasserstein_inside": "W1 inside",
    "wasserstein_gap": "W1 gap",
    "wasserstein_beyond": "W1 beyond",
    "ratio_inside": "epistemic / NUTS inside",
    "ratio_gap": "gap",
    "ratio_beyond": "beyond",
}


def table_step(arguments: argparse.Namespace) -> None:
    """Fit all others and write the table."""
    samples, found = load_draws("draws")
    again, found_again = load_draws("again")
    flow = flow_of(0)
    reference = reference_of(flow, samples)
    data, updates = clusters(N_TRAIN, 0), {"point": arguments.updates, "variational": 3 * arguments.updates}
    point = flow_of(arguments.seed)
    maximise(data, updates)(PenalisedLikelihood(point, PRIOR, N_TRAIN), seed=0, name="point")
    point.eval()
    layout = WeightLayout(flow, choose(flow, "all"))
    rows = {
        "NUTS": compare(flow, reference["draws"], reference),
        "NUTS, another seed": compare(flow, layout.split(again.flatten(0, 1)), reference),
    }
    for name in ROWS:
        fitted, posterior = fit_row(name, point, arguments.seed, updates)
        draws = posterior.draw(min(N_DRAWS, posterior.n_distinct or N_DRAWS), seed=7)
        rows[name] = compare(fitted, draws, reference)
        print(name, json.dumps(rows[name]), flush=True)
    weights = layout.flatten(dict(point.named_parameters())).detach().tolist()
    result = {
        **provenance(arguments.seed),
        "nuts": {"draws": found, "again": found_again},
        "point": weights,
        "rows": rows,
    }
    OUT.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    OUT.with_suffix(".md").write_text(markdown(result))
    print(markdown(result))


def markdown(result: dict[str, Any]) -> str:
    """The table, with what it stands on."""
    found, rows = result["nuts"]["draws"], result["rows"]
    nuts = rows["NUTS"]
    lines = [
        header("Weight posteriors against exact sampling", result),
        f"Draws by `{found['command']}` (seed {found['seed']}): largest R-hat {found['r_hat']:.4f}, smallest effective "
        f"number of draws {found['effective_draws']:.0f}, over mean and log standard deviation at 61 contexts; "
        f"{found['divergences']} divergences.\n",
        f"Epistemic standard deviation of NUTS: {nuts['epistemic_inside']:.4f} dex inside the data, "
        f"{nuts['epistemic_gap']:.4f} in the gap, {nuts['epistemic_beyond']:.4f} beyond. W1 [dex] is the Wasserstein "
        "distance of the predictive PDFs, averaged over contexts; its noise is the row of the other seed. Log "
        f"scores [nats] of {N_TEST} new clusters: that of NUTS, of the others the difference from it.\n",
        "| weights | " + " | ".join(COLUMNS.values()) + " | log score inside | in the gap |",
        "|---" * (len(COLUMNS) + 3) + "|",
    ]
    for name, row in rows.items():
        scores = [
            f"{row[key]:.3f} ± {row[f'{key}_se']:.3f}" if name == "NUTS" else f"{row[key] - nuts[key]:+.3f}"
            for key in ("log_score_inside", "log_score_gap")
        ]
        cells = [f"{row[key]:.4f}" if key.startswith("w") else f"{row[key]:.2f}" for key in COLUMNS]
        lines.append(f"| {name} | " + " | ".join([*cells, *scores]) + " |")
    notes = OUT.with_name("notes_gold_standard.md")
    return "\n".join(lines) + "\n" + ("\n" + notes.read_text() if notes.exists() else "")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=["draws", "table"])
    parser.add_argument(
        "--which",
        choices=["draws", "again"],
        default="draws",
        help="file of draws: the reference (seed 0), or once more (seed 1)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the table's fits")
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--warmup", type=int, default=300)
    parser.add_argument("--samples", type=int, default=1000, help="of each chain")
    parser.add_argument("--tree-depth", type=int, default=8)
    parser.add_argument("--updates", type=int, default=1500, help="of the training loop")
    arguments = parser.parse_args()
    {"draws": draw_step, "table": table_step}[arguments.step](arguments)


if __name__ == "__main__":
    main()

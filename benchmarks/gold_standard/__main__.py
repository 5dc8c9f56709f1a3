"""Every weight posterior against exact sampling: a flow of 34 weights, one context with a gap in the data, float64.

All methods get the same clusters, the same normal prior with fan-in scales and the same likelihood
(`problem.py`); the ensemble has a freedom besides that Bayes' theorem does not know: its
initialisations. The reference are the draws of
`gold_standard_reference.py`.

    python -m benchmarks.gold_standard --seed 0
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bayesflowmass.bayes import WEIGHT_POSTERIORS, NormalPrior, PenalisedLikelihood, WeightPosterior
from bayesflowmass.bayes.choice import choose
from bayesflowmass.bayes.layout import WeightLayout
from bayesflowmass.estimator.weight_draws import condition_draws
from bayesflowmass.flows import ConditionalFlow, build_flow
from benchmarks.gold_standard.problem import (
    EDGE,
    GAIN,
    GAP,
    GRID,
    HIDDEN,
    LOC,
    N_TRAIN,
    OUT,
    SCALE,
    clusters,
)
from benchmarks.provenance import header, provenance

PRIOR = NormalPrior(gain=GAIN)
N_TEST, N_DRAWS = 2000, 800
MASSES = torch.linspace(11.3, 17.3, 301, dtype=torch.float64)
CONTEXTS = torch.from_numpy(GRID)
REGIONS = {
    "inside": (CONTEXTS.abs() > GAP - 1e-9) & (CONTEXTS.abs() < EDGE + 1e-9),
    "gap": CONTEXTS.abs() < GAP - 0.25,
    "beyond": CONTEXTS.abs() > EDGE + 0.25,
}

# Name of the row -> method, options of its fit.
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "point (maximum a posteriori)": ("point", {}),
    "variational, mean field, all": ("variational", {"which": "all", "guide": "mean_field"}),
    "variational, eigenbasis, all (the last two layers)": (
        "variational",
        {"which": "all", "guide": "eigenbasis"},
    ),
    "variational, full covariance, all": ("variational", {"which": "all", "guide": "full_covariance"}),
    "variational, mean field, last layer": ("variational", {"guide": "mean_field", "freeze": False}),
    "variational, eigenbasis, last layer": ("variational", {"guide": "eigenbasis", "freeze": False}),
    "variational, eigenbasis, last layer, rest frozen": ("variational", {"guide": "eigenbasis"}),
    "variational, full covariance, last layer": (
        "variational",
        {"guide": "full_covariance", "freeze": False},
    ),
    "variational, full covariance, last layer, rest frozen": ("variational", {"guide": "full_covariance"}),
    "Laplace, last layer": ("laplace", {"relative_precision": 1.0}),
    "Laplace, last layer, prior by marginal likelihood": ("laplace", {}),
    "Laplace, all": ("laplace", {"which": "all", "relative_precision": 1.0}),
    "ensemble of 10": ("ensemble", {"members": 10}),
}


def data_of(n: int, seed: int, region: tuple[float, float] = (GAP, EDGE)) -> tuple[Tensor, Tensor]:
    """Contexts (n, 1) and log10 masses (n,)."""
    x, mass = clusters(n, seed, region)
    return torch.from_numpy(x)[:, None], torch.from_numpy(mass)


def flow_of(seed: int) -> ConditionalFlow:
    """The flow: one affine block, context 1 - 8 tanh - 2 outputs."""
    return build_flow("affine", 1, LOC, SCALE, affine_blocks=1, hidden=(HIDDEN,), seed=seed).double()


def training_loop(data: tuple[Tensor, Tensor], updates: int) -> Callable[..., None]:
    """All clusters at once: Adam, its rate falling as a cosine; nothing stops it early."""

    def maximise(objective: nn.Module, *, seed: int, name: str, **options: Any) -> None:
        n = updates * (3 if name == "variational" else 1)
        # Draws of a wide q miss by much: a shorter memory of that, as in LAST_LAYER_FIT.
        betas = (0.9, 0.99) if name == "variational" else (0.9, 0.999)
        optimizer = torch.optim.Adam(
            [p for p in objective.parameters() if p.requires_grad], lr=0.02, betas=betas
        )
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

    return maximise


def trained_point(seed: int, updates: int) -> ConditionalFlow:
    """The flow at the maximum of the posterior density."""
    flow, data = flow_of(seed), data_of(N_TRAIN, 0)
    training_loop(data, updates)(PenalisedLikelihood(flow, PRIOR, N_TRAIN), seed=seed, name="point")
    return flow.eval()


def fit_row(
    name: str, point: ConditionalFlow, seed: int, updates: int
) -> tuple[ConditionalFlow, WeightPosterior]:
    """Flow and posterior of a row; methods that start from trained weights start from ``point``."""
    method, options = ROWS[name]
    flow, options = deepcopy(point), {"trained": True, **options}
    options["prior"] = PRIOR
    # With all weights random, a draw is noisier and the bound harder to climb.
    updates *= 4 if method == "variational" and options.get("which") == "all" else 1
    data = data_of(N_TRAIN, 0)
    fit = WEIGHT_POSTERIORS[method].fit
    return flow, fit(flow, data, maximise=training_loop(data, updates), seed=seed, **options)


def load_reference(seed: int) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """NUTS draws (chains, kept, P), their log joint density (chains, kept), and provenance."""
    with np.load(OUT.with_name(f"{OUT.name}_draws_{seed}.npz"), allow_pickle=False) as file:
        found = json.loads(str(file["found"]))
        return torch.from_numpy(file["weights"]), torch.from_numpy(file["log_joint"]), found


def as_draws(samples: Tensor) -> dict[str, Tensor]:
    """Weight draws of the flow from vectors (chains, kept, P)."""
    flow = flow_of(0)
    return WeightLayout(flow, choose(flow, "all")).split(samples.flatten(0, 1))


def log_joint(draws: dict[str, Tensor]) -> Tensor:
    """log p(data | w) + log p(w), (D,), as this package has it."""
    flow = flow_of(0)
    context, mass = data_of(N_TRAIN, 0)
    with torch.no_grad():
        likelihood = condition_draws(flow, draws, context).log_prob(mass).sum(-1)
    return likelihood + PRIOR.log_prob(draws, {name: p.shape for name, p in flow.named_parameters()})


def summarise(flow: ConditionalFlow, draws: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of the mixture over draws on the grid: the cdf (masses, grid) and the epistemic standard deviation (grid,)."""
    with torch.no_grad():
        found = condition_draws(flow, draws, CONTEXTS[:, None])
        cdf = torch.stack([found.cdf(mass).mean(0) for mass in MASSES])
    return {"cdf": cdf, "epistemic": found.mean.std(0, correction=0)}


def compare(
    flow: ConditionalFlow, draws: dict[str, Tensor], reference: dict[str, Tensor]
) -> dict[str, float]:
    """The numbers of one row: W1 [dex], epistemic standard deviation [dex] and its ratio, log scores [nats]."""
    own = summarise(flow, draws)
    distance = torch.trapezoid((own["cdf"] - reference["cdf"]).abs(), MASSES, dim=0)
    row = {}
    for name, where in REGIONS.items():
        row[f"wasserstein_{name}"] = float(distance[where].mean())
        ours, theirs = (float(s["epistemic"][where].square().mean().sqrt()) for s in (own, reference))
        row[f"epistemic_{name}"], row[f"ratio_{name}"] = ours, ours / theirs
    for name, region in (("inside", (GAP, EDGE)), ("gap", (0.0, GAP))):
        context, mass = data_of(N_TEST, 12345, region)
        with torch.no_grad():
            each = condition_draws(flow, draws, context).log_prob(mass)
        score = each.logsumexp(0) - math.log(len(each))
        row[f"log_score_{name}"] = float(score.mean())
        row[f"log_score_{name}_se"] = float(score.std() / math.sqrt(N_TEST))
    return row


def drawn(posterior: WeightPosterior) -> dict[str, Tensor]:
    """The draws that a row is judged by."""
    return posterior.draw(posterior.n_distinct or N_DRAWS, seed=7)


def row_of(job: tuple[str, ConditionalFlow, int, int, dict[str, Tensor]]) -> dict[str, float]:
    """Fit a row and compare it."""
    torch.set_num_threads(1)
    name, point, seed, updates, reference = job
    flow, posterior = fit_row(name, point, seed, updates)
    return compare(flow, drawn(posterior), reference)


COLUMNS = {
    "wasserstein_inside": "W1 inside",
    "wasserstein_gap": "W1 gap",
    "wasserstein_beyond": "W1 beyond",
    "ratio_inside": "epistemic inside / NUTS",
    "ratio_gap": "in the gap",
    "ratio_beyond": "beyond",
}


def markdown(result: dict[str, Any]) -> str:
    """The table, and what it stands on."""
    found, rows = result["nuts"][0], result["rows"]
    nuts = rows["NUTS"]
    lines = [
        header("Weight posteriors against exact sampling", result),
        f"NUTS: `{found['command']}`, numpyro {found['numpyro']}: over mean and log standard deviation at 61 contexts "
        f"the largest R-hat is {found['r_hat']:.4f}, the smallest effective number of draws "
        f"{found['effective_draws']:.0f} of {found['chains'] * found['samples']}; {found['divergences']} divergences. "
        "Its log joint density and this package's agree to "
        f"{result['largest_difference_of_log_joint']:.0e} nats.\n",
        f"{N_TRAIN} clusters with {GAP} < |x| < {EDGE}. Epistemic standard deviation of NUTS: "
        f"{nuts['epistemic_inside']:.4f} dex inside the data, {nuts['epistemic_gap']:.4f} in the gap, "
        f"{nuts['epistemic_beyond']:.4f} beyond. W1 [dex] is the Wasserstein distance of the predictive PDFs, averaged "
        f"over contexts; the row of the other seed is its noise. Log scores [nats] of {N_TEST} new clusters: that of "
        "NUTS, of the others the difference from it. The gap counts as missed below half of NUTS' epistemic standard "
        "deviation there, as too wide above twice it. Rest frozen: the weights that are not random stay at the maximum "
        "of the posterior density; else they go on to maximise the bound, without a prior.\n",
        "| weights | " + " | ".join(COLUMNS.values()) + " | log score inside | in the gap | the gap |",
        "|---" * (len(COLUMNS) + 4) + "|",
    ]
    for name, row in rows.items():
        scores = [
            f"{row[key]:.3f} ± {row[f'{key}_se']:.3f}" if name == "NUTS" else f"{row[key] - nuts[key]:+.3f}"
            for key in ("log_score_inside", "log_score_gap")
        ]
        cells = [f"{row[key]:.4f}" if key.startswith("w") else f"{row[key]:.2f}" for key in COLUMNS]
        verdict = "missed" if row["ratio_gap"] < 0.5 else "seen" if row["ratio_gap"] < 2 else "too wide"
        lines.append(f"| {name} | " + " | ".join([*cells, *scores, verdict]) + " |")
    notes = OUT.with_name("notes_gold_standard.md")
    return "\n".join(lines) + "\n" + ("\n" + notes.read_text(encoding="utf-8") if notes.exists() else "")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0, help="of the fits")
    parser.add_argument(
        "--updates", type=int, default=800, help="of the training loop; the bound takes 3 or 12 times as many"
    )
    parser.add_argument(
        "--rows", nargs="+", default=list(ROWS), choices=list(ROWS), help="others stay as they are"
    )
    arguments = parser.parse_args()
    samples, density, found = load_reference(0)
    again, _, found_again = load_reference(1)
    draws, flow = as_draws(samples), flow_of(0)
    reference = summarise(flow, draws)
    rows = {
        "NUTS": compare(flow, draws, reference),
        "NUTS, another seed": compare(flow, as_draws(again), reference),
    }
    point = trained_point(arguments.seed, arguments.updates)
    known = (
        json.loads(OUT.with_suffix(".json").read_text(encoding="utf-8"))["rows"]
        if set(arguments.rows) < set(ROWS)
        else {}
    )
    for name in ROWS:
        if name in arguments.rows:
            rows[name] = row_of((name, point, arguments.seed, arguments.updates, reference))
            print(name, json.dumps(rows[name]), flush=True)
        elif name in known:
            rows[name] = known[name]
    result = {
        **provenance(arguments.seed),
        "nuts": [found, found_again],
        "largest_difference_of_log_joint": float((log_joint(draws) - density.flatten()).abs().max()),
        "point": {name: p.tolist() for name, p in point.named_parameters()},
        "rows": rows,
    }
    OUT.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    OUT.with_suffix(".md").write_text(markdown(result), encoding="utf-8")
    print(markdown(result))


if __name__ == "__main__":
    main()

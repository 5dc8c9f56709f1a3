"""
One update of a network with random weights against one without: the paper's networks, a batch of 100.

    python -m benchmarks.weights_step [--pairs 4] [--rounds 12] [--threads 2] [--low-rank] [--out PREFIX]

Every row trains the three networks of the paper (2500-512-64-512-2, tanh, 4.04 million weights) with fused Adam on
the same batch; the Bayesian ones include the KL divergence of their weights. `default` is what `--variational`
repeats once the point model is fitted: the last two layers of each network random, the layers below computed
once for all clusters. The next row has last layers random and trains all others along. The rows take turns in one
process, so that they share the machine's moods; times are means over two updates, ratios are of the minima.
`plain` is a loop by hand that knows no Pyro and no random weights. zuko's row needs
`pip install "bayesflowmass[benchmarks]"`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch.func import functional_call

from bayesflowmass.bayes import Eigenbasis, MeanField, NormalPrior, VariationalObjective
from bayesflowmass.bayes.choice import choose, top_layers
from bayesflowmass.bayes.guides.noise import standard_normal
from bayesflowmass.common.memory import kept
from bayesflowmass.flows import build_flow
from bayesflowmass.training.last_layers import cut_before_random_layers
from bayesflowmass.training.options import FitOptions
from bayesflowmass.training.update import make_optimizer, make_update
from benchmarks.provenance import header, provenance
from benchmarks.training_step import CONTEXT, LOC, SCALE, ByHand

try:
    from zuko.bayesian import BayesianModel
except ImportError:
    BayesianModel = None

N_DATA = 18_000
RATE = 1e-4
PLAIN = "plain, by hand"
FLOOR = "plain, noise of two mirrored draws, exponentials, Adam of the scales"
Step = Callable[[torch.Tensor, torch.Tensor], object]


class Likelihood(torch.nn.Module):
    """The loop by hand's model as a module: ``functional_call`` needs a forward."""

    def __init__(self) -> None:
        super().__init__()
        self.model = ByHand()

    def forward(self, mass, context):
        return self.model.log_prob(mass, context)


def trainer(module, graphs, **options) -> Step:
    """The update of our training loop."""
    chosen = FitOptions(learning_rate=RATE, cuda_graphs=graphs, **options)
    update = make_update(module, make_optimizer(module, chosen), chosen)
    return lambda mass, context: update((mass, context, None))


def by_hand(device, graphs) -> Step:
    model = ByHand().to(device)
    if graphs:
        return trainer(model, graphs)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, fused=True)

    def step(mass, context):
        optimizer.zero_grad()
        (-model.log_prob(mass, context).mean()).backward()
        optimizer.step()

    return step


def floor(device) -> Step:
    """What a mean field needs beside the plain step, but for a draw and its gradients."""
    plain, n = by_hand(device, False), sum(p.numel() for p in ByHand().parameters())
    log_scale = torch.nn.Parameter(torch.full((n,), -5.0, device=device))
    optimizer = torch.optim.Adam([log_scale], lr=RATE, fused=True)
    log_scale.grad = torch.zeros_like(log_scale)
    turn = itertools.cycle((True, False))

    def step(mass, context):
        if next(turn):
            standard_normal((n,), log_scale)
        with torch.no_grad():
            log_scale.exp()
        plain(mass, context)
        optimizer.step()

    return step


def ours(device, graphs, guide, which, **options) -> Step:
    flow = build_flow("affine", CONTEXT, LOC, SCALE)
    objective = VariationalObjective(flow, guide(flow, NormalPrior(), which), N_DATA, **options)
    objective.to(device)
    return trainer(objective, graphs)


def ours_above(device, graphs, batch) -> Step:
    """The default's update: the last two layers random, above features that are computed once."""
    flow = build_flow("affine", CONTEXT, LOC, SCALE).to(device)
    which = top_layers(flow)
    parts = cut_before_random_layers(flow, choose(flow, which))
    guide = Eigenbasis(parts.head, NormalPrior(), which)
    objective = VariationalObjective(parts.head, guide, N_DATA).to(device)
    update = trainer(objective, graphs, betas=(0.9, 0.99))
    features = parts.features(batch[1])
    return lambda mass, context: update(mass, features)


def zuko_model(device, local) -> Step:
    bayesian = BayesianModel(Likelihood()).to(device)
    optimizer = torch.optim.Adam([*bayesian.means.values(), *bayesian.logvars.values()], lr=RATE, fused=True)

    def step(mass, context):
        optimizer.zero_grad()
        with bayesian.reparameterize(local_trick=local) as model:
            loss = -model(mass, context).mean()
        (loss + bayesian.kl_divergence() / N_DATA).backward()
        optimizer.step()

    return step


def auto_normal(device) -> Step:
    network = Likelihood().to(device)
    prior = NormalPrior()
    scales = {name: prior.scale_of(name, weight.shape) for name, weight in network.named_parameters()}
    shapes = {name: weight.shape for name, weight in network.named_parameters()}

    def model(mass, context):
        weights = {
            name: pyro.sample(
                name,
                dist.Normal(torch.zeros((), device=device), scales[name]).expand(shape).to_event(len(shape)),
            )
            for name, shape in shapes.items()
        }
        log_prob = functional_call(network, weights, (mass, context))
        pyro.factor("likelihood", N_DATA * log_prob.mean())

    start = pyro.infer.autoguide.init_to_value(
        values={name: weight.detach() for name, weight in network.named_parameters()}
    )
    guide = pyro.infer.autoguide.AutoNormal(model, init_loc_fn=start)
    svi = pyro.infer.SVI(
        model, guide, pyro.optim.Adam({"lr": RATE, "fused": True}), pyro.infer.TraceMeanField_ELBO()
    )
    return svi.step


def rows(device, graphs, batch) -> dict[str, Step]:
    found = {
        PLAIN: by_hand(device, graphs),
        "default: last two layers, above fixed ones": ours_above(device, graphs, batch),
        "last layers random, all trained": ours(device, graphs, Eigenbasis, "last"),
        "full mean field, local": ours(device, graphs, MeanField, "all", estimator="local"),
        "full mean field, shared draw": ours(device, graphs, MeanField, "all"),
        "full mean field, mirrored draws": ours(device, graphs, MeanField, "all", estimator="mirrored"),
        FLOOR: floor(device),
        "Pyro AutoNormal": auto_normal(device),
    }
    if BayesianModel is not None:
        found["zuko BayesianModel"] = zuko_model(device, False)
        found["zuko BayesianModel, local trick"] = zuko_model(device, True)
    return found


def timed(step: Step, batch, pairs) -> list[float]:
    """Milliseconds an update, of pairs of updates: mirrored draws come in twos, one with noise to make, one without."""
    times = []
    # The first updates of a turn find the caches as another row left them.
    for _ in range(2):
        step(*batch)
    for _ in range(pairs):
        begun = time.perf_counter()
        for _ in range(2):
            step(*batch)
        if batch[0].is_cuda:
            torch.cuda.synchronize()
        times.append(0.5e3 * (time.perf_counter() - begun))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--pairs", type=int, default=4, help="pairs of updates of each turn (4)")
    parser.add_argument("--rounds", type=int, default=12, help="turns of each row (12)")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (2)")
    parser.add_argument("--batch", type=int, default=100, help="clusters a batch (100)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    parser.add_argument("--graphs", action="store_true", help="replay CUDA graphs (ours and the plain loop)")
    parser.add_argument("--seed", type=int, default=0, help="of batch and weights (0)")
    parser.add_argument("--out", type=Path, help="write PREFIX.md and PREFIX.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    # As in our training loop: distributions check every argument on every call otherwise.
    pyro.enable_validation(False)
    batch = (
        LOC + SCALE * torch.randn(arguments.batch, device=arguments.device),
        torch.rand(arguments.batch, CONTEXT, device=arguments.device),
    )
    steps = rows(arguments.device, arguments.graphs, batch)
    times: dict[str, list[float]] = {name: [] for name in steps}
    # As in our training loop, and to the plain loop's advantage too.
    with kept():
        for step in steps.values():
            timed(step, batch, 1)
        for _ in range(arguments.rounds):
            for name, step in steps.items():
                times[name] += timed(step, batch, arguments.pairs)
    plain = min(times[PLAIN])
    table = [
        {
            "step": name,
            "minimum_ms": round(min(found), 2),
            "median_ms": round(float(np.median(found)), 2),
            "ratio_of_minima": round(min(found) / plain, 2),
            "ratio_of_medians": round(float(np.median(found) / np.median(times[PLAIN])), 2),
        }
        for name, found in times.items()
    ]
    source = provenance(arguments.seed)
    lines = [
        header("One update with random weights", source),
        "4.04 million weights, batch of "
        f"{arguments.batch}, fused Adam, KL included; {len(times[PLAIN])} pairs of updates a row, in turns.\n",
        "| update | min / median [ms] | ratio of minima | ratio of medians |",
        "|---|---|---|---|",
        *(
            f"| {row['step']} | {row['minimum_ms']:.1f} / {row['median_ms']:.1f} |"
            f" {row['ratio_of_minima']:.2f} | {row['ratio_of_medians']:.2f} |"
            for row in table
        ),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.out:
        arguments.out.with_suffix(".md").write_text(text, encoding="utf-8")
        arguments.out.with_suffix(".json").write_text(
            json.dumps({"provenance": source, "rows": table}, indent=1) + "\n",
            encoding="utf-8",
        )


if __name__ == "__main__":
    main()

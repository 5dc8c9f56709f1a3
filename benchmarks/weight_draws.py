"""
Time of many draws of the weights applied to many clusters: posteriors, their quantiles and the epistemic split.

    python -m benchmarks.weight_draws [--model RUN] [--clusters 20000] [--draws 32] [--threads 2]

Without a model: the architecture of `default.yaml` with an untrained variational posterior of its default kind. The
contexts are random images, so the encoder is left out; `benchmarks/kde.py` times it.
"""

from __future__ import annotations

import argparse
import time

import torch

from bayesflowmass.bayes.choice import top_layers
from bayesflowmass.bayes.guides.eigenbasis import Eigenbasis
from bayesflowmass.command import TrainSettings
from bayesflowmass.command.run import parse_settings
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.estimator.weight_draws import condition_draws
from bayesflowmass.flows import build_flow
from bayesflowmass.posterior import MassPosterior
from bayesflowmass.train import train_arguments
from benchmarks.provenance import header, provenance

AT_ONCE = 2048


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--model", help="model folder with a posterior of its weights")
    parser.add_argument("--clusters", type=int, default=20000, help="clusters (20000)")
    parser.add_argument("--draws", type=int, default=32, help="draws of the weights (32)")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (2)")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    if a.model:
        estimator = MassEstimator.load(a.model, "cpu")
        flow, draws = estimator.flow, estimator.draw(a.draws, 0)
    else:
        settings = parse_settings(TrainSettings, [], prog="", default_config="default.yaml")
        arguments = train_arguments(settings)
        flow = build_flow(
            context_dim=arguments["encoder"].context_dim, loc=14.4, scale=0.7, **arguments["flow"]
        ).eval()
        draws = Eigenbasis(flow, None, top_layers(flow)).draw(a.draws, 0)
    context = torch.rand(a.clusters, flow.context_dim, generator=torch.Generator().manual_seed(0))
    print(header("Weight draws", provenance(0)))
    print(
        f"{a.draws} draws, {a.clusters} clusters, {sum(v[0].numel() for v in draws.values())} random weights\n"
    )
    steps: dict[str, list[float]] = {}

    def timed(name, function):
        wall, processor = time.perf_counter(), time.process_time()
        result = function()
        steps[name] = [time.perf_counter() - wall, time.process_time() - processor]
        return result

    with torch.no_grad():
        blocks = timed(
            "condition",
            lambda: [
                condition_draws(flow, draws, rows) for rows in context.split(max(1, AT_ONCE // a.draws))
            ],
        )
    posterior = MassPosterior(blocks, log10_mass_range=(13.2, 15.6), redshift=0.117)
    timed("tabulate the mixture, mean, sigma", lambda: posterior.sigma)
    timed("five quantiles", lambda: posterior.quantile([0.025, 0.16, 0.5, 0.84, 0.975]))
    timed("epistemic split and mutual information", lambda: posterior.sigma_epistemic)
    print("| step | wall [s] | processor [s] |\n|---|---|---|")
    for name, (wall, processor) in steps.items():
        print(f"| {name} | {wall:.1f} | {processor:.1f} |")
    print(f"| all | {sum(w for w, _ in steps.values()):.1f} | {sum(p for _, p in steps.values()):.1f} |")


if __name__ == "__main__":
    main()

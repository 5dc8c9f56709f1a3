"""
Density, quantiles and moments of conditional flows: what Pyro costs, and what 20 000 clusters cost.

    python -m benchmarks.flows [--steps 150] [--threads 2] [--batch 100] [--clusters 20000]

The first table takes one gradient step of the paper's three networks (2500-512-64-512-2, tanh, fused Adam) in
three forms, in turn and in one process; ratios are of minima. `stacked` holds the three networks as one: a
single 2500 x 1536 product, then batched ones. The second evaluates every kind of flow in double precision.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import torch
from torch import nn

from bayesflowmass.flows import FLOW_KINDS, build_flow
from benchmarks.provenance import header, provenance

CONTEXT, LOC, SCALE = 2500, 14.4, 0.6


def gaussian_flow(mass, parameters):
    u, total = (mass - LOC) / SCALE, -math.log(SCALE) - 0.5 * math.log(2 * math.pi)
    for loc, log_scale in parameters:
        u, total = (u - loc) * (-log_scale).exp(), total - log_scale
    return total - 0.5 * u * u


class ByHand(nn.Module):
    def __init__(self, flow):
        super().__init__()
        self.networks = nn.ModuleList(
            nn.Sequential(
                nn.Linear(CONTEXT, 512), nn.Tanh(), nn.Linear(512, 64), nn.Tanh(),
                nn.Linear(64, 512), nn.Tanh(), nn.Linear(512, 2),
            )
            for _ in range(3)
        )  # fmt: skip
        for network, block in zip(self.networks, reversed(flow.transforms[:3]), strict=True):
            network.load_state_dict(block.nn.state_dict())

    def forward(self, mass, context):
        return gaussian_flow(mass, [network(context).unbind(-1) for network in self.networks])


class Stacked(nn.Module):
    def __init__(self, flow):
        super().__init__()
        blocks = [list(block.nn.parameters()) for block in reversed(flow.transforms[:3])]
        self.layers = nn.ParameterList(torch.stack(same).detach() for same in zip(*blocks, strict=True))

    def forward(self, mass, context):
        weights, biases = self.layers[::2], self.layers[1::2]
        h = nn.functional.linear(context, weights[0].flatten(0, 1), biases[0].flatten())
        h = h.unflatten(-1, (3, -1)).transpose(0, 1)
        for weight, bias in zip(weights[1:], biases[1:], strict=True):
            h = torch.baddbmm(bias.unsqueeze(1), h.tanh(), weight.mT)
        return gaussian_flow(mass, [network.unbind(-1) for network in h])


def step_times(forms, mass, context, steps):
    optimizers = {name: torch.optim.Adam(form.parameters(), 1e-4, fused=True) for name, form in forms.items()}
    times = {name: [] for name in forms}
    processor = {name: [] for name in forms}
    for _ in range(steps + 5):
        for name, form in forms.items():
            start, busy = time.perf_counter(), time.process_time()
            optimizers[name].zero_grad()
            (-form(mass, context).mean()).backward()
            optimizers[name].step()
            times[name].append(1e3 * (time.perf_counter() - start))
            processor[name].append(1e3 * (time.process_time() - busy))
    return {name: (sorted(times[name][5:]), sorted(processor[name][5:])) for name in forms}


def timed(function):
    start, busy = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - start, time.process_time() - busy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--steps", type=int, default=150, help="gradient steps of each form, in turn (150)")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (2)")
    parser.add_argument("--batch", type=int, default=100, help="clusters a step (100)")
    parser.add_argument("--clusters", type=int, default=20000, help="clusters to evaluate (20000)")
    parser.add_argument("--out", type=Path, help="also write OUT.md")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    context, mass = torch.rand(arguments.batch, CONTEXT), LOC + SCALE * torch.randn(arguments.batch)
    flow = build_flow("affine", CONTEXT, LOC, SCALE)
    forms = {"by hand": ByHand(flow), "flow": flow, "stacked": Stacked(flow)}
    densities = [form(mass, context) for form in forms.values()]
    worst = max((density - densities[0]).abs().max().item() for density in densities)

    times = step_times(forms, mass, context, arguments.steps)
    lines = [
        header("Gradient step of the paper's flow", provenance(0)),
        "| form | minimum [ms] | median [ms] | minimum over by hand | processor, minimum [ms] |",
        "|---|---|---|---|---|",
    ]
    for name, (values, busy) in times.items():
        ratio = values[0] / times["by hand"][0][0]
        middle = values[len(values) // 2]
        lines.append(f"| {name} | {values[0]:.2f} | {middle:.2f} | {ratio:.3f} | {busy[0]:.2f} |")
    lines += [
        f"\nLargest difference of the three densities: {worst:.1e}.\n",
        header(f"{arguments.clusters} clusters in double precision", provenance(0)),
        "Wall and, in brackets, processor time.\n",
        "| kind | pdf on 301 masses [s] | 5 quantiles [s] | mean, variance [s] |",
        "|---|---|---|---|",
    ]
    grid = torch.linspace(13, 16, 301, dtype=torch.float64).unsqueeze(-1)
    p = torch.tensor([0.025, 0.16, 0.5, 0.84, 0.975], dtype=torch.float64).unsqueeze(-1)
    for kind in FLOW_KINDS:
        small = build_flow(kind, 16, LOC, SCALE, hidden=(16,))
        with torch.no_grad():
            distribution = small.condition(torch.rand(arguments.clusters, 16))
            seconds = (
                timed(lambda d=distribution: d.log_prob(grid)),
                timed(lambda d=distribution: d.icdf(p)),
                timed(lambda d=distribution: (d.mean, d.variance)),
            )
        lines.append(f"| {kind} | " + " | ".join(f"{s:.2f} ({busy:.2f})" for s, busy in seconds) + " |")
    print("\n".join(lines))
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

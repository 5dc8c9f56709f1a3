"""
Step time of the paper's flow against a training loop written by hand in torch.

    python benchmarks/flows.py [--repeats 60] [--threads 2] [--batch 100]

Both loops train the same three networks (2500-512-64-512-2, tanh) with the same fused Adam, turn by turn in
one process; the ratio is that of the minima. Also prints the throughput of an evaluation on a grid.
"""

from __future__ import annotations

import argparse
import math
import time

import torch
from torch import nn

from bayesflowmass.flows import build_flow

CONTEXT, LOC, SCALE = 2500, 14.4, 0.6


def hand_written(networks, mass, context):
    u = (mass - LOC) / SCALE
    total = -math.log(SCALE)
    for network in networks:
        loc, log_scale = network(context).unbind(-1)
        u = (u - loc) * (-log_scale).exp()
        total = total - log_scale
    return total - 0.5 * u * u - 0.5 * math.log(2 * math.pi)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--repeats", type=int, default=60, help="steps of each loop, taken in turn (60)")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (2)")
    parser.add_argument("--batch", type=int, default=100, help="clusters a step (100)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    context, mass = torch.rand(arguments.batch, CONTEXT), LOC + SCALE * torch.randn(arguments.batch)

    flow = build_flow("affine", CONTEXT, LOC, SCALE)
    networks = [
        nn.Sequential(nn.Linear(CONTEXT, 512), nn.Tanh(), nn.Linear(512, 64), nn.Tanh())
        .append(nn.Linear(64, 512))
        .append(nn.Tanh())
        .append(nn.Linear(512, 2))
        for _ in range(3)
    ]
    for network, block in zip(networks, reversed(flow.transforms[:3]), strict=True):
        network.load_state_dict(block.nn.state_dict())
    weights = [w for network in networks for w in network.parameters()]
    difference = (hand_written(networks, mass, context) - flow.log_prob(mass, context)).abs().max().item()
    print(f"largest difference of log_prob: {difference:.1e}")

    losses = {
        "by hand": (lambda: -hand_written(networks, mass, context).mean(), weights),
        "flow": (lambda: -flow.log_prob(mass, context).mean(), list(flow.parameters())),
    }
    losses = {name: (loss, torch.optim.Adam(w, 1e-4, fused=True)) for name, (loss, w) in losses.items()}
    times = {name: [] for name in losses}
    for _ in range(arguments.repeats + 5):
        for name, (loss, optimiser) in losses.items():
            start = time.perf_counter()
            optimiser.zero_grad()
            loss().backward()
            optimiser.step()
            times[name].append(1e3 * (time.perf_counter() - start))
    for name, values in times.items():
        values = sorted(values[5:])
        print(f"{name:8s} {values[0]:6.2f} ms minimum, {values[len(values) // 2]:6.2f} ms median")
    print(f"ratio of minima {min(times['flow'][5:]) / min(times['by hand'][5:]):.3f}")

    grid = torch.linspace(13, 16, 301, dtype=torch.float64).unsqueeze(-1)
    for kind in ("affine", "affine+spline", "mixture"):
        flow = build_flow(kind, 16, LOC, SCALE, hidden=(16,))
        with torch.no_grad():
            start = time.perf_counter()
            flow.condition(torch.rand(5000, 16)).log_prob(grid)
            seconds = time.perf_counter() - start
        print(f"{kind:14s} 5000 clusters x 301 grid points in double precision: {seconds:.2f} s")


if __name__ == "__main__":
    main()

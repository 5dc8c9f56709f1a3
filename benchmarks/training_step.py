"""
Our training loop against one written by hand in torch: time of one update, and of a whole run.

    python -m benchmarks.training_step [--updates 60] [--rounds 5] [--threads 2] [--batch 100] [--device cpu]

Both train the three networks of the paper (2500-512-64-512-2, tanh) with fused Adam on the same batches and
must end with the same weights. They take turns in one process; ratios are of minima. The loop by hand knows
no Pyro, no checkpoints, no progress bar, no random states. `whole` adds to ours a validation on 2000 clusters
every 20 updates.
"""

from __future__ import annotations

import argparse
import math
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn

from bayesflowmass.flows import build_flow
from bayesflowmass.training.fit import fit
from bayesflowmass.training.random_state import torch_generator
from bayesflowmass.training.sources import FixedSource
from benchmarks.provenance import header, provenance

CONTEXT, LOC, SCALE, CLUSTERS = 2500, 14.4, 0.6, 4000


class ByHand(nn.Module):
    """The flow of the paper as anybody would write it down."""

    def __init__(self) -> None:
        super().__init__()
        self.networks = nn.ModuleList(
            nn.Sequential(
                nn.Linear(CONTEXT, 512), nn.Tanh(), nn.Linear(512, 64), nn.Tanh(),
                nn.Linear(64, 512), nn.Tanh(), nn.Linear(512, 2),
            )
            for _ in range(3)
        )  # fmt: skip

    def log_prob(self, mass, context):
        u = (mass - LOC) / SCALE
        total = -math.log(SCALE)
        for network in self.networks:
            loc, log_scale = network(context).unbind(-1)
            u = (u - loc) * (-log_scale).exp()
            total = total - log_scale
        return total - 0.5 * u * u - 0.5 * math.log(2 * math.pi)


def loop_by_hand(model, context, mass, updates, batch):
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    done = epoch = 0
    while done < updates:
        order = torch.randperm(len(mass), generator=torch_generator(0, "permutation", epoch)).to(mass.device)
        for start in range(0, len(mass) - batch + 1, batch):
            if done == updates:
                break
            rows = order[start : start + batch]
            optimizer.zero_grad()
            (-model.log_prob(mass[rows], context[rows]).mean()).backward()
            optimizer.step()
            done += 1
        epoch += 1


@contextmanager
def stopwatch(model, updates):
    """Times between the beginnings of updates."""
    seen: list[float] = []
    plain = model.log_prob

    def timed(mass, context):
        if model.training:
            if mass.is_cuda:
                torch.cuda.synchronize()
            seen.append(time.perf_counter())
        return plain(mass, context)

    model.log_prob = timed
    try:
        yield seen
    finally:
        del model.log_prob


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--updates", type=int, default=60, help="updates of each turn (60)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each loop (5)")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (2)")
    parser.add_argument("--batch", type=int, default=100, help="clusters a batch (100)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    parser.add_argument("--out", type=Path, help="also write OUT.md")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    generator = torch.Generator().manual_seed(0)
    context = torch.rand(CLUSTERS, CONTEXT, generator=generator).to(arguments.device)
    mass = (LOC + SCALE * torch.randn(CLUSTERS, generator=generator)).to(arguments.device)
    held_out = context[:2000], mass[:2000]

    def ours(every):
        flow = build_flow("affine", CONTEXT, LOC, SCALE).to(arguments.device)
        with stopwatch(flow, arguments.updates) as seen:
            begun = time.perf_counter()
            fit(
                flow,
                FixedSource(context, mass),
                held_out if every < arguments.updates else (context[:2], mass[:2]),
                batch_size=arguments.batch,
                max_updates=arguments.updates,
                patience_updates=None,
                validate_every=every,
                device=arguments.device,
            )
            return flow, np.diff(seen), time.perf_counter() - begun

    def by_hand():
        flow = build_flow("affine", CONTEXT, LOC, SCALE)
        model = ByHand()
        for network, block in zip(model.networks, reversed(flow.transforms[:3]), strict=True):
            network.load_state_dict(block.nn.state_dict())
        model.to(arguments.device)
        with stopwatch(model, arguments.updates) as seen:
            begun = time.perf_counter()
            loop_by_hand(model, context, mass, arguments.updates, arguments.batch)
            return model, np.diff(seen), time.perf_counter() - begun

    rows: dict[str, list] = {"by hand": [], "ours": [], "ours, whole": []}
    processor: dict[str, float] = {}
    for _ in range(arguments.rounds):
        for name, run in (
            ("by hand", by_hand),
            ("ours", lambda: ours(10**6)),
            ("ours, whole", lambda: ours(20)),
        ):
            busy = time.process_time()
            rows[name].append(run())
            processor[name] = min(processor.get(name, math.inf), time.process_time() - busy)
    first, second = (rows[name][-1][0] for name in ("by hand", "ours"))
    largest = max(
        float((a - b).abs().max())
        for network, block in zip(first.networks, reversed(second.transforms[:3]), strict=True)
        for a, b in zip(network.parameters(), block.nn.parameters(), strict=True)
    )
    lines = [
        header("Training step", provenance(0)),
        f"Largest difference of a weight after {arguments.updates} updates: {largest:.1e}\n",
        f"| loop | update, min / median [ms] | ratio of minima | {arguments.updates} updates, min [s] |"
        " ratio | with its set-up, processor, min [s] |",
        "|---|---|---|---|---|---|",
    ]
    base = min(step.min() for _, step, _ in rows["by hand"]), min(whole for *_, whole in rows["by hand"])
    for name, found in rows.items():
        steps, whole = np.concatenate([step for _, step, _ in found]), min(whole for *_, whole in found)
        lines.append(
            f"| {name} | {1e3 * steps.min():.2f} / {1e3 * np.median(steps):.2f} |"
            f" {steps.min() / base[0]:.3f} |"
            f" {whole:.2f} | {whole / base[1]:.2f} | {processor[name]:.2f} |"
        )
    print("\n".join(lines))
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

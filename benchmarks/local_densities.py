"""Local densities: time a cluster, distance to the arithmetic floor, error, and a cluster of 20 000 galaxies.

    python -m benchmarks.local_densities --seed 0 --out docs/results/local_densities.md

Synthetic clusters (Gaussian, 0.5 Mpc/h and 800 km/s wide) with the five default kernels, one thread. All is timed turn
by turn in one process as processor time, and minima over the turns are compared. The floor is what no evaluation of
all pairs can do without, run alone on data that stay in cache: one exponential for each pair and kernel, and one matrix
product of the kernels with five moments. "direct" is the same sum in numpy, galaxy against galaxy of one cluster, with
its exponentials and weighted sums.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from bayesflowmass.encoders.local import KERNEL_WIDTHS, LocalDensities
from benchmarks.provenance import header, provenance

TARGET = 0.2
"""Milliseconds for 100 galaxies and five kernels."""


def clusters(counts: list[int], dtype: torch.dtype, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points (n, 3) and offsets of Gaussian clusters."""
    points = np.random.default_rng(seed).normal(size=(sum(counts), 3)) * [0.5, 0.5, 800.0]
    return torch.tensor(points, dtype=dtype), torch.tensor(np.concatenate([[0], np.cumsum(counts)]))


def direct(points: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Densities 1 + sum_j K_ij and mean velocity differences in numpy, cluster by cluster: (n, K, 2)."""
    found = []
    for start, stop in pairwise(offsets):
        x, y, v = points[start:stop].T
        sky = (x[:, None] - x) ** 2 + (y[:, None] - y) ** 2
        velocity = v - v[:, None]
        parts = []
        for r, s in KERNEL_WIDTHS:
            kernel = np.exp(-sky / (2 * r**2) - velocity**2 / (2 * s**2))
            total = kernel.sum(1)
            parts.append(np.stack([total, (kernel * velocity).sum(1) / total / s], -1))
        found.append(np.stack(parts, 1))
    return np.concatenate(found)


def floor(n_pairs: int, dtype: torch.dtype) -> Callable[[], None]:
    """Exponentials and matrix products of that many pairs for each kernel, and nothing else."""
    exponent = -60.0 * torch.rand(10, 100, 100, dtype=dtype)
    moments, out = torch.randn(10, 5, 100, dtype=dtype), torch.empty(10, 100, 100, dtype=dtype)

    def run() -> None:
        for _ in range(max(1, len(KERNEL_WIDTHS) * n_pairs // exponent.numel())):
            torch.exp(exponent, out=out)
            torch.bmm(moments, out)

    return run


def seconds(work: Callable[[], object]) -> float:
    """Processor time."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clusters", type=int, default=500)
    parser.add_argument("--large", type=int, default=20000, help="galaxies of the large cluster")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs/results/local_densities.md"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    local = LocalDensities()
    source = provenance(options.seed)
    lines = [
        header(f"Local densities, {len(KERNEL_WIDTHS)} kernels, one thread, processor time", source),
        "| clusters | precision | ours [ms/cluster] | floor [ms/cluster] | ours / floor | direct, numpy [ms/cluster] "
        "| direct / ours | largest error |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rng = np.random.default_rng(options.seed)
    cases = {
        f"{options.clusters} of 100 galaxies": [100] * options.clusters,
        f"{options.clusters} of 10 to 400": rng.integers(10, 401, options.clusters).tolist(),
        f"1 of {options.large}": [options.large],
    }
    for name, counts in cases.items():
        large = len(counts) == 1
        for dtype in (torch.float32, torch.float64):
            points, offsets = clusters(counts, dtype, options.seed)
            work = {
                "ours": lambda p=points, o=offsets: local(p, o),
                "floor": floor(sum(n * n for n in counts), dtype),
            }
            few = int(np.searchsorted(offsets, 20_000)) if not large else 0
            if few:
                some = points[: offsets[few]].numpy(), offsets[: few + 1].numpy()
                work["direct"] = lambda s=some: direct(*s)
            best = dict.fromkeys(work, np.inf)
            for _ in range(1 if large else options.turns):
                for key, function in work.items():
                    best[key] = min(best[key], seconds(function))
            ours, least = (1e3 * best[key] / len(counts) for key in ("ours", "floor"))
            row = f"| {name} | {str(dtype)[6:]} | **{ours:.3f}** | {least:.3f} | {ours / least:.1f} "
            if few:
                numpy_time = 1e3 * best["direct"] / few
                found, expected = (
                    local(points, offsets)[: len(some[0])],
                    direct(some[0].astype(float), some[1]),
                )
                error = max(
                    float(np.abs(found[..., 0].double().exp().numpy() / expected[..., 0] - 1.0).max()),
                    float(np.abs(found[..., 1].double().numpy() - expected[..., 1]).max()),
                )
                row += f"| {numpy_time:.2f} | {numpy_time / ours:.0f} | {error:.1e} |"
            else:
                row += "| | | |"
            lines.append(row)
            print(row, flush=True)
    lines += [
        "",
        f"Target: {TARGET} ms for 100 galaxies. Largest error: of the density, relative, and of the mean velocity"
        " difference in units of the kernel, against numpy in float64 at the same points. The floor of the large"
        " cluster is that of all ordered pairs; ours takes each pair of blocks once, and none that no kernel reaches.",
    ]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

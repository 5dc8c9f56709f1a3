"""The kernel density beside scipy.stats.gaussian_kde: time a galaxy, ratio, error, and distance to the floor.

    python -m benchmarks.kde --seed 0 --out docs/results/kde

writes OUT.md and OUT.json. Clusters have 10 to 400 galaxies, uniformly, members of a given dispersion and
galaxies of a flat background in the cylinder (--mocks takes the package's contaminated flat mocks instead).
scipy evaluates one cluster after another at the same 2500 bin centres. Everything is timed turn by turn in
one process, and minima over the turns are compared; processor times, of all threads together, stand beside
because they suffer less where other programs run. The floor is what the factorised form cannot do without,
run alone on data that stay in cache: 100 exponentials with their arguments for each galaxy, and one batched
matrix product.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import gaussian_kde

from bayesflowmass.encoders import KDEEncoder
from bayesflowmass.mocks import simulate_catalog
from benchmarks.provenance import header, provenance

# H = h0 Sigma in float32 first: 80; every other case: 35.
CASES = [
    (convention, dtype, narrow)
    for convention in ("covariance", "scipy")
    for dtype in (torch.float32, torch.float64)
    for narrow in (("integrate",) if convention == "covariance" else ("keep", "integrate"))
]


def synthetic(n_clusters: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, 2) and offsets of ragged clusters with 10 to 400 galaxies."""
    counts = rng.integers(10, 401, n_clusters)
    total = int(counts.sum())
    sigma = np.repeat(rng.uniform(200.0, 1000.0, n_clusters), counts)
    member = rng.random(total) < 0.6
    radius = np.where(member, np.abs(rng.normal(0.0, 0.5, total)) % 1.6, 1.6 * np.sqrt(rng.random(total)))
    inside = np.clip(rng.normal(0.0, 1.0, total) * sigma * (1.0 - 0.4 * radius), -2500.0, 2500.0)
    velocity = np.where(member, inside, rng.uniform(-2500.0, 2500.0, total))
    return np.stack([radius, velocity], -1), np.concatenate([[0], np.cumsum(counts)])


def mocks(n_clusters: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points and offsets of flat contaminated mocks with 10 to 400 galaxies."""
    catalog = simulate_catalog(n_clusters, seed=seed)
    catalog = catalog.filter(catalog.n_galaxies <= 400)
    return np.stack([catalog.r_proj, catalog.galaxies("v_los")], -1).astype(float), catalog.offsets


def scipy_images(points: np.ndarray, offsets: np.ndarray, factor: float, encoder: KDEEncoder) -> np.ndarray:
    """Densities of scipy at the bin centres, cluster after cluster."""
    centres = [encoder.grid.nodes(d).numpy() for d in range(2)]
    mesh = np.stack([m.ravel() for m in np.meshgrid(*centres, indexing="ij")])
    images = [gaussian_kde(points[a:b].T, bw_method=factor)(mesh) for a, b in pairwise(offsets)]
    return np.stack(images).reshape(-1, *encoder.grid.shape)


def floor(n_galaxies: int, n_clusters: int, dtype: torch.dtype) -> Callable[[], None]:
    """The exponentials and matrix products of that many galaxies, and nothing else."""
    mean = round(n_galaxies / n_clusters)
    batch = max(1, 8192 // mean)
    axis = torch.linspace(-5.0, 5.0, 50, dtype=dtype).expand(batch, 50)
    galaxies, constant = torch.randn(batch, mean, dtype=dtype), -torch.rand(batch, mean, dtype=dtype)

    def factor() -> torch.Tensor:
        distance = axis[:, :, None] - galaxies[:, None, :]
        return torch.addcmul(constant[:, None, :], distance, distance, value=-0.5).exp_()

    def run() -> None:
        for _ in range(round(n_galaxies / (batch * mean))):
            torch.bmm(factor(), factor().transpose(1, 2))

    return run


def seconds(work: Callable[[], object]) -> np.ndarray:
    """Wall and processor seconds."""
    start, busy = time.perf_counter(), time.process_time()
    work()
    return np.array([time.perf_counter() - start, time.process_time() - busy])


def least(work: Callable[[], object], turns: int = 3) -> np.ndarray:
    """Smallest wall and smallest processor seconds of a few turns."""
    return np.min([seconds(work) for _ in range(turns)], 0)


def pair(name: str, values: np.ndarray) -> dict[str, float]:
    """Entries of wall and processor time."""
    return {name: float(values[0]), f"{name}_processor": float(values[1])}


def both(row: dict[str, Any], name: str, digits: int = 0) -> str:
    """Wall and, in brackets, processor time of a row."""
    return f"{row[name]:.{digits}f} ({row[name + '_processor']:.{digits}f})"


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clusters", type=int, default=2000)
    parser.add_argument("--scipy-clusters", type=int, default=100, help="clusters that scipy is timed on")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--mocks", action="store_true", help="mock clusters instead of synthetic ones")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs/results/kde"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    if options.mocks:
        points, offsets = mocks(options.clusters, options.seed)
    else:
        points, offsets = synthetic(options.clusters, np.random.default_rng(options.seed))
    n_clusters, n_galaxies = len(offsets) - 1, len(points)
    few = offsets[: options.scipy_clusters + 1]
    n_few = int(few[-1])
    ragged = torch.tensor(offsets)

    encoders = {
        case: KDEEncoder(convention=case[0], normalisation="density", narrow=case[2]) for case in CASES
    }
    data = {dtype: torch.tensor(points, dtype=dtype) for dtype in (torch.float32, torch.float64)}
    factors = {"covariance": 0.15**0.5, "scipy": 0.15}
    floors = {dtype: floor(n_galaxies, n_clusters, dtype) for dtype in data}
    never = np.full(2, np.inf)
    best_scipy = dict.fromkeys(factors, never)
    best = dict.fromkeys(CASES, never)
    best_floor = dict.fromkeys(data, never)
    any_encoder = next(iter(encoders.values()))
    for _ in range(options.turns):
        for convention, h0 in factors.items():
            taken = seconds(lambda h0=h0: scipy_images(points[:n_few], few, h0, any_encoder))
            best_scipy[convention] = np.minimum(best_scipy[convention], taken / n_few)
        for case, encoder in encoders.items():
            taken = least(lambda e=encoder, x=data[case[1]]: e(x, ragged))
            best[case] = np.minimum(best[case], taken / n_galaxies)
        for dtype, run in floors.items():
            best_floor[dtype] = np.minimum(best_floor[dtype], least(run) / n_galaxies)

    rows = []
    for case, encoder in encoders.items():
        convention, dtype, narrow = case
        exact = data[dtype][:n_few].double().numpy()
        expected = scipy_images(exact, few, factors[convention], encoder)
        kept = KDEEncoder(convention=convention, normalisation="density", narrow="keep")
        images = kept(data[dtype][:n_few], torch.tensor(few)).double().numpy()
        error = (np.abs(images - expected).max((1, 2)) / expected.max((1, 2))).max()
        rows.append(
            {
                "convention": convention,
                "dtype": str(dtype).removeprefix("torch."),
                "narrow": narrow,
                **pair("scipy_ns_per_galaxy", 1e9 * best_scipy[convention]),
                **pair("ns_per_galaxy", 1e9 * best[case]),
                **pair("ratio", best_scipy[convention] / best[case]),
                **pair("floor_ns_per_galaxy", 1e9 * best_floor[dtype]),
                **pair("times_the_floor", best[case] / best_floor[dtype]),
                "largest_error_over_peak": error,
                "target": 80 if case[:2] == ("covariance", torch.float32) else 35,
            }
        )
    source = provenance(options.seed)
    lines = [
        header(
            f"Kernel density, {n_clusters} clusters, {n_galaxies} galaxies, 50 x 50 bins, h0 = 0.15", source
        ),
        "Wall time; in brackets processor time, of all threads together.\n",
        "| H | precision | narrow kernels | scipy [ns/galaxy] | ours [ns/galaxy] | **ratio** | target "
        "| floor [ns/galaxy] | ours / floor | largest error / peak |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {'h0 Sigma' if row['convention'] == 'covariance' else 'h0^2 Sigma'} | {row['dtype']} "
            f"| {row['narrow']} | {both(row, 'scipy_ns_per_galaxy')} | {both(row, 'ns_per_galaxy')} "
            f"| **{row['ratio']:.0f}** ({row['ratio_processor']:.0f}) | {row['target']} "
            f"| {both(row, 'floor_ns_per_galaxy')} | {both(row, 'times_the_floor', 1)} "
            f"| {row['largest_error_over_peak']:.1e} |"
        )
    print("\n".join(lines))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    options.out.with_suffix(".json").write_text(
        json.dumps({**source, "rows": rows}, indent=1) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()

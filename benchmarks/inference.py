"""From galaxies to a table of masses: clusters a second, beside one cluster at a time with scipy.

    python -m benchmarks.inference [--clusters 8192] [--galaxies 60] [--repeats 5] [--threads 2]

A catalogue in memory goes through `bayesflowmass.infer.infer`: kernel density, flow, quantiles, moments,
flags, table. The reference does for each cluster what a script would: `scipy.stats.gaussian_kde` on the grid,
one forward pass, quantiles and moments of that PDF on a grid. Weights are random: they cost the same. The model of
galaxies also writes who is a member (`infer_members`); no script does that, so it has no reference.
Reported are the minima over the repeats, taken turn by turn in one process; the processor time of all
threads together stands beside the wall time.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from bayesflowmass.catalog import CatalogMetadata, ClusterCatalog
from bayesflowmass.encoders import ContextEncoder, Encoder, KDEEncoder, SetEncoder
from bayesflowmass.estimator import MassEstimator, TrainingInfo
from bayesflowmass.flows import build_flow
from bayesflowmass.infer import infer, infer_members
from benchmarks.provenance import header, provenance

TARGET, GALAXIES_TARGET = 3000.0, 1500.0
GALAXIES = "galaxies: five kernels at each, three blocks, with memberships"
# Clusters of the slow reference.
FEW = 32

MODELS = {
    "paper: one kernel, three affine blocks": (
        (("covariance",), "mean"),
        ("affine", {"hidden": (512, 64, 512)}),
    ),
    "default: two kernels, shared trunk, affine + spline": (
        (("covariance", "scipy"), "sqrt"),
        ("affine+spline", {"hidden": (512, 256, 256), "shared": True, "activation": "gelu"}),
    ),
}


def clusters(n: int, n_galaxies: int, seed: int = 0) -> ClusterCatalog:
    """Gaussian clusters of about `n_galaxies` each in the cylinder, ragged."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(n_galaxies, n).clip(10)
    total = int(counts.sum())
    sigma = np.repeat(10.0 ** rng.uniform(2.4, 3.0, n), counts)
    radius, angle = 1.6 * rng.random(total), rng.uniform(0.0, 2.0 * np.pi, total)
    return ClusterCatalog.from_arrays(
        {
            "cluster_id": np.arange(n),
            "redshift": np.full(n, 0.117),
            "log10_mass": rng.uniform(13.2, 15.6, n),
        },
        {
            "x": radius * np.cos(angle),
            "y": radius * np.sin(angle),
            "v_los": (sigma * rng.normal(size=total)).clip(-2400.0, 2400.0),
        },
        counts,
        CatalogMetadata(
            kind="contaminated", mode="paper", selection={"r_max": 1.6, "v_max": 2500.0, "min_galaxies": 10}
        ),
    )


def model(name: str, catalog: ClusterCatalog, device: str = "cpu") -> MassEstimator:
    encoder: Encoder
    if name == GALAXIES:
        encoder = SetEncoder()
        given = {"kind": "affine+spline", "loc": 14.4, "scale": 0.3, "hidden": (128,)}
        flow = build_flow(**encoder.flow_arguments(given))
        return MassEstimator(encoder, flow, TrainingInfo.from_catalog(catalog, uses_richness=True), device)
    (conventions, scaling), (kind, options) = MODELS[name]
    encoder = ContextEncoder([KDEEncoder(convention=c) for c in conventions], scaling=scaling)
    flow = build_flow(kind, encoder.context_dim, 14.4, 0.3, **options)
    return MassEstimator(encoder, flow, TrainingInfo.from_catalog(catalog, uses_richness=False), device)


@torch.no_grad()
def one_at_a_time(estimator: MassEstimator, catalog: ClusterCatalog) -> list[tuple[float, ...]]:
    """The reference: loops over clusters, scipy and a grid."""
    kdes = estimator.encoder.kdes
    centres = [axis.numpy() for axis in (kdes[0].grid.nodes(0), kdes[0].grid.nodes(1))]
    mesh = np.stack([axis.ravel() for axis in np.meshgrid(*centres, indexing="ij")])
    mass = torch.linspace(12.5, 16.5, 401, dtype=torch.float64)
    rows = []
    for i in range(len(catalog)):
        one = catalog[i]
        points = np.stack([one.r_proj, one.galaxies("v_los")])
        images = []
        for kde in kdes:
            factor = 0.15 if kde.convention == "scipy" else 0.15**0.5
            image = stats.gaussian_kde(points, bw_method=factor)(mesh)
            images.append(image / image.sum())
        context = torch.from_numpy(np.concatenate(images)).float()[None]
        pdf = estimator.flow.condition(context).log_prob(mass[:, None]).exp()[:, 0].numpy()
        cdf = np.cumsum(pdf) / pdf.sum()
        mean = float((mass.numpy() * pdf).sum() / pdf.sum())
        rows.append((mean, *np.interp([0.025, 0.16, 0.5, 0.84, 0.975], cdf, mass.numpy())))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clusters", type=int, default=8192)
    parser.add_argument("--galaxies", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="also write OUT.md and OUT.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    catalog = clusters(arguments.clusters, arguments.galaxies)
    lines = [
        "| model | prior | clusters/s | x one at a time | processor [ms/cluster] |",
        "|---|---|---|---|---|",
    ]
    results = []
    for name in (*MODELS, GALAXIES):
        estimator = model(name, catalog)
        to_table: Callable[..., Any] = infer_members if name == GALAXIES else infer
        to_table(estimator, catalog[:256])
        fast: dict[str, list[float]] = {"flat": [], "hmf": []}
        busy: dict[str, list[float]] = {prior: [] for prior in fast}
        slow: list[float] = []
        for _ in range(arguments.repeats):
            for prior, seconds in fast.items():
                start, processor = time.perf_counter(), time.process_time()
                to_table(estimator, catalog, prior=prior)
                seconds.append((time.perf_counter() - start) / len(catalog))
                busy[prior].append((time.process_time() - processor) / len(catalog))
            if name == GALAXIES:
                continue
            start = time.perf_counter()
            one_at_a_time(estimator, catalog[:FEW])
            slow.append((time.perf_counter() - start) / FEW)
        for prior, seconds in fast.items():
            rate = 1.0 / min(seconds)
            ratio = min(slow) * rate if slow else None
            spent = 1e3 * min(busy[prior])
            beside = "-" if ratio is None else f"{ratio:.0f}"
            lines.append(f"| {name} | {prior} | {rate:.0f} | {beside} | {spent:.2f} |")
            results.append(
                {
                    "model": name,
                    "prior": prior,
                    "clusters_per_second": rate,
                    "ratio": ratio,
                    "processor_ms_per_cluster": spent,
                }
            )
            print(f"{name}, {prior} prior: {rate:.0f} clusters/s, {beside} x one at a time", flush=True)
    print(f"target: {TARGET:.0f} clusters/s (paper model, flat prior, 60 galaxies, two cores)")
    if arguments.out is not None:
        told = provenance(0)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        text = (
            header("Inference: galaxies to table", told)
            + f"\n{arguments.galaxies} galaxies a cluster, {arguments.threads} threads; target {TARGET:.0f} "
            f"clusters/s for the paper's model with the flat prior, {GALAXIES_TARGET:.0f} for galaxies.\n\n"
        )
        arguments.out.with_suffix(".md").write_text(text + "\n".join(lines) + "\n", encoding="utf-8")
        arguments.out.with_suffix(".json").write_text(
            json.dumps(told | {"results": results}, indent=1), encoding="utf-8"
        )


if __name__ == "__main__":
    main()

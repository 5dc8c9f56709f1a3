"""p(log10 mass, ln concentration | galaxies) on mocks, which know both: one density beside the product of two.

    python -m benchmarks.joint_targets

Pure clusters; the context is ten numbers of each (how many galaxies, quantiles of their radii, speeds inside and
outside of the median radius). The joint density is a `JointFlow` of two of Pyro's autoregressive splines; the product
is two of them, each of one number, with as many hidden units together.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyro.distributions.transforms as transforms
import torch
from torch import Tensor

from bayesflowmass import bayes
from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.flows import JointFlow
from bayesflowmass.mocks import simulate_catalog
from benchmarks.provenance import header, provenance

OUT = Path(__file__).resolve().parents[1] / "docs/results/joint_targets.md"
N_TRAIN, N_TEST, N_DRAWS = 3000, 1000, 200


def context_of(catalog: ClusterCatalog) -> Tensor:
    """Numbers of each cluster, (n, 10), not standardised."""
    rows = []
    x, y, v = (np.asarray(catalog.galaxies(name)) for name in ("x", "y", "v_los"))
    for start, stop in zip(catalog.offsets[:-1], catalog.offsets[1:], strict=True):
        radius = np.hypot(x[start:stop], y[start:stop])
        speed = abs(v[start:stop] - np.median(v[start:stop]))
        inner = radius <= np.median(radius)
        parts = [len(radius), *np.quantile(radius, [0.1, 0.25, 0.5, 0.75, 0.9])]
        parts += [np.sqrt(np.mean(speed[where] ** 2)) for where in (inner, ~inner)]
        parts += [np.mean(radius), np.mean(radius[np.argsort(speed)[: len(speed) // 2]])]
        rows.append(parts)
    return torch.tensor(np.log(np.maximum(rows, 1e-3)), dtype=torch.float32)


def targets_of(catalog: ClusterCatalog) -> Tensor:
    """log10 M200c [Msun/h] and ln c200c, (n, 2)."""
    both = [catalog.column("log10_mass"), np.log(catalog.column("concentration"))]
    return torch.tensor(np.stack(both, -1), dtype=torch.float32)


def flow_of(y: Tensor, context_dim: int, hidden: int) -> JointFlow:
    """Splines of as many numbers as y has, the second after turning their order."""
    d = y.shape[-1]
    make = transforms.conditional_spline_autoregressive if d > 1 else transforms.conditional_spline
    parts = [make(d, context_dim, hidden_dims=[hidden, hidden]) for _ in range(2)]
    if d > 1:
        parts.insert(1, transforms.Permute(torch.tensor([1, 0])))
    return JointFlow(parts, y.mean(0), y.std(0))


def one_seed(seed: int, steps: int) -> dict[str, float]:
    """Log scores [nats] and coverage of one set of mocks."""
    train = simulate_catalog(N_TRAIN, kind="pure", seed=2 * seed)
    test = simulate_catalog(N_TEST, kind="pure", seed=2 * seed + 1)
    raw = context_of(train)
    centre, width = raw.mean(0), raw.std(0)
    x, x_test = ((each - centre) / width for each in (raw, context_of(test)))
    y, y_test = targets_of(train), targets_of(test)
    torch.manual_seed(seed)
    options = {"method": "point", "steps": steps, "learning_rate": 3e-3, "seed": seed}
    joint = bayes.fit(flow_of(y, x.shape[1], 32), (x, y), **options)
    apart = [bayes.fit(flow_of(y[:, [k]], x.shape[1], 16), (x, y[:, [k]]), **options) for k in (0, 1)]
    score = joint.log_prob(y_test, x_test)
    product = sum(fit.log_prob(y_test[:, [k]], x_test) for k, fit in enumerate(apart))
    gain = score - product
    drawn = torch.stack([joint.predict(x_test, n_draws=1, seed=k)[0] for k in range(N_DRAWS)])
    with torch.no_grad():
        density = torch.stack([joint.log_prob(each, x_test) for each in drawn])
    # Highest-density regions: the share of draws that are more likely than the truth is uniform.
    level = (density > score).double().mean(0)
    ranks = (drawn < y_test).double().mean(0)
    away = drawn - drawn.mean(0)
    correlation = (away.prod(-1).mean(0) / away.std(0, correction=0).prod(-1)).mean()
    found = {
        "log score, joint": float(score.mean()),
        "log score, product": float(product.mean()),
        "gain": float(gain.mean()),
        "its standard error": float(gain.std() / N_TEST**0.5),
        "correlation in a PDF": float(correlation),
    }
    for p in (0.68, 0.95):
        found[f"joint region of {p:.0%}"] = float((level < p).double().mean())
        for k, name in enumerate(("mass", "concentration")):
            found[f"{name}, interval of {p:.0%}"] = float(((ranks[:, k] - 0.5).abs() < p / 2).double().mean())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=500)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [one_seed(seed, arguments.steps) for seed in range(arguments.seeds)]
    lines = [
        header("Mass and concentration together", provenance(0)),
        f"p(log10 M, ln c | d) of {N_TEST} pure mock clusters, by networks trained on {N_TRAIN} others by maximum "
        "likelihood. Product: two densities of one number each. Coverage over test clusters has a standard error of "
        f"{(0.68 * 0.32 / N_TEST) ** 0.5:.3f} (68 %) and {(0.95 * 0.05 / N_TEST) ** 0.5:.3f} (95 %).\n",
        "| | " + " | ".join(f"seed {seed}" for seed in range(len(rows))) + " |",
        "|---" * (len(rows) + 1) + "|",
    ]
    lines += [f"| {key} | " + " | ".join(f"{row[key]:.3f}" for row in rows) + " |" for key in rows[0]]
    OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()

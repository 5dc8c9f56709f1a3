"""Members of real clusters that share galaxies: what a model says of the galaxies of the Shapley concentration.

    python -m benchmarks.shared_galaxies --data ../shared/data --out docs/results/shared_galaxies

The cylinders of A3556, A3558 and A3562 overlap in the survey, and each cluster is judged without knowledge of the
others, at its own mean velocity. A galaxy is inside R_vir of one of two neighbours whose spheres do not touch, so
that its two probabilities should not sum to more than one; nothing in the model makes them do so. Writes OUT.md and
the cluster card of A3556 as OUT.png and OUT.pdf. No truth is known: this is a check of sense, not of calibration.
"""

from __future__ import annotations

import argparse
from itertools import combinations
from pathlib import Path

import numpy as np

from bayesflowmass.estimator import MassEstimator
from bayesflowmass.estimator.shipped import choose_model
from bayesflowmass.evaluation.cards import cluster_cards
from bayesflowmass.infer import infer_members
from bayesflowmass.plots.style import save_figure
from benchmarks.provenance import header, provenance
from benchmarks.real_sky.data import shapley

SHOWN = "A3556"


def main() -> None:
    """Both tables of the five clusters, the page, and a card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="sky_galaxies")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/shared_galaxies"))
    options = parser.parse_args()
    estimator = MassEstimator.load(choose_model(options.model), "cpu")
    catalog = shapley(estimator, options.data)
    masses, members = infer_members(estimator, catalog, model=options.model)
    lines = [
        header("Galaxies of two clusters of the Shapley concentration", provenance(None)),
        "| cluster | galaxies | log10 M200c [Msun/h] | expected members |",
        "|---|---|---|---|",
    ]
    for row in masses:
        n = int((members["cluster_id"] == row["cluster_id"]).sum())
        lines.append(
            f"| {row['cluster_id']} | {n} | {row['log10_mass']:.2f} ± {row['sigma']:.2f} |"
            f" {row['n_members']:.0f} ± {row['n_members_err']:.0f} |"
        )
    lines += [
        "",
        "Galaxies in the cylinders of both of two clusters: mean probability of being a member of the first, of the"
        " second, and mean and 90 % quantile of the sum.",
        "",
        "| clusters | galaxies | first | second | sum | 90 % of the sums below |",
        "|---|---|---|---|---|---|",
    ]
    of = {
        str(name): {
            (float(row["ra"]), float(row["dec"]), float(row["z"])): float(row["p_member"])
            for row in members[members["cluster_id"] == name]
        }
        for name in masses["cluster_id"]
    }
    for first, second in combinations(of, 2):
        both = sorted(of[first].keys() & of[second].keys())
        if both:
            p = np.array([[of[name][galaxy] for name in (first, second)] for galaxy in both])
            cells = [f"{x:.2f}" for x in (*p.mean(axis=0), p.sum(1).mean(), np.quantile(p.sum(1), 0.9))]
            lines.append(f"| {first}, {second} | {len(both)} | " + " | ".join(cells) + " |")
    one = catalog.filter(np.asarray(catalog.column("cluster_id")) == SHOWN)
    for card in cluster_cards(estimator, one, model=options.model):
        save_figure(card, options.out)
    lines += ["", f"![Card of {SHOWN}: galaxies coloured by their probability]({options.out.name}.png)"]
    options.out.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()

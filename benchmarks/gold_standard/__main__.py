"""Every weight posterior against exact sampling: five data sets with a gap, networks of one and two hidden layers.

All methods get the same clusters, the same normal prior with fan-in scales and the same likelihood (`problems.py`), in
double precision; ensembles have a freedom besides that Bayes' theorem does not know: their initialisations. The
reference is `reference.py`, which has to be run first where its file is not there.

    python -m benchmarks.gold_standard

Rows that docs/results/gold_standard.json has are kept, so that a run that was killed goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesflowmass.bayes.choice import choose
from bayesflowmass.bayes.layout import WeightLayout
from bayesflowmass.common.files import write_whole
from bayesflowmass.estimator.weight_draws import condition_draws
from bayesflowmass.flows import ConditionalFlow
from benchmarks.gold_standard.methods import PRIOR, ROWS, Cell, Predict
from benchmarks.gold_standard.problems import N_CONTEXTS, N_TEST, NETWORKS, OUT, PROBLEMS, REGIONS
from benchmarks.gold_standard.tried import TRIED
from benchmarks.provenance import header, provenance

TEST_SEED = 12345
NUTS = OUT.with_name(f"{OUT.name}_nuts.npz")
ALL = ROWS | TRIED
INSIDE, GAP = 0.10, 0.25
"""Goals: W1 inside, in predictive standard deviations; relative error of the epistemic one in the gap."""


def reference(cell: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays of the reference by name, and what is known of it."""
    with np.load(NUTS, allow_pickle=False) as file:
        arrays = {name.partition("/")[2]: file[name] for name in file.files if name.startswith(f"{cell}/")}
        return arrays, json.loads(str(file["found"]))


def as_draws(flow: ConditionalFlow, weights: Any) -> dict[str, Tensor]:
    """Draws of the flow from vectors (D, P)."""
    return WeightLayout(flow, choose(flow, "all")).split(torch.from_numpy(weights))


def log_joint(cell: Cell, draws: dict[str, Tensor]) -> Tensor:
    """log p(data | w) + log p(w), (D,), as this package has it."""
    flow, (context, mass) = cell.flow(0), cell.data
    with torch.no_grad():
        likelihood = condition_draws(flow, draws, context).log_prob(mass).sum(-1)
    return likelihood + PRIOR.log_prob(draws, {name: p.shape for name, p in flow.named_parameters()})


def summary(cell: Cell, predict: Predict) -> dict[str, Any]:
    """As the reference has it: cdf (M, n), mean and epistemic sd (2, n), log density of each test cluster (N_TEST,)."""
    found = {}
    masses = torch.from_numpy(cell.problem.masses())[:, None, None]
    for region in REGIONS:
        x, mass = map(torch.from_numpy, cell.problem.clusters(N_TEST, TEST_SEED, region))
        mean, sd = predict(x)
        normal = torch.distributions.Normal(mean, sd)
        found[f"log_prob_{region}"] = (normal.log_prob(mass).logsumexp(0) - math.log(len(mean))).numpy()
        mean, sd = mean[:, :N_CONTEXTS], sd[:, :N_CONTEXTS]
        cdf = torch.stack([torch.special.ndtr((each - mean) / sd).mean(0) for each in masses])
        found[f"cdf_{region}"] = cdf.numpy()
        found[f"epistemic_{region}"] = torch.stack([mean.mean(0), mean.std(0, correction=0)]).numpy()
    return found


def whole(arrays: dict[str, Any]) -> dict[str, Any]:
    """The reference of all its draws, from its two halves."""
    found = {name: value for name, value in arrays.items() if name.startswith("log_prob")}
    for region in REGIONS:
        one, two = (arrays[f"epistemic_{region}_{half}"] for half in (0, 1))
        found[f"cdf_{region}"] = 0.5 * (arrays[f"cdf_{region}_0"] + arrays[f"cdf_{region}_1"])
        square = 0.5 * (one[1] ** 2 + two[1] ** 2) + 0.25 * (one[0] - two[0]) ** 2
        found[f"epistemic_{region}"] = np.stack([0.5 * (one[0] + two[0]), np.sqrt(square)])
    return found


def compare(cell: Cell, own: dict[str, Any], nuts: dict[str, Any]) -> dict[str, float]:
    """W1 in predictive standard deviations, ratio of epistemic ones, log score less that of NUTS [nats]."""
    masses, row = cell.problem.masses(), {}
    for region in REGIONS:
        ours, theirs = own[f"cdf_{region}"], nuts[f"cdf_{region}"]
        above = 1 - theirs
        mean = masses[0] + np.trapezoid(above, masses, axis=0)
        square = masses[0] ** 2 + 2 * np.trapezoid(above * masses[:, None], masses, axis=0)
        width = np.sqrt(square - mean**2)
        row[f"w1_{region}"] = float((np.trapezoid(abs(ours - theirs), masses, axis=0) / width).mean())
        epistemic = [np.sqrt((each[f"epistemic_{region}"][1] ** 2).mean()) for each in (own, nuts)]
        row[f"epistemic_{region}"] = float(epistemic[0])
        row[f"ratio_{region}"] = float(epistemic[0] / epistemic[1])
        if f"log_prob_{region}" in own:
            row[f"score_{region}"] = float((own[f"log_prob_{region}"] - nuts[f"log_prob_{region}"]).mean())
    return row


def noise(cell: Cell, arrays: dict[str, Any]) -> dict[str, float]:
    """A row of one half of the reference against the other."""
    halves = [{name[:-2]: value for name, value in arrays.items() if name.endswith(f"_{h}")} for h in (0, 1)]
    return compare(cell, *halves)


def meets(row: dict[str, float]) -> tuple[bool, bool]:
    """Whether a row of one cell reaches the goals inside and in the gap."""
    return row["w1_inside"] < INSIDE, abs(row["ratio_gap"] - 1) < GAP


def fit_rows(cell: Cell, names: list[str], seed: int, rows: dict[str, Any]) -> Iterator[None]:
    """Add the rows that are missing, one after the other."""
    nuts, point, training = whole(reference(cell.name)[0]), None, 0.0
    for name in names:
        if name in rows:
            continue
        if point is None:
            began = time.process_time()
            point = cell.point(seed)
            training = time.process_time() - began
        began = time.process_time()
        predict = ALL[name](cell, point, seed)
        seconds = time.process_time() - began
        rows[name] = compare(cell, summary(cell, predict), nuts) | {"cost": 1 + seconds / training}
        print(cell.name, name, {key: round(value, 3) for key, value in rows[name].items()}, flush=True)
        yield


def markdown(result: dict[str, Any]) -> str:
    """The tables, and what they stand on."""
    cells, found = result["cells"], result["nuts"]
    about = [found[name] for name in cells]
    lines = [
        header("Weight posteriors against exact sampling", result),
        f"NUTS: `{found['command']}`, numpyro {found['numpyro']}: over mean and log standard deviation at "
        f"{2 * N_CONTEXTS} contexts the largest R-hat of all cells is {max(f['r_hat'] for f in about):.3f}, the "
        f"smallest effective number of draws {min(f['effective_draws'] for f in about):.0f} of "
        f"{found['chains'] * found['samples']}; {sum(f['divergences'] for f in about)} divergences. Its log joint "
        f"density and this package's agree to {result['largest_difference_of_log_joint']:.0e} nats.\n",
        f"{len(cells)} cells: {', '.join(PROBLEMS)} ({', '.join(str(p.n_train) for p in PROBLEMS.values())} clusters), "
        f"each with a network of one and of two hidden layers ({', '.join(map(str, NETWORKS.values()))}). W1: "
        "Wasserstein distance of the predictive PDF from NUTS', in standard deviations of NUTS' PDF, mean over "
        f"{N_CONTEXTS} contexts. Epistemic: root mean square of the standard deviation over draws of the mean, over "
        f"NUTS'. **Goal: W1 inside below {INSIDE}, epistemic in the gap within {GAP:.0%} of NUTS'.** Log scores [nats] "
        f"of {N_TEST} new clusters, less NUTS'. Numbers are medians over cells, in brackets the least and the largest. "
        "Cost: processor time with the training of the point, in units of it; medians.\n",
        "| weights | W1 inside | W1 gap | epistemic inside / NUTS | in the gap | log score inside | in the gap | "
        "inside | gap | both | of cells | cost |",
        "|---" * 12 + "|",
    ]
    names = [
        name for name in ("NUTS, half against half", *ALL) if any(name in rows for rows in cells.values())
    ]
    for name in names:
        each = [rows[name] for rows in cells.values() if name in rows]
        text = [
            _spread([row[key] for row in each], form) if key in each[0] else ""
            for key, form in (
                ("w1_inside", ".3f"), ("w1_gap", ".3f"), ("ratio_inside", ".2f"), ("ratio_gap", ".2f"),
                ("score_inside", "+.3f"), ("score_gap", "+.3f"),
            )
        ]  # fmt: skip
        reached = [meets(row) for row in each]
        text += [
            f"{sum(r[0] for r in reached)}",
            f"{sum(r[1] for r in reached)}",
            f"**{sum(map(all, reached))}**",
            f"{len(each)}",
        ]
        text.append(f"{np.median([row['cost'] for row in each]):.0f}" if "cost" in each[0] else "")
        lines.append(f"| {name} | " + " | ".join(text) + " |")
    lines += [
        "",
        "Epistemic standard deviation in the gap over NUTS', cell by cell (1: one hidden layer, 2: two):\n",
    ]
    short = [
        f"{cell.partition(', ')[0]} {1 + list(NETWORKS).index(cell.partition(', ')[2])}" for cell in cells
    ]
    lines += ["| weights | " + " | ".join(short) + " |", "|---" * (len(short) + 1) + "|"]
    for name in names:
        values = [f"{rows[name]['ratio_gap']:.2f}" if name in rows else "" for rows in cells.values()]
        lines.append(f"| {name} | " + " | ".join(values) + " |")
    notes = OUT.with_name("notes_gold_standard.md")
    return "\n".join(lines) + "\n" + ("\n" + notes.read_text(encoding="utf-8") if notes.exists() else "")


def _spread(values: list[float], form: str) -> str:
    return f"{np.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0, help="of the fits")
    parser.add_argument("--updates", type=int, default=400, help="of the training loop; bounds take more")
    parser.add_argument(
        "--rows", nargs="*", default=list(ALL), metavar="ROW", help="to fit; none: the tables alone"
    )
    parser.add_argument("--anew", action="store_true", help="do not keep the rows that the results have")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = OUT.with_suffix(".json")
    known = json.loads(table.read_text(encoding="utf-8")).get("cells", {}) if table.is_file() else {}
    cells, differences = {}, []
    for name in (f"{problem}, {network}" for problem in PROBLEMS for network in NETWORKS):
        arrays, found = reference(name)
        cell = Cell(name, arguments.updates)
        cells[cell] = {} if arguments.anew else dict(known.get(name, {}))
        cells[cell]["NUTS, half against half"] = noise(cell, arrays)
        theirs, draws = torch.from_numpy(arrays["log_joint"]), as_draws(cell.flow(0), arrays["weights"])
        differences.append(float((log_joint(cell, draws) - theirs).abs().max()))
    result = {
        **provenance(arguments.seed),
        "nuts": found,
        "largest_difference_of_log_joint": max(differences),
        "cells": {cell.name: rows for cell, rows in cells.items()},
    }

    def write() -> None:
        write_whole(table, json.dumps(result, indent=1) + "\n")
        write_whole(OUT.with_suffix(".md"), markdown(result))

    write()
    for cell, rows in cells.items():
        for _ in fit_rows(cell, arguments.rows, arguments.seed, rows):
            write()
    print(markdown(result))


if __name__ == "__main__":
    main()

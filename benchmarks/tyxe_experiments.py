"""The experiments with which TyXe (Ritter & Karaletsos 2022) shows itself, by `bayes.fit` alone.

    python -m benchmarks.tyxe_experiments

Conjugate regression, whose posterior is exact; regression with a gap between two clusters of inputs (the data of
Foong et al. 2019 as TyXe draws them), beside NUTS; and variational continual learning (Nguyen et al. 2018), the
posterior after one task the prior of the next, on scikit-learn's digits. Seeds: data 0; trainings 0, 1, 2.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from bayesflowmass import bayes
from bayesflowmass.plots.style import COLOURS, journal_style
from benchmarks.provenance import header, provenance

DOCS = Path(__file__).resolve().parents[1] / "docs"
OUT, FIGURE = DOCS / "results/tyxe_experiments.md", DOCS / "figures/gap.png"
SEEDS = (0, 1, 2)
N_DRAWS = 400
NOISE = 0.3
STEPS = 300
SAMPLERS: dict[str, dict[str, Any]] = {
    "sghmc": {"method": "sghmc", "warmup": 50, "samples": 100},
    "NUTS": {"method": "nuts", "chains": 2, "warmup": 200, "samples": 200},
}
ALL: dict[str, dict[str, Any]] = {
    "variational, mean field": {"which": "all", "guide": "mean_field"},
    "variational, eigenbasis": {"which": "all"},
    "Laplace": {"method": "laplace", "which": "all", "relative_precision": 1.0},
    "linearised Laplace": {"method": "linearised", "relative_precision": 1.0},
    "ensemble of 5": {"method": "ensemble:5"},
}


def seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """The network that ``make`` gives with this seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


# (a) conjugate


def regression(n: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    """Correlated inputs (n, 3), y (n,) and the weights behind them, the last of which is the bias."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.tensor([[1.0, 0.8, 0.0], [0.0, 0.6, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    x = torch.randn(n, 3, generator=generator, dtype=torch.float64) @ mix + 0.5
    truth = torch.tensor([0.5, -0.3, 0.2, 0.1], dtype=torch.float64)
    y = x @ truth[:3] + truth[3] + NOISE * torch.randn(n, generator=generator, dtype=torch.float64)
    return x, y, truth


def exact_posterior(features: Tensor, y: Tensor, scale: Tensor, noise: float) -> tuple[Tensor, Tensor]:
    """Mean (P,) and covariance (P, P) of weights under N(0, scale^2)."""
    covariance = torch.linalg.inv(features.T @ features / noise**2 + torch.diag(scale**-2))
    return covariance @ features.T @ y / noise**2, covariance


def conjugate() -> list[str]:
    """Rows of weights, mean +- standard deviation of each, beside the exact ones."""
    x, y, _ = regression()
    features = torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], 1)
    scale = torch.tensor([3**-0.5] * 3 + [1.0], dtype=torch.float64)
    mean, covariance = exact_posterior(features, y, scale, NOISE)
    sd = covariance.diagonal().sqrt()
    names = ("w1", "w2", "w3", "b")
    lines = [
        "| posterior | " + " | ".join(names) + " | mean, off by [sd] | sd / exact |",
        "|---|" + "---|" * 6,
    ]
    cells = " | ".join(f"{m:+.3f} ± {s:.3f}" for m, s in zip(mean, sd, strict=True))
    lines.append(f"| exact | {cells} | | |")
    whole = {"variational, full covariance": {"which": "all", "guide": "full_covariance"}}
    for label, options in (whole | ALL | SAMPLERS).items():
        net = seeded(lambda: nn.Linear(3, 1).double(), 0)
        posterior = bayes.fit(
            net,
            (x, y),
            likelihood=lambda f: dist.Normal(f.squeeze(-1), NOISE),
            learning_rate=0.02,
            steps=600,
            **options,
        )
        draws = posterior.draw(4000, seed=0)
        flat = torch.cat([draws["net.weight"][:, 0], draws["net.bias"]], -1)
        ratio = flat.std(0) / sd
        cells = " | ".join(f"{m:+.3f} ± {s:.3f}" for m, s in zip(flat.mean(0), flat.std(0), strict=True))
        off = float(((flat.mean(0) - mean) / sd).abs().max())
        lines.append(
            f"| {label} | {cells} | {off:.2f} | {float(ratio.min()):.2f} to {float(ratio.max()):.2f} |"
        )
    return lines


# (b) gap


def gap_data() -> tuple[Tensor, Tensor]:
    """x (100, 1) in two clusters, y = cos(4 x + 0.8) with noise of 0.1, (100,)."""
    generator = torch.Generator().manual_seed(0)
    left = torch.rand(50, 1, generator=generator) * 0.3 - 1.0
    right = torch.rand(50, 1, generator=generator) * 0.5 + 0.5
    x = torch.cat([left, right])
    return x, (4.0 * x[:, 0] + 0.8).cos() + 0.1 * torch.randn(100, generator=generator)


REGIONS = {
    "inside": ((-1.0, -0.7), (0.5, 1.0)),
    "in the gap": ((-0.5, 0.3),),
    "outside": ((-1.5, -1.2), (1.2, 1.5)),
}
# Short, for the price of a leapfrog step in Python: look at R-hat.
SHORT = {"method": "nuts", "chains": 2, "warmup": 100, "samples": 100, "max_tree_depth": 6}
PARTS: dict[str, dict[str, Any]] = {
    "variational, first layer alone": {"which": "0.*", "guide": "mean_field"},
    "variational, last layer alone": {"which": "2.*"},
}


def gap(figure: Path, noise: float = 0.1) -> list[str]:
    """Epistemic standard deviation of each method in three regions, and a figure of some."""
    x, y = gap_data()
    grid = torch.linspace(-1.6, 1.6, 161).unsqueeze(-1)
    regions = {
        name: sum((grid[:, 0] >= a) & (grid[:, 0] <= b) for a, b in parts).bool() for name, parts in REGIONS.items()
    }  # fmt: skip
    lines = [
        "| posterior | sd of f inside | in the gap | outside | in the gap / inside | mean, off by [sd of NUTS] |"
        " processor [s] |",
        "|---|---|---|---|---|---|---|",
    ]
    found: dict[str, tuple[Tensor, Tensor]] = {}
    reference = None
    for label, options in {"NUTS": SHORT, "sghmc": SAMPLERS["sghmc"], **ALL, **PARTS}.items():
        rows = []
        for seed in SEEDS if label != "NUTS" else SEEDS[:1]:
            net = seeded(lambda: nn.Sequential(nn.Linear(1, 50), nn.Tanh(), nn.Linear(50, 1)), seed)
            begin = time.process_time()
            posterior = bayes.fit(
                net,
                (x, y),
                likelihood=lambda f: dist.Normal(f.squeeze(-1), noise),
                prior=1.0,
                seed=seed,
                **options,
            )
            spent = time.process_time() - begin
            f = posterior.outputs(grid, N_DRAWS, seed=0).squeeze(-1)
            mean, sd = f.mean(0), f.std(0)
            if reference is None:
                reference = mean, sd
                worst = posterior.weights.describe()["largest_r_hat"]
            widths = [float(sd[where].square().mean().sqrt()) for where in regions.values()]
            away = ((mean - reference[0]) / reference[1])[~regions["outside"]].square().mean().sqrt()
            rows.append([*widths, widths[1] / widths[0], float(away), spent])
            found.setdefault(label, (mean, sd))
        cells = [_middle(column) for column in zip(*rows, strict=True)]
        lines.append(f"| {label} | {' | '.join(cells[:-1])} | {np.median([row[-1] for row in rows]):.1f} |")
    lines.append(f"\nLargest R-hat of NUTS, of the log likelihood of each example: {worst:.3f}.")
    draw_gap(grid, found, x, y).savefig(figure, dpi=150)
    return lines


def _middle(values: tuple[float, ...]) -> str:
    low, middle, high = np.quantile(values, [0.0, 0.5, 1.0])
    return f"{middle:.3f}" if len(values) == 1 else f"{middle:.3f} ({low:.3f} to {high:.3f})"


def draw_gap(grid: Tensor, found: Mapping[str, tuple[Tensor, Tensor]], x: Tensor, y: Tensor) -> Figure:
    """Mean and two standard deviations of the function, six methods."""
    shown = [
        "NUTS",
        "sghmc",
        "linearised Laplace",
        "ensemble of 5",
        "variational, mean field",
        "variational, last layer alone",
    ]
    with journal_style():
        figure = Figure(figsize=(7.0, 4.0), layout="constrained")
        for ax, label in zip(figure.subplots(2, 3, sharex=True, sharey=True).flat, shown, strict=True):
            mean, sd = found[label]
            ax.fill_between(grid[:, 0], mean - 2 * sd, mean + 2 * sd, color=COLOURS["blue"], alpha=0.3, lw=0)
            ax.plot(grid[:, 0], mean, color=COLOURS["blue"], lw=1.0)
            ax.plot(grid[:, 0], (4 * grid[:, 0] + 0.8).cos(), color=COLOURS["black"], lw=0.6, ls="--")
            ax.plot(x[:, 0], y, ".", ms=2, color=COLOURS["vermillion"])
            ax.set(ylim=(-3, 3), title=label)
        figure.supxlabel("x")
        figure.supylabel("f(x)")
    return figure


# (c) continual learning


def tasks(seed: int) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Digits 0 or 1, 2 or 3, ...: training x (n, 64) and y, test x and y of each; a third is for testing."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise SystemExit("The digits are those of scikit-learn: pip install '.[benchmarks]'.") from None
    digits = load_digits()
    x, y = torch.tensor(digits.data / 16.0, dtype=torch.float32), torch.tensor(digits.target)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    found = []
    for first in range(0, 10, 2):
        rows = order[(y[order] == first) | (y[order] == first + 1)]
        cut = len(rows) // 3
        test, train = rows[:cut], rows[cut:]
        found.append((x[train], y[train] - first, x[test], y[test] - first))
    return found


FIRST: dict[str, Any] = {
    "maximum likelihood": 100.0,
    "maximum a posteriori": 1.0,
    "maximum a posteriori about the last weights": 1.0,
    "variational continual learning": 1.0,
}
"""The prior of the first task; one of 100 is none, as far as 240 digits can tell."""


def next_prior(method: str, posterior: bayes.Posterior, one_head: bool) -> Any:
    """The prior of the task after one that ended with this posterior."""
    if method.startswith("variational"):
        return posterior.as_prior()
    if not method.endswith("last weights"):
        return FIRST[method]
    kept = {
        name: dist.Normal(value.detach().clone(), 0.1)
        for name, value in posterior.net.named_parameters()
        if one_head or name.startswith("0.")
    }
    return kept if one_head else kept | {"*": dist.Normal(0.0, 1.0)}


def one_sequence(method: str, seed: int, one_head: bool) -> list[float]:
    """Accuracy on each task after the last: one body for all, and one head for all or a head for each."""
    net: Any = seeded(lambda: nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 2)), seed)
    new_head, heads, prior = deepcopy(net[2].state_dict()), [], FIRST[method]
    options: dict[str, Any] = {"method": "point"}
    if method.startswith("variational"):
        options = {"which": "all" if one_head else "0.*", "guide": "mean_field", "freeze": False}
    data = tasks(seed)
    for x, y, _, _ in data:
        if not one_head:
            net[2].load_state_dict(new_head)
        posterior = bayes.fit(
            net, (x, y), likelihood=lambda f: dist.Categorical(logits=f), prior=prior, seed=seed, steps=STEPS,
            learning_rate=5e-3, **options,
        )  # fmt: skip
        heads.append(deepcopy(net[2].state_dict()))
        prior = next_prior(method, posterior, one_head)
    found = []
    for head, (_, _, x, y) in zip(heads, data, strict=True):
        if not one_head:
            net[2].load_state_dict(head)
        share = posterior.outputs(x, 50 if "which" in options else 1).softmax(-1).mean(0)
        found.append(float((share.argmax(-1) == y).double().mean()))
    return found


def continual() -> list[str]:
    """Rows of accuracies, mean and standard deviation over seeds."""
    pairs = " | ".join(f"{k} or {k + 1}" for k in range(0, 10, 2))
    lines = [f"| accuracy after the last task [%] | heads | {pairs} | all |", "|---|" + "---|" * 7]
    for one_head in (False, True):
        for method in FIRST:
            found = np.array([one_sequence(method, seed, one_head) for seed in SEEDS])
            both = np.concatenate([found, found.mean(1, keepdims=True)], 1)
            moments = zip(both.mean(0), both.std(0, ddof=1), strict=True)
            cells = " | ".join(f"{100 * m:.1f} ± {100 * s:.1f}" for m, s in moments)
            lines.append(f"| {method} | {'one' if one_head else 'five'} | {cells} |")
    return lines


def main(argv: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=OUT, help="page; its tables are kept beside it as JSON")
    parser.add_argument("--figure", type=Path, default=FIGURE)
    parser.add_argument(
        "--only", choices=["conjugate", "gap", "continual"], help="run one anew, keep the others"
    )
    args = parser.parse_args(argv)
    kept = args.out.with_suffix(".json")
    found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    parts: dict[str, Callable[[], list[str]]] = {
        "conjugate": conjugate,
        "gap": lambda: gap(args.figure),
        "continual": continual,
    }
    for name, run in parts.items():
        if args.only in (None, name):
            found[name] = {"lines": run(), "source": provenance(0)}
            kept.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    args.out.write_text(page(found), encoding="utf-8")
    return 0


def page(found: Mapping[str, Any]) -> str:
    """The page of the parts that were run."""
    latest = max((part["source"] for part in found.values()), key=lambda source: source["date"])
    text = (
        header("TyXe's experiments", latest | {"command": "python -m benchmarks.tyxe_experiments"})
        + INTRODUCTION
    )
    for name, section in SECTIONS.items():
        if name in found:
            text += section.format(table="\n".join(found[name]["lines"]))
        else:
            text += f"\nThe part '{name}' was not run yet: `python -m benchmarks.tyxe_experiments --only {name}`.\n"
    return text


INTRODUCTION = """
[TyXe](https://github.com/TyXe-BDL/TyXe) (Ritter & Karaletsos 2022) shows itself by regressions and by variational
continual learning. Here are experiments of the same kind by the five lines of [bayes.md](../bayes.md); TyXe itself
was not run. Seeds: data 0, trainings 0, 1, 2.
"""
SECTIONS = {
    "conjugate": """
**Conjugate.** Linear regression on 40 examples with correlated inputs and known noise: the posterior is normal.
Weights as mean ± standard deviation, from 4000 draws (400 of the samplers).

{table}

An ensemble of maxima has no width where there is one maximum. The mean field is too narrow along correlated
weights, as it must be; the other forms hold the posterior, within the noise of the draws and of the last steps.
""",
    "gap": """
**Gap.** 100 examples of y = cos(4 x + 0.8) with noise of 0.1, half in -1 < x < -0.7 and half in 0.5 < x < 1; a
network of 50 hidden units under the prior N(0, 1). Root mean square of the epistemic standard deviation inside, in
the middle of the gap (-0.5 to 0.3) and outside (0.2 to 0.5 beyond the data); medians of three trainings, in
brackets the least and the largest.

{table}

NUTS was run too shortly to have converged (an R-hat above 1.1 says so): a guide and no standard; standards are in
[gold_standard.md](gold_standard.md). Beside it `sghmc` has the gap, linearised Laplace two thirds of it, variational
posteriors a fifth to two fifths; over more than the last layer they are too wide where there are data. Laplace over
all weights fails.

![The function with two epistemic standard deviations, by posterior](../figures/gap.png)
""",
    "continual": """
**Continual learning.** scikit-learn's digits in five tasks, 0 or 1, 2 or 3, and so on, one after the other; a
network of 100 hidden units. The body is common; the head is either new for each task ("five", as in TyXe) or one
for all, which says whether a digit is odd. Variational continual learning gives each fit
`prior=posterior.as_prior()`, of the task before; no example of a past task is kept. Accuracy on a third of the
digits, mean ± standard deviation of three seeds.

{table}

With one head the network must remember: the posterior as a prior keeps what earlier tasks taught (83 to 97 %, where
maximum likelihood keeps 53 to 88 %) and pays with the newest task (64 % where the others reach 91 to 99 %). Over
all tasks it is ahead of the next, a maximum about the last weights, by no more than seeds scatter. With a head for
each task there is little to forget: maximum likelihood, whose training stops after 300 steps, loses a few per cent,
and the posterior gains nothing over all tasks. A prior about zero pulls the body away from what it knew.
""",
}

if __name__ == "__main__":
    raise SystemExit(main())

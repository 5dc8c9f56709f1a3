"""Amplitude and slope of the mass function from about a thousand clusters, and whether the truth is recovered.

Each simulation draws ln A and the slope b from their priors, then a Poisson number of haloes from the mass
function times A 10^(b (m - pivot)), and shows their galaxies to the models where there are ten or more.
Nothing is reused between simulations: haloes of the plain mass function, in a volume larger by c, are thinned
with probability A 10^(b (m - pivot)) / c, which is again a Poisson process, of the tilted one. The selection,
P(>= 10 galaxies | m), is estimated on other mocks. The posterior of (ln A, b) is tabulated
(`bayesflowmass.hierarchical.mass_function`), for each model and for draws of the weights that all clusters share.

    python -m benchmarks.mass_function --kind contaminated --out docs/results/mass_function

trains what --work lacks: --members models, each on its own mocks (configs/quick.yaml with a wider range of
masses), about three minutes each on one core; a simulation costs some seconds. --model NAME=FOLDER adds
models that are already there, such as variational ones. Writes OUT.md and OUT.json.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import integrate, stats

from bayesflowmass.cosmology import mass_function
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.evaluation import posteriors
from bayesflowmass.hierarchical.likelihood import MassLikelihood
from bayesflowmass.hierarchical.mass_function import MassFunctionModel, selection_seen
from bayesflowmass.mocks import simulate_catalog
from bayesflowmass.selection.probability import SelectionProbability
from bayesflowmass.train import main as train
from benchmarks.provenance import header, provenance

# Of each kind: masses of the training set, masses of the population. With members alone the selection ends the
# sample; in a cylinder, interlopers select nearly every halo, and the population has to end by itself.
RANGES = {"contaminated": ((12.6, 15.6), (13.2, 15.6)), "pure": ((12.6, 15.6), (12.8, 15.6))}
REDSHIFT, MIN_GALAXIES, STEP = 0.117, 10, 0.01
PRIOR_SCALE = (0.3, 0.25)
LN_AMPLITUDES = torch.linspace(-4.5 * PRIOR_SCALE[0], 4.5 * PRIOR_SCALE[0], 361, dtype=torch.float64)[:, None]
SLOPES = torch.linspace(-4.5 * PRIOR_SCALE[1], 4.5 * PRIOR_SCALE[1], 241, dtype=torch.float64)
LEVELS = (0.68, 0.95)


@dataclass(frozen=True)
class Survey:
    """A volume whose plain mass function gives `n_clusters` selected clusters on average."""

    kind: str
    grid: torch.Tensor
    volume: float
    pivot: float
    selection: torch.Tensor

    @classmethod
    def plan(cls, kind, n_clusters, n_mocks, seed):
        """Estimates the selection on `n_mocks` haloes, flat in mass."""
        low, high = RANGES[kind][1]
        nodes = 2 * round((high - low) / (2 * STEP)) + 1
        grid = torch.linspace(low, high, nodes, dtype=torch.float64)
        mocks = haloes(n_mocks, kind, (low, high), "flat", seed)
        found = SelectionProbability(
            mocks.column("log10_mass"), mocks.column("redshift"), mocks.n_galaxies >= MIN_GALAXIES
        )
        at = np.clip(grid.numpy(), *found.log10_mass_range)
        selection = found(at, REDSHIFT)
        density = np.asarray(mass_function(grid.numpy(), REDSHIFT)) * selection
        total = integrate.simpson(density, x=grid.numpy())
        mean = integrate.simpson(density * grid.numpy(), x=grid.numpy()) / total
        return cls(kind, grid, n_clusters / total, round(float(mean), 2), torch.from_numpy(selection))

    def model(self, selection=None):
        reference = np.log(self.volume * np.asarray(mass_function(self.grid.numpy(), REDSHIFT)))
        return MassFunctionModel(
            self.grid,
            torch.from_numpy(reference),
            self.selection if selection is None else selection,
            pivot=self.pivot,
            prior_scale=PRIOR_SCALE,
        )

    def observe(self, truth, rng):
        """Clusters with enough galaxies, of a universe with ln A and b."""
        low, high = float(self.grid[0]), float(self.grid[-1])
        ln_amplitude, slope = truth
        ends = [ln_amplitude + math.log(10.0) * slope * (end - self.pivot) for end in (low, high)]
        excess = math.exp(max(ends))
        expected = self.volume * integrate.simpson(
            np.asarray(mass_function(self.grid.numpy(), REDSHIFT)), x=self.grid.numpy()
        )
        n = rng.poisson(expected * excess)
        catalog = haloes(n, self.kind, (low, high), "hmf", int(rng.integers(2**31)))
        mass = catalog.column("log10_mass")
        kept = np.exp(ln_amplitude) * 10.0 ** (slope * (mass - self.pivot)) / excess
        return catalog.filter((rng.random(len(catalog)) < kept) & (catalog.n_galaxies >= MIN_GALAXIES))


def haloes(n, kind, log10_mass_range, masses, seed):
    """Clusters around `n` haloes, those without any galaxy left out."""
    catalog = simulate_catalog(
        n,
        masses=masses,
        log10_mass_range=log10_mass_range,
        kind=kind,
        redshift=REDSHIFT,
        min_galaxies=1,
        seed=seed,
    )
    # It fills up with further haloes what had no galaxy at all; the number of haloes is part of the experiment.
    return catalog.filter(catalog.column("halo_id") < n)


def trained(work, kind, n_members, overrides):
    """Models of quick.yaml on mocks of their own, trained where they are missing."""
    members = {}
    low, high = RANGES[kind][0]
    for seed in range(1, n_members + 1):
        folder = work / f"{kind}_{seed}"
        if not (folder / "model.json").is_file():
            flags = ["--config", "quick.yaml", "--out", str(folder), "--seed", str(seed), "--resume"]
            flags += ["--simulate.kind", kind, "--simulate.log10-mass-range", str(low), str(high)]
            if train([*flags, "--no-progress", *overrides]) != 0:
                raise SystemExit(f"training of '{folder}' failed")
        members[f"point, seed {seed}"] = MassEstimator.load(folder)
    return members


def marginals(density):
    """Of a density (a, b) on the grid of amplitudes and slopes: nodes, cdf, mean and sd of each parameter."""
    result = []
    for axis, nodes in ((1, LN_AMPLITUDES[:, 0].numpy()), (0, SLOPES.numpy())):
        p = density.sum(axis).numpy()
        p = p / p.sum()
        cdf = integrate.cumulative_trapezoid(p, nodes, initial=0.0)
        mean = float(p @ nodes)
        result.append((nodes, cdf / cdf[-1], mean, math.sqrt(float(p @ (nodes - mean) ** 2))))
    return result


def record(density, truth, **extra):
    """What is kept of one posterior: rank of the truth, mean and sd, for both parameters."""
    rows = []
    for (nodes, cdf, mean, sd), value in zip(marginals(density), truth, strict=True):
        rows.append({"rank": float(np.interp(value, nodes, cdf)), "mean": mean, "sd": sd})
    return {"ln_amplitude": rows[0], "slope": rows[1], **extra}


def normalised(log_density):
    return (log_density - log_density.logsumexp((-2, -1), keepdim=True)).exp()


def seen_by(estimator, mocks, n_haloes, grid):
    """`selection_seen` of one model, from selected mocks that are flat over its training range."""
    blocks = (
        MassLikelihood(batch.posterior).on_grid(grid)
        for batch in posteriors(estimator, mocks, clusters_at_once=1000)
        if batch.posterior is not None
    )
    return selection_seen(blocks, n_haloes, estimator.training_info.log10_mass_range)


def of_draws(log_posterior, truth, name):
    """Both ways of averaging over draws (draws, a, b): data that judge the draws, and data that do not."""
    evidence = log_posterior.logsumexp((1, 2))
    share = (evidence - evidence.logsumexp(0)).exp()
    effective = float(1.0 / (share**2).sum())
    judged = normalised(log_posterior.logsumexp(0))
    return {
        f"{name}, draw latent": record(judged, truth, effective_draws=effective),
        f"{name}, draws equal": record(normalised(log_posterior).mean(0), truth),
    }


def one_simulation(survey, members, others, seen, truth, rng, n_draws=None):
    """Posteriors of one universe under every model: name -> record."""
    catalog = survey.observe(truth, rng)
    model, naive = survey.model(), survey.model(torch.ones_like(survey.grid))
    known = -0.5 * ((survey.grid - torch.tensor(catalog.column("log10_mass"))[:, None]) / (2 * STEP)) ** 2
    exact = normalised(model.log_posterior(known, LN_AMPLITUDES, SLOPES))
    results = {"masses known": record(exact, truth)}
    posteriors, likelihoods = [], []
    for name, estimator in members.items():
        ln_l = MassLikelihood(estimator.posterior(catalog)).on_grid(survey.grid)
        likelihoods.append(ln_l)
        posteriors.append(model.log_posterior(ln_l, LN_AMPLITUDES, SLOPES))
        results[name] = record(normalised(posteriors[-1]), truth)
    control = naive.log_posterior(likelihoods[0], LN_AMPLITUDES, SLOPES)
    results["point, seed 1, selection ignored"] = record(normalised(control), truth)
    if len(members) > 1:
        results |= of_draws(torch.stack(posteriors), truth, f"ensemble of {len(members)}")
        blurred = torch.stack(likelihoods).logsumexp(0) - math.log(len(members))
        own = model.log_posterior(blurred, LN_AMPLITUDES, SLOPES)
        results[f"ensemble of {len(members)}, draws not shared"] = record(normalised(own), truth)
    if len(members) > 1 and seen:
        own = survey.model(torch.stack([seen[name] for name in members]))
        log_posterior = own.log_posterior(torch.stack(likelihoods), LN_AMPLITUDES, SLOPES)
        results |= of_draws(log_posterior, truth, f"ensemble of {len(members)}, selection as seen")
    for name, estimator in others.items():
        ln_l = MassLikelihood(estimator.posterior(catalog, n_draws=n_draws)).on_grid(survey.grid)
        log_posterior = model.log_posterior(ln_l, LN_AMPLITUDES, SLOPES)
        if ln_l.dim() == 3:
            results |= of_draws(log_posterior, truth, name)
        else:
            results[name] = record(normalised(log_posterior), truth)
    return len(catalog), results


def summary(records, truths):
    """Coverage with binomial errors, uniformity of ranks, bias, of the records of one model."""
    result = {}
    for i, name in enumerate(("ln_amplitude", "slope")):
        rank, mean, sd = (np.array([r[name][key] for r in records]) for key in ("rank", "mean", "sd"))
        pull = (mean - truths[:, i]) / sd
        entry = {
            "bias": float((mean - truths[:, i]).mean()),
            "bias_se": float((mean - truths[:, i]).std(ddof=1) / math.sqrt(rank.size)),
            "mean_sd": float(sd.mean()),
            "pull_mean": float(pull.mean()),
            "pull_sd": float(pull.std(ddof=1)),
            "ks_p": float(stats.kstest(rank, "uniform").pvalue),
            "rank_histogram": np.histogram(rank, np.linspace(0, 1, 11))[0].tolist(),
        }
        for level in LEVELS:
            share = float((np.abs(rank - 0.5) < 0.5 * level).mean())
            entry[f"coverage_{round(100 * level)}"] = share
            # At the nominal rate, so that a share of 1 has an error too.
            entry[f"coverage_{round(100 * level)}_se"] = math.sqrt(level * (1 - level) / rank.size)
        result[name] = entry
    effective = [r["effective_draws"] for r in records if "effective_draws" in r]
    if effective:
        result["effective_draws"] = float(np.mean(effective))
    return result


def table(results):
    lines = [
        "| model | parameter | sd | bias | pull sd | 68 % | 95 % | KS p |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for model, entry in results.items():
        for key, label in (("ln_amplitude", "ln A"), ("slope", "b")):
            e = entry[key]
            lines.append(
                f"| {model if key == 'ln_amplitude' else ''} | {label} | {e['mean_sd']:.3f} | "
                f"{e['bias']:+.3f} ± {e['bias_se']:.3f} | {e['pull_sd']:.2f} | "
                f"{100 * e['coverage_68']:.0f} ± {100 * e['coverage_68_se']:.0f} | "
                f"{100 * e['coverage_95']:.0f} ± {100 * e['coverage_95_se']:.0f} | {e['ks_p']:.2g} |"
            )
    return "\n".join(lines)


def named(text):
    """NAME=FOLDER."""
    name, equals, path = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"'{text}' should be NAME=FOLDER")
    return name, Path(path)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kind", choices=list(RANGES), default="contaminated")
    parser.add_argument("--members", type=int, default=5, help="models trained on their own mocks")
    parser.add_argument("--model", type=named, action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--n-draws", type=int, help="draws of the weights of each --model; default: its own")
    parser.add_argument(
        "--selection-as-seen", action="store_true", help="also with P(select | m) as each member sees it"
    )
    parser.add_argument("--n-simulations", type=int, default=200)
    parser.add_argument(
        "--n-clusters", type=int, default=1000, help="selected clusters expected at A = 1, b = 0"
    )
    parser.add_argument("--n-selection", type=int, default=40000, help="mock haloes for P(select | m)")
    parser.add_argument("--work", type=Path, default=Path("runs/mass_function"), help="models are kept here")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs/results/mass_function"), help="without suffix")
    arguments, overrides = parser.parse_known_args()
    start = time.monotonic()
    kind, seed = arguments.kind, arguments.seed
    members = trained(arguments.work, kind, arguments.members, overrides)
    others = {name: MassEstimator.load(folder) for name, folder in arguments.model}
    survey = Survey.plan(kind, arguments.n_clusters, arguments.n_selection, 90_000 + seed)
    seen = {}
    if arguments.selection_as_seen:
        n = arguments.n_selection
        mocks = haloes(n, kind, RANGES[kind][0], "flat", 91_000 + seed)
        mocks = mocks.filter(mocks.n_galaxies >= MIN_GALAXIES)
        seen = {name: seen_by(model, mocks, n, survey.grid) for name, model in members.items()}
    truths, sizes, records = [], [], []
    for k in range(arguments.n_simulations):
        rng = np.random.default_rng([seed, k])
        truths.append(np.array(PRIOR_SCALE) * rng.standard_normal(2))
        size, result = one_simulation(survey, members, others, seen, truths[-1], rng, arguments.n_draws)
        sizes.append(size)
        records.append(result)
        print(k, size, f"{time.monotonic() - start:.0f} s", flush=True)
    results = {name: summary([r[name] for r in records], np.array(truths)) for name in records[0]}
    source = provenance(seed)
    low, high = RANGES[kind][1]
    effective = "; ".join(
        f"{name}: {entry['effective_draws']:.1f}"
        for name, entry in results.items()
        if "effective_draws" in entry
    )
    text = "\n".join(
        [
            header(f"Mass function from {kind} clusters", source),
            f"{len(records)} universes of {np.mean(sizes):.0f} clusters on average ({min(sizes)} to {max(sizes)}), "
            f"log10 M = {low}-{high}, z = {REDSHIFT}, pivot {survey.pivot}; priors ln A ~ N(0, {PRIOR_SCALE[0]}), "
            f"b ~ N(0, {PRIOR_SCALE[1]}). P(select | m) from {arguments.n_selection} mock haloes: "
            f"{100 * float(survey.selection[0]):.0f} % at the lower limit. sd: mean width of the posterior; bias: "
            "posterior mean minus truth; pull sd: spread of that in units of the width (1 if the width is right); "
            "68 % and 95 %: how often the central interval holds the truth, with the binomial error at the "
            f"nominal rate; KS: ranks against uniform. {time.monotonic() - start:.0f} s in all.\n",
            table(results),
            f"\nEffective number of draws left by the data: {effective}." if effective else "",
        ]
    )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    stored = {
        **source,
        "pivot": survey.pivot,
        "results": results,
        "truths": np.array(truths).tolist(),
        "sizes": sizes,
    }
    stored["ranks"] = {
        name: [[r[name][key]["rank"] for key in ("ln_amplitude", "slope")] for r in records]
        for name in records[0]
    }
    arguments.out.with_suffix(".json").write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

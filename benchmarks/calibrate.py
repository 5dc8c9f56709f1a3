"""Does a survey find its own sky? ``bayesflowmass calibrate`` on mocks of known theta, and on SDSS clusters.

    python -m benchmarks.calibrate [--catalogues 100] [--data ../shared/data] [--out docs/results/calibrate]

Each catalogue has a theta of its own, drawn from the prior, and 100 clusters of the mass function above a limit
(``sz:14.2,0.1``) with ten galaxies at least. Beside the corrected masses stand those of the same model before (told
nothing, same prior, width with sigma_systematic), a shift of all masses of a catalogue by a number times its mean
estimate, the number fitted to forty other catalogues of known mass, and each cluster by itself: the same likelihood,
N included, averaged over the prior of theta. ``broken`` takes the selection for none (prior ``hmf``): coverage must
fail there. ``--learning`` compares likelihoods learnt from fewer mocks, with fewer updates. Finished catalogues are
kept in ``--work``.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import norm

from bayesflowmass.calibrate import calibrate
from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.evaluation import posterior_columns
from bayesflowmass.evaluation.survey_mocks import learn_or_read, summaries, survey_mocks, unknown_of
from bayesflowmass.hierarchical import SummaryLikelihood, SurveyModel
from bayesflowmass.mocks import simulate_catalog
from bayesflowmass.posterior import SelectedPrior, make_prior
from bayesflowmass.posterior.tabulated import Tabulated
from benchmarks.provenance import header, provenance
from benchmarks.real_sky.data import NotAvailable
from benchmarks.real_sky.samples import sdss, statistics

PRIOR, LEAST, CLUSTERS = "sz:14.2,0.1", 10, 100
# Catalogues from this number on are those that the shift is fitted to.
CONTROL = 1000
LEVELS = (0.68, 0.95)
# Mocks and updates that a likelihood is learnt from, the default last.
LEARNT = ((24_000, 3000), (24_000, 12_000), (96_000, 3000), (96_000, 12_000))


def survey_like() -> ClusterCatalog:
    """What is known of the survey: z = 0.05-0.12, complete to M_r = -19.5, errors of 30 km/s; its mode is not known."""
    two = simulate_catalog(2, mode="survey", seed=3).without("mode").with_metadata(mode="mixed")
    known = {"completeness": 1.0, "abs_mag_limit": -19.5, "sigma_v_err": 30.0, "aperture": 1.6}
    columns = {name: np.full(2, value) for name, value in known.items()}
    return two.with_columns(redshift=np.array([0.05, 0.12]), **columns)


def catalogue(
    estimator: MassEstimator, like: ClusterCatalog, theta: dict[str, float], prior: SelectedPrior, seed: int
) -> ClusterCatalog:
    """The first clusters of a universe of this theta that are selected."""
    fixed = {name: (value, value) for name, value in theta.items()}
    simulate = {"masses": "hmf", "log10_mass_range": (13.7, 15.6)}
    mocks, _ = survey_mocks(estimator, like, fixed, 1024, seed, simulate=simulate)
    mass, z = (np.asarray(mocks.column(name), dtype=np.float64) for name in ("log10_mass", "redshift"))
    kept = np.random.default_rng([seed, 7]).random(len(mass)) < prior.probability(mass, z)
    mocks = mocks.filter(kept & (mocks.n_galaxies >= LEAST))[:CLUSTERS]
    return mocks


def before(estimator: MassEstimator, clusters: ClusterCatalog, draws: int) -> dict[str, np.ndarray]:
    """Masses of the model as it is."""
    columns = {
        "median": lambda p, _: p.median,
        "sigma": lambda p, _: p.sigma,
        "pit": lambda p, part: p.cdf(part.column("log10_mass")),
    }
    return posterior_columns(estimator, clusters, columns, PRIOR, n_draws=draws)


@torch.no_grad()
def alone(model: SurveyModel, seed: int, n: int = 200) -> Tabulated:
    """Masses of each cluster by itself: theta averaged over its prior and what this one cluster says of it."""
    limits = torch.tensor(list(model.likelihood.priors.values()), dtype=torch.float64)
    unit = torch.quasirandom.SobolEngine(len(limits), scramble=True, seed=seed).draw(n, dtype=torch.float64)
    theta = limits[:, 0] + unit * (limits[:, 1] - limits[:, 0])
    weights = torch.stack([model.log_evidence(one) for one in theta]).softmax(0)
    return model.masses(theta, weights=weights)[0]


def of_density(density: Tabulated, truth: np.ndarray) -> dict[str, np.ndarray]:
    """Median, standard deviation and PIT."""
    half = torch.full((len(truth), 1), 0.5, dtype=torch.float64)
    return {
        "median": density.quantile(half)[:, 0].numpy(),
        "sigma": density.moments()[1].sqrt().numpy(),
        "pit": density.cdf_at(torch.tensor(truth)[:, None])[:, 0].numpy(),
    }


def one_catalogue(
    estimator: MassEstimator,
    like: ClusterCatalog,
    likelihood: SummaryLikelihood,
    seed: int,
    k: int,
    options: Any,
) -> dict[str, Any]:
    """theta and masses of a catalogue, found and true."""
    prior = make_prior(PRIOR, estimator.training_info.log10_mass_range, estimator.training_info.cosmology)
    assert isinstance(prior, SelectedPrior)
    rng = np.random.default_rng([seed, k])
    theta = {name: float(rng.uniform(*limits)) for name, limits in likelihood.priors.items()}
    clusters = catalogue(estimator, like, theta, prior, 10_000 * (seed + 1) + k)
    truth = np.asarray(clusters.column("log10_mass"), dtype=np.float64)
    t, z = summaries(estimator, clusters, LEAST), np.asarray(clusters.column("redshift"), dtype=np.float64)
    record: dict[str, Any] = {"theta": theta, "truth": truth.tolist(), "mean_estimate": float(t[:, 1].mean())}
    found = {"before": before(estimator, clusters, options.draws)}
    if k >= CONTROL:
        return record | {"masses": {"before": {key: x.tolist() for key, x in found["before"].items()}}}
    for name, population in (("after", prior), ("broken", make_prior("hmf", prior.log10_mass_range))):
        if name == "broken" and k >= options.broken:
            continue
        survey = SurveyModel(likelihood, t, z, population)
        draws = survey.sample(n_samples=options.samples, warmup=options.samples, chains=1, seed=k)[0]
        truths = torch.tensor(list(theta.values()), dtype=torch.float64)
        record[f"theta_{name}"] = {
            "mean": draws.mean(0).tolist(),
            "sd": draws.std(0).tolist(),
            "rank": (draws < truths).double().mean(0).tolist(),
        }
        found[name] = of_density(survey.masses(draws[::2], k)[0], truth)
        if name == "after":
            found["alone"] = of_density(alone(survey, k), truth)
    return record | {
        "masses": {name: {key: x.tolist() for key, x in one.items()} for name, one in found.items()}
    }


def shifted(records: list[dict[str, Any]], controls: list[dict[str, Any]]) -> float:
    """The number by which the mean estimate of a catalogue moves its masses, and the records with it."""
    level = np.mean([one["mean_estimate"] for one in controls])
    bias = [np.mean(np.subtract(one["masses"]["before"]["median"], one["truth"])) for one in controls]
    off = np.array([one["mean_estimate"] for one in controls]) - level
    slope = float(off @ bias / (off @ off))
    for one in records:
        old, move = one["masses"]["before"], slope * (one["mean_estimate"] - level) + float(np.mean(bias))
        median, sigma = np.asarray(old["median"]) - move, np.asarray(old["sigma"])
        # The PIT of a density moved as a whole: that of a Gaussian moves by as many sigmas.
        pit = norm.cdf(norm.ppf(np.clip(old["pit"], 1e-9, 1 - 1e-9)) + move / sigma)
        one["masses"]["shifted"] = {"median": median, "sigma": sigma, "pit": pit}
    return slope


def tables(records: list[dict[str, Any]], names: list[str]) -> dict[str, Any]:
    """Coverage of theta, and what the masses are worth."""
    result: dict[str, Any] = {"theta": {}, "masses": {}}
    for name in ("theta_after", "theta_broken"):
        of = [one for one in records if name in one]
        for j, parameter in enumerate(names if of else []):
            truth = np.array([one["theta"][parameter] for one in of])
            mean, sd, rank = (np.array([one[name][key][j] for one in of]) for key in ("mean", "sd", "rank"))
            entry = {"n": len(of), "bias": float((mean - truth).mean()), "sd": float(sd.mean())}
            entry |= {"rms": float(np.sqrt(np.mean((mean - truth) ** 2))), "prior_sd": float(truth.std())}
            entry |= {f"in_{round(100 * p)}": float((np.abs(rank - 0.5) < p / 2).mean()) for p in LEVELS}
            result["theta"][f"{parameter}, {name.split('_')[1]}"] = entry
    bias_of = [one["theta"]["velocity_bias"] for one in records]
    outer = np.abs(np.array(bias_of) - 1.025) > 0.0375
    for name in ("before", "shifted", "alone", "after", "broken"):
        for label, of in (("all", records), ("velocity bias in the outer half", np.array(records)[outer])):
            of = [one for one in of if name in one["masses"]]
            if len(of) < 2:
                continue
            residual = [np.subtract(one["masses"][name]["median"], one["truth"]) for one in of]
            pit = np.concatenate([one["masses"][name]["pit"] for one in of])
            mean, every = np.array([x.mean() for x in residual]), np.concatenate(residual)
            share = {
                p: [(np.abs(np.asarray(one["masses"][name]["pit"]) - 0.5) < p / 2).mean() for one in of]
                for p in LEVELS
            }
            result["masses"][f"{name}, {label}"] = {
                "n": len(of),
                "bias": float(mean.mean()),
                "bias_se": float(mean.std(ddof=1) / np.sqrt(len(of))),
                "rms_of_catalogue_bias": float(np.sqrt(np.mean(mean**2))),
                "scatter": float(np.sqrt(np.mean(every**2))),
                "squared_biases": [float(x) for x in mean**2],
                "squared_errors": [float(np.mean(x**2)) for x in residual],
                "sigma": float(np.mean(np.concatenate([one["masses"][name]["sigma"] for one in of]))),
                **{f"in_{round(100 * p)}": float((np.abs(pit - 0.5) < p / 2).mean()) for p in LEVELS},
                **{
                    f"in_{round(100 * p)}_se": float(np.std(share[p], ddof=1) / np.sqrt(len(of)))
                    for p in LEVELS
                },
            }
    return result


def learning(
    estimator: MassEstimator, like: ClusterCatalog, theta: dict[str, tuple[float, float]], seed: int
) -> list[dict[str, float]]:
    """What mocks and updates are worth: mean ln p(t) of other mocks above 10^14 Msun/h."""

    def mocks(n: int, of: int) -> tuple[torch.Tensor, ...]:
        made, values = survey_mocks(estimator, like, theta, n, of)
        columns = (np.asarray(made.column(name), dtype=np.float64) for name in ("redshift", "log10_mass"))
        return tuple(map(torch.tensor, (summaries(estimator, made, LEAST), *columns, values)))

    known, others = mocks(max(LEARNT)[0], seed), mocks(24_000, seed + 1)
    judged = others[0].isfinite().all(1) & (others[2] > 14.0)
    limits = estimator.training_info.log10_mass_range
    rows = []
    for n, updates in LEARNT:
        start = time.process_time()
        found = SummaryLikelihood.fit(
            *(x[:n] for x in known),
            priors=theta,
            least=LEAST,
            log10_mass_range=limits,
            n_updates=updates,
            seed=seed,
        )
        seconds = time.process_time() - start
        with torch.no_grad():
            value = float(found(*(x[judged] for x in others))[0].mean())
        rows.append({"mocks": n, "updates": updates, "log_p": value, "seconds": seconds})
        print(rows[-1], flush=True)
    return rows


def real(estimator: MassEstimator, data: Path, work: Path, seed: int, n_mocks: int) -> list[dict[str, Any]]:
    """SDSS clusters beside virial, X-ray and SZ masses, before and after."""
    samples = list(sdss(estimator, data))
    everyone = ClusterCatalog.concatenate([one.catalog for one in samples], samples[0].catalog.metadata)
    theta, choice = unknown_of(estimator, everyone), {"least": LEAST, "n_mocks": n_mocks, "seed": seed}
    likelihood = learn_or_read(work / "sdss", estimator, everyone, theta, report=print, **choice)
    rows = []
    for name, clusters, reference, prior, *_ in sorted(samples, key=lambda one: len(one.catalog)):
        print(name, len(clusters), flush=True)
        found = calibrate(estimator, clusters, prior=prior, likelihood=likelihood, chains=1, seed=seed)
        table, row = (
            found.table[found.used],
            {"sample": name, "prior": prior, "n_mocks": n_mocks, **found.summary()},
        )
        for label, end in (("before", "_before"), ("after", "")):
            mass, sigma = (
                np.asarray(table[f"{of}{end}"], dtype=np.float64) for of in ("log10_mass", "sigma")
            )
            row[label] = statistics(mass, sigma, reference[found.used])
        rows.append(row)
    return rows


def verdict(masses: dict[str, Any]) -> str:
    """Whether it beats the controls by two standard errors, in a sentence."""
    parts = []
    for key, what, square in (
        ("rms_of_catalogue_bias", "bias of a catalogue", "squared_biases"),
        ("scatter", "error of a cluster", "squared_errors"),
    ):
        value = {name: masses[f"{name}, all"][key] for name in ("before", "shifted", "alone", "after")}
        best = min(("before", "shifted", "alone"), key=lambda name: value[name])
        gain = np.subtract(masses[f"{best}, all"][square], masses["after, all"][square])
        # Two standard errors over catalogues, paired.
        word = "beats" if gain.mean() > 2.0 * gain.std(ddof=1) / np.sqrt(len(gain)) else "does not beat"
        parts.append(
            f"in the {what} (rms) it {word} the best control ({value['after']:.3f} dex, {best} {value[best]:.3f})"
        )
    n = masses["after, all"]["n"]
    few = f"{n} catalogues say nothing about coverage, and little else. " if n < 30 else ""
    return f"{few}Corrected by the survey itself: {'; '.join(parts)}."


def markdown(found: dict[str, Any], source: dict[str, Any]) -> str:
    """The page."""
    lines = [
        header("A survey's own sky", source),
        f"{verdict(found['masses'])}\n",
        f"{found['n']} catalogues of {CLUSTERS} mock clusters, prior {PRIOR}; {found['seconds']:.0f} s of processor"
        f" time a catalogue. Shift fitted to {found['controls']} other catalogues: {found['slope']:.2f} of the mean"
        " estimate.\n",
        "| theta | catalogues | bias | rms error | mean sd | sd of truths | 68 % | 95 % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, e in found["theta"].items():
        cells = [name, str(e["n"]), *(f"{e[key]:+.3f}" for key in ("bias",))]
        cells += [f"{e[key]:.3f}" for key in ("rms", "sd", "prior_sd")]
        cells += [
            f"{100 * e[f'in_{p}']:.0f} ± {100 * np.sqrt(p / 100 * (1 - p / 100) / e['n']):.0f}"
            for p in (68, 95)
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "\n| masses | catalogues | bias [dex] | rms of a catalogue's bias | rms error | mean sigma | 68 % | 95 % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, e in found["masses"].items():
        cells = [name, str(e["n"]), f"{e['bias']:+.3f} ± {e['bias_se']:.3f}"]
        cells += [f"{e[key]:.3f}" for key in ("rms_of_catalogue_bias", "scatter", "sigma")]
        cells += [f"{100 * e[f'in_{p}']:.1f} ± {100 * e[f'in_{p}_se']:.1f}" for p in (68, 95)]
        lines.append(f"| {' | '.join(cells)} |")
    if "learning" in found:
        lines += [
            "\nLikelihoods learnt from fewer mocks, with fewer updates: mean ln p of the summaries of 24 000 other"
            " mocks, those above 10^14 Msun/h. A survey of a hundred clusters sees a hundred times the difference.\n",
            "| mocks | updates | mean ln p | seconds of learning |",
            "|---|---|---|---|",
        ]
        for row in found["learning"]:
            lines.append(f"| {row['mocks']} | {row['updates']} | {row['log_p']:.3f} | {row['seconds']:.0f} |")
    for row in found.get("sdss", []):
        found_theta = (
            f"{name} {e['mean']:.3f} ± {e['sd']:.3f} (prior {e['prior'][0]:g} to {e['prior'][1]:g})"
            for name, e in row["theta"].items()
        )
        lines.append(
            f"\n{row['sample']}, prior {row['prior']}, {row['n_clusters']} clusters, {row['n_mocks']} mocks; theta:"
            f" {'; '.join(found_theta)}.\n"
        )
        lines += [
            "| masses | median of residual | scatter | slope | rank | sd of pull | in 68 % | in 95 % |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for label in ("before", "after"):
            e = row[label]
            cells = [label, f"{e['median']:+.3f}"]
            cells += [f"{e[key]:.3f}" for key in ("scatter", "slope", "rank", "pull_sd")]
            cells += [f"{100 * e[key]:.0f} %" for key in ("in_68", "in_95")]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="sky")
    parser.add_argument("--catalogues", type=int, default=100)
    parser.add_argument("--controls", type=int, default=40, help="catalogues that the shift is fitted to")
    parser.add_argument(
        "--broken", type=int, default=30, help="so many are also taken with a wrong selection"
    )
    parser.add_argument(
        "--samples", type=int, default=100, help="draws of theta, after as many for warming up"
    )
    parser.add_argument("--draws", type=int, default=4, help="draws of the weights, for the masses before")
    parser.add_argument("--n-mocks", type=int, default=96000)
    parser.add_argument("--learning", action="store_true", help="also what mocks and updates are worth")
    parser.add_argument("--data", type=Path, help="folder of real catalogues")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--page", action="store_true", help="make the page of the catalogues that are finished"
    )
    parser.add_argument("--work", type=Path, default=Path("runs/calibrate"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/calibrate"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    source, estimator, like = (
        provenance(options.seed),
        MassEstimator.load(options.model, "cpu"),
        survey_like(),
    )
    theta = unknown_of(estimator, like)
    choice = {"least": LEAST, "n_mocks": options.n_mocks, "seed": options.seed}
    numbers = [*range(CONTROL, CONTROL + options.controls), *range(options.catalogues)]
    paths = {k: options.work / f"catalogue_{k}.json" for k in numbers}
    if not options.page:
        likelihood = learn_or_read(
            options.work / "likelihood", estimator, like, theta, report=print, **choice
        )
        for k, path in paths.items():
            if not path.is_file():
                start = time.process_time()
                record = one_catalogue(estimator, like, likelihood, options.seed, k, options)
                record["seconds"] = time.process_time() - start
                path.write_text(json.dumps(record), encoding="utf-8")
                of_theta = {name: one for name, one in record.items() if name.startswith("theta")}
                print(k, of_theta, flush=True)
    records = {k: json.loads(p.read_text(encoding="utf-8")) for k, p in paths.items() if p.is_file()}
    tests, controls = ([one for k, one in records.items() if (k >= CONTROL) == of] for of in (False, True))
    found: dict[str, Any] = {"n": len(tests), "controls": len(controls), "slope": shifted(tests, controls)}
    found |= tables(tests, list(tests[0]["theta"]))
    found["seconds"] = float(np.mean([one["seconds"] for one in tests]))
    kept = options.work / "sdss.json"
    if options.data is not None and not kept.is_file():
        try:
            rows = real(estimator, options.data, options.work, options.seed, options.n_mocks)
            kept.write_text(json.dumps(rows), encoding="utf-8")
        except NotAvailable as error:
            print(error)
    learnt = options.work / "learning.json"
    if options.learning and not learnt.is_file():
        learnt.write_text(json.dumps(learning(estimator, like, theta, options.seed)), encoding="utf-8")
    if learnt.is_file():
        found["learning"] = json.loads(learnt.read_text(encoding="utf-8"))
    if kept.is_file():
        found["sdss"] = json.loads(kept.read_text(encoding="utf-8"))
    options.out.with_suffix(".md").write_text(markdown(found, source), encoding="utf-8")
    options.out.with_suffix(".json").write_text(json.dumps(source | found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

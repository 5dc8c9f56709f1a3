"""What the flagship comparison found: its sets, the verdict of the plan, detectors, costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from scipy.stats import rankdata

from bayesflowmass.comparison.statistics import Bin, Comparison, Method
from bayesflowmass.evaluation.files import read_predictions
from benchmarks.flagship.data import SPARSE_ABOVE
from benchmarks.flagship.studies import Study

__all__ = ["BAYESIAN", "BINS", "COVERAGES", "FINE", "LOWER", "MASSIVE", "SINGLE", "TITLES", "Verdict", "area", "costs",
           "detectors", "finished", "over_runs", "read_sets", "width"]  # fmt: skip

SINGLE = {
    "point": "point",
    "point_temperature": "point, temperature",
    "point_recalibrated": "point, recalibrated",
    "weight_decay": "weight decay, tuned",
    "long": "long",
    "best_of_10": "best of 10",
    "map": "MAP",
    "map_temperature": "MAP, temperature",
    "mean_of_q": "mean of q",
    "mean_of_q_temperature": "mean of q, temperature",
}
BAYESIAN = {
    "variational": "**variational (default)**",
    "ensemble_5": "ensemble of 5",
    "ensemble_10": "ensemble of 10",
    "mixture": "mixture of 3 variational",
}
TITLES = {
    "flat500": "500 flat",
    "thinned": "20 000, thinned 100 x above 14.7",
    "few_haloes": "2 000, 50 haloes above 14.7",
    "flat2000": "2 000 flat",
}
SCARCE = ("thinned", "few_haloes")
MASSIVE, LOWER = Bin(SPARSE_ABOVE, 15.4), Bin(14.0, SPARSE_ABOVE)
BINS = (Bin(14.0, 14.3), Bin(14.3, 14.7), Bin(14.7, 15.0), Bin(15.0, 15.4), LOWER, MASSIVE)
FINE = [Bin(round(14.0 + 0.1 * i, 1), round(14.1 + 0.1 * i, 1)) for i in range(14)]
LARGE_ERROR = 0.2
FEWEST = 5
"""Seeds of a set that the clock cut short: see *Departures* of the plan."""
COVERAGES = {"coverage_68": 0.68, "coverage_95": 0.95}


def finished(work: Path, name: str, study: Study) -> list[int]:
    """The seeds of a set that are done, if they are enough to be shown."""
    seeds = [seed for seed in study.seeds if (work / name / f"cell-{seed}.json").is_file()]
    return seeds if len(seeds) >= FEWEST else []


def read_sets(work: Path, study: Study) -> dict[str, Comparison]:
    """The sets that can be shown; differences are from the variational posterior."""
    halo = pq.read_table(work / "test.parquet", columns=["halo_id"])["halo_id"].to_numpy()
    index = np.unique(halo, return_inverse=True)[1]
    found = {}
    for name in study.sets:
        seeds = finished(work, name, study)
        methods = []
        for method in (*SINGLE, *BAYESIAN) if seeds else ():
            files = [work / name / f"{method}-{seed}" / "predictions.parquet" for seed in seeds]
            if all(file.is_file() for file in files):
                runs = tuple(read_predictions(f, str(s)) for f, s in zip(files, seeds, strict=True))
                methods.append(Method(method, runs))
        if methods:
            found[name] = Comparison(methods, index, "variational")
    return found


class Verdict:
    """One weight posterior of a set against the best of its single networks above 14.7, by the rule of the plan."""

    def __init__(self, comparison: Comparison, method: str) -> None:
        scores = {
            name: comparison.alone(name, "log_score", MASSIVE, "true").value
            for name in SINGLE
            if name in comparison.methods
        }
        self.best = max(scores, key=lambda name: scores[name])
        pair = [comparison.methods[name] for name in (self.best, method)]
        self.gain = Comparison(pair, comparison.halo, self.best).difference(
            method, "log_score", MASSIVE, "true"
        )
        self.coverage = {name: comparison.alone(method, name, MASSIVE, "predicted") for name in COVERAGES}
        self.better = self.gain.value > 2.0 * self.gain.error
        self.worse = self.gain.value < -2.0 * self.gain.error
        self.nominal = all(
            abs(self.coverage[name].value - level) < 2.0 * self.coverage[name].error
            for name, level in COVERAGES.items()
        )

    @property
    def wins(self) -> bool:
        return self.better and self.nominal


def costs(work: Path, name: str, study: Study) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Mean processor time of each method's trainings [s], and what each cell said."""
    files = [work / name / f"cell-{seed}.json" for seed in finished(work, name, study)]
    cells = [json.loads(file.read_text(encoding="utf-8")) for file in files]

    def mean(*prefixes: str) -> float:
        return float(
            np.mean(
                [
                    sum(t for key, t in c["processor_seconds"].items() if key.startswith(prefixes))
                    for c in cells
                ]
            )
        )

    point = mean("point")
    members = point + mean("member")
    found = {
        "point": point,
        "weight_decay": point + mean("decay"),
        "long": mean("long"),
        "best_of_10": members,
        "map": point + mean("map"),
        "variational": point + mean("variational"),
        "ensemble_10": members,
    }
    return found, cells


def area(score: np.ndarray, event: np.ndarray) -> float:
    """Area under the ROC curve: the probability that the score is larger where the event is; ties count half."""
    n, m = int(event.sum()), int((~event).sum())
    if n == 0 or m == 0:
        return float("nan")
    return float((rankdata(score)[event].sum() - n * (n + 1) / 2) / (n * m))


def detectors(comparison: Comparison, name: str) -> dict[str, dict[str, list[float]]]:
    """Areas[event][detector] over seeds; each detector is judged by the errors of its own model."""
    found: dict[str, dict[str, list[float]]] = {}
    for index in range(len(comparison.reference.runs)):
        for method, prefix in (
            ("variational", "variational"),
            ("ensemble_10", "ensemble"),
            ("point", "point"),
        ):
            if method not in comparison.methods:
                continue
            c = comparison.methods[method].runs[index].columns
            truth, epistemic = c["log10_mass_true"], c.get("sigma_epistemic")
            events = {
                f"error above {LARGE_ERROR} dex": np.abs(truth - c["log10_mass"]) > LARGE_ERROR,
                "truth outside 95 %": (truth < c["q025"]) | (truth > c["q975"]),
            }
            if name in SCARCE:
                events["true mass above 14.7"] = truth >= SPARSE_ABOVE
            scores = {"sigma": c["sigma"], "predicted mass": c["log10_mass"]}
            if method != "point" and epistemic is not None:
                aleatoric = np.sqrt(np.maximum(c["sigma"] ** 2 - epistemic**2, 0.0))
                scores = {
                    "epistemic": epistemic, "epistemic share": epistemic / c["sigma"],
                    "aleatoric": aleatoric, **scores,
                }  # fmt: skip
            for event, happened in events.items():
                for kind, score in scores.items():
                    key = f"{prefix}: {kind}"
                    found.setdefault(event, {}).setdefault(key, []).append(area(score, happened))
    return found


def width(comparison: Comparison, method: str, bin_: Bin) -> list[float]:
    """Mean epistemic standard deviation in a bin of true mass [dex], for each seed."""
    inside = bin_.holds(comparison.truth)
    return [float(run.columns["sigma_epistemic"][inside].mean()) for run in comparison.methods[method].runs]


def over_runs(comparison: Comparison, method: str, column: str) -> np.ndarray:
    return np.stack([run.columns[column] for run in comparison.methods[method].runs])

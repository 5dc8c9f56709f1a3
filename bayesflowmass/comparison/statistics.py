"""The numbers of a comparison: each method by itself, and each against the reference, by bins of mass.

Bins of *true* mass hold the same clusters for all models. In bins of *predicted* mass a method by itself is judged
on the clusters that it puts there. A difference of scores is taken over the clusters whose mean of the two medians
lies in the bin: both models on the same clusters, chosen without looking at the truth. A difference of coverage
is that of the two bins, each model's own.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from bayesflowmass.common.arrays import BoolArray, FloatArray, IntArray
from bayesflowmass.diagnostics.paired import (
    Estimate,
    Influence,
    crossed_estimate,
    mean_influence,
    scatter_influence,
)
from bayesflowmass.evaluation.files import StoredPredictions

Binning = Literal["true", "predicted"]

BINNINGS: tuple[Binning, ...] = ("true", "predicted")
MIN_HALOES = 20
"""A bin with fewer haloes is not judged: its standard errors mean nothing."""


@dataclass(frozen=True)
class Quantity:
    """Something that is measured of a model.

    Attributes:
        title: for tables.
        unit: "" where there is none.
        of: values of each cluster (n,), whose mean (or scatter) is taken.
        digits: after the point.
        nominal: what a calibrated model has, where that is a number.
        own_bins: by predicted mass, each model has the clusters that itself puts into the bin.
    """

    title: str
    unit: str
    of: Callable[[Mapping[str, FloatArray]], FloatArray]
    digits: int = 3
    nominal: float | None = None
    own_bins: bool = False


def _covered(low: str, high: str) -> Callable[[Mapping[str, FloatArray]], FloatArray]:
    def covered(columns: Mapping[str, FloatArray]) -> FloatArray:
        truth = columns["log10_mass_true"]
        return ((truth >= columns[low]) & (truth <= columns[high])).astype(np.float64)

    return covered


def _residual(columns: Mapping[str, FloatArray]) -> FloatArray:
    return columns["log10_mass_true"] - columns["log10_mass"]


def _share(columns: Mapping[str, FloatArray]) -> FloatArray:
    epistemic = columns.get("sigma_epistemic")
    if epistemic is None:
        return np.zeros_like(columns["sigma"])
    # Null for a point model, and so for its clusters.
    return np.nan_to_num(epistemic / columns["sigma"]) ** 2


QUANTITIES = {
    "log_score": Quantity("log score", "nats", lambda c: c["log_density"]),
    "crps": Quantity("CRPS", "dex", lambda c: c["crps"], 4),
    "coverage_68": Quantity("coverage 68 %", "%", _covered("q16", "q84"), 1, 0.68, own_bins=True),
    "coverage_95": Quantity("coverage 95 %", "%", _covered("q025", "q975"), 1, 0.95, own_bins=True),
    "width_68": Quantity("width of 68 %", "dex", lambda c: c["q84"] - c["q16"]),
    "mean_residual": Quantity("mean residual", "dex", _residual),
    "scatter": Quantity("scatter", "dex", _residual),
    "epistemic_share": Quantity("epistemic share", "", _share),
}
"""What is compared. Log score: mean ln of the density per dex at the truth, the higher the better; CRPS: the
lower the better; epistemic share: variance of the means over draws of the weights over that of the mixture."""


@dataclass(frozen=True)
class Bin:
    """low <= log10 M200c [Msun/h] < high."""

    low: float
    high: float

    @property
    def name(self) -> str:
        """Such as 14.0-14.3."""
        return "-".join(f"{x:.1f}" if round(x, 1) == x else f"{x:g}" for x in (self.low, self.high))

    def holds(self, log10_mass: FloatArray) -> BoolArray:
        return (log10_mass >= self.low) & (log10_mass < self.high)


def mass_bins(edges: Sequence[float]) -> list[Bin]:
    """The bins between neighbouring edges, and last the one that holds them all.

    Raises:
        ValueError: fewer than two edges, or they do not increase.
    """
    if len(edges) < 2 or any(a >= b for a, b in itertools.pairwise(edges)):
        raise ValueError(f"The edges of mass bins are {list(edges)}; expected at least two, increasing.")
    bins = [Bin(a, b) for a, b in itertools.pairwise(edges)]
    return bins if len(bins) == 1 else [*bins, Bin(edges[0], edges[-1])]


@dataclass(frozen=True)
class Method:
    """Runs of one method, all on the same clusters in one order."""

    label: str
    runs: tuple[StoredPredictions, ...]

    @property
    def bayesian(self) -> bool:
        return any(run.bayesian for run in self.runs)


class Comparison:
    """All numbers of methods on one catalogue.

    Args:
        methods: at least one, their runs aligned.
        halo: index of each cluster's halo, shape (n,), from zero.
        reference: label of the method that the others are compared with.
    """

    def __init__(self, methods: Sequence[Method], halo: IntArray, reference: str) -> None:
        self.methods = {method.label: method for method in methods}
        self.halo = halo
        self.reference = self.methods[reference]
        self.truth = methods[0].runs[0].columns["log10_mass_true"]

    @property
    def others(self) -> list[Method]:
        """All methods but the reference."""
        return [method for method in self.methods.values() if method is not self.reference]

    def alone(self, label: str, quantity: str, bin_: Bin, binning: Binning) -> Estimate:
        """A quantity of one method in one bin."""
        runs = self.methods[label].runs
        chosen = [bin_.holds(self.truth if binning == "true" else run.columns["log10_mass"]) for run in runs]
        seeds = [influence(run, quantity, inside) for run, inside in zip(runs, chosen, strict=True)]
        return self._estimate(seeds, chosen)

    def difference(self, label: str, quantity: str, bin_: Bin, binning: Binning) -> Estimate:
        """A quantity of one method minus that of the reference, in one bin, paired over seeds and clusters."""
        pairs = self._pairs(label)
        chosen = [self._chosen(run, other, quantity, bin_, binning) for run, other in pairs]
        seeds = [
            influence(run, quantity, here) - influence(other, quantity, there)
            for (run, other), (here, there) in zip(pairs, chosen, strict=True)
        ]
        return self._estimate(seeds, *zip(*chosen, strict=True))

    def distance_from_nominal(self, label: str, quantity: str, bin_: Bin, binning: Binning) -> Estimate:
        """|coverage - nominal| of one method minus that of the reference, coverages being means over seeds.

        Negative where the method is closer. The signs inside the absolute values are taken as known, which errs on the
        side of no difference: with both coverages nominal the error is that of the larger of their sum and difference.
        """
        nominal = QUANTITIES[quantity].nominal
        assert nominal is not None
        pairs = self._pairs(label)
        first, second, chosen = [], [], []
        for run, other in pairs:
            chosen.append(self._chosen(run, other, quantity, bin_, binning))
            first.append(influence(run, quantity, chosen[-1][0]))
            second.append(influence(other, quantity, chosen[-1][1]))
        signs = [np.sign(np.mean([i.value for i in side]) - nominal) or 1.0 for side in (first, second)]
        seeds = [
            a.scaled(signs[0], -signs[0] * nominal) - b.scaled(signs[1], -signs[1] * nominal)
            for a, b in zip(first, second, strict=True)
        ]
        return self._estimate(seeds, *zip(*chosen, strict=True))

    def n_pairs(self, label: str) -> int:
        """Number of pairs of runs in a difference."""
        return len(self._pairs(label))

    def count(self, bin_: Bin, label: str | None = None) -> int:
        """Clusters in a bin of true mass, or of the predicted mass of a method (mean over its runs)."""
        if label is None:
            return int(bin_.holds(self.truth).sum())
        counts = [int(bin_.holds(run.columns["log10_mass"]).sum()) for run in self.methods[label].runs]
        return round(sum(counts) / len(counts))

    def _pairs(self, label: str) -> list[tuple[StoredPredictions, StoredPredictions]]:
        return pair_runs(self.methods[label], self.reference)

    def _chosen(
        self, run: StoredPredictions, other: StoredPredictions, quantity: str, bin_: Bin, binning: Binning
    ) -> tuple[BoolArray, BoolArray]:
        if binning == "true":
            inside = bin_.holds(self.truth)
            return inside, inside
        medians = run.columns["log10_mass"], other.columns["log10_mass"]
        if QUANTITIES[quantity].own_bins:
            return bin_.holds(medians[0]), bin_.holds(medians[1])
        inside = bin_.holds(0.5 * (medians[0] + medians[1]))
        return inside, inside

    def _estimate(self, seeds: Sequence[Influence], *sides: Sequence[BoolArray]) -> Estimate:
        """With as many haloes as the side with the fewest has: one cluster on one side shows nothing."""
        chosen = [np.logical_or.reduce(side) for side in sides]
        found = crossed_estimate(seeds, self.halo, np.logical_or.reduce(chosen))
        return replace(found, n_haloes=min(np.unique(self.halo[rows]).size for rows in chosen))


def influence(run: StoredPredictions, quantity: str, inside: BoolArray) -> Influence:
    """A quantity of one run over some clusters."""
    values = QUANTITIES[quantity].of(run.columns)
    return scatter_influence(values, inside) if quantity == "scatter" else mean_influence(values, inside)


def pair_runs(method: Method, reference: Method) -> list[tuple[StoredPredictions, StoredPredictions]]:
    """Runs that are compared with each other: those of one seed; a single run with all of the other's.

    Raises:
        ValueError: several runs on both sides and no seed in common.
    """
    if len(method.runs) == 1 or len(reference.runs) == 1:
        n = max(len(method.runs), len(reference.runs))
        return [
            (method.runs[i % len(method.runs)], reference.runs[i % len(reference.runs)]) for i in range(n)
        ]
    others = {run.seed: run for run in reference.runs}
    pairs = [(run, others[run.seed]) for run in method.runs if run.seed in others]
    if not pairs:
        raise ValueError(
            f"The runs of '{method.label}' ({', '.join(r.seed for r in method.runs)}) and of '{reference.label}' "
            f"({', '.join(r.seed for r in reference.runs)}) have no seed in common; name folders METHOD-SEED, or list "
            "them in the same order as LABEL=RUN,RUN."
        )
    return pairs


def to_json(estimate: Estimate) -> dict[str, Any]:
    """An estimate as numbers and None."""

    def number(value: float | None) -> float | None:
        return None if value is None or not np.isfinite(value) else float(value)

    judged = estimate.n_haloes >= MIN_HALOES
    return {
        "value": number(estimate.value),
        "error": number(estimate.error) if judged else None,
        "error_haloes": number(estimate.error_haloes) if judged else None,
        "error_seeds": number(estimate.error_seeds) if judged else None,
        "n_haloes": estimate.n_haloes,
        "n_seeds": estimate.n_seeds,
    }


def section_numbers(comparison: Comparison, bins: Sequence[Bin]) -> dict[str, Any]:
    """All numbers of a comparison, JSON-able."""
    reference = comparison.reference.label
    methods, differences = {}, {}
    for label, method in comparison.methods.items():
        methods[label] = {
            "seeds": [run.seed for run in method.runs],
            "bayesian": method.bayesian,
            **{
                f"by_{binning}": [
                    {
                        "bin": bin_.name,
                        "log10_mass_range": [bin_.low, bin_.high],
                        "n": comparison.count(bin_, None if binning == "true" else label),
                        **{
                            name: to_json(comparison.alone(label, name, bin_, binning))
                            for name in QUANTITIES
                            if method.bayesian or name != "epistemic_share"
                        },
                    }
                    for bin_ in bins
                ]
                for binning in BINNINGS
            },
        }
    for method in comparison.others:
        differences[method.label] = {
            "n_pairs": comparison.n_pairs(method.label),
            **{
                f"by_{binning}": [
                    {"bin": bin_.name}
                    | {
                        name: to_json(comparison.difference(method.label, name, bin_, binning))
                        for name in QUANTITIES
                        if name != "epistemic_share"
                    }
                    | {
                        f"{name}_distance": to_json(
                            comparison.distance_from_nominal(method.label, name, bin_, binning)
                        )
                        for name, quantity in QUANTITIES.items()
                        if quantity.nominal is not None and binning == "predicted"
                    }
                    for bin_ in bins
                ]
                for binning in BINNINGS
            },
        }
    return {"reference": reference, "methods": methods, "differences": differences}

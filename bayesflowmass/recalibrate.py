"""Recalibrate a model on clusters of known mass: ``bayesflowmass recalibrate`` and :func:`recalibrate`.

``bayesflowmass recalibrate --model RUN --catalog cal.parquet --out RUN2`` writes the same model with a stored
recalibration, and ``recalibration.json``: what was fitted, and how uniform the PITs of the held-out part are before and
after (docs/recalibration.md).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bayesflowmass.command import run_command
from bayesflowmass.command.paths import InputPath, ModelPath, OutFolder
from bayesflowmass.command.record import write_record
from bayesflowmass.command.shared import DrawSettings
from bayesflowmass.common.arrays import BoolArray, FloatArray
from bayesflowmass.common.files import write_json
from bayesflowmass.common.terminal import say
from bayesflowmass.common.version import __version__

# The rest is imported where it is used: --help, and an error in the input, should not wait for torch.
if TYPE_CHECKING:
    from bayesflowmass.catalog import ClusterCatalog
    from bayesflowmass.estimator import MassEstimator
    from bayesflowmass.posterior import MassPosterior

__all__ = ["RecalibrateSettings", "main", "recalibrate"]


class RecalibrateSettings(DrawSettings):
    """`bayesflowmass recalibrate`: make stated probabilities come true on clusters of known mass."""

    model: ModelPath = Field(description="model folder, or the name of a shipped model")
    catalog: InputPath = Field(
        description="clusters with log10_mass that neither trained nor will test the model (parquet)"
    )
    out: OutFolder = Field(description="folder for the recalibrated model")
    prior: Literal["flat", "hmf"] | None = Field(
        None,
        description="prior on log10 mass; default: the population of the catalogue, and nothing else can be right",
    )
    conformal_fraction: float = Field(
        0.3, gt=0, lt=1, description="share of the haloes kept for conformal intervals and for the verdict"
    )
    bin_width: float = Field(0.25, ge=0.01, le=10, description="of the bins of predicted mass [dex]")
    min_count: int = Field(500, ge=100, description="fewest clusters of a bin; neighbours are merged")


def recalibrate(
    estimator: MassEstimator,
    catalog: ClusterCatalog,
    *,
    prior: str | None = None,
    conformal_fraction: float = 0.3,
    bin_width: float = 0.25,
    min_count: int = 500,
    n_draws: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> tuple[MassEstimator, dict[str, Any]]:
    """A model with a recalibration for the population of a catalogue, and what it does to clusters held out.

    Args:
        estimator: the model; what it was recalibrated for before stays, but for the same prior and limits.
        catalog: clusters with ``log10_mass`` that were not used in training and will not be in the test.
        prior: "flat" or "hmf"; default: the population of the catalogue.
        conformal_fraction: share of the haloes that the maps do not see: conformal levels and the report are theirs.
        bin_width: of the bins of the raw posterior median [dex]; neighbours are merged up to ``min_count`` clusters.
        min_count: of those that the maps are fitted to.
        n_draws, seed: of the weights; the seed is that of the split too.
        progress: show a bar.

    Returns:
        The model, and the content of ``recalibration.json``.

    Raises:
        CatalogError: there are no masses, or their population is unknown.
        ValueError: prior and population differ.
    """
    import torch

    from bayesflowmass.diagnostics import merged_edges
    from bayesflowmass.diagnostics.calibration import nominal_pair
    from bayesflowmass.evaluation.road import posterior_columns
    from bayesflowmass.recalibration import Recalibration

    population, limits = _population(estimator, catalog)
    prior = population if prior is None else prior
    nominal, statement = nominal_pair(population, prior)
    if not nominal:
        raise ValueError(
            f"{statement} A recalibration for it would only hide a change of prior; give --prior {population}, or a "
            "catalogue of the other population."
        )
    found = posterior_columns(
        estimator,
        catalog,
        {"pit": _pit, "predicted": lambda posterior, _: posterior.median},
        prior,
        n_draws=n_draws,
        seed=seed,
        log10_mass_range=limits,
        recalibrated=False,
        progress=progress,
        label="posteriors",
    )
    usable = np.isfinite(found["predicted"])
    catalog, pit, predicted = catalog.filter(usable), found["pit"][usable], found["predicted"][usable]
    halo = np.asarray(catalog.column("halo_id" if catalog.has("halo_id") else "cluster_id"))
    held_out = _held_out(catalog, halo, conformal_fraction, seed)
    edges = merged_edges(predicted[~held_out], bin_width, min_count)
    recalibration = Recalibration.fit(
        pit[~held_out],
        predicted[~held_out],
        halo[~held_out],
        held_out=(pit[held_out], predicted[held_out], halo[held_out]),
        edges=edges[1:-1],
        prior=prior,
        log10_mass_range=limits,
        seed=seed,
    )
    result = estimator.with_recalibration(recalibration)
    mapped = recalibration.cdf_map(predicted)(torch.from_numpy(pit)[None])[0].numpy()
    report = {
        **recalibration.describe(),
        "edges": edges.tolist(),
        "held_out": {
            name: _uniformity(u[held_out], halo[held_out], seed)
            for name, u in (("raw", pit), ("recalibrated", mapped))
        },
        "n_without_mass": int((~usable).sum()),
        "seed": seed,
        "version": __version__,
    }
    return result, report


def _pit(posterior: MassPosterior, clusters: ClusterCatalog) -> FloatArray:
    return np.clip(posterior.cdf(np.asarray(clusters.column("log10_mass"), dtype=np.float64)), 0.0, 1.0)


def _population(estimator: MassEstimator, catalog: ClusterCatalog) -> tuple[str, tuple[float, float]]:
    """How the masses of a catalogue were drawn, and the limits of the prior that describes them."""
    from bayesflowmass.catalog import CatalogError
    from bayesflowmass.posterior import PRIOR_NAMES

    masses = catalog.metadata.masses or {}
    population = masses.get("distribution")
    if len(catalog) == 0 or not catalog.has("log10_mass"):
        raise CatalogError(
            "The catalogue to recalibrate on has no clusters or no column log10_mass; true masses are needed."
        )
    if population not in PRIOR_NAMES or not {"log10_mass_min", "log10_mass_max"} <= set(masses):
        raise CatalogError(
            "The catalogue does not say how its masses were drawn (metadata: masses), so that no prior is right for "
            "it; simulate one with `bayesflowmass simulate --masses flat` or hmf."
        )
    low, high = estimator.training_info.log10_mass_range
    start, end = max(low, float(masses["log10_mass_min"])), min(high, float(masses["log10_mass_max"]))
    truth = np.asarray(catalog.column("log10_mass"))
    outside = int(((truth < start) | (truth > end)).sum())
    if outside:
        raise CatalogError(
            f"{outside} of the {len(catalog)} clusters have a mass outside {start:g}-{end:g}, which the model was not "
            "trained on; leave them out of the catalogue, and of the limits of its population."
        )
    return str(population), (start, end)


def _held_out(catalog: ClusterCatalog, halo: NDArray[Any], fraction: float, seed: int) -> BoolArray:
    """Which clusters (n,) the maps do not see: whole haloes."""
    from bayesflowmass.catalog import ClusterCatalog

    rows = ClusterCatalog.from_arrays(
        {"cluster_id": np.arange(len(catalog)), "halo_id": halo},
        {"x": np.zeros(0)},
        np.zeros(len(catalog), int),
    )
    later = rows.split([1.0 - fraction, fraction], seed)[1].column("cluster_id")
    result = np.zeros(len(catalog), dtype=bool)
    result[later] = True
    return result


def _uniformity(u: FloatArray, halo: NDArray[Any], seed: int) -> dict[str, Any]:
    from bayesflowmass.diagnostics import coverage, uniformity

    test = uniformity(u, halo, seed=seed)
    return {
        "n_clusters": test.n,
        "p_value": test.p_value,
        "coverage_68": coverage(u, 0.68),
        "coverage_95": coverage(u, 0.95),
    }


def run(settings: RecalibrateSettings, report: Callable[[str], None] = say) -> dict[str, Any]:
    """The command: read, recalibrate, write, say what was found."""
    from bayesflowmass.catalog import ClusterCatalog
    from bayesflowmass.estimator import MassEstimator

    if settings.out.resolve() == settings.model.resolve():
        raise ValueError(
            f"--out is the model '{settings.model}' itself; the raw model is kept, give another folder."
        )
    estimator = MassEstimator.load(settings.model, settings.device)
    result, found = recalibrate(
        estimator,
        ClusterCatalog.read(settings.catalog),
        prior=settings.prior,
        conformal_fraction=settings.conformal_fraction,
        bin_width=settings.bin_width,
        min_count=settings.min_count,
        n_draws=settings.n_draws,
        seed=settings.seed,
        progress=settings.progress,
    )
    result.save(settings.out)
    write_json(settings.out / "recalibration.json", found)
    write_record(settings.out, "bayesflowmass recalibrate", settings)
    for line in describe(found):
        report(line)
    report(f"Model: {settings.out}")
    return found


def describe(found: dict[str, Any]) -> list[str]:
    """What was fitted and what it does, in a few lines."""
    low, high = found["log10_mass_range"]
    lines = ["Nothing to correct: no fault is large enough to be fitted, and the masses stay as they were."]
    lines = lines if set(found["choices"]) == {"none"} else []
    lines += [
        f"Recalibrated for prior and population {found['prior']} over {low:g}-{high:g}, on {found['n_clusters']} "
        f"clusters ({found['n_haloes']} haloes); conformal intervals from {found['n_conformal']} others.",
        f"  all clusters: {'nothing' if found['choices'][0] == 'none' else found['choices'][0]}",
    ]
    if found["n_without_mass"]:
        lines.append(f"  {found['n_without_mass']} clusters cannot have a mass and were left out.")
    for i, choice in enumerate(found["choices"][1:]):
        start, end = found["edges"][i : i + 2]
        lines.append(f"  predicted {start:.2f}-{end:.2f}: {'nothing more' if choice == 'none' else choice}")
    for name, test in found["held_out"].items():
        lines.append(
            f"{name}, {test['n_clusters']} held-out clusters: {100 * test['coverage_68']:.1f} % in 68 %, "
            f"{100 * test['coverage_95']:.1f} % in 95 %, PIT uniform with p = {test['p_value']:.3f}"
        )
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """``bayesflowmass recalibrate``; returns the exit code."""
    return run_command(RecalibrateSettings, run, argv, prog="bayesflowmass recalibrate")


if __name__ == "__main__":
    sys.exit(main())

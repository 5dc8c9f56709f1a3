"""Accuracy and calibration of a model on clusters of known mass, beside simpler estimators on the same
clusters.

``bayesflowmass evaluate --model RUN --catalog test.parquet --out DIR`` writes

* ``metrics.json``: every number with its bootstrap standard error over haloes (``docs/metrics.md``),
* ``calibration.json``: tests and verdicts, overall and by bin (``docs/calibration.md``),
* ``predictions.parquet``: one row per cluster,
* figures, each as pdf and png: ``predicted_vs_true``, ``residuals``, ``pdfs``, ``calibration_by_mass``, and
  those of the calibration: ``pit``, ``pit_by_...``, ``coverage``, ``calibration_by_true_mass``, ``contraction``,

* ``table.txt``: the model beside every baseline,

and prints the model beside the best of each simple method.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from bayesflowmass.command import run_command
from bayesflowmass.command.limits import Resamples
from bayesflowmass.command.parts import PartSettings, evaluated_in_parts
from bayesflowmass.command.paths import InputPath, OutFolder
from bayesflowmass.command.record import write_record
from bayesflowmass.command.shared import ModelTestSettings
from bayesflowmass.common.arrays import IntArray
from bayesflowmass.common.files import write_whole
from bayesflowmass.common.terminal import say

# The rest is imported where it is used: --help, and an error in the input, should not wait for torch.
if TYPE_CHECKING:
    from bayesflowmass.catalog import ClusterCatalog
    from bayesflowmass.estimator import MassEstimator

__all__ = ["EvaluateSettings", "evaluate", "main"]


class EvaluateSettings(ModelTestSettings, PartSettings):
    """`bayesflowmass evaluate`: accuracy and calibration on a catalogue of known masses."""

    listed_last: ClassVar[tuple[str, ...]] = ("prior", *PartSettings.listed_last)

    out: OutFolder = Field(Path("evaluation"), description="folder for metrics.json and figures")
    baseline_catalog: InputPath | None = Field(
        None, description="catalogue to fit the baselines on; simulated when absent"
    )
    bootstrap: Resamples = Field(200, description="bootstrap samples over haloes")


def evaluate(
    estimator: MassEstimator,
    catalog: ClusterCatalog,
    out: str | Path,
    *,
    prior: str = "flat",
    baseline_catalog: ClusterCatalog | None = None,
    n_resamples: int = 200,
    n_draws: int | None = None,
    seed: int = 0,
    figures: bool = True,
    progress: bool = False,
) -> dict[str, Any]:
    """Measure a model on clusters of known mass and write metrics, predictions and figures.

    Args:
        estimator: the model.
        catalog: test clusters with ``log10_mass``; ``halo_id`` where several are projections of one halo.
        out: folder to write into.
        prior: "flat" or "hmf", of the masses. Calibration is judged under the prior that the masses of the catalogue
            were drawn from, where that is known.
        baseline_catalog: clusters, flat in log mass, to fit the baselines on; by default 5000 are
            simulated and observed as the model's training set was.
        n_resamples: of the bootstrap over haloes.
        n_draws: of the weights.
        seed: of the bootstrap, of the simulated baseline clusters and of the draws.
        figures: draw them.
        progress: show a bar.

    Returns:
        The content of ``metrics.json``.

    Raises:
        CatalogError: the catalogue is empty or has no masses.
        ValueError: a posterior gives a true mass no probability.
    """
    from bayesflowmass.baselines import fit_baselines
    from bayesflowmass.catalog import CatalogError
    from bayesflowmass.estimator.cylinder import in_cylinder
    from bayesflowmass.evaluation.predictions import prior_range_of
    from bayesflowmass.evaluation.results import write_results
    from bayesflowmass.evaluation.test_sets import baseline_set
    from bayesflowmass.evaluation.tested import put_to_test

    if len(catalog) == 0 or not catalog.has("log10_mass"):
        raise CatalogError(
            "The catalogue to evaluate on has no clusters or no column log10_mass; true masses are needed."
        )
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    prior_range = prior_range_of(estimator, catalog.metadata, prior)
    if baseline_catalog is None:
        baseline_catalog = baseline_set(estimator.training_info, catalog.metadata, seed)
    baselines = fit_baselines(baseline_catalog)
    tested = put_to_test(
        estimator,
        catalog,
        baselines,
        prior=prior,
        prior_range=prior_range,
        n_draws=n_draws,
        seed=seed,
        progress=progress,
    )

    def pick(rows: IntArray) -> ClusterCatalog:
        few = catalog[np.flatnonzero(tested.predictions.usable)[rows]]
        return in_cylinder(few, estimator.training_info.selection)

    return write_results(
        folder,
        estimator,
        tested,
        baselines,
        pick,
        prior=prior,
        prior_range=prior_range,
        baseline_selection=baseline_catalog.metadata.selection,
        n_draws=n_draws,
        n_resamples=n_resamples,
        seed=seed,
        figures=figures,
        threads=1,
    )


def run(settings: EvaluateSettings, report: Callable[[str], None] = say) -> dict[str, Any]:
    """The command: read, evaluate, report."""
    from bayesflowmass.catalog import ClusterCatalog
    from bayesflowmass.estimator import MassEstimator
    from bayesflowmass.evaluation.figures import FIRST_FIGURES
    from bayesflowmass.evaluation.files import PREDICTIONS
    from bayesflowmass.evaluation.table import PRIORS, format_summary, format_text
    from bayesflowmass.evaluation.test_sets import BASELINE_CLUSTERS

    training = None if settings.baseline_catalog is None else ClusterCatalog.read(settings.baseline_catalog)
    if training is None:
        report(
            f"Simulating {BASELINE_CLUSTERS} clusters to fit the baselines on (--baseline-catalog to "
            "give them)."
        )
    options: dict[str, Any] = {
        "prior": settings.prior,
        "baseline_catalog": training,
        "n_resamples": settings.bootstrap,
        "n_draws": settings.n_draws,
        "seed": settings.seed,
        "progress": settings.progress,
    }
    if evaluated_in_parts(settings.model_dump()):
        from bayesflowmass.evaluation.tested_in_parts import evaluate_in_parts

        metrics = evaluate_in_parts(
            settings.model,
            settings.catalog,
            settings.out,
            baseline_file=settings.baseline_catalog,
            device=settings.device,
            workers=settings.workers,
            scheduler=settings.scheduler,
            **options,
        )
    else:
        estimator = MassEstimator.load(settings.model, settings.device)
        metrics = evaluate(estimator, ClusterCatalog.read(settings.catalog), settings.out, **options)
    write_record(settings.out, "bayesflowmass evaluate", settings)
    write_whole(settings.out / "table.txt", format_text(metrics) + "\n")
    judged = PRIORS.get(metrics["calibration_prior"], "prior of another kind")
    report(f"Calibration, {judged}: {metrics['calibration']}")
    report(format_summary(metrics))
    if metrics["flags"]:
        counts = ", ".join(f"{name} {count}" for name, count in metrics["flags"].items())
        report(f"Flags: {counts} of {metrics['n_clusters'] + metrics['n_without_mass']} clusters.")
    if metrics["novelty"]:
        report(metrics["novelty"]["verdict"])
    if metrics["recalibrated"]:
        report(f"Recalibrated for {metrics['recalibrated']}.")
    report("")
    for name in FIRST_FIGURES:
        report(str(settings.out / f"{name}.png"))
    report(
        f"In {settings.out}: all baselines (table.txt), further figures, every number (metrics.json, "
        f"calibration.json), every cluster ({PREDICTIONS})."
    )
    return metrics


def main(argv: Sequence[str] | None = None) -> int:
    """``bayesflowmass evaluate``; returns the exit code."""
    return run_command(EvaluateSettings, run, argv, prog="bayesflowmass evaluate")


if __name__ == "__main__":
    sys.exit(main())

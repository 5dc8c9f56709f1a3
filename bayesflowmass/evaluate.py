"""Accuracy and calibration of a model on clusters of known mass, beside simpler estimators on the same
clusters.

``bayesflowmass evaluate --model RUN --catalog test.parquet --out DIR`` writes

* ``metrics.json``: every number with its bootstrap standard error over haloes (``docs/metrics.md``),
* ``calibration.json``: tests and verdicts, overall and by bin (``docs/calibration.md``),
* ``predictions.parquet``: one row per cluster,
* figures, each as pdf and png: ``predicted_vs_true``, ``residuals``, ``pdfs``, ``calibration_by_mass``, and
  those of the calibration: ``pit``, ``pit_by_...``, ``coverage``, ``calibration_by_true_mass``, ``contraction``,

and prints the comparison table.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from pydantic import Field

from bayesflowmass.command import run_command
from bayesflowmass.command.paths import InputPath, OutFolder
from bayesflowmass.command.record import write_record
from bayesflowmass.command.shared import ModelTestSettings
from bayesflowmass.common.arrays import FloatArray, IntArray
from bayesflowmass.common.files import write_whole
from bayesflowmass.common.version import __version__

# The rest is imported where it is used: --help, and an error in the input, should not wait for torch.
if TYPE_CHECKING:
    from bayesflowmass.baselines import BaselinePrediction
    from bayesflowmass.catalog import ClusterCatalog
    from bayesflowmass.estimator import MassEstimator
    from bayesflowmass.evaluation.predictions import Predictions

__all__ = ["EvaluateSettings", "evaluate", "main"]

_BASELINE_CLUSTERS = 5000


class EvaluateSettings(ModelTestSettings):
    """`bayesflowmass evaluate`: accuracy and calibration on a catalogue of known masses."""

    out: OutFolder = Field(Path("evaluation"), description="folder for metrics.json and figures")
    baseline_catalog: InputPath | None = Field(
        None, description="catalogue to fit the baselines on; simulated when absent"
    )
    bootstrap: int = Field(200, gt=1, description="bootstrap samples over haloes")


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
        prior: "flat" or "hmf".
        baseline_catalog: clusters, flat in log mass, to fit the baselines on; by default 5000 are
            simulated as the model's training set was.
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
    from bayesflowmass.baselines import fit_baselines, predict_baselines
    from bayesflowmass.catalog import CatalogError
    from bayesflowmass.evaluation.calibration import measure_calibration
    from bayesflowmass.evaluation.metrics import measure_metrics
    from bayesflowmass.evaluation.predictions import predict, prior_range_of

    if len(catalog) == 0 or not catalog.has("log10_mass"):
        raise CatalogError(
            "The catalogue to evaluate on has no clusters or no column log10_mass; true masses are needed."
        )
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    prior_range = prior_range_of(estimator, catalog, prior)
    predictions = predict(
        estimator,
        catalog,
        prior=prior,
        prior_range=prior_range,
        n_draws=n_draws,
        seed=seed,
        progress=progress,
    )
    if baseline_catalog is None:
        baseline_catalog = simulate_like_training(
            estimator, _BASELINE_CLUSTERS, seed, catalog.metadata.extra.get("mock_parameters")
        )
    baselines = fit_baselines(baseline_catalog)
    simple = predict_baselines(baselines, catalog)
    calibration = measure_calibration(
        predictions.summary, catalog, estimator, prior=prior, n_resamples=n_resamples, seed=seed
    )
    metrics = measure_metrics(
        estimator,
        catalog,
        predictions,
        {name: (baselines[name], prediction) for name, prediction in simple.items()},
        prior=prior,
        prior_range=prior_range,
        verdict=calibration["verdict"],
        n_resamples=n_resamples,
        seed=seed,
    )
    metrics["baseline_selection"] = baseline_catalog.metadata.selection
    write_whole(folder / "metrics.json", json.dumps(metrics, indent=1, allow_nan=False).encode())
    write_whole(folder / "calibration.json", json.dumps(calibration, indent=1, allow_nan=False).encode())
    _write_predictions(folder / "predictions.parquet", catalog, predictions, simple)
    if figures:
        _draw(folder, estimator, catalog, predictions, simple, metrics, calibration)
    return metrics


def simulate_like_training(
    estimator: MassEstimator, n_clusters: int, seed: int, parameters: dict[str, float] | None = None
) -> ClusterCatalog:
    """Clusters, flat in log mass, of the kind, mode, aperture and redshift that the model was trained on.

    Args:
        estimator: the model; if it simulated its training set, its settings say with which mock parameters.
        n_clusters: how many.
        seed: of the mocks.
        parameters: mock parameters where the model was trained on a given catalogue; default: the defaults.
    """
    from bayesflowmass.mocks import MockParameters, simulate_catalog

    info = estimator.training_info
    low, high = info.redshift_range
    given = (info.config.get("simulate") or {}).get("parameters") or parameters or {}
    chosen = {
        name: info.selection[name] for name in ("r_max", "v_max", "min_galaxies") if name in info.selection
    }
    return simulate_catalog(
        n_clusters,
        masses="flat",
        log10_mass_range=info.log10_mass_range,
        kind=cast("Any", info.kind or "contaminated"),
        mode=cast("Any", info.mode or "paper"),
        redshift=low if low == high else (low, high),
        parameters=MockParameters.from_dict(given),
        cosmology=info.cosmology,
        seed=seed,
        **chosen,
    )


def _write_predictions(
    path: Path, catalog: ClusterCatalog, p: Predictions, simple: dict[str, BaselinePrediction]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    truth = np.asarray(catalog.column("log10_mass"), dtype=np.float64)
    columns: dict[str, Any] = {
        "cluster_id": catalog.column("cluster_id"),
        **({"halo_id": catalog.column("halo_id")} if catalog.has("halo_id") else {}),
        "redshift": catalog.column("redshift"),
        "n_galaxies": catalog.n_galaxies,
        "log10_mass_true": truth,
        **p.quantiles,
        "log10_mass_mean": p.mean,
        "sigma": p.sigma,
        **p.epistemic,
        **({} if p.strange is None else {"p_novelty": p.strange.p_value}),
        "residual": truth - p.quantiles["log10_mass"],
        "pit": p.pit,
        "log_density": p.log_density,
        "crps": p.crps,
        "flags": p.flags.astype(object),
        **{f"log10_mass_{name}": prediction.log10_mass for name, prediction in simple.items()},
    }
    note = {
        "units": "log10 M200c [Msun/h]; sigma, residual, crps [dex]; density per dex; information [nats]",
        "version": __version__,
    }
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.replace_schema_metadata({"bayesflowmass": json.dumps(note)}), sink, compression="zstd"
    )
    write_whole(path, sink.getvalue().to_pybytes())


def _draw(
    folder: Path,
    estimator: MassEstimator,
    catalog: ClusterCatalog,
    p: Predictions,
    simple: dict[str, BaselinePrediction],
    metrics: dict[str, Any],
    calibration: dict[str, Any],
) -> list[Path]:
    from bayesflowmass.evaluation.calibration import calibration_figures
    from bayesflowmass.evaluation.table import NAMES
    from bayesflowmass.plots.checks.calibration_by_mass import plot_calibration_by_mass
    from bayesflowmass.plots.checks.residuals import plot_residuals
    from bayesflowmass.plots.paper.pdfs import plot_pdfs
    from bayesflowmass.plots.paper.predicted_vs_true import plot_predicted_vs_true
    from bayesflowmass.plots.style import save_figure

    truth = np.asarray(catalog.column("log10_mass"), dtype=np.float64)
    population = {"hmf": "mass-function set", "flat": "flat set"}.get(str(metrics["population"]), "test set")
    title = f"{population}, {metrics['prior']} prior"
    shown = ("msigma_inverse", "msigma_regression", "richness")
    residuals = {"this model": truth - p.quantiles["log10_mass"]}
    residuals |= {NAMES[name]: truth - simple[name].log10_mass for name in shown}
    figures = {
        "predicted_vs_true": plot_predicted_vs_true(
            truth, np.stack(list(p.quantiles.values()), 1), label=title
        ),
        "residuals": plot_residuals(residuals, title=title),
        **calibration_figures(p.summary, calibration, catalog, title),
        "calibration_by_mass": plot_calibration_by_mass(
            metrics["bins_true"], metrics["bins_predicted"], title=title
        ),
    }
    chosen = _three_clusters(truth)
    few = catalog[chosen]
    low, high = metrics["prior_log10_mass_range"]
    posterior = estimator.posterior(few, prior=metrics["prior"], log10_mass_range=(low, high))
    grid = np.linspace(low, high, 601)
    counts = few.n_galaxies
    figures["pdfs"] = plot_pdfs(
        grid,
        posterior.pdf(grid[:, None]).T,
        cdf=posterior.cdf(grid[:, None]).T,
        log10_true=truth[chosen],
        labels=[f"{n} galaxies" for n in counts],
        title=title,
    )
    return [path for name, figure in figures.items() for path in save_figure(figure, folder / name)]


def _three_clusters(truth: FloatArray) -> IntArray:
    """The clusters nearest to a low, an intermediate and a high mass of the range: chosen by mass, not by
    success.
    """
    low, high = truth.min(), truth.max()
    wanted = low + (high - low) * np.array([0.15, 0.5, 0.85])
    nearest = np.abs(truth[:, None] - wanted).argmin(axis=0)
    return np.array(list(dict.fromkeys(nearest.tolist())), dtype=np.int64)


def run(settings: EvaluateSettings, report: Callable[[str], None] = print) -> dict[str, Any]:
    """The command: read, evaluate, report."""
    from bayesflowmass.catalog import ClusterCatalog
    from bayesflowmass.estimator import MassEstimator
    from bayesflowmass.evaluation.table import format_text

    estimator = MassEstimator.load(settings.model, settings.device)
    catalog = ClusterCatalog.read(settings.catalog)
    training = None if settings.baseline_catalog is None else ClusterCatalog.read(settings.baseline_catalog)
    if training is None:
        report(
            f"Simulating {_BASELINE_CLUSTERS} clusters to fit the baselines on (--baseline-catalog to "
            "give them)."
        )
    metrics = evaluate(
        estimator,
        catalog,
        settings.out,
        prior=settings.prior,
        baseline_catalog=training,
        n_resamples=settings.bootstrap,
        n_draws=settings.n_draws,
        seed=settings.seed,
        progress=settings.progress,
    )
    write_record(settings.out, "bayesflowmass evaluate", settings)
    report(format_text(metrics))
    if metrics["flags"]:
        counts = ", ".join(f"{name} {count}" for name, count in metrics["flags"].items())
        report(f"Flags: {counts} of {metrics['n_clusters']} clusters.")
    if metrics["novelty"]:
        report(metrics["novelty"]["verdict"])
    if metrics["recalibrated"]:
        report(f"Recalibrated for {metrics['recalibrated']}.")
    report("")
    for path in sorted(settings.out.glob("*.p[dn][fg]")):
        report(str(path))
    report(str(settings.out / "predictions.parquet"))
    report(str(settings.out / "calibration.json"))
    report(str(settings.out / "metrics.json"))
    return metrics


def main(argv: Sequence[str] | None = None) -> int:
    """``bayesflowmass evaluate``; returns the exit code."""
    return run_command(EvaluateSettings, run, argv, prog="bayesflowmass evaluate")


if __name__ == "__main__":
    sys.exit(main())

"""The figures of Kodi Ramanah et al. (2020), drawn with a model and a test set of one's own.

``bayesflowmass figures --model RUN [--pure RUN] --catalog test.parquet --out DIR`` writes ``figure_1_phase_space``
to ``figure_9_saliency``, ``epistemic_by_mass`` for models with a posterior of their weights, each as pdf and png,
and ``figures.json`` with the clusters that were chosen and the numbers of figure 6. docs/figures.md shows them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, model_validator

from bayesflowmass.command import run_command
from bayesflowmass.command.limits import Resamples
from bayesflowmass.command.paths import InputPath, ModelPath, OutFolder
from bayesflowmass.command.record import write_record
from bayesflowmass.command.shared import ModelTestSettings
from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.common.files import write_whole
from bayesflowmass.common.terminal import say

# The rest is imported where it is used: --help, and an error in the input, should not wait for torch.
if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bayesflowmass.catalog import ClusterCatalog
    from bayesflowmass.estimator import MassEstimator
    from bayesflowmass.evaluation.paper import Predicted
    from bayesflowmass.plots.paper.equation8 import ScatterPair
    from bayesflowmass.plots.paper.pdfs import ClusterPdfs
    from bayesflowmass.plots.paper.real_clusters import Masses

__all__ = ["FiguresSettings", "figures", "main"]

# Variants of a baseline, such as the ways to measure a dispersion, share a mark in figure 6.
_FAMILIES = ("msigma_inverse", "msigma_regression", "msigma_evrard", "virial", "projected")


class FiguresSettings(ModelTestSettings):
    """`bayesflowmass figures`: the figures of the paper, drawn with your models and your test set."""

    pure: ModelPath | None = Field(None, description="model folder of the model of pure clusters")
    also: tuple[ModelPath, ...] = Field((), description="further model folders, for figure 6")
    pure_catalog: InputPath | None = Field(
        None, description="test catalogue of pure clusters; simulated like --catalog when absent"
    )
    training_catalog: InputPath | None = Field(
        None, description="catalogue that the model was trained on; 5000 clusters are simulated when absent"
    )
    masses: InputPath | None = Field(
        None, description="table of masses of observed clusters, written by infer"
    )
    literature: InputPath | None = Field(
        None,
        description="table cluster_id, log10_mass, lower, upper of the same clusters (dex), for figure 8",
    )
    out: OutFolder = Field(Path("figures"), description="folder for the figures")
    bootstrap: Resamples = Field(200, description="bootstrap samples over haloes, for the errors of figure 6")

    @model_validator(mode="after")
    def _both_or_neither(self) -> FiguresSettings:
        if (self.masses is None) != (self.literature is None):
            raise ValueError("figure 8 needs --masses and --literature, or neither")
        return self


def figures(
    estimator: MassEstimator,
    catalog: ClusterCatalog,
    out: str | Path,
    *,
    pure: MassEstimator | None = None,
    pure_catalog: ClusterCatalog | None = None,
    also: Mapping[str, MassEstimator] | None = None,
    training_catalog: ClusterCatalog | None = None,
    real: tuple[Sequence[str], Masses, Masses] | None = None,
    prior: str = "flat",
    n_resamples: int = 200,
    n_draws: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> list[Path]:
    """Draw every figure of the paper for one model.

    Args:
        estimator: the model.
        catalog: test clusters with ``log10_mass`` that follow the mass function.
        out: folder to write into.
        pure: the model of pure clusters, for figures 4, 5 and 6.
        pure_catalog: its test clusters; simulated like ``catalog`` by default.
        also: label -> further models of the clusters of ``catalog``, for figure 6.
        training_catalog: for figure 2, and to fit the baselines on; by default 5000 clusters like those of training.
        real: names, masses and literature masses of observed clusters, for figure 8.
        prior: "flat" (the paper) or "hmf".
        n_resamples: of the bootstrap over haloes.
        n_draws: of the weights.
        seed: of the bootstrap, the simulated clusters, the losses and errors of figure 7, and the draws.
        progress: show bars.

    Returns:
        The files, in the order of the figures.

    Raises:
        CatalogError: a catalogue is empty or has no masses, or has no members to count for equation 8.
    """
    from bayesflowmass.catalog import CatalogError
    from bayesflowmass.evaluation.paper import predict_quantiles
    from bayesflowmass.evaluation.test_sets import baseline_set, drawn_like, like_training
    from bayesflowmass.evaluation.truth import clusters_of_three_masses
    from bayesflowmass.plots.paper.architecture import plot_architecture
    from bayesflowmass.plots.paper.equation8 import plot_equation8
    from bayesflowmass.plots.paper.predicted_vs_true import plot_predicted_vs_true
    from bayesflowmass.plots.style import save_figure

    folder = Path(out)
    for which in (catalog, pure_catalog, training_catalog):
        if which is not None and (len(which) == 0 or not which.has("log10_mass")):
            raise CatalogError("A catalogue has no clusters or no column log10_mass; true masses are needed.")
    # A figure shows clusters as the model sees them, and those alone that it can give a mass.
    catalog = _usable(estimator, catalog)
    if pure is not None:
        # Not the clusters that were simulated with the same seed to train on.
        changes = drawn_like(catalog) | {"kind": "pure"}
        made = pure_catalog or like_training(
            pure.training_info, len(catalog), seed + 1_000_003, simulate=changes
        )
        pure_catalog = _usable(pure, made)
    training = training_catalog or baseline_set(estimator.training_info, catalog.metadata, seed)
    options: dict[str, Any] = {"prior": prior, "n_draws": n_draws, "seed": seed}
    samples = {"pure": (pure, pure_catalog)} if pure is not None and pure_catalog is not None else {}
    samples[catalog.metadata.kind or "contaminated"] = (estimator, catalog)
    predicted = {
        name: predict_quantiles(model, clusters, progress=progress, **options)
        for name, (model, clusters) in samples.items()
    }
    truth = np.asarray(catalog.column("log10_mass"), dtype=np.float64)
    rows = clusters_of_three_masses(truth)
    three = catalog[rows]
    own = predicted[next(reversed(predicted))]
    pairs = _pairs(samples, predicted, catalog, training, also or {}, n_resamples, seed, options)
    drawn: dict[str, Figure] = {
        "figure_1_phase_space": _phase_space(estimator, catalog[int(rows[len(rows) // 2])]),
        "figure_2_masses": _masses(samples, training, catalog),
        "figure_3_architecture": plot_architecture(estimator),
        "figure_4_pdfs": _pdf_panels(samples, options),
        "figure_5_predicted_vs_true": plot_predicted_vs_true(
            {name: (p.log10_true, p.quantiles) for name, p in predicted.items()}
        ),
        "figure_6_equation8": plot_equation8(pairs, title=f"{prior} prior"),
        "figure_7_robustness": _robustness(estimator, three, options, seed),
    }
    if real is not None:
        drawn["figure_8_real_clusters"] = _real_clusters(*real)
    drawn["figure_9_saliency"] = _saliency_maps(estimator, three, n_draws, seed)
    drawn |= _epistemic(own)
    files = [path for name, figure in drawn.items() for path in save_figure(figure, folder / name)]
    _write_choices(folder / "figures.json", three, prior, seed, pairs)
    return [*files, folder / "figures.json"]


def _usable(estimator: MassEstimator, catalog: ClusterCatalog) -> ClusterCatalog:
    """The clusters that the model can give a mass, as it sees them."""
    from bayesflowmass.estimator.cylinder import in_cylinder
    from bayesflowmass.estimator.flags import usable_clusters

    seen = in_cylinder(catalog, estimator.training_info.selection)
    return seen.filter(usable_clusters(seen) == "")


def _pairs(
    samples: Mapping[str, tuple[MassEstimator, ClusterCatalog]],
    predicted: Mapping[str, Predicted],
    catalog: ClusterCatalog,
    training: ClusterCatalog,
    also: Mapping[str, MassEstimator],
    n_resamples: int,
    seed: int,
    options: Mapping[str, Any],
) -> dict[str, ScatterPair]:
    """Equation 8 of the models, of the paper, and of every baseline, by name."""
    from bayesflowmass.baselines import PUBLISHED, fit_baselines, predict_baselines
    from bayesflowmass.evaluation.paper import predict_quantiles, scatter_pair
    from bayesflowmass.evaluation.table import NAMES
    from bayesflowmass.plots.paper.equation8 import ScatterPair

    colours = {"pure": "vermillion"}
    pairs: dict[str, ScatterPair] = {}
    for kind, (_, clusters) in samples.items():
        style: dict[str, Any] = {"mark": "*", "colour": colours.get(kind, "blue")}
        measured = scatter_pair(clusters, predicted[kind].quantiles[:, 2], n_resamples, seed)
        pairs[f"this model, {kind}"] = ScatterPair(*measured, **style)
        for result in PUBLISHED.get(kind, ()):
            if result.sigma_N is not None and result.sigma_0 is not None:
                pairs[f"Kodi Ramanah+2020, {kind}"] = ScatterPair(
                    result.sigma_N, result.sigma_0, published=True, **style
                )
    for name, model in also.items():
        median = predict_quantiles(model, catalog, **options).quantiles[:, 2]
        pairs[name] = ScatterPair(*scatter_pair(catalog, median, n_resamples, seed))
    simple = predict_baselines(fit_baselines(training), catalog)
    for name, prediction in simple.items():
        family = next((known for known in _FAMILIES if name.startswith(known)), name)
        group = NAMES.get(family, f"{family} mass")
        measured = scatter_pair(catalog, prediction.log10_mass, n_resamples, seed)
        pairs[NAMES.get(name, name)] = ScatterPair(*measured, group=group)
    return pairs


def _pdfs(estimator: MassEstimator, clusters: ClusterCatalog, options: Mapping[str, Any]) -> ClusterPdfs:
    from bayesflowmass.plots.paper.pdfs import ClusterPdfs

    labels = [f"{n} galaxies" for n in clusters.n_galaxies]
    return ClusterPdfs.of(estimator.posterior(clusters, **options), clusters.column("log10_mass"), labels)


def _masses(
    samples: Mapping[str, tuple[MassEstimator, ClusterCatalog]],
    training: ClusterCatalog,
    catalog: ClusterCatalog,
) -> Figure:
    from bayesflowmass.evaluation.paper import expected_counts
    from bayesflowmass.plots.paper.masses import plot_masses

    sets = {"training set": training.column("log10_mass")} | {
        f"test set, {name}": clusters.column("log10_mass") for name, (_, clusters) in samples.items()
    }
    return plot_masses(sets, curve=expected_counts(catalog))


def _pdf_panels(
    samples: Mapping[str, tuple[MassEstimator, ClusterCatalog]], options: Mapping[str, Any]
) -> Figure:
    from bayesflowmass.evaluation.truth import clusters_of_three_masses
    from bayesflowmass.plots.paper.pdfs import plot_pdfs

    return plot_pdfs(
        {
            name: _pdfs(model, clusters[clusters_of_three_masses(clusters.column("log10_mass"))], options)
            for name, (model, clusters) in samples.items()
        }
    )


def _robustness(
    estimator: MassEstimator, three: ClusterCatalog, options: Mapping[str, Any], seed: int
) -> Figure:
    from bayesflowmass.plots.paper.perturbed_pdfs import plot_perturbed_pdfs
    from bayesflowmass.selection import completeness, velocity_errors

    return plot_perturbed_pdfs(
        {
            "all galaxies": _pdfs(estimator, three, options),
            "33 % removed": _pdfs(estimator, completeness(three, 0.67, seed), options),
            r"100 km s$^{-1}$ errors": _pdfs(estimator, velocity_errors(three, 100.0, seed), options),
        }
    )


def _real_clusters(names: Sequence[str], masses: Masses, literature: Masses) -> Figure:
    from bayesflowmass.plots.paper.real_clusters import plot_real_clusters

    star = next((name for name in names if "coma" in name.lower()), None)
    return plot_real_clusters(names, literature, {"this model": masses}, highlight=star)


def _phase_space(estimator: MassEstimator, cluster: ClusterCatalog) -> Figure:
    from bayesflowmass.evaluation.cards import phase_space_image
    from bayesflowmass.plots.paper.phase_space import plot_phase_space

    image, extent = phase_space_image(estimator, cluster)
    selection = cluster.metadata.selection
    mass, z = (float(cluster.column(name)[0]) for name in ("log10_mass", "redshift"))
    return plot_phase_space(
        cluster.r_proj,
        cluster.galaxies("v_los"),
        image,
        extent=extent,
        cylinder=(selection.get("r_max") or extent[1], selection.get("v_max") or extent[3]),
        is_member=cluster.galaxies("gal_is_member") if cluster.has("gal_is_member") else None,
        title=rf"$\log_{{10}} M_{{200\mathrm{{c}}}} = {mass:.2f}$, $z = {z:.3g}$",
    )


def _saliency(
    estimator: MassEstimator, cluster: ClusterCatalog, n_draws: int | None, seed: int
) -> dict[str, FloatArray | tuple[float, float, float, float] | None]:
    from bayesflowmass.saliency import masked_map

    found = masked_map(estimator, cluster, n_draws=n_draws, seed=seed)
    return {
        "r_proj": np.asarray(cluster.r_proj),
        "v_los": np.asarray(cluster.galaxies("v_los")),
        "is_member": np.asarray(cluster.galaxies("gal_is_member")) if cluster.has("gal_is_member") else None,
        "image": found.image,
        # The paper maps the mode. Its PDFs are Gaussian; that of others may jump from one peak to another.
        "change": found.change["median"],
        "extent": found.extent,
    }


def _saliency_maps(estimator: MassEstimator, three: ClusterCatalog, n_draws: int | None, seed: int) -> Figure:
    from bayesflowmass.plots.paper.saliency import plot_saliency

    return plot_saliency(
        {
            rf"$\log_{{10}} M = {m:.2f}$": _saliency(estimator, three[k], n_draws, seed)
            for k, m in enumerate(three.column("log10_mass"))
        }
    )


def _epistemic(own: Predicted) -> dict[str, Figure]:
    """The figure of a model with a posterior of its weights."""
    from bayesflowmass.plots.checks.epistemic import Widths, plot_epistemic_by_mass

    if own.sigma_epistemic is None or own.sigma_aleatoric is None:
        return {}
    widths = Widths(own.quantiles[:, 2], own.sigma_aleatoric, own.sigma_epistemic)
    return {
        "epistemic_by_mass": plot_epistemic_by_mass({"this model": widths}, title="by predicted mass"),
    }


def _write_choices(
    path: Path, three: ClusterCatalog, prior: str, seed: int, pairs: Mapping[str, ScatterPair]
) -> None:
    """Which clusters the figures show, and the numbers of figure 6."""
    record = {
        "three_clusters": [str(name) for name in three.column("cluster_id")],
        "prior": prior,
        "seed": seed,
        "equation_8": {name: vars(pair) for name, pair in pairs.items()},
    }
    write_whole(path, json.dumps(record, indent=1))


def main(argv: Sequence[str] | None = None) -> int:
    """The command ``figures``; returns its exit code."""
    return run_command(FiguresSettings, _figures_with, argv, prog="bayesflowmass figures")


def _figures_with(settings: FiguresSettings) -> None:
    """Take the values out of the settings, read, draw, and name the files."""
    from astropy.table import Table

    from bayesflowmass.catalog import ClusterCatalog
    from bayesflowmass.estimator import MassEstimator
    from bayesflowmass.evaluation.paper import literature_masses

    def read(path: Path | None) -> ClusterCatalog | None:
        return None if path is None else ClusterCatalog.read(path)

    real = None
    if settings.masses is not None and settings.literature is not None:
        tables = (Table.read(settings.masses), Table.read(settings.literature))
        real = literature_masses(*tables)
    files = figures(
        MassEstimator.load(settings.model, settings.device),
        ClusterCatalog.read(settings.catalog),
        settings.out,
        pure=None if settings.pure is None else MassEstimator.load(settings.pure, settings.device),
        pure_catalog=read(settings.pure_catalog),
        also={path.name: MassEstimator.load(path, settings.device) for path in settings.also},
        training_catalog=read(settings.training_catalog),
        real=real,
        prior=settings.prior,
        n_resamples=settings.bootstrap,
        n_draws=settings.n_draws,
        seed=settings.seed,
        progress=settings.progress,
    )
    write_record(settings.out, "bayesflowmass figures", settings)
    say("\n".join(str(path) for path in files))


if __name__ == "__main__":
    sys.exit(main())

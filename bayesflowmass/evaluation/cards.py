"""Cluster cards of a model: what it says about clusters, drawn one page for each."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.common.progress import progress_bar
from bayesflowmass.encoders import KDEEncoder, KDEError
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.estimator.cylinder import in_cylinder
from bayesflowmass.evaluation.road import posteriors
from bayesflowmass.plots.card.names import card_names
from bayesflowmass.plots.card.page import plot_cluster_card
from bayesflowmass.plots.style import save_figure
from bayesflowmass.posterior import MassPrior
from bayesflowmass.saliency import leave_one_out


def cluster_cards(
    estimator: MassEstimator,
    catalog: ClusterCatalog,
    *,
    prior: str | MassPrior = "flat",
    flags: Sequence[str] | NDArray[np.str_] | None = None,
    p_novelty: Sequence[float] | FloatArray | None = None,
    attribution: bool = True,
    model: str = "",
    n_draws: int | None = None,
    seed: int = 0,
) -> Iterator[Figure]:
    """The card of each cluster that has a mass, in the order of the catalogue (:func:`plot_cluster_card`).

    The label of a figure is the name of its cluster, made unique and fit for a file.

    Args:
        estimator, catalog: the model, and clusters.
        prior: on log10 M200c.
        flags: of each cluster; default: what the road finds (docs/flags.md).
        p_novelty: of each cluster; not shown by default.
        attribution: leave each galaxy out in turn; a cluster of n galaxies costs n kernel densities.
        model: name of the model, for the foot of the page.
        n_draws, seed: of the weights.

    Raises:
        CatalogError: there are no clusters, or none of them can have a mass.
    """
    names = card_names(catalog.column("cluster_id"))
    for batch in posteriors(estimator, catalog, prior, n_draws=n_draws, seed=seed, clusters_at_once=1):
        if batch.posterior is None:
            continue
        row, cluster = batch.first, batch.clusters
        image, extent = phase_space_image(estimator, cluster)
        change = leave_one_out(estimator, cluster, n_draws=n_draws, seed=seed) if attribution else None
        card = plot_cluster_card(
            cluster,
            batch.posterior,
            image=image,
            extent=extent,
            attribution=change,
            memberships=batch.memberships,
            flags=str(batch.flags[0] if flags is None else flags[row]),
            p_novelty=None if p_novelty is None else float(p_novelty[row]),
            model=model,
        )
        card.set_label(names[row])
        yield card


def write_cards(
    estimator: MassEstimator,
    catalog: ClusterCatalog,
    folder: str | os.PathLike[str],
    *,
    progress: bool = False,
    **options: Any,
) -> list[Path]:
    """Write the cards of a catalogue as ``FOLDER/NAME.pdf`` and ``.png``.

    Args:
        estimator, catalog, options: see :func:`cluster_cards`.
        folder: made where it does not exist.
        progress: show a bar on standard error.

    Returns:
        The paths, in the order of the clusters.
    """
    paths = []
    cards = cluster_cards(estimator, catalog, **options)
    with progress_bar(len(catalog), "cards", " clusters", progress) as bar:
        for card in cards:
            paths += save_figure(card, Path(folder) / str(card.get_label()))
            bar.update()
    return paths


def phase_space_image(
    estimator: MassEstimator, cluster: ClusterCatalog
) -> tuple[FloatArray | None, tuple[float, float, float, float]]:
    """The kernel density of one cluster over (R_proj, v_los), and the limits of its image.

    That of the model where it sees one, else the density of the paper, of the galaxies in the cylinder of the model;
    None where there is none.
    """
    cluster = in_cylinder(cluster, estimator.training_info.selection)
    kde = getattr(estimator.encoder, "kde", None)
    if not isinstance(kde, KDEEncoder) or kde.grid.ndim != 2:
        kde = KDEEncoder()
    points = np.stack([cluster.r_proj, cluster.galaxies("v_los")], axis=1).astype(np.float64)
    offsets = torch.tensor([0, len(points)])
    (r0, v0), (r1, v1) = kde.grid.lower, kde.grid.upper
    try:
        with torch.no_grad():
            image = kde.to("cpu")(torch.from_numpy(points), offsets)[0].numpy()
    except KDEError:
        return None, (r0, r1, v0, v1)
    return np.asarray(image, dtype=np.float64), (r0, r1, v0, v1)

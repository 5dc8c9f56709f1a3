"""Cluster cards of a model: what it says about clusters, drawn one page for each."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from tqdm import tqdm

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.encoders import KDEEncoder, KDEError
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.plots.card.page import plot_cluster_card
from bayesflowmass.plots.style import save_figure
from bayesflowmass.posterior import MassPrior
from bayesflowmass.saliency import leave_one_out

__all__ = ["card_names", "cluster_cards", "phase_space_image", "write_cards"]

_CHUNK = 256


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
    """The card of each cluster of a catalogue, in its order (:func:`plot_cluster_card`).

    Args:
        estimator: the model.
        catalog: clusters that can have a mass; cut to the cylinder of the model.
        prior: on log10 M200c.
        flags: of each cluster; default: `MassEstimator.flags`.
        p_novelty: of each cluster; not shown by default.
        attribution: leave each galaxy out in turn; a cluster of n galaxies costs n kernel densities.
        model: name of the model, for the foot of the page.
        n_draws, seed: of the weights.

    Raises:
        CatalogError: a cluster has too few galaxies or no spread.
    """
    for start in range(0, len(catalog), _CHUNK):
        part = catalog[start : start + _CHUNK]
        posterior = estimator.posterior(part, prior, n_draws=n_draws, seed=seed)
        found = estimator.flags(part, posterior) if flags is None else flags[start : start + _CHUNK]
        for k in range(len(part)):
            cluster = part[k]
            image, extent = phase_space_image(estimator, cluster)
            yield plot_cluster_card(
                cluster,
                estimator.posterior(cluster, prior, n_draws=n_draws, seed=seed),
                image=image,
                extent=extent,
                attribution=leave_one_out(estimator, cluster, n_draws=n_draws, seed=seed)
                if attribution
                else None,
                flags=str(found[k]),
                p_novelty=None if p_novelty is None else float(p_novelty[start + k]),
                model=model,
            )


def write_cards(
    estimator: MassEstimator,
    catalog: ClusterCatalog,
    folder: str | os.PathLike[str],
    *,
    formats: Sequence[Literal["pdf", "png"]] = ("pdf", "png"),
    progress: bool = False,
    **options: object,
) -> list[Path]:
    """Write the card of each cluster as ``FOLDER/NAME.pdf`` and ``.png``.

    Args:
        estimator: the model.
        catalog: clusters that can have a mass.
        folder: made where it does not exist.
        formats: which files.
        progress: show a bar on standard error.
        options: of :func:`cluster_cards`.

    Returns:
        The paths, in the order of the clusters.
    """
    names = card_names(catalog.column("cluster_id"))
    cards = cluster_cards(estimator, catalog, **options)  # type: ignore[arg-type]
    paths = []
    for name, card in zip(
        names,
        tqdm(cards, total=len(names), disable=not progress, desc="cards", unit=" clusters", file=sys.stderr),
        strict=True,
    ):
        paths += save_figure(card, Path(folder) / name, formats=formats)
    return paths


def card_names(cluster_id: Sequence[object] | NDArray[np.generic]) -> list[str]:
    """A file name for each cluster: its own, without what file systems refuse, and with a number where two agree."""
    seen: dict[str, int] = {}
    names = []
    for value in cluster_id:
        name = re.sub(r"[^\w.+-]+", "_", str(value)).strip("._")[:80] or "cluster"
        # Some file systems take no notice of case.
        count = seen[name.lower()] = seen.get(name.lower(), 0) + 1
        names.append(name if count == 1 else f"{name}_{count}")
    return names


def phase_space_image(
    estimator: MassEstimator, cluster: ClusterCatalog
) -> tuple[FloatArray | None, tuple[float, float, float, float]]:
    """The kernel density of one cluster over (R_proj, v_los), and the limits of its image.

    That of the model where it sees one, else the density of the paper; None where there is none.
    """
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

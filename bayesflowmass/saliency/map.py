"""The masked map of the paper: which part of the phase-space image carries the mass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.encoders import ContextEncoder
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.saliency.masses import Statistic, point_masses, seen_by

STATISTICS: tuple[Statistic, ...] = ("map", "median")
# Masked contexts of one or two images held at once: 10 to 20 MB.
_MASKS_AT_ONCE = 512


@dataclass(frozen=True)
class MaskedMap:
    """Change of one cluster's mass where its image is masked, log10 M(masked) - log10 M [dex].

    Attributes:
        change: statistic of the posterior -> (bins in R_proj, bins in v_los) float64. Negative: the structure
            there carried mass.
        log10_mass: statistic -> log10 M200c [Msun/h] of the whole image.
        image: the first kernel density, (bins in R_proj, bins in v_los), summing to one.
        extent: edges of the grid: R_proj from, to [comoving Mpc/h], v_los from, to [km/s].
        width: s of the mask [pixels].
    """

    change: dict[str, FloatArray]
    log10_mass: dict[str, float]
    image: FloatArray
    extent: tuple[float, float, float, float]
    width: float


@torch.no_grad()
def masked_map(
    estimator: MassEstimator,
    catalog: ClusterCatalog,
    row: int = 0,
    *,
    width: float = 2.0,
    n_draws: int | None = None,
    seed: int = 0,
) -> MaskedMap:
    """Equation 9 of Kodi Ramanah et al. (2020, arXiv:2003.05951): the image is masked about every pixel (a, b) by

        1 - exp(-[(i - a)^2 + (j - b)^2] / (2 s^2)),

    and the change of log10 M is mapped. All kernels are masked alike. The mask multiplies the density itself,
    before it is scaled for the network, and what is left is not normalised again: like the paper, it asks
    what the network makes of a hole, an image that no cluster has. `leave_one_out` asks about clusters.

    Args:
        estimator: a model of (R_proj, v_los) images.
        catalog: clusters.
        row: which of them.
        width: s [pixels], 2 in the paper.
        n_draws, seed: of the weights (`MassEstimator.posterior`).

    Raises:
        CatalogError: the cluster has no kernel density.
        IndexError: there is no such row.
        ValueError: the width is not positive, or the model has no images, or none that are two-dimensional.
    """
    encoder = estimator.encoder
    if not isinstance(encoder, ContextEncoder):
        raise ValueError("a masked map needs images, and this model reads galaxies; use leave_one_out")
    grid = encoder.kde.grid
    if grid.ndim != 2:
        raise ValueError(
            f"a masked map needs images of (R_proj, v_los); those of this model have {grid.ndim} axes"
        )
    cluster, _ = seen_by(estimator, catalog[row])
    contexts = encoder.encode(cluster, device=estimator.device)
    assert isinstance(contexts, Tensor)
    draws = estimator.draw(n_draws, seed)
    masks = mask_weights(grid.shape, width, estimator.device)
    masked = np.concatenate(
        [
            point_masses(estimator, _masked_contexts(encoder, contexts[0], some), STATISTICS, draws)
            for some in masks.split(_MASKS_AT_ONCE)
        ],
        1,
    )
    whole = point_masses(estimator, contexts, STATISTICS, draws)
    change = (masked - whole).reshape(-1, *grid.shape)
    points = cluster.galaxy_tensor(encoder.galaxy_columns, torch.float64)
    return MaskedMap(
        change={str(name): values for name, values in zip(STATISTICS, change, strict=True)},
        log10_mass={str(name): float(value) for name, value in zip(STATISTICS, whole[:, 0], strict=True)},
        image=encoder.kde(points.to(estimator.device), torch.tensor([0, len(points)]), normalisation="sum")[0]
        .cpu()
        .numpy(),
        extent=(grid.lower[0], grid.upper[0], grid.lower[1], grid.upper[1]),
        width=width,
    )


def mask_weights(shape: tuple[int, ...], width: float, device: torch.device | str = "cpu") -> Tensor:
    """The mask 1 - exp(-[(i - a)^2 + (j - b)^2] / (2 s^2)) about every pixel (a, b), row by row.

    Args:
        shape: (n_i, n_j) pixels.
        width: s [pixels].
        device: of the result.

    Returns:
        (n_i n_j, n_i, n_j) float32, zero at its own pixel.

    Raises:
        ValueError: the width is not positive.
    """
    if not (np.isfinite(width) and width > 0.0):
        raise ValueError(f"the width of a mask must be a positive number of pixels, not {width}")
    along = []
    for n in shape:
        pixel = torch.arange(n, dtype=torch.float64, device=device)
        along.append(torch.exp(-0.5 * ((pixel - pixel[:, None]) / width) ** 2).float())
    hole = along[0][:, None, :, None] * along[1][None, :, None, :]
    return hole.reshape(-1, *shape).neg_().add_(1.0)


def _masked_contexts(encoder: ContextEncoder, context: Tensor, masks: Tensor) -> Tensor:
    """Contexts (k, C) of one cluster whose images are multiplied by k masks before they are scaled."""
    size = int(np.prod(encoder.image_shape))
    images, extras = context[:size].reshape(encoder.image_shape), context[size:]
    weights = masks[:, None]
    if encoder.scaling == "sqrt":
        scaled = images * weights.sqrt()
    elif encoder.scaling == "log1p_richness":
        scaled = torch.log1p(torch.expm1(images) * weights)
    else:
        scaled = images * weights
    return torch.cat([scaled.flatten(1), extras.expand(len(masks), -1)], 1)

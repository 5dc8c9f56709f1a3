"""Galaxies that a survey misses at random."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.selection.record import check_positive, generator, per_cluster, record, recordable


def completeness(
    catalog: ClusterCatalog, fraction: ArrayLike, seed: int | np.random.Generator
) -> ClusterCatalog:
    """Keep each galaxy with probability ``fraction``, independently.

    With one seed, the galaxies kept at a lower fraction are among those kept at a higher one.

    Args:
        fraction: in (0, 1], one number or one per cluster.

    Records ``completeness`` (the product with what was recorded before; a range where it varies), and the
    cluster column ``completeness`` where it varies or exists.

    Raises:
        CatalogError: if a fraction is not in (0, 1].
    """
    kept_share = per_cluster(catalog, "completeness", fraction)
    if not np.all((kept_share > 0.0) & (kept_share <= 1.0)):
        raise CatalogError(f"completeness is {recordable(fraction)}; expected a fraction in (0, 1].")
    draw = generator(seed, "completeness").random(catalog.n_galaxies_total)
    result = catalog.filter_galaxies(draw < np.repeat(kept_share, catalog.n_galaxies))
    if catalog.has("completeness"):
        total = kept_share * catalog.column("completeness")
    else:
        before = catalog.metadata.selection.get("completeness")
        total = kept_share * (before if isinstance(before, int | float) else 1.0)
    if catalog.has("completeness") or np.ndim(fraction):
        result = result.with_columns(completeness=total)
    return record(result, seed, completeness=recordable(total))


def central_losses(
    catalog: ClusterCatalog, fraction: ArrayLike, scale: float, seed: int | np.random.Generator
) -> ClusterCatalog:
    """Lose galaxies toward the centre, as collisions of fibres do.

    The probability of losing a galaxy is ``fraction / (1 + (R / scale)^2)``: ``fraction`` at the centre,
    half of it at ``scale``.

    Args:
        fraction: in [0, 1], one number or one per cluster.
        scale: comoving Mpc/h.

    Records ``central_losses`` and ``central_losses_scale``.

    Raises:
        CatalogError: if the fraction is not in [0, 1] or the scale not positive.
    """
    lost = per_cluster(catalog, "fraction", fraction)
    if not np.all((lost >= 0.0) & (lost <= 1.0)):
        raise CatalogError(f"fraction of central losses is {recordable(fraction)}; expected it in [0, 1].")
    check_positive("scale", scale)
    x, y = catalog.galaxies("x"), catalog.galaxies("y")
    probability = np.repeat(lost, catalog.n_galaxies) / (1.0 + (x * x + y * y) / scale**2)
    kept = catalog.filter_galaxies(
        generator(seed, "central_losses").random(catalog.n_galaxies_total) >= probability
    )
    return record(kept, seed, central_losses=recordable(lost), central_losses_scale=float(scale))

"""Training clusters that count unequally, and so stand for a population that they were not drawn from."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.training.random_state import torch_generator

__all__ = ["cluster_weights", "each_at_most_once", "weighted_rows"]


def cluster_weights(catalog: ClusterCatalog, column: str) -> Tensor:
    """How much each cluster counts, (N,), float64, relative to the others.

    Raises:
        CatalogError: the column is missing, or a weight is negative or not a number, or all are zero.
    """
    if not catalog.has(column):
        raise CatalogError(
            f"The training catalogue has no column '{column}', which weight_column names; its columns are"
            f" {', '.join(catalog.cluster_columns)}."
        )
    try:
        weight = np.array(catalog.column(column), dtype=np.float64)
    except (TypeError, ValueError):
        raise CatalogError(
            f"The column '{column}' holds no numbers; weights of clusters are expected."
        ) from None
    bad = ~(np.isfinite(weight) & (weight >= 0))
    if bad.any():
        row = int(bad.argmax())
        raise CatalogError(
            f"The column '{column}' has {int(bad.sum())} unusable weights, the first, {weight[row]}, at row {row};"
            " expected numbers from 0."
        )
    if not weight.any():
        raise CatalogError(f"All weights of the column '{column}' are 0; at least one cluster must count.")
    return torch.from_numpy(weight)


def weighted_rows(weight: Tensor, seed: int, epoch: int) -> Tensor:
    """Rows of one epoch, about N of them in random order, each as often as its weight says.

    A row whose share is 2.3 comes twice or three times, by chance, 2.3 times on average (systematic sampling): less
    noise than from independent draws.

    Arguments:
        weight: (N,), not negative.
        seed, epoch: of the choice.
    """
    generator = torch_generator(seed, "weighted rows", epoch)
    rows = _systematic(weight / weight.mean(), generator)
    return rows[torch.randperm(len(rows), generator=generator)]


def each_at_most_once(weight: Tensor, seed: int) -> Tensor:
    """Rows, in increasing order, that are a sample of the weighted population; the largest without repetition.

    A row stays with a probability of its weight over the largest. The number of them, sum(w) / max(w), is that
    of clusters that the posterior of the network's weights may count: with more, those of the largest weight would
    count as several.
    """
    rows = _systematic(weight / weight.max(), torch_generator(seed, "each at most once", 0))
    return rows.sort().values


def _systematic(expected: Tensor, generator: torch.Generator) -> Tensor:
    """Each row as often as expected on average, rounded down or up, (n,), in random order of the rows."""
    order = torch.randperm(len(expected), generator=generator)
    offset = torch.rand(1, generator=generator, dtype=torch.float64)
    ends = (expected.double().cpu()[order].cumsum(0) + offset).floor()
    counts = ends.diff(prepend=torch.zeros(1, dtype=torch.float64)).long()
    return order.repeat_interleave(counts)

"""What `infer` says about clusters that are unlike the training set: a column and a sentence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from astropy.table import MaskedColumn, Table

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.novelty.detector import Assessment, NoveltyDetector
from bayesflowmass.novelty.report import judge, verdict_sentence

__all__ = ["FEWEST", "p_values_of", "with_novelty"]

FEWEST = 5
"""Clusters from which on a catalogue as a whole is tested."""


def p_values_of(found: Sequence[tuple[npt.NDArray[np.intp], Assessment]], n: int) -> FloatArray:
    """p-values of n clusters, from the assessments of some rows; NaN for the others."""
    result = np.full(n, np.nan)
    for rows, assessment in found:
        result[rows] = assessment.p_value
    return result


def with_novelty(
    table: Table,
    catalog: ClusterCatalog,
    detector: NoveltyDetector | None,
    found: Sequence[tuple[npt.NDArray[np.intp], Assessment]],
    seed: int,
) -> Table:
    """The masses table with the column ``p_novelty`` and, from five clusters on, the verdict in its header.

    Args:
        table: one row per cluster of the catalogue.
        catalog: the clusters.
        detector: of the model; None: the column is masked.
        found: rows of the catalogue and their assessments.
        seed: of the permutations.
    """
    p_value = p_values_of(found, len(catalog))
    column = MaskedColumn(np.nan_to_num(p_value), mask=np.isnan(p_value))
    column.description = "share of held-out training clusters of that richness that look as strange"
    table.add_column(column, index=table.colnames.index("prior"), name="p_novelty")
    rows = np.concatenate([rows for rows, _ in found]) if found else np.zeros(0, dtype=np.intp)
    if detector is not None and len(rows) >= FEWEST:
        assessment = Assessment.concatenate([one for _, one in found])
        verdict = judge(detector, catalog[rows], assessment, seed=seed)
        table.meta |= {"p_sample": verdict.p_value, "novelty": verdict_sentence(verdict)}
    return table

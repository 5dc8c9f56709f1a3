"""The novelty part of metrics.json."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.novelty import ALARM, Assessment, judge, verdict_sentence


def novelty_metrics(
    estimator: MassEstimator, strange: Assessment | None, catalog: ClusterCatalog, seed: int
) -> dict[str, Any] | None:
    """Share of strange clusters, and the verdict on all of them together; None for a model that does not know.

    Args:
        estimator: the model.
        strange: of all clusters.
        catalog: those clusters.
        seed: of the permutations.
    """
    if estimator.novelty is None or strange is None:
        return None
    verdict = judge(estimator.novelty, catalog, strange, seed=seed)
    return {
        "threshold": ALARM,
        "share_unlike_training": float(np.mean(strange.p_value <= ALARM)),
        "verdict": verdict_sentence(verdict),
        **asdict(verdict),
    }

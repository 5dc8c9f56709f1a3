"""The novelty part of metrics.json."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from bayesflowmass.estimator import MassEstimator
from bayesflowmass.novelty import ALARM, Assessment, verdict_sentence

__all__ = ["novelty_metrics"]


def novelty_metrics(
    estimator: MassEstimator, strange: Assessment | None, halo_id: npt.ArrayLike, seed: int
) -> dict[str, Any] | None:
    """Share of strange clusters, and the verdict on all of them together; None for a model that does not know.

    Args:
        estimator: the model.
        strange: of all clusters.
        halo_id: of each.
        seed: of the permutations.
    """
    if estimator.novelty is None or strange is None:
        return None
    verdict = estimator.novelty.test(strange, halo_id, seed=seed)
    return {
        "threshold": ALARM,
        "share_unlike_training": float(np.mean(strange.p_value <= ALARM)),
        "verdict": verdict_sentence(verdict),
        **asdict(verdict),
    }

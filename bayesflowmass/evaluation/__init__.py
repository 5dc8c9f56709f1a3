"""The road from a catalogue to posteriors, and what they say of clusters of known mass.

- `posteriors`, `posterior_columns`: every cluster of a catalogue, batch by batch, as every command goes along it;
- `predict`, `read_predictions`, `write_predictions`: clusters of known mass, and the files of what was said of them;
- `like_training`: test clusters like those of training;
- `cluster_cards`, `write_cards`: one page for each cluster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bayesflowmass.common.lazy import lazy_exports

__all__ = [
    "Batch",
    "Predictions",
    "StoredPredictions",
    "cluster_cards",
    "like_training",
    "posterior_columns",
    "posteriors",
    "predict",
    "read_predictions",
    "write_cards",
    "write_predictions",
]

if TYPE_CHECKING:
    from bayesflowmass.evaluation.cards import cluster_cards, write_cards
    from bayesflowmass.evaluation.files import StoredPredictions, read_predictions, write_predictions
    from bayesflowmass.evaluation.predictions import Predictions, predict
    from bayesflowmass.evaluation.road import Batch, posterior_columns, posteriors
    from bayesflowmass.evaluation.test_sets import like_training

# Imported on first use: a table of metrics needs no torch.
__getattr__, __dir__ = lazy_exports(__name__, __file__)

"""New clusters as a model was trained on: what its calibration is tested with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.estimator import TrainingInfo
from bayesflowmass.mocks import MockParameters, simulate_catalog
from bayesflowmass.training.augmentation import Augmentation
from bayesflowmass.training.preparation import DEEPEST

__all__ = ["fresh_mocks"]


def fresh_mocks(
    info: TrainingInfo,
    n_clusters: int,
    seed: int,
    *,
    simulate: Mapping[str, Any] | None = None,
    augmentation: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> ClusterCatalog:
    """Clusters simulated and observed as those of training, with another seed, or with some settings changed.

    Each halo is seen along one line of sight, so that clusters are independent.

    Args:
        info: of the model; its ``config`` says how it was trained.
        n_clusters: simulated; those that keep the least number of galaxies are in the result.
        seed: of mocks and observation; other than that of the training.
        simulate: changed arguments of `bayesflowmass.mocks.simulate_catalog`.
        augmentation: changed arguments of `Augmentation`.
        progress: show a bar.

    Raises:
        ValueError: the model was not trained on mocks made for it, so nobody knows how to make more.
    """
    made = info.config.get("simulate")
    if made is None:
        raise ValueError(
            "The model was trained on a catalogue that was given, not on mocks made for it; give a test catalogue."
        )
    arguments = dict(made) | {"n_projections": 1} | dict(simulate or {})
    if isinstance(arguments.get("parameters"), Mapping):
        arguments["parameters"] = MockParameters.from_dict(arguments["parameters"])
    observed = Augmentation(**(dict(info.config.get("augmentation") or {}) | dict(augmentation or {})))
    r_max, v_max = float(arguments.get("r_max", 1.6)), float(arguments.get("v_max", 2500.0))
    wide_r, wide_v = observed.margins()
    arguments |= {"n_clusters": n_clusters, "seed": seed}
    arguments |= {"r_max": r_max + wide_r, "v_max": min(v_max + wide_v, DEEPEST)}
    if observed.magnitude_limit is not None:
        arguments["magnitudes"] = True
    catalog = simulate_catalog(**arguments, progress=progress)
    if not observed:
        return catalog
    return observed.apply(catalog, np.random.default_rng([seed, 1]), r_max=r_max, v_max=v_max)

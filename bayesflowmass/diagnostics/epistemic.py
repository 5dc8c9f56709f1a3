"""How much of each posterior's width is ignorance of the network's weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bayesflowmass.common.arrays import FloatArray

if TYPE_CHECKING:
    from bayesflowmass.posterior import MassPosterior

__all__ = ["concatenate_columns", "epistemic_columns", "epistemic_share"]


def epistemic_columns(posterior: MassPosterior) -> dict[str, FloatArray]:
    """``sigma_aleatoric``, ``sigma_epistemic`` [dex] and ``mutual_information`` [nats], each (n,).

    Empty for a point model, which has none of them.
    """
    if posterior.n_draws is None:
        return {}
    names = ("sigma_aleatoric", "sigma_epistemic", "mutual_information")
    return {name: np.asarray(getattr(posterior, name), dtype=np.float64) for name in names}


def concatenate_columns(parts: Sequence[Mapping[str, FloatArray]]) -> dict[str, FloatArray]:
    """Columns of consecutive clusters as one."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}


def epistemic_share(columns: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """``epistemic_share`` = var_epistemic / (var_aleatoric + var_epistemic) of each cluster (n,).

    With the columns whose means are metrics; empty for a point model.
    """
    if not columns:
        return {}
    epistemic = columns["sigma_epistemic"] ** 2
    return {
        "epistemic_share": epistemic / (epistemic + columns["sigma_aleatoric"] ** 2),
        "sigma_epistemic": columns["sigma_epistemic"],
        "mutual_information": columns["mutual_information"],
    }

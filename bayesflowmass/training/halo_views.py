"""Views of one halo from several sides: one halo, not several."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.training.random_state import torch_generator

__all__ = ["halo_numbers", "one_view_of_each"]


def halo_numbers(catalog: ClusterCatalog) -> Tensor | None:
    """Numbers (N,) of the halos of a catalogue, equal for views of one halo; None without a ``halo_id``."""
    if not catalog.has("halo_id"):
        return None
    return torch.from_numpy(np.unique(catalog.column("halo_id"), return_inverse=True)[1].astype(np.int64))


def one_view_of_each(halo: Tensor, seed: int, index: int) -> Tensor:
    """Rows, in increasing order, of one cluster of each halo, drawn at random: (number of halos,), on the CPU.

    Args:
        halo: (N,) numbers of halos.
        seed, index: of the choice.
    """
    shuffled = torch.randperm(len(halo), generator=torch_generator(seed, "view of halo", index)).numpy()
    first = np.unique(halo.cpu().numpy()[shuffled], return_index=True)[1]
    return torch.from_numpy(np.sort(shuffled[first]))

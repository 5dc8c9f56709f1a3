"""Views of one halo from several sides: one halo, not several."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.training.random_state import torch_generator

if TYPE_CHECKING:
    from bayesflowmass.training.sources import EpochData, TrainingSource

__all__ = ["OneViewOfEachHalo", "halo_numbers", "one_view_of_each"]


def halo_numbers(catalog: ClusterCatalog) -> Tensor | None:
    """Numbers (N,) of the halos of a catalogue, equal for views of one halo; None without a ``halo_id``."""
    if not catalog.has("halo_id"):
        return None
    return torch.from_numpy(np.unique(catalog.column("halo_id"), return_inverse=True)[1].astype(np.int64))


def one_view_of_each(halo: Tensor, seed: int, index: int) -> Tensor:
    """Rows, in increasing order, of one cluster of each halo, drawn at random: (number of halos,), on the CPU.

    Arguments:
        halo: (N,) numbers of halos.
        seed, index: of the choice.
    """
    shuffled = torch.randperm(len(halo), generator=torch_generator(seed, "view of halo", index)).numpy()
    first = np.unique(halo.cpu().numpy()[shuffled], return_index=True)[1]
    return torch.from_numpy(np.sort(shuffled[first]))


class OneViewOfEachHalo:
    """A source of which every epoch shows each halo from one side only, chosen at random.

    The mean of a loss over it is, on average over epochs, the mean over halos of the mean over their views:
    an objective that divides by the number of halos is unbiased.

    Arguments:
        source: with numbers of halos in its epochs.
        seed: of the choice.
    """

    def __init__(self, source: TrainingSource, seed: int) -> None:
        self._source, self._seed = source, seed

    def epoch(self, index: int) -> EpochData:
        """One cluster of each halo."""
        data = self._source.epoch(index)
        if data.halo is None:
            return data
        rows = one_view_of_each(data.halo, self._seed, index)
        here = rows.to(data.context.device)
        return data._replace(
            context=data.context[here],
            log10_mass=data.log10_mass[rows.to(data.log10_mass.device)],
            halo=data.halo[rows.to(data.halo.device)],
        )

    def fingerprint(self) -> str:
        """That of the source, and that halos count."""
        return f"{self._source.fingerprint()}, one view of each halo"

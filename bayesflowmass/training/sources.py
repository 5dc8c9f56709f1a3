"""Where the clusters of each epoch come from.

A source is a function of the epoch alone: it keeps no history, so that a run that was killed and resumed sees
the same clusters as one that was not, and so that the next epoch can be prepared in the background without
changing anything.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from bayesflowmass.training.fingerprint import hash_tensors

__all__ = ["EpochData", "EpochSource", "FixedSource", "Prefetched", "TrainingSource"]


class EpochData(NamedTuple):
    """Clusters of one epoch: ``context`` (N, C), float32, and ``log10_mass`` (N,), log10 M200c [Msun/h]."""

    context: Tensor
    log10_mass: Tensor


class TrainingSource(Protocol):
    """What :func:`bayesflowmass.training.fit.fit` trains on."""

    def epoch(self, index: int) -> EpochData:
        """The clusters of the epoch, counted from 0; equal for equal arguments."""
        ...

    def fingerprint(self) -> str:
        """A hash of the data, by which a resumed run is refused on other data."""
        ...


@dataclass(frozen=True)
class FixedSource:
    """The same clusters in every epoch."""

    context: Tensor
    log10_mass: Tensor

    def __post_init__(self) -> None:
        """Refuse data that cannot be trained on."""
        check_data(self.context, self.log10_mass, "training data")

    def epoch(self, index: int) -> EpochData:
        """All clusters."""
        return EpochData(self.context, self.log10_mass)

    def fingerprint(self) -> str:
        """Hash of the masses and of a part of the contexts (all of them may be gigabytes)."""
        return hash_tensors({"log10_mass": self.log10_mass, "context": self.context[:64]})


@dataclass(frozen=True)
class EpochSource:
    """New clusters in every epoch, or the same ones seen anew: ``build(epoch)`` makes them.

    Arguments:
        build: returns (context (N, C), log10_mass (N,)) of an epoch; a function of the epoch alone.
        identity: names what ``build`` builds from, for the fingerprint.
    """

    build: Callable[[int], EpochData]
    identity: str = ""

    def epoch(self, index: int) -> EpochData:
        """Builds the clusters of the epoch."""
        data = EpochData(*self.build(index))
        check_data(data.context, data.log10_mass, f"data of epoch {index}")
        return data

    def fingerprint(self) -> str:
        """The identity given."""
        return self.identity


class Prefetched:
    """A source whose next epoch is prepared in a background thread while the present one trains.

    The source must use generators of its own: a global one would be drawn from in an order that depends on
    timing.
    """

    def __init__(self, source: TrainingSource) -> None:
        self._source = source
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="next-epoch")
        self._ahead: dict[int, Future[EpochData]] = {}

    def epoch(self, index: int) -> EpochData:
        """The clusters of the epoch; waits for them where they are not ready."""
        data = self._ahead.pop(index, None) or self._worker.submit(self._source.epoch, index)
        ready = data.result()
        self._ahead = {index + 1: self._worker.submit(self._source.epoch, index + 1)}
        return ready

    def fingerprint(self) -> str:
        """That of the source."""
        return self._source.fingerprint()

    def close(self) -> None:
        """Let go of the epoch in preparation."""
        self._worker.shutdown(wait=True, cancel_futures=True)


def check_data(context: Tensor, log10_mass: Tensor, what: str) -> None:
    """Refuse contexts and masses that cannot be trained on.

    Raises:
        ValueError: if shapes disagree, nothing is there, or a value is not finite; says how many and the
            first.
    """
    if context.ndim != 2 or log10_mass.shape != context.shape[:1]:
        raise ValueError(
            f"The {what} have contexts of shape {tuple(context.shape)} and masses of shape"
            f" {tuple(log10_mass.shape)};"
            " expected (N, C) and (N,)."
        )
    if len(log10_mass) == 0:
        raise ValueError(f"The {what} have no clusters; loosen the selection or simulate more.")
    for name, values in (("context", context), ("log10_mass", log10_mass)):
        bad = ~torch.isfinite(values if values.ndim == 1 else values.sum(dim=1))
        if bool(bad.any()):
            first = int(bad.nonzero()[0])
            raise ValueError(
                f"The {what} have {int(bad.sum())} clusters with a non-finite {name}, the first at row"
                f" {first};"
                " remove or repair them."
            )

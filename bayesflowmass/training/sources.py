"""Where the clusters of each epoch come from.

A source is a function of the epoch alone: it keeps no history, so that a run that was killed and resumed sees
the same clusters as one that was not, and so that the next epoch can be prepared in the background without
changing anything.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.common.tensors import hash_tensors
from bayesflowmass.encoders import Contexts, GalaxySet, concatenate, context_tensors
from bayesflowmass.training.random_state import torch_generator

# Between slices of this size a preparation can be given up.
CLUSTERS_AT_ONCE = 2048


class EpochData(NamedTuple):
    """Clusters of one epoch.

    Attributes:
        context: of N clusters, float32.
        log10_mass: (N,), log10 M200c [Msun/h].
        halo: (N,), integers, equal for views of one halo; None where every cluster is a halo of its own.
        weight: (N,), how much each cluster counts in the likelihood, 1 in the mean; None: all alike.
    """

    context: Contexts
    log10_mass: Tensor
    halo: Tensor | None = None
    weight: Tensor | None = None


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

    context: Contexts
    log10_mass: Tensor
    halo: Tensor | None = None

    def __post_init__(self) -> None:
        """Refuse data that cannot be trained on."""
        check_data(self.context, self.log10_mass, "training data")

    def epoch(self, index: int) -> EpochData:
        """All clusters."""
        return EpochData(self.context, self.log10_mass, self.halo)

    def fingerprint(self) -> str:
        """Hash of the masses and of a part of the contexts (all of them may be gigabytes)."""
        return hash_tensors({"log10_mass": self.log10_mass, **context_tensors(self.context[:64])})[:12]


class CatalogSource:
    """A catalogue drawn and encoded anew for every index.

    Args:
        draw: the catalogue, with ``log10_mass``, of an index; a function of the index alone.
        encode: contexts of a catalogue.
        identity: names what ``draw`` draws from, for the fingerprint.
    """

    def __init__(
        self,
        draw: Callable[[int], ClusterCatalog],
        encode: Callable[[ClusterCatalog], Contexts],
        identity: str = "",
    ) -> None:
        self._draw, self._encode, self._identity = draw, encode, identity
        self._cancelled = threading.Event()

    def epoch(self, index: int) -> EpochData:
        """Contexts and masses of the catalogue of this index."""
        catalog = self._draw(index)
        parts = []
        for start in range(0, len(catalog), CLUSTERS_AT_ONCE):
            if self._cancelled.is_set():
                raise CancelledError("no longer needed")
            parts.append(self._encode(catalog[start : start + CLUSTERS_AT_ONCE]))
        target = torch.from_numpy(np.array(catalog.column("log10_mass"), dtype=np.float32))
        contexts = concatenate(parts) if parts else torch.zeros(0, 0)
        data = EpochData(contexts, target, halo_numbers(catalog))
        check_data(data.context, data.log10_mass, f"data of draw {index}")
        return data

    def fingerprint(self) -> str:
        """The identity given."""
        return self._identity

    def cancel(self) -> None:
        """Give up an epoch in preparation in another thread."""
        self._cancelled.set()


class Redrawn:
    """Several epochs of training on each draw of a source, where drawing costs more than an epoch of
    training.

    Args:
        source: its index counts draws.
        every: epochs on each draw.

    Raises:
        ValueError: if ``every`` is below 1.
    """

    def __init__(self, source: TrainingSource, every: int) -> None:
        if every < 1:
            raise ValueError(f"redraw_every is {every}; expected at least 1 epoch.")
        self._source, self._every = source, every
        self._present: tuple[int, EpochData] | None = None

    def epoch(self, index: int) -> EpochData:
        """The draw that the epoch belongs to."""
        draw = index // self._every
        if self._present is None or self._present[0] != draw:
            self._present = None
            self._present = draw, self._source.epoch(draw)
        return self._present[1]

    def fingerprint(self) -> str:
        """That of the source, and how often it is drawn from."""
        return f"{self._source.fingerprint()}, each for {self._every} epochs"


class EachHaloOnce:
    """A source whose views of one halo share the weight of one, so that each halo counts once.

    Args:
        source: with ``halo``.
    """

    def __init__(self, source: TrainingSource) -> None:
        self._source = source
        self._present: EpochData | None = None

    def epoch(self, index: int) -> EpochData:
        """The clusters of the epoch, with their weights."""
        data = self._source.epoch(index)
        if self._present is None or self._present.context is not data.context:
            weight = None if data.halo is None else weights_of_views(data.halo).to(data.log10_mass)
            self._present = data._replace(weight=weight)
        return self._present

    def fingerprint(self) -> str:
        """That of the source."""
        return f"{self._source.fingerprint()}, each halo once"


class Prefetched:
    """A source whose next epoch is prepared in a background thread while the present one trains.

    Nothing else differs: the source must use generators of its own, since a global one would be drawn from in
    an order that depends on timing.

    Args:
        source: what to prefetch from.
        cancel: called on closing, to cut a preparation short.
    """

    def __init__(self, source: TrainingSource, cancel: Callable[[], None] | None = None) -> None:
        self._source, self._cancel = source, cancel
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="next-epoch")
        self._ahead: tuple[int, Future[EpochData]] | None = None

    def __enter__(self) -> Prefetched:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def epoch(self, index: int) -> EpochData:
        """The clusters of the epoch; waits for them where they are not ready."""
        if self._ahead is not None and self._ahead[0] == index:
            data = self._ahead[1].result()
        else:
            data = self._worker.submit(self._source.epoch, index).result()
        self._ahead = index + 1, self._worker.submit(self._source.epoch, index + 1)
        return data

    def fingerprint(self) -> str:
        """That of the source."""
        return self._source.fingerprint()

    def close(self) -> None:
        """Let go of the epoch in preparation."""
        if self._cancel is not None:
            self._cancel()
        self._worker.shutdown(wait=True, cancel_futures=True)


def check_data(context: Contexts, log10_mass: Tensor, what: str) -> None:
    """Refuse contexts and masses that cannot be trained on.

    Raises:
        ValueError: if shapes disagree, nothing is there, or a value is not finite; says how many and the
            first.
    """
    wrong = isinstance(context, Tensor) and context.ndim != 2
    if wrong or log10_mass.shape != (len(context),):
        raise ValueError(
            f"The {what} have contexts of shape {tuple(context.shape)} and masses of shape"
            f" {tuple(log10_mass.shape)};"
            " expected (N, C) and (N,)."
        )
    if len(log10_mass) == 0:
        raise ValueError(f"The {what} have no clusters; loosen the selection or simulate more.")
    finite = context.finite() if isinstance(context, GalaxySet) else torch.isfinite(context.sum(dim=1))
    for name, good in (("context", finite), ("log10_mass", torch.isfinite(log10_mass))):
        bad = ~good
        if bool(bad.any()):
            first = int(bad.nonzero()[0])
            raise ValueError(
                f"The {what} have {int(bad.sum())} clusters with a non-finite {name}, the first at row"
                f" {first};"
                " remove or repair them."
            )


def halo_numbers(catalog: ClusterCatalog) -> Tensor | None:
    """Numbers (N,) of the halos of a catalogue, equal for views of one halo; None without a ``halo_id``."""
    if not catalog.has("halo_id"):
        return None
    return torch.from_numpy(np.unique(catalog.column("halo_id"), return_inverse=True)[1].astype(np.int64))


def weights_of_views(halo: Tensor) -> Tensor:
    """How much each view counts so that every halo counts once, 1 in the mean: (N,), float64.

    Args:
        halo: (N,) numbers of halos.
    """
    _, which, views = halo.unique(return_inverse=True, return_counts=True)
    shares: Tensor = len(halo) / len(views) / views[which].double()
    return shares


def one_view_of_each(halo: Tensor, seed: int, index: int) -> Tensor:
    """Rows, in increasing order, of one cluster of each halo, drawn at random: (number of halos,), on the CPU.

    Args:
        halo: (N,) numbers of halos.
        seed, index: of the choice.
    """
    shuffled = torch.randperm(len(halo), generator=torch_generator(seed, "view of halo", index)).numpy()
    first = np.unique(halo.cpu().numpy()[shuffled], return_index=True)[1]
    return torch.from_numpy(np.sort(shuffled[first]))

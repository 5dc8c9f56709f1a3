"""The training and validation data of a run: from a catalogue, or from mocks made for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.common.tensors import hash_tensors
from bayesflowmass.encoders import Contexts, Encoder
from bayesflowmass.mocks import simulate_catalog
from bayesflowmass.selection.cuts import R_MAX, V_MAX
from bayesflowmass.training.augmentation import Augmentation
from bayesflowmass.training.device import memory_allows
from bayesflowmass.training.random_state import derive_seed, numpy_generator
from bayesflowmass.training.sources import CatalogSource, FixedSource, TrainingSource, halo_numbers

DEEPEST = 3500.0
"""Largest v_max [km/s] of `simulate_catalog`."""


@dataclass(frozen=True)
class TrainingData:
    """What a run trains and validates on.

    ``seen`` is the training split as the network first sees it, after augmentation, ``held_out`` the validation
    split; ``validation`` is (contexts of N clusters, log10_mass (N,)) of it; the index of ``source`` counts draws.
    """

    source: TrainingSource
    validation: tuple[Contexts, Tensor]
    seen: ClusterCatalog
    held_out: ClusterCatalog

    @property
    def redrawn(self) -> bool:
        """Whether every draw differs."""
        return isinstance(self.source, CatalogSource)


def prepare(
    catalog: ClusterCatalog | None,
    simulate: Mapping[str, Any],
    encoder: Encoder,
    *,
    augmentation: Augmentation,
    fresh_mocks: bool = False,
    validation_fraction: float = 0.1,
    fitted: bool = False,
    seed: int = 0,
    device: torch.device,
    progress: bool = True,
) -> TrainingData:
    """Training and validation clusters, encoded; fits the constants of the encoder's extra columns.

    Halos are never on both sides. The validation clusters are augmented once, as the training clusters are
    each time.

    Args:
        catalog: clusters with ``log10_mass``; None simulates.
        simulate: arguments of :func:`~bayesflowmass.mocks.simulate_catalog`; ``n_clusters`` are for both
            splits.
        encoder: galaxies to contexts.
        augmentation: applied to every cluster; mocks are then cut as much wider as it needs.
        fresh_mocks: new training clusters for every draw.
        validation_fraction: share of the haloes.
        fitted: the encoder has its constants, and keeps them.
        seed: of splits, mocks and augmentation.
        device: where to encode.
        progress: show bars.

    Raises:
        CatalogError: if the catalogue lacks something that training needs.
        ValueError: if options contradict each other.
    """
    if fresh_mocks and catalog is not None:
        raise ValueError(
            "fresh_mocks simulates new clusters, but a catalogue was given; leave one of them out."
        )

    final = {"r_max": simulate.get("r_max", R_MAX), "v_max": simulate.get("v_max", V_MAX)}

    def mocks(n_clusters: int, *stream: int | str, shown: bool = False) -> ClusterCatalog:
        wide_r, wide_v = augmentation.margins()
        arguments = dict(simulate) | {"n_clusters": n_clusters, "seed": derive_seed(seed, *stream)}
        # Galaxies from beyond the depth that the mocks have need errors of several sigma of both kinds at once.
        arguments |= {"r_max": final["r_max"] + wide_r, "v_max": min(final["v_max"] + wide_v, DEEPEST)}
        if augmentation.magnitude_limit is not None:
            arguments["magnitudes"] = True
        return simulate_catalog(**arguments, progress=shown)

    def observed(clusters: ClusterCatalog, *stream: int | str) -> ClusterCatalog:
        if not augmentation:
            return clusters
        # A catalogue of members only has no cylinder, and one that was given keeps its own.
        cut = final if catalog is None and simulate.get("kind") != "pure" else {}
        return augmentation.apply(clusters, numpy_generator(seed, *stream), **cut)

    total = int(simulate.get("n_clusters", 20000))
    share = [1.0 - validation_fraction, validation_fraction]
    held_out: ClusterCatalog
    if fresh_mocks:
        n_held_out = max(1, round(validation_fraction * total))
        held_out = mocks(n_held_out, "validation mocks", shown=progress)

        def clusters_of(index: int) -> ClusterCatalog:
            return mocks(total - n_held_out, "mocks", index)
    else:
        clusters = mocks(total, "mocks", shown=progress) if catalog is None else _checked(catalog)
        split, held_out = clusters.split(share, derive_seed(seed, "split"))
        del clusters  # The split has copies.

        def clusters_of(index: int) -> ClusterCatalog:
            return split

    def draw(index: int) -> ClusterCatalog:
        return observed(clusters_of(index), "augmentation", index)

    seen = draw(0)
    if not fitted:
        encoder.fit_extras(seen)
    redrawn = fresh_mocks or bool(augmentation)
    on_device = memory_allows((1 + redrawn) * encoder.memory(seen), device)

    def encode(clusters: ClusterCatalog, shown: bool = False, truth: bool = True) -> Contexts:
        # Who is a member is told in training alone: a validation loss is that of masses.
        contexts = encoder.encode(clusters, device=device, progress=shown, truth=truth)
        return contexts if on_device else contexts.to("cpu")

    held_out = observed(held_out, "validation augmentation")
    validation = encode(held_out, truth=False), _masses(held_out)
    if not redrawn:
        source = FixedSource(encode(seen, progress), _masses(seen), halo_numbers(seen))
        return TrainingData(source, validation, seen, held_out)
    velocities = torch.from_numpy(np.array(seen.galaxies("v_los"), dtype=np.float64))
    identity = hash_tensors({"log10_mass": _masses(seen), "v_los": velocities})[:12]
    return TrainingData(CatalogSource(_first_kept(draw, seen), encode, identity), validation, seen, held_out)


def _first_kept(
    draw: Callable[[int], ClusterCatalog], first: ClusterCatalog
) -> Callable[[int], ClusterCatalog]:
    """The draws, of which the first is there already and is let go when used."""
    kept = {0: first}

    def drawn(index: int) -> ClusterCatalog:
        ready = kept.pop(index, None)
        return draw(index) if ready is None else ready

    return drawn


def _checked(catalog: ClusterCatalog) -> ClusterCatalog:
    if not catalog.has("log10_mass"):
        raise CatalogError(
            "The training catalogue has no column log10_mass; add the true log10 M200c [Msun/h] of each"
            " cluster."
        )
    return catalog.validate()


def _masses(catalog: ClusterCatalog) -> Tensor:
    return torch.from_numpy(np.array(catalog.column("log10_mass"), dtype=np.float32))

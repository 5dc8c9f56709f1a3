"""Randomness of a training run: streams derived without state, and the global states that a checkpoint keeps.

Everything that training draws itself (permutations, augmentations, fresh mocks) comes from a stream named by
``(seed, what, epoch)``. A stream has no history, so a resumed run draws what the uninterrupted one would have
drawn. Layers that draw from the global generators (dropout, Pyro samples) do have a history: it travels in
the checkpoint.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def derive_seed(seed: int, *path: int | str) -> int:
    """A 63-bit seed for the stream ``path`` of ``seed``; different paths give independent seeds.

    Uses the spawn keys of :class:`numpy.random.SeedSequence`; words of the path enter through their CRC-32.

    Raises:
        ValueError: if the seed is negative.
    """
    if seed < 0:
        raise ValueError(f"seed is {seed}; expected a non-negative integer.")
    key = tuple(zlib.crc32(part.encode()) if isinstance(part, str) else int(part) for part in path)
    words = np.random.SeedSequence(entropy=seed, spawn_key=key).generate_state(2, np.uint32)
    return (int(words[0]) << 31) ^ int(words[1])


def numpy_generator(seed: int, *path: int | str) -> np.random.Generator:
    """A numpy generator for the stream ``path`` of ``seed``."""
    return np.random.default_rng(derive_seed(seed, *path))


def torch_generator(seed: int, *path: int | str) -> torch.Generator:
    """A torch generator for the stream ``path`` of ``seed``, on the CPU: it draws the same for every
    device."""
    return torch.Generator().manual_seed(derive_seed(seed, *path))


def capture_global_state() -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The states of the global generators: torch and CUDA as byte tensors, numpy and Python for JSON."""
    tensors = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        for index, state in enumerate(torch.cuda.get_rng_state_all()):
            tensors[f"cuda{index}"] = state
    version, words, gauss = random.getstate()
    legacy: dict[str, Any] = dict(np.random.get_state(legacy=False))  # noqa: NPY002
    legacy["state"] = {"key": legacy["state"]["key"].tolist(), "pos": int(legacy["state"]["pos"])}
    return tensors, {"python": [version, list(words), gauss], "numpy": legacy}


def restore_global_state(tensors: Mapping[str, torch.Tensor], others: Mapping[str, Any]) -> None:
    """Set the global generators to what :func:`capture_global_state` returned; absent CUDA devices are
    skipped."""
    torch.set_rng_state(tensors["torch"].cpu().contiguous())
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            if f"cuda{index}" in tensors:
                torch.cuda.set_rng_state(tensors[f"cuda{index}"].cpu().contiguous(), index)
    version, words, gauss = others["python"]
    random.setstate((version, tuple(words), gauss))
    legacy = dict(others["numpy"])
    legacy["state"] = {
        "key": np.asarray(legacy["state"]["key"], dtype=np.uint32),
        "pos": legacy["state"]["pos"],
    }
    np.random.set_state(legacy)  # noqa: NPY002


@contextmanager
def seeded_globals(seed: int) -> Iterator[None]:
    """Within the block the global generators start from ``seed``; afterwards they are as they were."""
    before = capture_global_state()
    torch.manual_seed(derive_seed(seed, "torch"))
    np.random.seed(derive_seed(seed, "numpy") % 2**32)  # noqa: NPY002
    random.seed(derive_seed(seed, "python"))
    try:
        yield
    finally:
        restore_global_state(*before)

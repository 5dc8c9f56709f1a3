"""Hashes of weights and of data: to prove that two runs agree, and to refuse to resume on other data."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

__all__ = ["hash_tensors", "hash_weights"]


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes; neither order nor device matters."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def hash_weights(module: nn.Module) -> str:
    """SHA-256 of the parameters and buffers of a module; equal exactly where every bit of them is equal."""
    return hash_tensors(module.state_dict())

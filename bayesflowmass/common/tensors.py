"""Tensors as the bytes of a safetensors file, and their hashes: nothing is ever unpickled."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import safetensors.torch
import torch
from torch import Tensor

from bayesflowmass.common.sealed import hash_bytes


def pack(tensors: Mapping[str, Tensor]) -> tuple[bytes, str]:
    """The bytes of a safetensors file and their hash; the tensors may be on any device."""
    content = safetensors.torch.save(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    )
    return content, hash_bytes(content)


def unpack(content: bytes, expected: object) -> dict[str, Tensor]:
    """The tensors of bytes whose hash is the expected one.

    Raises:
        ValueError: it is not.
        SafetensorError: the bytes are no safetensors file.
    """
    if hash_bytes(content) != expected:
        raise ValueError("its content is not what was written")
    tensors: dict[str, Tensor] = safetensors.torch.load(content)
    return tensors


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes; neither order nor device matters."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

"""Hashes of weights, data and files: to prove that two runs agree, to refuse other data and damaged files."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["hash_bytes", "hash_tensors", "seal", "unseal"]

_SEALED = re.compile(rb'\{"sha256": "([0-9a-f]{64})", (.*)', re.DOTALL)


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes; neither order nor device matters."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def hash_bytes(content: bytes) -> str:
    """SHA-256 of the content of a file."""
    return hashlib.sha256(content).hexdigest()


def seal(content: Mapping[str, Any]) -> bytes:
    """JSON whose first entry, ``sha256``, is the hash of all that follows it."""
    rest = json.dumps(content)[1:].encode()
    return b'{"sha256": "%b", %b' % (hash_bytes(rest).encode(), rest)


def unseal(text: bytes) -> dict[str, Any]:
    """What was sealed, without the hash.

    Raises:
        ValueError: a byte is not what was written.
    """
    found = _SEALED.fullmatch(text)
    if found is None or hash_bytes(found[2]) != found[1].decode():
        raise ValueError("its content is not what was written")
    content: dict[str, Any] = json.loads(b"{" + found[2])
    return content

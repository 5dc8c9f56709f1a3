"""JSON that knows its own SHA-256, so that no bit of it can change unseen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

SEAL = "sha256"
"""The entry with the hash of the file, of its bytes with zeros in that place."""
_ZEROS = 64 * "0"


def hash_bytes(content: bytes) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def seal(values: Mapping[str, Any], *, allow_nan: bool = True) -> bytes:
    """The bytes of a JSON file with the hash of itself and some values.

    Raises:
        ValueError: a value is nothing that JSON knows, or not finite where that is not allowed.
    """
    unsealed = json.dumps({SEAL: _ZEROS} | dict(values), indent=1, allow_nan=allow_nan).encode()
    return unsealed.replace(_ZEROS.encode(), hash_bytes(unsealed).encode(), 1)


def is_as_sealed(data: bytes, claimed: Any) -> bool:
    """Whether the bytes of a file are those that `seal` gave; ``claimed`` is the hash that the file holds."""
    if not isinstance(claimed, str) or len(claimed) != len(_ZEROS) or data.count(claimed.encode()) != 1:
        return False
    return hash_bytes(data.replace(claimed.encode(), _ZEROS.encode())) == claimed

"""What ``model.json`` says of a model; reading it needs neither torch nor the weights.

It holds the SHA-256 of the weights (``weights_sha256``) and is sealed (`bayesflowmass.common.sealed`), so that no
bit of either file can change unseen. Models of version 0.1 (format 1) know the hash of their weights only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from bayesflowmass.common.sealed import SEAL, is_as_sealed, seal

FORMAT = "bayesflowmass-model"
FORMAT_VERSION = 2
WHOLE_HASH = 2
"""Format from which on a description knows its own hash."""

WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"
_MOST_BYTES = 2**26


class ModelError(ValueError):
    """A model folder that cannot be used; the message says which file, what was found and what to do."""


def does_not_describe(folder: str | os.PathLike[str], error: Exception) -> ModelError:
    """The error of a description whose parts this version cannot make."""
    return ModelError(
        f"'{Path(folder) / DESCRIPTION}' does not describe a model that this version knows ({error}); "
        "train the model again, or use the version that wrote it."
    )


def signed_description(values: Mapping[str, Any]) -> bytes:
    """The bytes of ``model.json``: format, hash and some values.

    Raises:
        ValueError: a value is not finite, or nothing that JSON knows.
    """
    header = {"format": FORMAT, "format_version": FORMAT_VERSION}
    return seal(header | dict(values), allow_nan=False)


def read_description(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of ``model.json``.

    Raises:
        ModelError: the folder or one of its files is missing, or the description is truncated, foreign or newer than
            this version.
    """
    folder = Path(folder)
    for name in (DESCRIPTION, WEIGHTS):
        if not (folder / name).is_file():
            raise ModelError(
                f"'{folder}' is not a model: it has no {name}; "
                "give the folder that `bayesflowmass train --out` wrote."
            )
    path = folder / DESCRIPTION
    if path.stat().st_size > _MOST_BYTES:
        raise ModelError(
            f"'{path}' has {path.stat().st_size} bytes; a description has some thousand. Copy it again."
        )
    data = path.read_bytes()
    try:
        description = json.loads(data.decode(), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"'{path}' is truncated or not JSON ({str(error)[:200]}); copy or train the model again."
        ) from None
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise ModelError(
            f"'{path}' does not describe a bayesflowmass model: its format is not '{FORMAT}'; "
            "give the folder that `bayesflowmass train --out` wrote."
        )
    version = description.get("format_version")
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise ModelError(
            f"'{path}' was written by a newer bayesflowmass ({description.get('version', 'unknown')}, "
            f"model format {version}; this one reads 1 to {FORMAT_VERSION}), or is damaged: upgrade bayesflowmass, or "
            "copy the model again."
        )
    if version >= WHOLE_HASH and not is_as_sealed(data, description.get(SEAL)):
        raise ModelError(
            f"'{path}' is not as it was written (its SHA-256 differs), so that masses would be wrong; copy or train "
            "the model again."
        )
    return description


def _no_number(constant: str) -> NoReturn:
    raise ValueError(f"it holds {constant}, which is no number")

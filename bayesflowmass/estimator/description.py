"""What ``model.json`` says of a model; reading it needs neither torch nor the weights."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

__all__ = [
    "DESCRIPTION",
    "FORMAT",
    "FORMAT_VERSION",
    "WEIGHTS",
    "ModelError",
    "does_not_describe",
    "read_description",
]

FORMAT = "bayesflowmass-model"
FORMAT_VERSION = 1
WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"


class ModelError(ValueError):
    """A model folder that cannot be used; the message says which file, what was found and what to do."""


def does_not_describe(folder: str | os.PathLike[str], error: Exception) -> ModelError:
    """The error of a description whose parts this version cannot make."""
    return ModelError(
        f"'{Path(folder) / DESCRIPTION}' does not describe a model that this version knows ({error}); "
        "train the model again, or use the version that wrote it."
    )


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
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(
            f"'{path}' is truncated or not JSON ({error}); copy or train the model again."
        ) from None
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise ModelError(
            f"'{path}' does not describe a bayesflowmass model: its format is not '{FORMAT}'; "
            "give the folder that `bayesflowmass train --out` wrote."
        )
    version = description.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise ModelError(
            f"'{path}' was written by a newer bayesflowmass ({description.get('version', 'unknown')}, "
            f"model format {version}; this one reads up to {FORMAT_VERSION}); upgrade bayesflowmass."
        )
    return description

"""A model on disk: ``model.safetensors`` (weights only) and ``model.json`` (everything else).

Nothing is ever unpickled: safetensors holds numbers, JSON holds descriptions, and code comes from this
package.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from bayesflowmass.common.files import make_folder, write_whole
from bayesflowmass.common.tensors import pack, unpack
from bayesflowmass.estimator.description import (
    DESCRIPTION,
    WEIGHTS,
    ModelError,
    read_description,
    signed_description,
)


def write_model_folder(
    folder: str | os.PathLike[str], tensors: dict[str, Tensor], description: dict[str, Any]
) -> Path:
    """Write weights and description, each atomically; the description, which names the weights, last.

    Args:
        folder: created if missing; other files in it are left alone.
        tensors: weights and buffers by name.
        description: JSON-able.

    Raises:
        ModelError: a weight is not a finite number.
        OSError: the disk is full, or the place cannot be written to.
    """
    folder = Path(folder)
    wrong = not_finite(tensors)
    if wrong is not None:
        raise ModelError(
            f"The weights '{wrong}' are not finite numbers, so there is no model to write; train again with a "
            "smaller learning rate."
        )
    make_folder(folder)
    weights, their_hash = pack(tensors)
    text = signed_description({"weights_sha256": their_hash} | description)
    write_whole(folder / WEIGHTS, weights)
    write_whole(folder / DESCRIPTION, text)
    return folder


def read_model_folder(folder: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and description of a model folder.

    Raises:
        ModelError: the folder or one of its files is missing, truncated, foreign, newer than this version, or
            the two files do not belong together; or a weight is not a finite number.
    """
    folder = Path(folder)
    description = read_description(folder)
    try:
        tensors = unpack((folder / WEIGHTS).read_bytes(), description.get("weights_sha256"))
    except SafetensorError as error:
        raise ModelError(
            f"'{folder / WEIGHTS}' is not a safetensors file ({error}); copy or train the model again."
        ) from None
    except ValueError:
        raise ModelError(
            f"'{folder / WEIGHTS}' is truncated or not the file that {DESCRIPTION} describes (its SHA-256 differs); "
            "copy both files of the model again."
        ) from None
    wrong = not_finite(tensors)
    if wrong is not None:
        raise ModelError(
            f"The weights '{wrong}' in '{folder / WEIGHTS}' are not finite numbers, so that masses would not be "
            "either; train the model again."
        )
    return tensors, description


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Name of a tensor with a NaN or an infinity, if there is one."""
    return next((name for name, values in tensors.items() if not values.isfinite().all()), None)

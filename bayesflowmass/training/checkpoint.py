"""Checkpoints that survive being killed while they are written, and that never unpickle.

A checkpoint folder holds::

    settings.json            what the run was started with: a resumed run must agree
    latest                   the name of the checkpoint to resume from
    update-0000500/          tensors.safetensors (weights, best weights, optimiser, generators) and state.json

``state.json`` holds the hash of the tensors, and each JSON file one of itself: a flipped bit is refused on reading.

Each ``update-*`` folder is written under a temporary name, flushed to disk and renamed; then ``latest`` is
replaced by a rename; then older checkpoints are removed. At every instant ``latest`` names a complete
checkpoint, or none.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from bayesflowmass.common import files
from bayesflowmass.common.files import flush_folder, make_folder, reason_of, remove_partials, write_whole
from bayesflowmass.common.processes import Processes
from bayesflowmass.common.sealed import SEAL, is_as_sealed, seal
from bayesflowmass.common.tensors import pack, unpack

FORMAT = 2
LATEST = "latest"
SETTINGS = "settings.json"
TENSORS = "tensors.safetensors"
STATE = "state.json"
UNFINISHED = "unfinished-"
PROCESSES = "processes"


class CheckpointError(ValueError):
    """A checkpoint that cannot be written, read or resumed; the message says which, why and what to do."""


def has_checkpoint(folder: Path) -> bool:
    """Whether there is a checkpoint to resume from."""
    return (folder / LATEST).is_file()


def write_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Begin a run: remove checkpoints of an earlier one and note what this one is started with."""
    remove_checkpoints(folder)
    try:
        make_folder(folder)
        write_whole(folder / SETTINGS, seal(settings))
    except OSError as error:
        raise CheckpointError(
            f"Cannot write to the checkpoint folder '{folder}': {reason_of(error)}."
        ) from error


def read_settings(folder: Path) -> dict[str, Any] | None:
    """What the run in this folder was started with; None where there is none."""
    path = folder / SETTINGS
    return read_json(path) if path.is_file() else None


def check_same_settings(begun: Mapping[str, Any], now: Mapping[str, Any], where: str) -> None:
    """Refuse to resume a run with settings other than those it was begun with.

    Raises:
        CheckpointError: naming the keys that differ.
    """
    before, after = _flat(begun), _flat(json.loads(json.dumps(now)))
    was, is_now = before.get(PROCESSES, 1), after.get(PROCESSES, 1)
    if was != is_now:
        raise CheckpointError(
            f"The run in '{where}' was begun with {was} processes and cannot go on with {is_now}: start it with"
            f" torchrun --nproc-per-node={was}, or train anew in another folder."
        )
    different = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    if different:
        shown = "; ".join(f"{key} was {before.get(key)} and is now {after.get(key)}" for key in different[:3])
        raise CheckpointError(
            f"Cannot resume '{where}' with other settings: {shown}; restore them, or train anew in another"
            " folder."
        )


def counted(processes: Processes) -> dict[str, int]:
    """The setting that says how many processes train together; none where there is one."""
    return {PROCESSES: processes.count} if processes.count > 1 else {}


def write_checkpoint(
    folder: Path, update: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]
) -> None:
    """Write the checkpoint of one update and make it the latest.

    Args:
        tensors: names to tensors, on any device.
        state: everything else, for JSON.

    Raises:
        CheckpointError: where the disk is full or refuses; the previous checkpoint is then intact.
    """
    name = f"update-{update:07d}"
    if _latest(folder) == name:
        return
    temporary = folder / f"{UNFINISHED}{name}"
    try:
        for leftover in (temporary, folder / name):
            if leftover.exists():
                shutil.rmtree(leftover)
        temporary.mkdir(parents=True)
        content, their_hash = pack(tensors)
        files.write_through(temporary / TENSORS, content)
        note = {"format": FORMAT, "update": update, "tensors": their_hash, **state}
        files.write_through(temporary / STATE, seal(note))
        flush_folder(temporary)
        os.replace(temporary, folder / name)
        write_whole(folder / LATEST, name.encode())
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        kept = _latest(folder)
        remedy = (
            f"{kept} is intact: make room and go on with --resume" if kept else "make room and start again"
        )
        raise CheckpointError(
            f"Cannot write the checkpoint of update {update} to '{folder}': {reason_of(error)}; {remedy}."
        ) from error
    for other in folder.iterdir():
        if other.is_dir() and other.name != name and other.name.startswith((UNFINISHED, "update-")):
            shutil.rmtree(other, ignore_errors=True)


def read_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The tensors and the state of the latest checkpoint; None where there is none yet.

    Raises:
        CheckpointError: if the checkpoint is truncated, foreign or of an unknown format.
    """
    name = _latest(folder)
    if name is None:
        return None
    state = read_json(folder / name / STATE)
    if state.get("format") != FORMAT:
        raise CheckpointError(
            f"The checkpoint '{folder / name}' has format {state.get('format')!r}; this version reads"
            f" {FORMAT}; remove the folder and train anew."
        )
    return read_tensors(folder / name / TENSORS, state.pop("tensors")), state


def read_tensors(path: Path, expected: str) -> dict[str, Tensor]:
    """The tensors of a file whose bytes have the hash ``expected``.

    Raises:
        CheckpointError: they have another, or the file cannot be read.
    """
    try:
        return unpack(path.read_bytes(), expected)
    except (OSError, ValueError, SafetensorError) as error:
        raise _damaged(path, error) from error


def remove_checkpoints(folder: Path) -> None:
    """Remove what this module wrote into the folder, and the folder if nothing else is in it."""
    if not folder.is_dir():
        return
    # `latest` goes first: a kill half-way must not leave it pointing at a folder that is gone.
    for name in (LATEST, SETTINGS):
        (folder / name).unlink(missing_ok=True)
    remove_partials(folder)
    for other in folder.iterdir():
        if other.is_dir() and other.name.startswith((UNFINISHED, "update-")):
            shutil.rmtree(other)
    if not any(folder.iterdir()):
        folder.rmdir()


def _latest(folder: Path) -> str | None:
    path = folder / LATEST
    if not path.is_file():
        return None
    name = path.read_text(encoding="utf-8", errors="replace").strip()
    if not name.startswith("update-") or "/" in name or not (folder / name).is_dir():
        raise CheckpointError(
            f"'{path}' names the checkpoint {name[:80]!r}, which is not there; remove '{folder}' and train"
            " anew."
        )
    return name


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= (
            _flat(value, f"{prefix}{key}.")
            if isinstance(value, dict) and value
            else {f"{prefix}{key}": value}
        )
    return flat


def read_json(path: Path) -> dict[str, Any]:
    """What was sealed in a file.

    Raises:
        CheckpointError: a byte is not what was written, or the file cannot be read.
    """
    try:
        data = path.read_bytes()
        content = dict(json.loads(data))
        claimed = content.pop(SEAL, None)
        # Earlier formats had no seal; that they are earlier is what the caller says.
        earlier = claimed is None and content.get("format", FORMAT) != FORMAT
        if not earlier and not is_as_sealed(data, claimed):
            raise ValueError("its content is not what was written")
        return content
    except (OSError, ValueError, TypeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"The checkpoint file '{path}' is damaged ({error}); remove its folder and train anew."
    )

"""Phases of a run that follow one another: each is resumed where it was killed, none is repeated.

A finished phase leaves ``NAME.safetensors`` (the tensors of its module) and ``NAME.json`` (its `FitResult`), the
latter last: where it is there, the phase is done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from bayesflowmass.common.files import make_folder, reason_of, remove_partials, write_whole
from bayesflowmass.common.processes import present
from bayesflowmass.common.sealed import seal
from bayesflowmass.common.tensors import pack
from bayesflowmass.training.checkpoint import (
    CheckpointError,
    check_same_settings,
    counted,
    read_json,
    read_tensors,
    remove_checkpoints,
)
from bayesflowmass.training.fit import FitResult
from bayesflowmass.training.history import HistoryRow


def run_phase(
    folder: Path, name: str, module: nn.Module, settings: dict[str, Any], run: Callable[[], FitResult]
) -> FitResult:
    """The result of one phase: read where it was finished before, else of ``run()``, which is then noted.

    Args:
        folder: of the finished phases.
        name: of this one.
        module: what ``run`` trains, in place.
        settings: (for JSON) that a resumed run must share.
        run: trains.

    Raises:
        CheckpointError: if the phase was finished under other settings, its files are damaged, or the disk is
            full.
    """
    processes = present()
    settings = settings | counted(processes)
    tensors, note = folder / f"{name}.safetensors", folder / f"{name}.json"
    if note.is_file():
        found = read_json(note)
        check_same_settings(found["settings"], settings, str(folder))
        module.load_state_dict(read_tensors(tensors, found["tensors"]))
        history = tuple(HistoryRow(*row) for row in found["result"].pop("history"))
        return FitResult(history=history, **found["result"])
    result = run()
    if not processes.is_first:
        return result
    content = asdict(result) | {"history": [row.to_list() for row in result.history]}
    try:
        make_folder(folder)
        weights, their_hash = pack(module.state_dict())
        write_whole(tensors, weights)
        write_whole(note, seal({"tensors": their_hash, "settings": settings, "result": content}))
    except OSError as error:
        raise CheckpointError(
            f"Cannot note in '{folder}' that the phase '{name}' is done: {reason_of(error)}; make room and"
            " go on with --resume."
        ) from error
    remove_checkpoints(folder / f"{name}-checkpoint")
    return result


def remove_phases(folder: Path) -> None:
    """Remove what the phases left, and the folder if nothing else is in it."""
    if not folder.is_dir():
        return
    # Notes go first: a kill half-way must not leave one without its tensors.
    for pattern in ("*.json", "*.safetensors"):
        for path in folder.glob(pattern):
            path.unlink()
    for path in folder.iterdir():
        if path.is_dir() and path.name.endswith("-checkpoint"):
            remove_checkpoints(path)
    remove_partials(folder)
    if not any(folder.iterdir()):
        folder.rmdir()

"""What a training run writes while it goes: checkpoints and the history."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bayesflowmass.common.processes import present
from bayesflowmass.training.checkpoint import (
    CheckpointError,
    check_same_settings,
    read_checkpoint,
    read_settings,
    write_checkpoint,
    write_settings,
)
from bayesflowmass.training.history import HistoryRow, append_history, write_history
from bayesflowmass.training.state import TrainingState


class RunFiles:
    """Writes checkpoints and the history of one run, where the caller wants them; the first process does.

    Args:
        folder: of the checkpoints; None: none.
        every: updates between checkpoints.
        history_path: CSV file; None: none.
    """

    def __init__(self, folder: str | Path | None, every: int, history_path: str | Path | None) -> None:
        self._folder = Path(folder) if folder is not None else None
        self._every = every
        self._history_path = Path(history_path) if history_path is not None else None
        self._processes = present()
        if not self._processes.is_first:
            self._history_path = None

    def open(self, state: TrainingState, settings: dict[str, Any], resume: bool) -> None:
        """Load the latest checkpoint into the state, or begin anew where there is none.

        Raises:
            CheckpointError: if the checkpoint was begun with other settings or cannot be read.
        """
        if self._folder is not None:
            begun = read_settings(self._folder) if resume else None
            if begun is not None:
                check_same_settings(begun, settings, str(self._folder))
            found = read_checkpoint(self._folder) if begun is not None else None
            if found is not None:
                state.load(*found)
            elif self._processes.is_first:
                write_settings(self._folder, settings)
        elif resume:
            raise CheckpointError("resume needs a checkpoint_folder.")
        self._processes.check_same(settings | {"update": state.update})
        if self._history_path is not None:
            write_history(self._history_path, state.history)

    def note(self, row: HistoryRow) -> None:
        """Add one row to the history file."""
        if self._history_path is not None:
            append_history(self._history_path, row)

    def save_if_due(self, state: TrainingState) -> None:
        """Write a checkpoint, at every so many updates."""
        if self._folder is not None and state.update % self._every == 0:
            self._write(self._folder, state)

    def save_interrupted(self, state: TrainingState) -> str:
        """Write a checkpoint now; returns the sentence that tells how to go on."""
        if self._folder is None:
            return (
                f"Training stopped at update {state.update} and, without a checkpoint folder, kept nothing."
            )
        self._write(self._folder, state)
        return (
            f"Training stopped at update {state.update}; the same command with --resume goes on from there."
        )

    def _write(self, folder: Path, state: TrainingState) -> None:
        if self._processes.is_first:
            write_checkpoint(folder, state.update, state.tensors(), state.to_json())

"""Ctrl-C and termination signals that wait for the end of an update: a checkpoint is always consistent."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from bayesflowmass.common.processes import Processes


class TrainingInterrupted(KeyboardInterrupt):
    """Training was interrupted; the message says how to go on."""


class DeferredInterrupt:
    """Holds SIGINT and SIGTERM back within :meth:`deferred` blocks; elsewhere they raise KeyboardInterrupt.

    A second signal within one block does not wait. Outside the main thread, where Python delivers no signals,
    this does nothing.

    Args:
        processes: that train together: a signal then waits for the end of a block everywhere, where all stop at once.
    """

    def __init__(self, processes: Processes = Processes()) -> None:  # noqa: B008
        self._processes = processes
        self._held = False
        self._pending = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> DeferredInterrupt:
        """Install the handlers."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the previous handlers back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if (self._held or self._processes.count > 1) and not self._pending:
            self._pending = True
            return
        raise KeyboardInterrupt

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """A block that a first signal does not interrupt; KeyboardInterrupt comes at the end of the block."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._processes.any(self._pending):
            self._pending = False
            raise KeyboardInterrupt

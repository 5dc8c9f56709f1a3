"""Asking archives politely: one request at a time, a time limit, a pause after failures, and a name of our own."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from bayesflowmass.catalog import CatalogError

T = TypeVar("T")

_BUSY = frozenset({429, 500, 502, 503, 504})
_LONGEST_PAUSE = 120.0


class ArchiveError(CatalogError):
    """An archive that cannot be reached, or has no such thing; one sentence with what to do."""


class NoAnswer(Exception):
    """An answer that is no table, or half of one; worth asking again."""


def astroquery_class(module: str, name: str) -> Any:
    """A class of astroquery, which is an extra.

    Raises:
        ArchiveError: if it is not installed.
    """
    try:
        return getattr(importlib.import_module(f"astroquery.{module}"), name)
    except ImportError as error:
        raise ArchiveError(
            f"Archives are asked through astroquery, which is not installed ({error}): pip install "
            "'bayesflowmass[archives]'."
        ) from None


@dataclass
class Caller:
    """How archives are asked; one for all requests of a command.

    Args:
        interval: seconds between two requests, at least.
        timeout: seconds without a byte after which a request is given up.
        attempts: tries of each request.
        pause: seconds after the first failure; doubled after each. ``Retry-After`` of the server is obeyed.
        sleep, clock: for tests.
    """

    interval: float = 1.0
    timeout: float = 60.0
    attempts: int = 4
    pause: float = 2.0
    sleep: Callable[[float], None] = lambda seconds: time.sleep(seconds)
    clock: Callable[[], float] = lambda: time.monotonic()
    requests_made: int = 0
    _last: float | None = None

    def prepare(self, service: Any) -> Any:
        """An astroquery object whose requests wait, have a time limit and our name, and fail on bad status codes."""
        from requests.adapters import HTTPAdapter

        from bayesflowmass.common.version import __version__

        caller = self

        class PoliteAdapter(HTTPAdapter):
            def send(self, request: Any, *arguments: Any, **options: Any) -> Any:
                caller.wait()
                agent = request.headers.get("User-Agent", "")
                if "bayesflowmass" not in agent:
                    request.headers["User-Agent"] = f"bayesflowmass/{__version__} {agent}".strip()
                response = super().send(request, *arguments, **options | {"timeout": caller.timeout})
                response.raise_for_status()
                return response

        for scheme in ("https://", "http://"):
            service._session.mount(scheme, PoliteAdapter())
        return service

    def wait(self) -> None:
        """Until the next request may go out."""
        if self._last is not None:
            rest = self.interval - (self.clock() - self._last)
            if rest > 0.0:
                self.sleep(rest)
        self._last = self.clock()
        self.requests_made += 1

    def ask(self, archive: str, question: Callable[[], T]) -> T:
        """The answer to a question, asked again after failures that may pass.

        Args:
            archive: its name, for the message.
            question: a request, whole: it starts over at each attempt.

        Raises:
            ArchiveError: the archive cannot be reached, is busy, or breaks off, after all attempts; or refuses.
        """
        from requests.exceptions import HTTPError, RequestException

        timeout: type[Exception] = astroquery_class("exceptions", "TimeoutError")
        keeps = astroquery_class("query", "cache_conf")
        problem = ""
        for attempt in range(self.attempts):
            pause = self.pause * 2.0**attempt
            try:
                # astroquery keeps answers as pickles, which can run code when they are loaded.
                with keeps.set_temp("cache_active", False):
                    return question()
            except HTTPError as error:
                status = getattr(error.response, "status_code", None)
                if status not in _BUSY:
                    raise ArchiveError(
                        f"{archive} refuses the request (HTTP {status}); check the source and try again later."
                    ) from None
                problem = f"it answers HTTP {status}"
                pause = max(pause, _retry_after(error.response))
            except (RequestException, ConnectionError, TimeoutError, timeout) as error:
                problem = _reason(error)
            except NoAnswer as error:
                problem = str(error)
            if attempt + 1 < self.attempts:
                self.sleep(min(pause, _LONGEST_PAUSE))
        times = "once" if self.attempts == 1 else f"{self.attempts} times"
        raise ArchiveError(
            f"{archive} gave no whole answer, asked {times} ({problem}); what came before is kept, so run the same "
            "command again later."
        )


def _retry_after(response: Any) -> float:
    try:
        return float(response.headers.get("Retry-After", 0.0))
    except (TypeError, ValueError):
        return 0.0


def _reason(error: BaseException) -> str:
    from requests.exceptions import ChunkedEncodingError, ConnectionError, Timeout

    if isinstance(error, Timeout) or "timed out" in str(error).lower():
        return "it does not answer in time"
    if isinstance(error, ChunkedEncodingError):
        return "the connection broke off"
    if isinstance(error, ConnectionError):
        return "there is no connection to it"
    return " ".join(str(error).split())[:120] or type(error).__name__

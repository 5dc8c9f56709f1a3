"""Answers of archives on disk, under the hash of their content; a damaged one is asked for again."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from astropy.table import Table

from bayesflowmass.common.files import write_whole
from bayesflowmass.common.sealed import hash_bytes


def default_cache_folder() -> Path:
    """``$XDG_CACHE_HOME/bayesflowmass/archives``, by default in ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "bayesflowmass" / "archives"


class AnswerCache:
    """Tables by the question that they answer.

    ``questions/<hash of the question>.json`` names ``answers/<hash of the content>.ecsv``; equal answers are one
    file. Writing is atomic; a cache that cannot be written costs a later request, and nothing else.

    Args:
        folder: of the cache, made when first needed; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.hits = 0
        self.unwritten = 0

    def get(self, question: Mapping[str, Any], ask: Callable[[], Table]) -> tuple[Table, str]:
        """The answer, and the day it was given: from disk, or by asking.

        Args:
            question: JSON-able, and all that the answer depends on.
            ask: gets the answer.
        """
        key = hash_bytes(json.dumps(question, sort_keys=True).encode())
        kept = self._read(key)
        if kept is not None:
            self.hits += 1
            return kept
        table, today = ask(), datetime.now(UTC).date().isoformat()
        if self.folder is not None:
            try:
                self._write(key, question, table, today)
            except OSError:
                self.unwritten += 1
        return table, today

    def _read(self, key: str) -> tuple[Table, str] | None:
        if self.folder is None:
            return None
        try:
            note = json.loads((self.folder / "questions" / f"{key}.json").read_text(encoding="utf-8"))
            data = (self.folder / "answers" / f"{note['answer']}.ecsv").read_bytes()
            if hash_bytes(data) != note["answer"]:
                return None
            return Table.read(data.decode(), format="ascii.ecsv"), str(note["date"])
        except (OSError, KeyError, ValueError):
            return None

    def _write(self, key: str, question: Mapping[str, Any], table: Table, today: str) -> None:
        assert self.folder is not None
        text = io.StringIO()
        table.write(text, format="ascii.ecsv")
        data = text.getvalue().encode()
        answer = hash_bytes(data)
        note = {"question": dict(question), "answer": answer, "rows": len(table), "date": today}
        for part in ("answers", "questions"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / "answers" / f"{answer}.ecsv", data)
        write_whole(self.folder / "questions" / f"{key}.json", json.dumps(note).encode())

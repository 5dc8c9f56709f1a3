"""What is printed: names, notes and messages come from files of others, and a terminal obeys control characters."""

from __future__ import annotations

import os
import sys
from typing import TextIO

from bayesflowmass.common.processes import launched


def plain(text: object) -> str:
    r"""Text that a terminal shows and does not obey: what is not printable becomes its escape, such as ``\x1b``.

    Lines and tabs stay.
    """
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else letter.encode("unicode_escape").decode()
        for letter in str(text)
    )


def say(text: object) -> None:
    """Print to standard output; once nobody reads there (``| head``), quietly nothing.

    Of the processes of one training the first alone prints.
    """
    if launched().is_first:
        _write(sys.stdout, plain(text))


def say_aside(text: object) -> None:
    """Print one line to standard error: a note, a warning; of the processes of one training the first alone does."""
    if launched().is_first:
        complain(text)


def complain(text: object) -> None:
    """Print one line to standard error, in any process."""
    _write(sys.stderr, plain(" ".join(str(text).split())))


def settle() -> None:
    """Flush standard output at the end of a command, so that the interpreter finds nothing to complain about."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _silence(sys.stdout)


def _write(stream: TextIO, text: str) -> None:
    encoding = stream.encoding or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
    except BrokenPipeError:
        _silence(stream)


def _silence(stream: TextIO) -> None:
    """Lead a stream whose reader went away to nowhere: the work goes on."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())

"""Can results be written where they shall go? Asked before the work and not after it."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

from bayesflowmass.common.files import PARTIAL, reason_of

TABLE_FORMATS = {
    ".ecsv": "ascii.ecsv",
    ".fits": "fits",
    ".vot": "votable",
    ".votable": "votable",
    ".xml": "votable",
    ".parquet": "parquet",
}
"""Endings of tables that can be written, and astropy's names of their formats."""


_NOT_IN_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|[\x7f-\x84\x86-\x9f]|\r")


def check_table_path(path: str | os.PathLike[str]) -> Path:
    """The path, if a table can be written to it.

    Raises:
        ValueError: the ending names no format, or see `check_can_write`.
    """
    path = Path(path)
    if path.suffix.lower() not in TABLE_FORMATS:
        raise ValueError(f"Cannot write '{path}': the name must end in one of {', '.join(TABLE_FORMATS)}.")
    return check_can_write(path)


def check_texts(path: str | os.PathLike[str], texts: Iterable[object], what: str) -> None:
    """Refuse texts that a table of this format cannot give back as they are.

    FITS holds ASCII; XML has no control characters, ECSV no line breaks and no # at the start of a row; all but
    parquet lose blanks at the ends.

    Args:
        path: of the table.
        texts: in any order; what is no text is no matter.
        what: each of them is, for the message.

    Raises:
        ValueError: naming the text and a format that holds it.
    """
    kind = TABLE_FORMATS[Path(path).suffix.lower()]
    if kind == "parquet":
        return
    for text in texts:
        if not isinstance(text, str):
            continue
        if kind == "fits" and not (text.isascii() and text.isprintable()):
            why = "FITS holds plain ASCII only"
        elif kind == "votable" and _NOT_IN_XML.search(text):
            why = "XML has no control characters"
        elif kind == "ascii.ecsv" and text.splitlines() not in ([], [text]):
            why = "a line break would end its row"
        elif kind == "ascii.ecsv" and text.startswith("#"):
            why = "a row that begins with # is read as a comment"
        elif text != text.strip():
            why = "blanks at its ends would be lost"
        else:
            continue
        raise ValueError(
            f"Cannot write the {what} {text!r} to '{path}': {why}; give --out a name ending in .parquet."
        )


def check_can_write(path: str | os.PathLike[str]) -> Path:
    """The path, if a file can be put there now.

    Raises:
        ValueError: its folder does not exist, it is a folder itself, the name is too long, or the place is read-only.
    """
    path = Path(path)
    try:
        there, missing = _way_to(path.parent)
        if not there.is_dir():
            raise ValueError(f"Cannot write '{path}': '{there}' is a file, not a folder; give another --out.")
        if missing:
            raise ValueError(
                f"Cannot write '{path}': the folder '{path.parent}' does not exist; make it first."
            )
        if _there(path) and path.is_dir():
            raise ValueError(f"Cannot write '{path}': it is a folder; give the name of a file.")
        _try_in(path.parent)
    except OSError as error:
        raise ValueError(f"Cannot write '{path}': {reason_of(error)}; give another --out.") from None
    return path


def check_folder(folder: str | os.PathLike[str]) -> Path:
    """The folder, if files can be put there, or it can be made; it is not made here.

    Raises:
        ValueError: it is a file, the name is too long, or the place is read-only.
    """
    folder = Path(folder)
    try:
        there, missing = _way_to(folder)
        if not there.is_dir():
            raise ValueError(f"'{there}' is a file; give a folder.")
        for name in missing:
            _there(there / name)
        _try_in(there)
    except OSError as error:
        raise ValueError(f"Cannot write into '{folder}': {reason_of(error)}; give another --out.") from None
    return folder


def _way_to(folder: Path) -> tuple[Path, list[str]]:
    """The part of a path that is there, and the names below it that are not, the last one first."""
    there, missing = folder.absolute(), list[str]()
    while not _there(there):
        missing.append(there.name)
        there = there.parent
    return there, missing


def _there(path: Path) -> bool:
    """Whether there is anything of that name; what else is wrong with the name is raised."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _try_in(folder: Path) -> None:
    """Make a file and remove it: permissions alone do not tell of read-only disks."""
    handle, name = tempfile.mkstemp(dir=folder, prefix=PARTIAL)
    os.close(handle)
    os.unlink(name)

"""Paths in settings: what a command reads must be there, where it writes must be writable, both before the work."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic.fields import FieldInfo

from bayesflowmass.common.files import remove_leftovers
from bayesflowmass.common.outputs import check_can_write, check_folder, check_table_path
from bayesflowmass.common.settings import ConfigError, Settings
from bayesflowmass.estimator.shipped import SHIPPED


@dataclass(frozen=True)
class _Check:
    """Raises ValueError for a path that a command cannot use; into some of them it writes."""

    function: Callable[[Path], object]
    word: str
    """What stands for the path in ``--help``."""
    writes: bool = False


def _readable(path: Path) -> None:
    path = path.expanduser()
    try:
        found = path.stat()
    except FileNotFoundError:
        raise ValueError(f"'{path}' does not exist{_hint(str(path))}.") from None
    except OSError as error:
        raise ValueError(f"'{path}': {(error.strerror or str(error)).lower()}.") from None
    if not os.access(path, os.R_OK):
        raise ValueError(f"'{path}' may not be read by you; ask its owner, or copy it.")
    if path.is_file() and found.st_size == 0:
        raise ValueError(f"'{path}' is empty.")


def _hint(path: str) -> str:
    """What a name that is no file's was perhaps meant to be."""
    if path == "-":
        return "; for standard input give /dev/stdin"
    if re.match(r"\w+:/", path):
        return ": it is an address, and files of this computer are read; download it first"
    if any(mark in path for mark in "*?["):
        return "; a pattern is not expanded here, give one file"
    return ""


def _model(path: Path) -> None:
    if not path.exists() and str(path) not in SHIPPED:
        raise ValueError(
            f"'{path}' is not a model: there is no such folder, and those of the package are {', '.join(SHIPPED)}."
        )


InputPath = Annotated[Path, _Check(_readable, "PATH")]
"""A file or folder that is there; what is in it, readers say."""

ModelPath = Annotated[Path, _Check(_model, "MODEL")]
"""A model folder, or the name of a model that ships with the package."""

OutFile = Annotated[Path, _Check(check_can_write, "FILE", writes=True)]
"""A file that can be written."""

OutTable = Annotated[Path, _Check(check_table_path, "FILE", writes=True)]
"""A table that can be written: the ending says its format."""

OutFolder = Annotated[Path, _Check(check_folder, "DIR", writes=True)]
"""A folder to write into; it need not exist."""


def check_paths(settings: Settings, prefix: str = "--") -> None:
    """Look at every path in settings, before a command that may take hours begins, and tidy up where it writes.

    Raises:
        ConfigError: naming the flag, the path and what is wrong with it.
    """
    for name, field in type(settings).listed_fields().items():
        value, flag = getattr(settings, name), prefix + name.replace("_", "-")
        if isinstance(value, Settings):
            check_paths(value, f"{flag}.")
            continue
        for path in value if isinstance(value, tuple) else (value,):
            for check in _checks(field.annotation, field.metadata):
                if not isinstance(path, Path):
                    continue
                try:
                    check.function(path)
                except ValueError as error:
                    raise ConfigError(f"{flag}: {error}") from None
                if check.writes:
                    remove_leftovers(path if path.is_dir() else path.parent)


def word_of_path(field: FieldInfo) -> str | None:
    """What stands for the value of a field in ``--help``, if it is a path of one of the kinds above."""
    return next((check.word for check in _checks(field.annotation, field.metadata)), None)


def _checks(annotation: Any, metadata: list[Any]) -> Iterator[_Check]:
    """Checks of a field: of its type, or of an optional or repeated one."""
    yield from (item for item in metadata if isinstance(item, _Check))
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        yield from _checks(inner, more)
        return
    for argument in get_args(annotation):
        yield from _checks(argument, [])

"""The one error of catalogues and readers, and the ways in which it is raised."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import ArrayLike


class CatalogError(ValueError):
    """A catalogue, or a table meant to become one, is wrong; one sentence says where and what."""


def refuse_where(bad: ArrayLike, sentence: Callable[[int], str]) -> None:
    """Refuse rows (n,) that are bad."""
    rows = np.flatnonzero(bad)
    if rows.size:
        raise CatalogError(sentence(int(rows[0])))


def refuse_repeated(names: Sequence[str], where: str) -> None:
    """Refuse names of columns of which one is there more than once."""
    for name in names:
        if names.count(name) > 1:
            raise CatalogError(
                f"{where}: column {name} is there {names.count(name)} times; rename all but one."
            )


def reason(error: BaseException, longest: int = 120) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split())[:longest]


@contextmanager
def damaged(where: str, what: str) -> Iterator[None]:
    """Files can be damaged in as many ways as there are, and libraries fail in as many: to a user they are one.

    Args:
        where: names the file.
        what: what is wrong with it, for the sentence.
    """
    try:
        yield
    except CatalogError:
        raise
    except Exception as error:
        raise CatalogError(f"{where}: {what} ({reason(error)}); copy it again.") from error

"""File formats of the field, recognised by their contents; each is one class in a file of this folder.

To add one, write a class of `bayesflowmass.io.formats.base` (or ``boxes``) in a new file here: ``infer``,
``inspect`` and `load_catalog` then know it. It is tried after those that are here, unless `ORDER` names it.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Sequence
from pathlib import Path

from bayesflowmass.io.formats.base import CatalogFormat, FileHead, Format, Reading, TableFormat
from bayesflowmass.io.formats.boxes import BoxFormat, BoxInfo
from bayesflowmass.io.names import normal_name
from bayesflowmass.io.npy import refuse_pickle

__all__ = [
    "FORMATS",
    "BoxFormat",
    "BoxInfo",
    "CatalogFormat",
    "FileHead",
    "Format",
    "Reading",
    "TableFormat",
    "identify",
    "identify_columns",
]


ORDER = (
    *("cosmosim", "rockstar", "universemachine", "universemachine-dr1", "halo_cnn"),
    *("redmapper-clusters", "redmapper-members", "erass1", "ned", "desi", "skyserver"),
    *("causticsnupy", "mg-mamposst", "sag-clusters", "sag-galaxies"),
)
"""Names of formats, those with the surest signs first."""


def find_formats() -> tuple[Format, ...]:
    """One of each class of formats in the files of this folder, in the order in which they are tried."""
    files = [importlib.import_module(file.name) for file in pkgutil.iter_modules(__path__, f"{__name__}.")]
    things = [thing for file in files for thing in vars(file).values() if isinstance(thing, type)]
    # A base class has no name, and a file that imports a format does not make another of it.
    kinds = {kind for kind in things if issubclass(kind, Format) and hasattr(kind, "name")}
    names = [*ORDER, *sorted({kind.name for kind in kinds} - set(ORDER))]
    return tuple(sorted((kind() for kind in kinds), key=lambda known: names.index(known.name)))


FORMATS = find_formats()
"""All formats, in the order in which they are tried."""


def identify(path: str | os.PathLike[str]) -> Format | None:
    """The format of a file, or None: then it may be any table that astropy reads, or a catalogue.

    Raises:
        CatalogError: if the file is missing, empty, damaged, or a pickle, which is never opened.
    """
    head = FileHead(Path(path))
    refuse_pickle(head.path, head.data)
    return next((known for known in FORMATS if known.recognises(head)), None)


def identify_columns(columns: Sequence[str]) -> TableFormat | None:
    """The format of a table with these column names, or None."""
    names = {normal_name(name) for name in columns}
    return next((f for f in FORMATS if isinstance(f, TableFormat) and f.matches(names)), None)

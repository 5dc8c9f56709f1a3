"""File formats of the field, recognised by their contents; each is one class, listed here.

To add one: write a class of `bayesflowmass.io.formats.base` in a file of this folder and put it into `FORMATS`.
``infer``, ``inspect`` and `load_catalog` then know it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from bayesflowmass.io.formats.base import (
    BoxFormat,
    BoxInfo,
    CatalogFormat,
    FileHead,
    Format,
    Reading,
    TableFormat,
)
from bayesflowmass.io.formats.caustic import CausticSNUpy
from bayesflowmass.io.formats.cosmosim import CosmoSim
from bayesflowmass.io.formats.erass import Erass1
from bayesflowmass.io.formats.halo_cnn import HaloCNN
from bayesflowmass.io.formats.mamposst import Mamposst
from bayesflowmass.io.formats.ned import NED
from bayesflowmass.io.formats.redmapper import RedmapperClusters, RedmapperMembers
from bayesflowmass.io.formats.rockstar import Rockstar
from bayesflowmass.io.formats.sag import SagClusters, SagGalaxies
from bayesflowmass.io.formats.skyserver import SkyServer
from bayesflowmass.io.formats.universemachine import UniverseMachine, UniverseMachineDR1
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

FORMATS: tuple[Format, ...] = (
    CosmoSim(),
    Rockstar(),
    UniverseMachine(),
    UniverseMachineDR1(),
    HaloCNN(),
    RedmapperClusters(),
    RedmapperMembers(),
    Erass1(),
    NED(),
    SkyServer(),
    CausticSNUpy(),
    Mamposst(),
    SagClusters(),
    SagGalaxies(),
)
"""In the order in which they are tried: the surest signs first."""


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
    return next((f for f in FORMATS if isinstance(f, TableFormat) and f.matches(columns)), None)

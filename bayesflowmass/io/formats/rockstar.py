"""Rockstar's own text: ``out_N.list`` and, from consistent-trees, ``hlist_a.list``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from bayesflowmass.catalog import CatalogError
from bayesflowmass.io.formats.base import BoxFormat, BoxInfo, FileHead, normal_name
from bayesflowmass.io.formats.box_columns import (
    PHASE_SPACE,
    BoxColumn,
    check_box,
    choose_columns,
    converted,
    wanted_kinds,
)
from bayesflowmass.io.text.blocks import iterate_rows

__all__ = ["Rockstar"]

_BYTES_PER_ROW = 500

_COLUMNS = {
    "id": BoxColumn(("id",)),
    # out_N.list after find_parents has the parent only.
    "upid": BoxColumn(("upid", "pid")),
    **{name: BoxColumn((name,)) for name in PHASE_SPACE[2:]},
    "log10_mass": BoxColumn(("m200c",), log10=True),
    "log10_mvir": BoxColumn(("mvir",), log10=True),
    "log10_m200b": BoxColumn(("m200b",), log10=True),
    "log10_m500c": BoxColumn(("m500c",), log10=True),
    "log10_macc": BoxColumn(("macc",), log10=True),
    "log10_mpeak": BoxColumn(("mpeak",), log10=True),
    "v_max": BoxColumn(("vmax",)),
    "v_acc": BoxColumn(("vacc",)),
    "r_vir": BoxColumn(("rvir",), 1e-3),
    "r_s": BoxColumn(("rs",), 1e-3),
}


class Rockstar(BoxFormat):
    """Names in the first line, ``#scale(0) id(1) ...`` or ``#ID DescID Mvir ...``; Msun/h, Mpc/h, kpc/h, km/s."""

    name = "rockstar"
    title = "Rockstar haloes (text)"
    place = 20

    def recognises(self, head: FileHead) -> bool:
        """By the names in the first line, which begins with #."""
        names = {normal_name(name) for name in _names(head)}
        return {"id", "x", "vx", "mvir"} <= names

    def chunks(self, path: Path, rows: int) -> Iterator[dict[str, NDArray[Any]]]:
        """See `BoxFormat.chunks`."""
        names, chosen = self._layout(path)
        done = 0
        for values in iterate_rows(path, names, wanted_kinds(chosen), block_bytes=rows * _BYTES_PER_ROW):
            chunk = converted(values, chosen, _COLUMNS)
            check_box(chunk, done, str(path))
            done += len(chunk["id"])
            yield chunk

    def info(self, path: Path) -> BoxInfo:
        """From the comments at the head of the file, or the scale factor in its name."""
        head = FileHead(path)
        comments = "\n".join(line for line in head.lines if line.startswith("#"))
        scale = _number(r"#a\s*=\s*([\d.]+)", comments) or _number(r"hlist_([\d.]+)\.list", head.name)
        cosmology = {
            "Om0": _number(r"(?:\bOm|Omega_M)\s*=\s*([\d.]+)", comments),
            "h": _number(r"\bh0?\s*=\s*([\d.]+)", comments),
        }
        return BoxInfo(
            redshift=None if scale is None else 1.0 / scale - 1.0,
            box_size=_number(r"[Bb]ox size\s*[:=]\s*([\d.]+)", comments),
            cosmology={name: value for name, value in cosmology.items() if value is not None},
        )

    def columns(self, path: Path) -> list[str]:
        """See `BoxFormat.columns`."""
        return list(self._layout(path)[1])

    def _layout(self, path: Path) -> tuple[list[str], dict[str, str]]:
        names = _names(FileHead(path))
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise CatalogError(f"{path}: the header names column {twice} twice; correct it.")
        remedy = "run find_parents on the halo list, or take an hlist, so that each subhalo names its host"
        return names, choose_columns(names, _COLUMNS, str(path), remedy)


def _names(head: FileHead) -> list[str]:
    if not head.lines or not head.lines[0].startswith("#"):
        return []
    return [re.sub(r"\(\d+\)$", "", word) for word in head.lines[0].lstrip("# ").split()]


def _number(pattern: str, text: str) -> float | None:
    match = re.search(pattern, text)
    return None if match is None else float(match.group(1).rstrip("."))

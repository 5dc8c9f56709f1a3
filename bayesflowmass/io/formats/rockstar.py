"""Rockstar's own text: ``out_N.list`` and, from consistent-trees, ``hlist_a.list``."""

from __future__ import annotations

import re
from pathlib import Path

from bayesflowmass.io.formats.base import FileHead
from bayesflowmass.io.formats.boxes import HALO_COLUMNS, BoxColumn, BoxInfo, HaloText
from bayesflowmass.io.names import normal_name


class Rockstar(HaloText):
    """Names in the first line, ``#scale(0) id(1) ...`` or ``#ID DescID Mvir ...``; Msun/h, Mpc/h, kpc/h, km/s."""

    name = "rockstar"
    title = "Rockstar haloes (text)"
    # out_N.list after find_parents has the parent only.
    known = HALO_COLUMNS | {"upid": BoxColumn(("upid", "pid"))}
    remedy = "run find_parents on the halo list, or take an hlist, so that each subhalo names its host"
    bytes_per_row = 500

    def recognises(self, head: FileHead) -> bool:
        """By the names in the first line, which begins with #."""
        return {"id", "x", "vx", "mvir"} <= {normal_name(name) for name in self.header(head)[0]}

    def header(self, head: FileHead) -> tuple[list[str], int]:
        """Names in the first line; as a comment it is passed over."""
        first = head.lines[0] if head.lines and head.lines[0].startswith("#") else ""
        return [re.sub(r"\(\d+\)$", "", word) for word in first.lstrip("# ").split()], 0

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


def _number(pattern: str, text: str) -> float | None:
    match = re.search(pattern, text)
    return None if match is None else float(match.group(1).rstrip("."))

"""What a run in parts has done so far, so that the same command goes on after any interruption."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from bayesflowmass.catalog.catalog import ClusterCatalog
from bayesflowmass.catalog.errors import CatalogError
from bayesflowmass.common.files import write_whole
from bayesflowmass.common.version import __version__

_LAYOUT = 1


def file_facts(path: Path) -> dict[str, Any]:
    """By what a changed input file is noticed: name, size, time of change."""
    status = path.stat()
    return {"name": path.name, "bytes": status.st_size, "changed": status.st_mtime_ns}


class WorkFolder:
    """``<out>.work``: one file for each part that is done, and what else a run keeps (the sorted galaxies of a box).

    Args:
        out: the catalogue that is to be made.
        settings: JSON-able; all that the result depends on, and not the number of workers.

    Raises:
        CatalogError: if the folder holds parts of a run with other settings.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any]) -> None:
        self.path = out.with_name(out.name + ".work")
        self.galaxies = self.path / "galaxies"
        ours = json.loads(json.dumps({"layout": _LAYOUT, "version": __version__, **settings}))
        record = self.path / "run.json"
        self.resumed = record.is_file()
        if self.resumed:
            theirs = json.loads(record.read_text(encoding="utf-8"))
            for name in dict.fromkeys((*theirs, *ours)):
                if theirs.get(name) != ours.get(name):
                    raise CatalogError(
                        f"'{self.path}' holds parts of an unfinished run in which {name} is {theirs.get(name)}, "
                        f"and here it is {ours.get(name)}; repeat that command to finish it, or remove the folder."
                    )
            return
        self.path.mkdir(parents=True, exist_ok=True)
        write_whole(record, json.dumps(ours, indent=1))

    def part(self, block: int) -> Path:
        """The file of one block."""
        return self.path / f"block_{block:06d}.parquet"

    def is_done(self, block: int) -> bool:
        """Whether the clusters of the block are there."""
        return self.part(block).is_file()

    def keep(self, block: int, catalog: ClusterCatalog) -> None:
        """Write the clusters of a block, whole or not at all."""
        catalog.write(self.part(block))

    def read(self, block: int) -> ClusterCatalog:
        """The clusters of a block that is done."""
        return ClusterCatalog.read(self.part(block))

    def count(self, block: int) -> int:
        """Rows of a block that is done."""
        return int(pq.read_metadata(self.part(block)).num_rows)

    def counts(self, block: int) -> dict[str, int]:
        """What was counted in a block that is done."""
        part = ClusterCatalog.read(self.part(block), columns=["cluster_id", "gal_is_member"])
        return part.metadata.extra

    def remove(self) -> None:
        """Take the folder away, when the catalogue is written."""
        shutil.rmtree(self.path)

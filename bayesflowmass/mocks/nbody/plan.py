"""What is cut out of a box, block by block, kept on disk: whoever cuts reads it there, once."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from bayesflowmass.catalog.work import WorkFolder
from bayesflowmass.common.arrays import IntArray, columns_under
from bayesflowmass.mocks.nbody.block import CutRecipe, cut_block
from bayesflowmass.mocks.nbody.directions import LinesOfSight
from bayesflowmass.mocks.nbody.galaxies import GalaxyStore
from bayesflowmass.mocks.nbody.hosts import Hosts

_FILE = "plan.npz"


@dataclass(frozen=True)
class CutPlan:
    """Lines of sight, sorted into blocks of neighbouring hosts.

    Attributes:
        hosts: haloes of the whole box.
        lines: n lines of sight.
        cluster_id: (n,) of them.
        blocks: rows of the lines of each block.
    """

    hosts: Hosts
    lines: LinesOfSight
    cluster_id: IntArray
    blocks: list[IntArray]

    def write(self, work: WorkFolder) -> None:
        """Leave the plan in the folder of a run, for `cut_planned`."""
        hosts = _arrays(self.hosts)
        truths = hosts.pop("truths")
        columns = {f"hosts.{name}": values for name, values in hosts.items()}
        columns |= {f"truths.{name}": values for name, values in truths.items()}
        columns |= {f"lines.{name}": values for name, values in _arrays(self.lines).items()}
        ends = np.cumsum([rows.size for rows in self.blocks])
        np.savez(
            work.path / _FILE,
            cluster_id=self.cluster_id,
            rows=np.concatenate(self.blocks),
            ends=ends,
            **columns,
        )


def cut_planned(work: WorkFolder, recipe: CutRecipe, block: int) -> None:
    """Cut the clusters of a block out of the sorted galaxies of a run, and keep them in its folder."""
    file = work.path / _FILE
    plan, store = _opened(file, file.stat().st_mtime_ns, work.galaxies)
    rows = plan.blocks[block]
    work.keep(block, cut_block(plan.lines.take(rows), plan.cluster_id[rows], plan.hosts, store, recipe))


@lru_cache(maxsize=1)
def _opened(file: Path, changed: int, galaxies: Path) -> tuple[CutPlan, GalaxyStore]:
    with np.load(file, allow_pickle=False) as stored:
        columns = dict(stored)
    n_read = int(columns.pop("hosts.n_read"))
    hosts = Hosts(**columns_under(columns, "hosts"), truths=columns_under(columns, "truths"), n_read=n_read)
    blocks = np.split(columns["rows"], columns["ends"][:-1])
    plan = CutPlan(hosts, LinesOfSight(**columns_under(columns, "lines")), columns["cluster_id"], blocks)
    return plan, GalaxyStore(galaxies)


def _arrays(group: Any) -> dict[str, Any]:
    return {one.name: getattr(group, one.name) for one in fields(group)}

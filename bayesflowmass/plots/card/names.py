"""File names of cluster cards."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def card_names(cluster_id: Sequence[object] | NDArray[np.generic]) -> list[str]:
    """A file name for each cluster: its own, without what file systems refuse, and with a number where two agree."""
    seen: dict[str, int] = {}
    names = []
    for value in cluster_id:
        name = re.sub(r"[^\w.+-]+", "_", str(value)).strip("._")[:80] or "cluster"
        # Some file systems take no notice of case.
        count = seen[name.lower()] = seen.get(name.lower(), 0) + 1
        names.append(name if count == 1 else f"{name}_{count}")
    return names

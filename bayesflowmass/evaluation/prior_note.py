"""How far the prior matters, in a sentence."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from astropy.table import Table


def moved_by(table: Table, columns: Mapping[str, str]) -> str:
    """One sentence: which prior the masses of a table have, and how far others would move their median.

    Args:
        table: of masses under the flat prior, with columns of others.
        columns: ``{prior: column of its masses}``.
    """
    here = np.ma.median(table["log10_mass"])
    moved = [
        f"--prior {name} by {np.ma.median(table[column]) - here:+.2f}" for name, column in columns.items()
    ]
    return (
        "the prior is flat in log mass, which few samples follow; the median mass would move with"
        f" {', with '.join(moved)} dex: say how the clusters were chosen (docs/priors.md)."
    )
